// What an agent is refused reaches the log and its status: calls by a real seccomp listener, limits and files by the
// keeper's word.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <sstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "proto/reserved_call.h"
#include "tests/unit/control/control_fixture.h"

using namespace kai;
using namespace kai::test;

namespace {

/// A child under a filter that notifies of unshare(2) and seccomp(2) and allows the rest.
class FilteredChild {
 public:
  /// It calls unshare(CLONE_NEWUSER) `calls` times and ends with 0 if each was refused with EPERM.
  /// `ask`: another process of it makes the reserved call when this can be read.
  explicit FilteredChild(int calls, int ask = -1) {
    auto channel = std::move(*socket_pair(SOCK_SEQPACKET));
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) run(channel.second.get(), calls, ask);
    channel.second.reset();
    auto packet = receive_packet(channel.first.get(), 16);
    REQUIRE((packet && packet->fds.size() == 1));
    listener = std::move(packet->fds.front());
  }
  ~FilteredChild() {
    if (!reaped_) (void)waitpid(pid_, nullptr, 0);
  }
  FilteredChild(const FilteredChild&) = delete;
  FilteredChild& operator=(const FilteredChild&) = delete;

  /// nullopt: still at it.
  std::optional<int> status() {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    reaped_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

  Fd listener;

 private:
  [[noreturn]] static void run(int channel, int calls, int ask) {
    const sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{std::size(program), const_cast<sock_filter*>(program)};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) _exit(90);
    const Fd listener(
        static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter)));
    const int fds[] = {listener.get()};
    if (!listener || !send_packet(channel, "l", fds)) _exit(91);
    if (char byte = 0; ask >= 0 && fork() == 0) {
      (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (read(ask, &byte, 1) == 1) (void)syscall(SYS_seccomp, kReservedOperation, 0, nullptr);
      _exit(0);
    }
    for (int call = 0; call < calls; ++call) {
      if (unshare(CLONE_NEWUSER) != -1 || errno != EPERM) _exit(1);
    }
    _exit(0);
  }

  pid_t pid_ = -1;
  bool reaped_ = false;
};

struct Fixture : ControlFixture {
  explicit Fixture(const Policy& chosen = builtin_policy(true)) : ControlFixture(chosen) {
    REQUIRE(code(add(manifest_of("a1"))) == "done");
  }
  std::vector<nlohmann::json> denials() {
    std::vector<nlohmann::json> found;
    std::istringstream lines(log_text());
    for (std::string line; std::getline(lines, line);) {
      auto record = nlohmann::json::parse(line);
      if (record["event"] == "kai.denied") found.push_back(std::move(record));
    }
    return found;
  }
};

}  // namespace

TEST_CASE("a refused system call is answered, logged with its arguments and counted") {
  Fixture f;
  FilteredChild child(1);
  f.keeper->listener = std::move(child.listener);
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  std::optional<int> ended;
  f.until([&] { return (ended = child.status()).has_value(); });
  CHECK(*ended == 0);
  CHECK(f.keeper->described == std::vector<int>{child.pid()});
  f.until([&] { return !f.denials().empty(); });
  const auto record = f.denials().at(0);
  CHECK(record["agent"] == "a1");
  CHECK(record["level"] == "warn");
  CHECK(record["kind"] == "syscall");
  CHECK(record["what"] == "unshare");
  CHECK(record["detail"] == "unshare(CLONE_NEWUSER)");
  CHECK(record["error"] == "EPERM");
  CHECK(record["pid"] == 7);
  CHECK(record["rule"].get<std::string>().starts_with("base.yaml"));
  CHECK(record["process"].get<std::string>().find("probe") == 0);
  CHECK(f.log_text().find('\x1b') == std::string::npos);
  CHECK(f.status("a1")["denials"] == 1);
}

TEST_CASE("what a control had received that died is answered by the next one, when agent-host asks for it") {
  Fixture f;
  auto ask = make_pipe();
  REQUIRE(ask);
  FilteredChild child(1, ask->first.get());
  seccomp_notif lost{};
  REQUIRE(ioctl(child.listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &lost) == 0);
  CHECK(lost.data.nr == SYS_unshare);
  REQUIRE(write_all(ask->second.get(), "a"));
  f.keeper->listener = std::move(child.listener);
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  std::optional<int> ended;
  f.until([&] { return (ended = child.status()).has_value(); });
  CHECK(*ended == 0);
  CHECK(f.keeper->described.empty());
  CHECK(f.denials().empty());
}

TEST_CASE("a flood of refused calls is answered, counted whole, and told in few lines") {
  constexpr int kCalls = 1500;
  Policy policy = builtin_policy(true);
  policy.quarantine.denials = kCalls + 1;
  Fixture f(policy);
  FilteredChild child(kCalls);
  f.keeper->listener = std::move(child.listener);
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  std::optional<int> ended;
  f.until([&] { return (ended = child.status()).has_value(); });
  CHECK(*ended == 0);
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  CHECK(f.status("a1")["denials"] == kCalls);
  std::int64_t told = 0;
  std::int64_t dropped = 0;
  for (const auto& record : f.denials()) {
    if (record.contains("dropped")) dropped += record["dropped"].get<std::int64_t>();
    if (record.contains("what")) ++told;
  }
  CHECK(told + dropped == kCalls);
  CHECK(told < 200);
}

TEST_CASE("the threshold of denials is an event") {
  Policy policy = builtin_policy(true);
  policy.quarantine.denials = 5;
  Fixture f(policy);
  FilteredChild child(6);
  f.keeper->listener = std::move(child.listener);
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  f.until([&] { return child.status().has_value(); });
  f.until([&] { return f.log_text().find("security_violation") != std::string::npos; });
}

TEST_CASE("a limit and a refused file are told with the rule") {
  Fixture f;
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  f.keeper->limit(f.keeper->instance(), "pids", 128);
  f.keeper->file_denied(f.keeper->instance(), "fs.write_file", "/proc/self/oom_score_adj");
  f.until([&] { return f.denials().size() == 2; });
  const auto records = f.denials();
  CHECK(records[0]["kind"] == "limit");
  CHECK(records[0]["what"] == "limits.processes");
  CHECK(records[0]["rule"] == "builtin");
  CHECK(records[0]["message"].get<std::string>().find("its limit of 128 processes") == 0);
  CHECK(records[1]["kind"] == "file");
  CHECK(records[1]["what"] == "/proc/self/oom_score_adj");
  CHECK(records[1]["detail"] == "fs.write_file /proc/self/oom_score_adj");
  CHECK(f.status("a1")["denials"] == 2);
}

TEST_CASE("terminate --purge and unregister remove private data") {
  Fixture f;
  control::Request terminate;
  terminate.mutable_terminate()->set_id("a1");
  REQUIRE(code(f.call(terminate)) == "done");
  CHECK(f.keeper->dropped.empty());
  terminate.mutable_terminate()->set_purge(true);
  REQUIRE(code(f.call(terminate)) == "done");
  CHECK(f.keeper->dropped == std::vector<std::string>{"a1"});
  control::Request unregister;
  unregister.mutable_unregister()->set_id("a1");
  REQUIRE(code(f.call(unregister)) == "done");
  CHECK(f.keeper->dropped == std::vector<std::string>{"a1", "a1"});
}
