// What the keeper tells, hands on and refuses.
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/keeper/hung_directory.h"
#include "tests/unit/keeper/kaid.h"

namespace {

namespace fs = std::filesystem;
using namespace kai::keeper::test;
using kai::keeper::Reply;
using kai::keeper::Request;

Request drop_data() {
  Request request;
  request.mutable_drop_data()->set_agent_id("disk-test");
  return request;
}

Request probe_service(const std::string& address) {
  Request request;
  request.mutable_probe_service()->set_address(address);
  return request;
}

kai::Fd bound_at(const std::string& path) {
  kai::Fd server(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  REQUIRE(bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return server;
}

}  // namespace

TEST_CASE("policies go to control with the hello, and again when they are read again") {
  Kaid kaid;
  kaid.policy("policies:\n- name: first\n");
  const Reply hello = kaid.start();
  REQUIRE(hello.has_hello());
  const auto policies_in = [&]() -> std::string {
    if (kaid.fds.size() != 1) return "no descriptor";
    const auto bytes = kai::read_all(kaid.fds[0].get(), 1 << 20);
    kai::keeper::Policies policies;
    if (!bytes || !policies.ParseFromString(*bytes)) return "no policies";
    return policies.files_size() == 1 ? policies.files(0).text() : "";
  };
  CHECK(policies_in() == "policies:\n- name: first\n");

  kaid.policy("policies:\n- name: second\n");
  std::ofstream(kaid.top / "kaid.yaml", std::ios::app) << "logLevel: debug\n";
  REQUIRE(kill(kaid.pid, SIGHUP) == 0);
  const Reply event = kaid.event([](const Reply& reply) { return reply.has_reload(); });
  CHECK(event.id() == 0);
  CHECK(event.reload().error() == "");
  CHECK(event.reload().log_level() == "debug");
  CHECK(policies_in() == "policies:\n- name: second\n");

  kaid.policy("policies:\n- nmae: third\n");
  Request again;
  again.mutable_read_policies();
  const Reply answer = kaid.ask(again);
  CHECK(answer.reload().error().find("policies/10-test.yaml:2:") != std::string::npos);
  CHECK(kaid.fds.empty());
  CHECK(kaid.stop() == 0);
}

TEST_CASE("as many and as long names as kaid.yaml may block reach control, at boot and when it is read again") {
  Kaid kaid;
  const auto blocks = [&](char last) {
    std::ofstream file(kaid.top / "kaid.yaml");
    file << "policies: " << (kaid.top / "policies").string() << "\nblockedDomains:\n";
    const std::string label(63, 'a');
    for (int at = 1000; at < 2024; ++at) {
      file << "- " << label << "." << label << "." << label << "." << std::to_string(at) << std::string(53, 'b') << last
           << ".io\n";
    }
  };
  const auto told = [&]() {
    REQUIRE(kaid.fds.size() == 1);
    const auto bytes = kai::read_all(kaid.fds[0].get(), 1 << 20);
    kai::keeper::Policies policies;
    REQUIRE(bytes);
    REQUIRE(policies.ParseFromString(*bytes));
    return policies;
  };
  blocks('x');
  REQUIRE(kaid.start().has_hello());
  auto policies = told();
  REQUIRE(policies.blocked_domains_size() == 1024);
  CHECK(policies.blocked_domains(1023).pattern().size() == 253);
  CHECK(policies.blocked_domains(1023).pattern().ends_with("x.io"));
  CHECK(policies.blocked_domains(1023).rule() == "kaid.yaml:1026");

  blocks('y');
  Request again;
  again.mutable_read_policies();
  CHECK(kaid.ask(again).reload().error() == "");
  policies = told();
  REQUIRE(policies.blocked_domains_size() == 1024);
  CHECK(policies.blocked_domains(1023).pattern().ends_with("y.io"));
  CHECK(kaid.stop() == 0);
}

TEST_CASE("kaid does not begin with a policy that it does not understand") {
  Kaid kaid;
  kaid.policy("policies:\n- name: a\n  memoryLimit: many\n");
  const auto [status, said] = kaid.run_to_end();
  CHECK(status == 2);
  CHECK(said.find("kaid: " + (kaid.top / "policies/10-test.yaml:3:").string()) == 0);
}

TEST_CASE("an agent at its limits: each is told, its data is held and goes when it is dropped" *
          doctest::skip(geteuid() != 0)) {
  Kaid kaid;
  const Reply hello = kaid.start();
  for (const auto& layer : hello.hello().missing()) CHECK(layer != "disk");
  auto spec = python(R"(
import os, sys, time
files = []
try:
    with open("/data/big", "wb", buffering=0) as big:
        while True: big.write(b"x" * 65536)
except OSError as error: print(error, file=sys.stderr)
try:
    while True: files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error: print(error, file=sys.stderr)
try:
    while True:
        if os.fork() == 0: time.sleep(1000)
except OSError as error: print(error, file=sys.stderr)
time.sleep(1000)
)");
  for (auto& limit : *spec.mutable_rlimits()) {
    if (limit.resource() == RLIMIT_NPROC) limit.set_hard(4096);
    if (limit.resource() == RLIMIT_NPROC) limit.set_soft(4096);
  }
  const Reply spawned = kaid.spawn(spec, 1);
  INFO(spawned.failed().step(), ": ", spawned.failed().detail());
  REQUIRE(spawned.has_spawned());
  CHECK(spawned.spawned().degraded_size() == 0);

  const auto disk = kaid.limit("disk");
  CHECK(disk.instance() == 1);
  CHECK(disk.value() == 8 << 20);
  const auto files = kaid.limit("nofile");
  CHECK(files.value() == 64);
  CHECK(files.process() == "python3");
  CHECK(files.pid() > 1);
  const auto pids = kaid.limit("pids");
  CHECK(pids.value() == 12);
  CHECK(pids.count() >= 1);

  Request describe;
  describe.mutable_describe()->set_instance(1);
  describe.mutable_describe()->set_pid(spawned.spawned().pid());
  CHECK(kaid.ask(describe).process().pid() == 1);
  describe.mutable_describe()->set_pid(getpid());
  CHECK(kaid.ask(describe).process().pid() == 0);
  Request usage;
  usage.mutable_usage()->set_instance(1);
  const Reply used = kaid.ask(usage);
  CHECK(used.usage().disk_bytes() > 7 << 20);
  CHECK(used.usage().disk_inodes() >= 2);

  CHECK(kaid.ask(drop_data()).failed().detail() == "the agent runs");
  Request kill;
  kill.mutable_kill()->set_instance(1);
  CHECK(kaid.ask(kill).has_done());
  CHECK(kaid.exited().instance() == 1);
  CHECK(fs::exists(kaid.top / "state/disks/disk-test.img"));
  CHECK(kaid.ask(drop_data()).has_done());
  CHECK_FALSE(fs::exists(kaid.top / "state/disks/disk-test.img"));
  CHECK(kaid.stop() == 0);
}

TEST_CASE("a kaid that ends leaves no loop device, and the next one finds the data" * doctest::skip(geteuid() != 0)) {
  Kaid kaid;
  (void)kaid.start();
  REQUIRE(kaid.spawn(python("open('/data/kept', 'w')"), 1).has_spawned());
  CHECK(kaid.exited().code() == 0);
  CHECK(attached_below(kaid.top) == 1);
  CHECK(kaid.stop() == 0);
  CHECK(attached_below(kaid.top) == 0);

  (void)kaid.start();
  const auto spec = python("open('/data/kept'); open('/data/more', 'w')");
  REQUIRE(kaid.spawn(spec, 2).has_spawned());
  CHECK(kaid.exited().code() == 0);
  CHECK(kaid.stop() == 0);
}

TEST_CASE("memory: told before the end is") {
  Kaid kaid;
  (void)kaid.start();
  auto spec = python("x = b'x' * (1 << 30)");
  spec.mutable_cgroup()->set_memory_bytes(64 << 20);
  const Reply spawned = kaid.spawn(spec, 2);
  INFO(spawned.failed().step(), ": ", spawned.failed().detail());
  REQUIRE(spawned.has_spawned());
  const Reply first = kaid.event([](const Reply& reply) { return reply.has_limit() || reply.has_exited(); });
  REQUIRE(first.has_limit());
  CHECK(first.limit().limit() == "memory");
  CHECK(first.limit().value() == 64 << 20);
  CHECK(kaid.exited().oom_kills() >= 1);
  CHECK(kaid.stop() == 0);
}

TEST_CASE("as an ordinary user a measured directory: over its limit the agent ends" * doctest::skip(geteuid() == 0)) {
  Kaid kaid;
  (void)kaid.start();
  const Reply spawned =
      kaid.spawn(python("open('/data/big', 'wb').write(b'x' * (9 << 20)); import time; time.sleep(1000)"), 3);
  INFO(spawned.failed().step(), ": ", spawned.failed().detail());
  REQUIRE(spawned.has_spawned());
  bool degraded = false;
  for (const auto& layer : spawned.spawned().degraded()) degraded = degraded || layer == "disk";
  CHECK(degraded);
  CHECK(kaid.limit("disk").value() == 8 << 20);
  CHECK(kaid.exited().instance() == 3);
  CHECK(kaid.ask(drop_data()).has_done());
  CHECK_FALSE(fs::exists(kaid.top / "state/data/disk-test"));
  CHECK(kaid.stop() == 0);
}

TEST_CASE("what no policy allows is refused with the reason") {
  Kaid kaid;
  (void)kaid.start();
  auto spec = python("pass");
  spec.set_host_network(true);
  const Reply refused = kaid.spawn(spec, 4);
  CHECK(refused.failed().step() == "request");
  CHECK(refused.failed().detail().find("grant hostNetwork") != std::string::npos);
  CHECK(kaid.stop() == 0);
}

TEST_CASE("a start that hangs in the kernel holds up nobody, and frees what it had when it is gone" *
          doctest::skip(geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)) {
  const kai::keeper::HungDirectory hung;
  Kaid kaid;
  kaid.policy("policies:\n- name: hung\n  files:\n    /data/hung: {host: " + hung.below() + "}\n");
  (void)kaid.start();
  auto spec = python("pass");
  auto* mount = spec.add_mounts();
  mount->set_kind(kai::spec::Mount::HOST);
  mount->set_source(hung.below());
  mount->set_target("/hung");
  mount->set_read_only(true);
  CHECK(kaid.spawn(spec, 1).failed().detail() == "no answer within 10 s");

  auto other = python("pass");
  other.set_agent_id("other");
  REQUIRE(kaid.spawn(other, 2).has_spawned());
  CHECK(kaid.exited().instance() == 2);
  CHECK(kaid.spawn(python("pass"), 1).failed().detail() == "the instance is in use");
  CHECK(kaid.ask(drop_data()).failed().detail() == "the agent runs");

  hung.let_go();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (kaid.ask(drop_data()).has_failed()) REQUIRE(std::chrono::steady_clock::now() < deadline);
  REQUIRE(kaid.spawn(python("pass"), 1).has_spawned());
  CHECK(kaid.exited().instance() == 1);
  CHECK(kaid.stop() == 0);
}

TEST_CASE("a service's socket: whether somebody takes a connection, where a policy has the address") {
  Kaid kaid;
  const fs::path below = kaid.top / "service";  // its owner's alone: control could not go there
  fs::create_directory(below);
  fs::permissions(below, fs::perms(0700));
  const std::string path = below / "db.sock", link = below / "link", file = below / "file",
                    other = below / "other.sock";
  kaid.policy("policies:\n- name: services\n  services: {db: \"unix:" + path + "\", link: \"unix:" + link +
              "\", file: \"unix:" + file + "\"}\n");
  fs::create_symlink(path, link);
  std::ofstream(file) << "no socket\n";
  (void)kaid.start();
  const auto error = [&](const std::string& at) {
    const Reply reply = kaid.ask(probe_service("unix:" + at));
    CHECK(reply.failed().step() == "service");
    CHECK(reply.failed().detail() == "connect unix:" + at);
    return reply.failed().errno_value();
  };
  CHECK(error(path) == ENOENT);
  const kai::Fd server = bound_at(path), unnamed = bound_at(other);
  CHECK(error(path) == ECONNREFUSED);
  REQUIRE(listen(server.get(), 1) == 0);
  REQUIRE(listen(unnamed.get(), 1) == 0);
  CHECK(kaid.ask(probe_service("unix:" + path)).has_done());
  const kai::Fd connection(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(connection);
  char byte = 0;
  CHECK(read(connection.get(), &byte, 1) == 0);  // closed at once
  CHECK(error(link) == ENOTSOCK);
  CHECK(error(file) == ENOTSOCK);
  CHECK(kaid.ask(probe_service("unix:" + other)).failed().step() == "request");
  CHECK(accept4(unnamed.get(), nullptr, nullptr, SOCK_CLOEXEC) == -1);
  // A policy that is gone allows nothing any more.
  kaid.policy("policies: []\n");
  Request again;
  again.mutable_read_policies();
  CHECK(kaid.ask(again).reload().error() == "");
  CHECK(kaid.ask(probe_service("unix:" + path)).failed().step() == "request");
  CHECK(kaid.stop() == 0);
}

TEST_CASE("the keeper connects control to the redis of kaid.yaml, again when its directory is made anew") {
  Kaid kaid;
  const fs::path below = kaid.top / "redis";
  const std::string path = below / "server.sock";
  std::ofstream(kaid.top / "kaid.yaml", std::ios::app) << "redis: {url: \"unix:" << path << "\"}\n";
  (void)kaid.start();
  Request request;
  request.mutable_connect_redis();
  CHECK(kaid.ask(request).failed().errno_value() == ENOENT);
  for (int made = 0; made < 2; ++made) {
    fs::remove_all(below);
    fs::create_directory(below);
    fs::permissions(below, fs::perms(0700));  // control could not go there
    const kai::Fd server = bound_at(path);
    CHECK(kaid.ask(request).failed().errno_value() == ECONNREFUSED);
    REQUIRE(listen(server.get(), 1) == 0);
    REQUIRE(kaid.ask(request).has_done());
    REQUIRE(kaid.fds.size() == 1);
    const kai::Fd connection(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(connection);
    CHECK(write(kaid.fds[0].get(), "x", 1) == 1);
    char byte = 0;
    CHECK(read(connection.get(), &byte, 1) == 1);
  }
  CHECK(kaid.stop() == 0);
}

TEST_CASE("a service's path that hangs in the kernel holds up nobody" *
          doctest::skip(geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)) {
  const kai::keeper::HungDirectory hung;
  Kaid kaid;
  const std::string address = "unix:" + hung.below();
  kaid.policy("policies:\n- name: hung\n  services: {hung: \"" + address + "\"}\n");
  (void)kaid.start();
  for (int asked = 0; asked < 3; ++asked) {
    CHECK(kaid.ask(probe_service(address)).failed().errno_value() == ETIMEDOUT);
  }
  REQUIRE(kaid.spawn(python("pass"), 1).has_spawned());
  CHECK(kaid.exited().instance() == 1);
  CHECK(kaid.stop() == 0);
}
