// package sign, package verify: keys that are none, and what a person sees of work that takes long.
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/kaictl/fake_daemon.h"
#include "tests/unit/kaictl/program.h"
#include "tests/unit/package/minisign_fixture.h"

namespace kai::test {
namespace {

/// A directory with a package in it, and room for keys.
struct Place {
  ScratchDirectory directory;
  std::string package = directory / "agent";
  Place() {
    std::filesystem::create_directory(package);
    put("agent/manifest.json", R"({"id":"a","version":"1.0.0"})");
  }
  std::string put(const std::string& name, std::string_view text) const {
    std::ofstream(directory / name) << text;
    return directory / name;
  }
};

void check_refusal(const Result& result, int exit_code, const std::string& message) {
  CHECK(result.exit_code == exit_code);
  CHECK(result.out.empty());
  CHECK(is_one_line(result.err));
  CHECK_MESSAGE(result.err.find(message) != std::string::npos, result.err);
}

TEST_CASE("package verify: what is no key, and where there is none") {
  const Place place;
  const auto verify = [&](const std::string& key) {
    return kaictl({"package", "verify", place.package, "--key", key});
  };
  const std::string missing = place.directory / "keys/nope";
  check_refusal(verify(missing), 4, "there is no public key at " + missing + " (NOT_FOUND)");
  check_refusal(verify("RWxx"), 5, "RWxx is neither a public key of minisign nor a file (INVALID)");
  check_refusal(verify("RW" + std::string(5000, 'x')), 5, "nor a file (INVALID)");
  check_refusal(verify(place.directory.path()), 5, "is not the file of a public key (INVALID)");
  check_refusal(verify(place.put("large", std::string(5000, 'x'))), 5, "is not the file of a public key (INVALID)");
  check_refusal(verify(place.put("text", "hello\n")), 5, place.directory / "text: ");
}

TEST_CASE("package sign: what is no key, and where there is none") {
  const Place place;
  const auto sign = [&](const std::string& key) {
    return kaictl({"package", "sign", place.package, "--secret-key", key});
  };
  const std::string missing = place.directory / "nope";
  check_refusal(sign(missing), 4, "there is no secret key at " + missing + " (NOT_FOUND)");
  check_refusal(sign(place.put("text", "hello\n")), 5, place.directory / "text: ");
  check_refusal(sign(place.directory.path()), 5, "is not the file of a secret key (INVALID)");
}

TEST_CASE("package build: into a directory that is not there") {
  const Place place;
  const std::string archive = place.directory / "dist/a.tar.gz";
  check_refusal(kaictl({"package", "build", place.package, "-o", archive}), 4,
                "cannot write " + archive + ": there is no directory " + place.directory / "dist");
}

TEST_CASE("on a terminal, work of more than two seconds is told while it is done, and not after") {
  const Place place;
  const std::string key = place.directory / "key";
  REQUIRE(mkfifo(key.c_str(), 0600) == 0);
  Program program({"package", "sign", place.package, "--secret-key", key}, Program::Streams::kTerminal);
  const std::string told = "kaictl: reading the secret key " + key + "\n";
  CHECK(program.read_until(told));
  Fd writer(open(key.c_str(), O_WRONLY | O_CLOEXEC));
  REQUIRE(write_all(writer.get(), package::kSecretFile));
  writer.reset();
  const Result result = program.finish();
  CHECK(result.exit_code == 0);
  CHECK(result.out.starts_with(told));
  CHECK(result.out.find("signed with RW") != std::string::npos);
}

}  // namespace
}  // namespace kai::test
