#include "supervisor/keeper/resolv_conf.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"

namespace fs = std::filesystem;
using kai::keeper::ResolvConf;

namespace {

std::string text_of(ResolvConf& conf) {
  const auto memfd = conf.read();
  REQUIRE(memfd);
  const auto text = kai::read_all(memfd->get(), 1 << 20);
  REQUIRE(text);
  return *text;
}

}  // namespace

TEST_CASE("resolv.conf is followed: another file, another text, and none") {
  std::string name = (fs::temp_directory_path() / "kai-resolv-XXXXXX").string();
  const fs::path directory = mkdtemp(name.data());
  const fs::path path = directory / "resolv.conf";
  ResolvConf conf(path.string());
  CHECK_FALSE(conf.changed());
  CHECK(text_of(conf).empty());

  std::ofstream(path) << "nameserver 9.9.9.9\n";
  CHECK(conf.changed());
  CHECK(text_of(conf) == "nameserver 9.9.9.9\n");
  CHECK_FALSE(conf.changed());

  std::ofstream(directory / "other") << "nameserver 1.1.1.1\n";
  fs::rename(directory / "other", path);
  CHECK(conf.changed());
  CHECK(text_of(conf) == "nameserver 1.1.1.1\n");

  std::ofstream(path) << std::string(ResolvConf::kMaxBytes + 1, '#');
  CHECK(text_of(conf).size() == ResolvConf::kMaxBytes);

  // A pipe that nobody writes to holds nobody, and is no resolv.conf.
  fs::remove(path);
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  CHECK(text_of(conf).empty());
  fs::remove_all(directory);
}
