// What outlives what: agents their control, nothing its keeper.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/keeper/kaid.h"

namespace {

using namespace kai::keeper::test;
using kai::Fd;
using kai::keeper::Reply;
using kai::keeper::Request;

constexpr const char* kEcho = "import sys\nfor line in sys.stdin: print('heard', line, end='', flush=True)";

Request about(void (*set)(Request&, std::uint64_t), std::uint64_t instance) {
  Request request;
  set(request, instance);
  return request;
}

Request freeze(std::uint64_t instance, bool frozen) {
  Request request;
  request.mutable_freeze()->set_instance(instance);
  request.mutable_freeze()->set_frozen(frozen);
  return request;
}

Request kill_request(std::uint64_t instance) {
  return about([](Request& request, std::uint64_t of) { request.mutable_kill()->set_instance(of); }, instance);
}

/// What an agent says until the end of that line.
std::string read_line(const Fd& from) {
  std::string line;
  for (char byte = 0; line.empty() || line.back() != '\n'; line.push_back(byte)) {
    pollfd wanted{from.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    if (read(from.get(), &byte, 1) != 1) break;
  }
  return line;
}

void wait_for_end(const Fd& pidfd) {
  pollfd ended{pidfd.get(), POLLIN, 0};
  REQUIRE(poll(&ended, 1, kPatienceMs) == 1);
}

Fd hold(pid_t pid) {
  auto pidfd = kai::open_pidfd(pid);
  REQUIRE(pidfd);
  return std::move(*pidfd);
}

bool has_groups(const Reply& hello) {
  const auto& missing = hello.hello().missing();
  return std::find(missing.begin(), missing.end(), "cgroup") == missing.end();
}

}  // namespace

TEST_CASE("kill -9 of control: agents run on and are offered to the next one, with everything that it needs") {
  Kaid kaid;
  CHECK(kaid.start().hello().adoptable() == 0);
  const Reply first = kaid.spawn(python(kEcho), 1);
  INFO(first.failed().step(), ": ", first.failed().detail());
  REQUIRE(first.has_spawned());
  const bool listener = kaid.answers();
  auto other = python(kEcho);
  other.set_agent_id("a-run");
  const Reply second = kaid.spawn(other, 2, true);
  REQUIRE(second.has_spawned());
  const Fd ephemeral = hold(second.spawned().pid());

  CHECK(kaid.kill_control().hello().adoptable() == 1);
  const Reply offered = kaid.next();
  CHECK(offered.id() == 0);
  REQUIRE(offered.has_adoptable());
  CHECK(offered.adoptable().instance() == 1);
  CHECK(offered.adoptable().agent_id() == "disk-test");
  CHECK(offered.adoptable().pid() == first.spawned().pid());
  CHECK(offered.adoptable().uid_slot() == 8);
  CHECK(offered.adoptable().setup_us() == first.spawned().setup_us());
  CHECK(offered.adoptable().degraded_size() == first.spawned().degraded_size());
  CHECK(offered.adoptable().listener() == listener);
  CHECK(offered.adoptable().spawned_ms() > 0);
  CHECK_FALSE(offered.adoptable().frozen());
  CHECK_FALSE(offered.adoptable().has_exited());
  REQUIRE(kaid.fds.size() == (listener ? 4 : 3));
  const Fd output = std::move(kaid.fds[1]);
  REQUIRE(kai::write_all(kaid.input[1].get(), "again\n"));
  CHECK(read_line(output) == "heard again\n");

  // The run ended with the control that it was for, and nobody else is told.
  wait_for_end(ephemeral);
  CHECK(kaid.ask(kill_request(1)).has_done());
  CHECK(kaid.exited().instance() == 1);
  CHECK(kaid.events.empty());
  CHECK(kaid.stop() == 0);
}

TEST_CASE("what ended while control died is told to the next one, with its last words") {
  Kaid kaid;
  (void)kaid.start();
  REQUIRE(kaid.spawn(python("print('last words'); raise SystemExit(7)"), 1).has_spawned());
  CHECK(kaid.exited().code() == 7);
  CHECK(kaid.kill_control().hello().adoptable() == 1);
  const Reply offered = kaid.next();
  REQUIRE(offered.adoptable().has_exited());
  CHECK(offered.adoptable().instance() == 1);
  CHECK(offered.adoptable().exited().code() == 7);
  REQUIRE(kaid.fds.size() == 2);
  CHECK(read_line(kaid.fds[0]) == "last words\n");
  CHECK(kaid.stop() == 0);
}

TEST_CASE("kill -9 of control again and again, before it serves too: each next one is offered the agents") {
  Kaid kaid;
  (void)kaid.start();
  const Reply spawned = kaid.spawn(python(kEcho), 1);
  REQUIRE(spawned.has_spawned());
  for (int round = 0; round < 12; ++round) {
    CAPTURE(round);
    REQUIRE(kaid.kill_control().hello().adoptable() == 1);
    CHECK(kaid.next().adoptable().pid() == spawned.spawned().pid());
  }
  CHECK(kaid.stop() == 0);
}

TEST_CASE("a control that ends by itself again and again: kaid gives up, and no agent is left") {
  Kaid kaid;
  (void)kaid.start();
  const Reply spawned = kaid.spawn(python(kEcho), 1);
  REQUIRE(spawned.has_spawned());
  const Fd agent = hold(spawned.spawned().pid());
  kaid.end_control();  // it has never served
  wait_for_end(agent);
  CHECK(kaid.wait() == 1);
}

TEST_CASE("an agent is frozen, stays so for the next control, goes on, and can be killed while it stands still") {
  Kaid kaid;
  const bool groups = has_groups(kaid.start());
  REQUIRE(kaid.spawn(python(kEcho), 1).has_spawned());
  if (!groups) {
    CHECK(kaid.ask(freeze(1, true)).failed().step() == "cgroup");
    CHECK(kaid.stop() == 0);
    return;
  }
  CHECK(kaid.ask(freeze(1, true)).has_done());
  CHECK(kaid.ask(freeze(1, true)).has_done());
  (void)kaid.kill_control();
  CHECK(kaid.next().adoptable().frozen());
  const Fd output = std::move(kaid.fds[1]);
  REQUIRE(kai::write_all(kaid.input[1].get(), "still\n"));
  pollfd said{output.get(), POLLIN, 0};
  CHECK(poll(&said, 1, 50) == 0);
  CHECK(kaid.ask(freeze(1, false)).has_done());
  CHECK(read_line(output) == "heard still\n");
  CHECK(kaid.ask(freeze(1, true)).has_done());
  CHECK(kaid.ask(kill_request(1)).has_done());
  CHECK(kaid.exited().instance() == 1);
  CHECK(kaid.ask(freeze(1, true)).failed().step() == "request");
  CHECK(kaid.stop() == 0);
}

TEST_CASE("evidence: every process of the tree, and no line of it is the agent's") {
  Kaid kaid;
  (void)kaid.start();
  const Reply spawned = kaid.spawn(python(R"(
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, b"a\nprocess 1\x1b", 0, 0, 0)  # PR_SET_NAME
print("named", flush=True)
sys.stdin.read()
)"),
                                   1);
  REQUIRE(spawned.has_spawned());
  CHECK(read_line(kaid.output[1]) == "named\n");
  const Reply reply =
      kaid.ask(about([](Request& request, std::uint64_t of) { request.mutable_evidence()->set_instance(of); }, 1));
  REQUIRE(reply.has_evidence());
  REQUIRE(kaid.fds.size() == 1);
  const auto text = kai::read_all(kaid.fds[0].get(), 2 << 20);
  REQUIRE(text);
  INFO(*text);
  CHECK(reply.evidence().processes() == 2);
  CHECK(text->find("\nprocess " + std::to_string(spawned.spawned().pid()) + " (1 inside): kai-agent-host\n") !=
        std::string::npos);
  CHECK(text->find(" (2 inside): a\\nprocess 1\\e\n") != std::string::npos);
  CHECK(text->find("\nprocess 1\x1b") == std::string::npos);
  CHECK(text->find("open descriptors: ") != std::string::npos);
  CHECK(text->find("    wchan: ") != std::string::npos);
  if (geteuid() == 0) {
    CHECK(text->find("/usr/bin/python3") != std::string::npos);  // maps
    CHECK(text->find("\ncontrol group /") != std::string::npos);
    CHECK(text->find("  pids.current: 2\n") != std::string::npos);
  }
  CHECK(kaid.stop() == 0);
}

TEST_CASE("kill -9 of kaid: nothing is left of its agents, and the next one finds its directories free") {
  Kaid kaid;
  (void)kaid.start();
  const Reply spawned = kaid.spawn(python(kEcho), 1);
  REQUIRE(spawned.has_spawned());
  const Fd agent = hold(spawned.spawned().pid());
  const Fd control = hold(kaid.control());
  kaid.crash();
  wait_for_end(agent);
  wait_for_end(control);
  CHECK(kaid.start().hello().adoptable() == 0);
  const Reply again = kaid.spawn(python(kEcho), 1);
  INFO(again.failed().step(), ": ", again.failed().detail());
  CHECK(again.has_spawned());
  CHECK(kaid.stop() == 0);
  CHECK(attached_below(kaid.top) == 0);
}

TEST_CASE("SIGUSR2: the program on disk takes over, with its agents as its children, their data and their limits") {
  Kaid kaid;
  (void)kaid.start();
  const pid_t control = kaid.control();
  const Reply spawned = kaid.spawn(python(kEcho), 1);
  INFO(spawned.failed().step(), ": ", spawned.failed().detail());
  REQUIRE(spawned.has_spawned());
  // One that does not know this state, or does not run at all: nothing happens.
  for (const char* program : {"#!/bin/sh\necho not this one; exit 1\n", "no program\n"}) {
    kaid.install(program);
    REQUIRE(kill(kaid.pid, SIGUSR2) == 0);
    CHECK(kaid.ask(kill_request(77)).has_done());
    CHECK(kaid.control() == control);
  }

  auto ended = python("raise SystemExit(3)");
  ended.set_agent_id("ended");
  REQUIRE(kaid.spawn(ended, 2).has_spawned());
  CHECK(kaid.exited().code() == 3);

  kaid.install("");
  CHECK(fs::read_symlink("/proc/" + std::to_string(kaid.pid) + "/exe").string().ends_with(" (deleted)"));
  CHECK(kaid.replace_programs().hello().adoptable() == 2);
  CHECK(fs::read_symlink("/proc/" + std::to_string(kaid.pid) + "/exe") == kaid.top / "bin/kaid");
  CHECK(kaid.control() != control);
  const Reply gone = kaid.next();
  CHECK(gone.adoptable().instance() == 2);
  CHECK(gone.adoptable().exited().code() == 3);
  const Reply offered = kaid.next();
  CHECK(offered.adoptable().pid() == spawned.spawned().pid());
  CHECK(offered.adoptable().agent_id() == "disk-test");
  const Fd output = std::move(kaid.fds[1]);
  REQUIRE(kai::write_all(kaid.input[1].get(), "again\n"));
  CHECK(read_line(output) == "heard again\n");

  const Reply usage =
      kaid.ask(about([](Request& request, std::uint64_t of) { request.mutable_usage()->set_instance(of); }, 1));
  if (geteuid() == 0) CHECK(usage.usage().known());
  if (geteuid() == 0) CHECK(usage.usage().disk_inodes() > 0);
  CHECK(kaid.run_to_end().second.find("another kaid") != std::string::npos);  // the locks are held
  auto other = python(kEcho);
  other.set_agent_id("other");
  const Reply more = kaid.spawn(other, 3);
  INFO(more.failed().step(), ": ", more.failed().detail());
  REQUIRE(more.has_spawned());
  CHECK(kaid.replace_programs().hello().adoptable() == 3);  // the one on disk is the one that runs: why not
  for (int left = 3; left > 0; --left) (void)kaid.next();

  CHECK(kaid.ask(kill_request(1)).has_done());
  const auto exited = kaid.exited();
  CHECK(exited.instance() == 1);
  CHECK(exited.signaled());
  CHECK(exited.code() == SIGKILL);
  CHECK_FALSE(exited.unknown());
  CHECK(kaid.stop() == 0);
  CHECK(attached_below(kaid.top) == 0);
}

TEST_CASE("what the keeper keeps of an agent: pipes only, and no more than it may have descriptors for") {
  Kaid kaid;
  kaid.most_files = 512 + 12;
  (void)kaid.start();
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  kaid.keep = null.get();
  CHECK(kaid.spawn(python(kEcho), 1).failed().detail() == "the reading ends of its output are no pipes");
  kaid.keep = -1;
  const Reply first = kaid.spawn(python(kEcho), 1);
  INFO(first.failed().step(), ": ", first.failed().detail());
  REQUIRE(first.has_spawned());
  auto other = python(kEcho);
  other.set_agent_id("other");
  CHECK(kaid.spawn(other, 2).failed().detail().find("RLIMIT_NOFILE") != std::string::npos);
  CHECK(kaid.stop() == 0);
}
