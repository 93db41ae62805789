// kaid.yaml and the directories: an invalid configuration is an error that says where.
#include "supervisor/keeper/config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "supervisor/keeper/directories.h"

namespace {

namespace fs = std::filesystem;
using kai::keeper::Config;
using kai::keeper::load_config;

/// A directory of its own, gone with the test.
struct Scratch {
  Scratch() {
    std::string name = (fs::temp_directory_path() / "kai-config-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Scratch() { fs::remove_all(path); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string file(const std::string& content) const {
    std::ofstream(path / "kaid.yaml") << content;
    return (path / "kaid.yaml").string();
  }
  fs::path path;
};

std::string error_of(const std::string& content) {
  const Scratch scratch;
  const std::string file = scratch.file(content);
  const auto config = load_config({.config = file, .state_dir = "", .runtime_dir = ""}, true);
  return config ? "" : config.error().message().substr(file.size());
}

}  // namespace

TEST_CASE("keys of kaid.yaml, and the command line above them") {
  const Scratch scratch;
  const std::string file = scratch.file("stateDir: /a\nruntimeDir: /b\nlogLevel: debug\n");
  const auto config = load_config({.config = file, .state_dir = "", .runtime_dir = "/c"}, true);
  REQUIRE(config);
  CHECK(config->state_dir == "/a");
  CHECK(config->runtime_dir == "/c");
  CHECK(config->log_level == "debug");
  CHECK(config->config_path == file);
}

TEST_CASE("what is wrong is named with its place") {
  CHECK(error_of("") == "");
  CHECK(error_of("logLevel: info\nstateDri:   /a\n").starts_with(":2:1: unknown key \"stateDri\""));
  CHECK(error_of("runtimeDir: /a\nstateDir:\n  - a\n").starts_with(":3:3: stateDir must be a text"));
  CHECK(error_of("runtimeDir: /a\nstateDir:\nlogLevel: info\n").starts_with(":2:1: stateDir must be a text"));
  CHECK(error_of("logLevel: info\nlogLevel: warn\n").starts_with(":2:1: logLevel is there twice"));
  CHECK(error_of("logLevel: info\nstateDir: relative\n").starts_with(":2:11: stateDir must be an absolute path"));
  CHECK(error_of("logLevel: loud\n").starts_with(":1:11: logLevel must be"));
  CHECK(error_of("stateDir: [a]\n").starts_with(":1:11: stateDir must be a text"));
  CHECK(error_of("- a\n").starts_with(":1:1: must be a mapping"));
  CHECK(error_of("stateDir: \"\n").starts_with(":"));
  CHECK(error_of("redis: {url: [x]}\n").find("redis must be {url: …}") != std::string::npos);
  CHECK(error_of("redis: redis://localhost\n").find("redis must be {url: …}") != std::string::npos);
  CHECK(error_of("redis: {url: \"redis://h\", tls: true}\n").find("redis must be {url: …}") != std::string::npos);
}

TEST_CASE("the Unix socket of redis is what its url says") {
  const auto socket_of = [](const std::string& url) {
    const Scratch scratch;
    const auto config = load_config(
        {.config = scratch.file("redis: {url: \"" + url + "\"}\n"), .state_dir = "", .runtime_dir = ""}, true);
    REQUIRE(config);
    CHECK(config->redis_url == url);
    return config->redis_socket;
  };
  CHECK(socket_of("unix:/run/redis/redis-server.sock") == "/run/redis/redis-server.sock");
  CHECK(socket_of("unix:///run/redis.sock?db=2") == "/run/redis.sock");
  CHECK(error_of("redis: {url: \"unix:redis.sock\"}\n").find("must begin with") != std::string::npos);
  CHECK(socket_of("redis://localhost").empty());
}

TEST_CASE("a file that was asked for has to be there") {
  CHECK_FALSE(load_config({.config = "/not/there.yaml", .state_dir = "", .runtime_dir = ""}, true));
}

TEST_CASE("only logLevel changes while kaid runs") {
  const Scratch scratch;
  const std::string file = scratch.file("stateDir: /a\n");
  const auto config = load_config({.config = file, .state_dir = "", .runtime_dir = "/b"}, true);
  REQUIRE(config);
  scratch.file("stateDir: /a\nlogLevel: debug\n");
  const auto louder = kai::keeper::reload_config(*config, true);
  REQUIRE(louder);
  CHECK(louder->log_level == "debug");
  CHECK(louder->runtime_dir == "/b");
  scratch.file("stateDir: /c\n");
  const auto moved = kai::keeper::reload_config(*config, true);
  REQUIRE_FALSE(moved);
  CHECK(moved.error().message().starts_with(file +
                                            ": stateDir was /a when kaid began and is /c now; that needs a restart"));
  scratch.file("stateDir: [\n");
  CHECK_FALSE(kai::keeper::reload_config(*config, true));
}

TEST_CASE("one kaid a state directory, and one a runtime directory") {
  const Scratch scratch;
  const kai::keeper::Identity identity{.root = false, .control_uid = geteuid(), .control_gid = getegid()};
  Config first;
  first.state_dir = (scratch.path / "state").string();
  first.runtime_dir = (scratch.path / "run").string();
  const auto locks = kai::keeper::prepare_directories(first, identity);
  REQUIRE(locks);
  Config second = first;
  const auto again = kai::keeper::prepare_directories(second, identity);
  REQUIRE_FALSE(again);
  CHECK(again.error().message().find("another kaid (pid " + std::to_string(getpid()) + ")") == 0);
  second.state_dir = (scratch.path / "other").string();
  const auto beside = kai::keeper::prepare_directories(second, identity);
  REQUIRE_FALSE(beside);
  CHECK(beside.error().message().find("another kaid serves its socket") == 0);
}

TEST_CASE("a directory that everybody may write to is not trusted") {
  const Scratch scratch;
  Config config;
  config.state_dir = (scratch.path / "state").string();
  config.runtime_dir = (scratch.path / "run").string();
  REQUIRE(mkdir(config.state_dir.c_str(), 0777) == 0);
  REQUIRE(chmod(config.state_dir.c_str(), 0777) == 0);
  const kai::keeper::Identity identity{.root = false, .control_uid = geteuid(), .control_gid = getegid()};
  CHECK_FALSE(kai::keeper::prepare_directories(config, identity));
}
