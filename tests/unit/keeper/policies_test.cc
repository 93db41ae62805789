// Policy files: in name order, all or nothing, and as root only what nobody else could have written.
#include "supervisor/keeper/policies.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "proto/keeper.pb.h"

namespace {

namespace fs = std::filesystem;
using kai::keeper::Config;
using kai::keeper::load_policies;

constexpr const char* kPolicy = "policies:\n- name: mine\n";

/// DIR/kai/policies in a directory of its own. Below /run, as parents that others can write to are refused: /tmp is
/// sticky, but the build machine's TMPDIR may not be.
struct Directory {
  Directory() {
    std::string name = geteuid() == 0 ? "/run/kai-policies-XXXXXX" : "/tmp/kai-policies-XXXXXX";
    top = mkdtemp(name.data());
    chmod(top.c_str(), 0755);
    policies = top / "kai" / "policies";
    fs::create_directories(policies);
    config.policies_dir = policies.string();
  }
  ~Directory() { fs::remove_all(top); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  void file(const std::string& name, const std::string& text) const {
    std::ofstream(policies / name) << text;
    chmod((policies / name).c_str(), 0644);
  }
  /// As root where the test is; empty: they are taken.
  std::string error() const {
    const auto loaded = load_policies(config, geteuid() == 0);
    return loaded ? "" : loaded.error().message();
  }
  fs::path top, policies;
  Config config;
};

bool says(const std::string& error, const std::string& part) {
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("policy files are read in name order, and handed on as they are") {
  const Directory directory;
  directory.file("20-b.yaml", "policies:\n- name: b\n");
  directory.file("10-a.yaml", "policies:\n- name: a\n");
  directory.file("README", "no policy");
  directory.file(".10-a.yaml", "an editor's");
  const auto loaded = load_policies(directory.config, geteuid() == 0);
  REQUIRE(loaded);
  REQUIRE(loaded->files.size() == 2);
  CHECK(loaded->files[0].name == "10-a.yaml");
  CHECK(loaded->files[1].name == "20-b.yaml");
  CHECK(loaded->parsed.named("a") != nullptr);
  const auto memfd = kai::keeper::policies_memfd(loaded->files, {{"example.org", "kaid.yaml:3"}});
  REQUIRE(memfd);
  const auto bytes = kai::read_all(memfd->get(), 1 << 20);
  REQUIRE(bytes);
  kai::keeper::Policies message;
  REQUIRE(message.ParseFromString(*bytes));
  REQUIRE(message.files_size() == 2);
  CHECK(message.files(1).text() == "policies:\n- name: b\n");
  REQUIRE(message.blocked_domains_size() == 1);
  CHECK(message.blocked_domains(0).pattern() == "example.org");
  CHECK(message.blocked_domains(0).rule() == "kaid.yaml:3");
}

TEST_CASE("a directory that was named has to be there, the default one need not") {
  Config config;
  config.policies_dir = "/not/there";
  const auto named = load_policies(config, false);
  REQUIRE_FALSE(named);
  CHECK(says(named.error().message(), "/not/there"));
  config.default_policies_dir = true;
  const auto standard = load_policies(config, false);
  REQUIRE(standard);
  CHECK(standard->files.empty());
  CHECK(standard->parsed.policies.size() == 1);
}

TEST_CASE("an error of the parser has the whole path, line and column") {
  const Directory directory;
  directory.file("10-a.yaml", kPolicy);
  directory.file("20-b.yaml", "policies:\n- nmae: b\n");
  CHECK(says(directory.error(), (directory.policies / "20-b.yaml:2:").string()));
}

TEST_CASE("what is no plain file of bounded size is not read") {
  const Directory directory;
  directory.file("target", kPolicy);
  fs::create_symlink(directory.policies / "target", directory.policies / "10-link.yaml");
  CHECK(says(directory.error(), "10-link.yaml: is a symbolic link"));
  fs::remove(directory.policies / "10-link.yaml");
  REQUIRE(mkfifo((directory.policies / "10-fifo.yaml").c_str(), 0644) == 0);
  CHECK(says(directory.error(), "10-fifo.yaml: is not a regular file"));
  fs::remove(directory.policies / "10-fifo.yaml");
  directory.file("10-large.yaml", std::string(kai::kMaxPolicyFileBytes + 1, '#'));
  CHECK(says(directory.error(), "10-large.yaml: is larger than 256 KiB"));
  fs::remove(directory.policies / "10-large.yaml");
  for (std::size_t at = 0; at <= kai::kMaxPolicyFiles; ++at) directory.file(std::to_string(at) + ".yaml", "");
  CHECK(says(directory.error(), "more than 256 policy files"));
}

TEST_CASE("as root, what others can write is refused with the remedy" * doctest::skip(geteuid() != 0)) {
  const Directory directory;
  const std::string file = (directory.policies / "10-a.yaml").string();
  directory.file("10-a.yaml", kPolicy);
  CHECK(directory.error() == "");

  REQUIRE(chown(file.c_str(), 4711, 0) == 0);
  CHECK(says(directory.error(), file + ": belongs to uid 4711"));
  CHECK(says(directory.error(), "chown root " + file));
  REQUIRE(chown(file.c_str(), 0, 0) == 0);
  for (const mode_t mode : {0664U, 0646U}) {
    REQUIRE(chmod(file.c_str(), mode) == 0);
    CHECK(says(directory.error(), "chmod go-w " + file));
  }
  REQUIRE(chmod(file.c_str(), 0644) == 0);

  const std::string policies = directory.policies.string();
  REQUIRE(chown(policies.c_str(), 4711, 0) == 0);
  CHECK(says(directory.error(), "chown root " + policies));
  REQUIRE(chown(policies.c_str(), 0, 0) == 0);
  for (const mode_t mode : {0775U, 0757U, 01777U}) {
    REQUIRE(chmod(policies.c_str(), mode) == 0);
    CHECK(says(directory.error(), "chmod go-w " + policies));
  }
  REQUIRE(chmod(policies.c_str(), 0755) == 0);

  const std::string above = directory.top.string() + "/kai";
  REQUIRE(chmod(above.c_str(), 0777) == 0);
  CHECK(says(directory.error(), "chmod go-w " + above + ", or"));
  REQUIRE(chmod(above.c_str(), 01777) == 0);
  CHECK(directory.error() == "");
  REQUIRE(chown(above.c_str(), 4711, 0) == 0);
  CHECK(says(directory.error(), "chown root " + above));
}
