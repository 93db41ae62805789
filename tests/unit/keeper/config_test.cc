// kaid.yaml and the directories: an invalid configuration is an error that says where.
#include "supervisor/keeper/config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

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

TEST_CASE("upstreamDns: addresses, with a port or without") {
  const Scratch scratch;
  const std::string file =
      scratch.file("upstreamDns: [9.9.9.9, '127.0.0.1:5353', '2620:fe::fe', '[2620:fe::fe]', '[2620:fe::FE]:5353']\n");
  const auto config = load_config({.config = file, .state_dir = "", .runtime_dir = ""}, true);
  REQUIRE(config);
  CHECK(config->upstream_dns == std::vector<std::string>{"9.9.9.9:53", "127.0.0.1:5353", "[2620:fe::fe]:53",
                                                         "[2620:fe::fe]:53", "[2620:fe::fe]:5353"});
  for (const char* wrong : {"dns.example.org", "9.9.9.9:0", "9.9.9.9:65536", "9.9.9.0/24", "9.9.9.9/32", "010.0.0.1",
                            "'[9.9.9.9'", "''", "'[2620:fe::fe]:'", "2620:fe::fe%lo"}) {
    CAPTURE(wrong);
    CHECK(error_of("logLevel: info\nupstreamDns:\n  - 9.9.9.9\n  - " + std::string(wrong) + "\n")
              .starts_with(":4:5: an entry of upstreamDns must be an address"));
  }
  struct Refused {
    const char *text, *why;
  };
  for (const Refused& each : {Refused{"0.0.0.0", "unspecified"},
                              {"'0.0.0.0:53'", "unspecified"},
                              {"'::'", "unspecified"},
                              {"'[::]:53'", "unspecified"},
                              {"224.0.0.251", "multicast"},
                              {"'[ff02::fb]:5353'", "multicast"},
                              {"255.255.255.255", "broadcast"},
                              {"'fe80::1'", "on one interface"},
                              {"'::1:53'", "\"[::1]:53\" with a port, or \"[::1:53]\" without"},
                              {"'2620:fe::fe:5353'", "in brackets where it could be read in two ways"}}) {
    CAPTURE(std::string(each.text));
    const std::string error = error_of("upstreamDns: [" + std::string(each.text) + "]\n");
    CHECK(error.starts_with(":1:15: an entry of upstreamDns must be "));
    CHECK(error.find(each.why) != std::string::npos);
  }
  const std::string fine =
      scratch.file("upstreamDns: ['[fd00::1:53]', '2001:4860:4860::8888', '::1', 169.254.169.253]\n");
  const auto six = load_config({.config = fine, .state_dir = "", .runtime_dir = ""}, true);
  REQUIRE(six);
  CHECK(six->upstream_dns ==
        std::vector<std::string>{"[fd00::1:53]:53", "[2001:4860:4860::8888]:53", "[::1]:53", "169.254.169.253:53"});
  CHECK(error_of("upstreamDns: 9.9.9.9\n").starts_with(":1:14: upstreamDns must be a list"));
  CHECK(error_of("upstreamDns: [[9.9.9.9]]\n").starts_with(":1:15: an entry of upstreamDns must be a text"));
}

TEST_CASE("blockedDomains: patterns, each with its line") {
  const Scratch scratch;
  const std::string file =
      scratch.file("logLevel: info\nblockedDomains:\n- Example.ORG.\n- \"*.bücher.de:443\"\n- 10.0.0.1\n- fd00::/8\n");
  const auto config = load_config({.config = file, .state_dir = "", .runtime_dir = ""}, true);
  REQUIRE(config);
  REQUIRE(config->blocked_domains.size() == 4);
  CHECK(config->blocked_domains[0].pattern == "example.org");
  CHECK(config->blocked_domains[0].rule == "kaid.yaml:3");
  CHECK(config->blocked_domains[1].pattern == "*.xn--bcher-kva.de:443");
  CHECK(config->blocked_domains[1].rule == "kaid.yaml:4");
  CHECK(config->blocked_domains[2].pattern == "10.0.0.1");
  CHECK(config->blocked_domains[3].pattern == "fd00::/8");
  CHECK(error_of("blockedDomains: [10.0.0.1/8]\n").find("has bits behind the prefix") != std::string::npos);
  CHECK(error_of("blockedDomains: [\"http://a.example\"]\n").find("not a URL") != std::string::npos);
  CHECK(error_of("blockedDomains: [good.example, \"b ad\"]\n").starts_with(":1:32: blockedDomains: \"b ad\""));
  CHECK(error_of("blockedDomains: {}\n").starts_with(":1:17: blockedDomains must be a list"));
}

TEST_CASE("a file that was asked for has to be there") {
  CHECK_FALSE(load_config({.config = "/not/there.yaml", .state_dir = "", .runtime_dir = ""}, true));
}

TEST_CASE("logLevel and what egress does change while kaid runs, and nothing else") {
  const Scratch scratch;
  const std::string file = scratch.file("stateDir: /a\n");
  const auto config = load_config({.config = file, .state_dir = "", .runtime_dir = "/b"}, true);
  REQUIRE(config);
  scratch.file("stateDir: /a\nlogLevel: debug\nupstreamDns: [9.9.9.9]\nblockedDomains: [example.org]\n");
  const auto louder = kai::keeper::reload_config(*config, true);
  REQUIRE(louder);
  CHECK(louder->log_level == "debug");
  CHECK(louder->runtime_dir == "/b");
  CHECK(louder->upstream_dns == std::vector<std::string>{"9.9.9.9:53"});
  CHECK(louder->blocked_domains.size() == 1);
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
