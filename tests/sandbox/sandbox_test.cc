// The sandbox against a probe that attacks it from inside. Each attempt is made twice: free, where it must be allowed,
// and confined, where it must get exactly the refusal that stands here. Run as root (the whole table is about a real
// kernel; nothing is mocked).
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/fd.h"
#include "tests/sandbox/launch.h"

namespace {

using kai::spec::Mount;
using kai::test::probe_spec;
using kai::test::run_confined;
using kai::test::run_free;

// A message for the reader when something else than the attempt went wrong.
void check_refused(const std::vector<std::string>& attempt, const std::string& refusal) {
  std::vector<std::string> arguments = {"probe"};
  arguments.insert(arguments.end(), attempt.begin(), attempt.end());
  std::string label;
  for (const auto& word : attempt) label += word + " ";
  CAPTURE(label);
  CHECK(run_free(arguments).output == "allowed\n");
  const auto confined = run_confined(probe_spec(arguments));
  CHECK_MESSAGE(confined.failed_step.empty(), confined.failed_step << ": " << confined.detail);
  CHECK(confined.output == refusal + "\n");
}

/// A listening socket of the host.
struct Listener {
  kai::Fd fd;
  std::string name;
};
Listener listen_tcp() {
  Listener listener{kai::Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), ""};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(bind(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(listener.fd.get(), 8) == 0);
  REQUIRE(getsockname(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  listener.name = std::to_string(ntohs(address.sin_port));
  return listener;
}
Listener listen_abstract() {
  Listener listener{kai::Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), "kai-test-" + std::to_string(getpid())};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, listener.name.data(), listener.name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + listener.name.size());
  REQUIRE(bind(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(listener.fd.get(), 8) == 0);
  return listener;
}

}  // namespace

// What must succeed without a sandbox needs root; an ordinary user's sandbox is tested in tests/integration.
TEST_SUITE("sandbox" * doctest::skip(geteuid() != 0)) {
  TEST_CASE("files of the host are not there, or not writable") {
    check_refused({"read", "/etc/shadow"}, "ENOENT");
    check_refused({"read", "/root"}, "ENOENT");
    check_refused({"read", "/proc/cmdline"}, "ENOENT");
    check_refused({"read", "/proc/sys/kernel/hostname"}, "ENOENT");
    check_refused({"read", "/sys/kernel"}, "ENOENT");
    check_refused({"write", "/usr/bin/env"}, "EACCES");
    check_refused({"create", "/kai-probe"}, "EROFS");
    check_refused({"write", "/etc/passwd"}, "EACCES");
    check_refused({"exec-tmp"}, "EACCES");
  }

  TEST_CASE("the host's processes cannot be seen or signalled, and agent-host cannot be looked into") {
    check_refused({"signal", std::to_string(getppid())}, "ESRCH");
    check_refused({"read", "/proc/" + std::to_string(getppid()) + "/status"}, "ENOENT");
    check_refused({"parent-program"}, "EPERM");
  }

  TEST_CASE("the host's sockets cannot be reached") {
    const Listener tcp = listen_tcp();
    check_refused({"connect", tcp.name}, "ECONNREFUSED");
    const Listener abstract = listen_abstract();
    check_refused({"abstract", abstract.name}, "ECONNREFUSED");
    check_refused({"netlink-audit"}, "EPERM");
    check_refused({"packet-socket"}, "EPERM");
  }

  TEST_CASE("nothing is inherited from whoever started kaid") {
    REQUIRE(setenv("KAI_TEST_SECRET", "1", 1) == 0);
    check_refused({"environment", "KAI_TEST_SECRET"}, "ENOENT");
    const kai::Fd leaked(dup2(STDERR_FILENO, 77));  // without close-on-exec
    check_refused({"descriptor", "77"}, "EBADF");
  }

  TEST_CASE("calls that open a hole are refused") {
    check_refused({"mount"}, "EPERM");
    check_refused({"user-namespace"}, "EPERM");
    check_refused({"clone-namespace"}, "EPERM");
    check_refused({"clone3"}, "ENOSYS");
    check_refused({"ptrace"}, "EPERM");
    check_refused({"keyctl"}, "EPERM");
    check_refused({"personality"}, "EPERM");
    check_refused({"seccomp-probe"}, "EPERM");
    check_refused({"bpf"}, "EPERM");
    check_refused({"hostname"}, "EPERM");
    check_refused({"chroot"}, "EPERM");
    check_refused({"setgroups"}, "EPERM");
    check_refused({"tiocsti"}, "EPERM");
    check_refused({"tiocsti-high"}, "EPERM");
  }

#ifdef __x86_64__
  TEST_CASE("a call of another architecture ends the process") {
    const auto confined = run_confined(probe_spec({"probe", "i386"}));
    CHECK(confined.failed_step.empty());
    CHECK(confined.signaled);
    CHECK(confined.code == SIGSYS);
  }
#endif

  TEST_CASE("a fork bomb ends at the limit of processes") {
    CHECK(run_free({"probe", "fork-bomb"}).output == "400 allowed\n");
    auto spec = probe_spec({"probe", "fork-bomb"});
    spec.mutable_cgroup()->set_pids(20);
    const auto confined = run_confined(spec);
    // 20, less agent-host and the probe itself.
    CHECK(confined.output == "18 EAGAIN\n");
    CHECK(confined.usage.pids_refused > 0);
  }

  TEST_CASE("memory beyond the limit ends the program, counted as an OOM kill") {
    CHECK(run_free({"probe", "memory", "100"}).output == "allowed\n");
    auto spec = probe_spec({"probe", "memory", "100"});
    spec.mutable_cgroup()->set_memory_bytes(64 << 20);
    const auto confined = run_confined(spec);
    CHECK(confined.output.empty());
    CHECK(confined.usage.oom_kills > 0);
  }

  TEST_CASE("/tmp is bounded") {
    CHECK(run_free({"probe", "fill-tmp", "100"}).output == "allowed\n");
    CHECK(run_confined(probe_spec({"probe", "fill-tmp", "100"})).output == "ENOSPC\n");
  }

  TEST_CASE("a program's own end comes back") {
    CHECK(run_confined(probe_spec({"/bin/sh", "-c", "exit 7"})).code == 7);
    const auto killed = run_confined(probe_spec({"/bin/sh", "-c", "kill -9 $$"}));
    CHECK(killed.signaled);
    CHECK(killed.code == SIGKILL);
  }
}

TEST_SUITE("a set-up failure names its step") {
  TEST_CASE("a mount whose source is not there") {
    auto spec = probe_spec({"/bin/true"});
    auto* mount = spec.add_mounts();
    mount->set_kind(Mount::SYSTEM);
    mount->set_source("/usr/not-there");
    mount->set_target("/x");
    CHECK(run_confined(spec).failed_step == "mounts");
  }

  TEST_CASE("a link that would lead outside of the root") {
    auto spec = probe_spec({"/bin/true"});
    auto* mount = spec.add_mounts();
    mount->set_kind(Mount::PACKAGE);
    mount->set_source("../../etc");
    mount->set_target("/x");
    CHECK(run_confined(spec).failed_step == "mounts");
  }

  TEST_CASE("two things at one place") {
    auto spec = probe_spec({"/bin/true"});
    for (int twice = 0; twice < 2; ++twice) {
      auto* mount = spec.add_mounts();
      mount->set_kind(Mount::CONTENT);
      mount->set_target("/etc/twice");
    }
    CHECK(run_confined(spec).failed_step == "root");
  }

  TEST_CASE("an rlimit over what there is") {
    auto spec = probe_spec({"/bin/true"});
    auto* limit = spec.add_rlimits();
    limit->set_resource(RLIM_NLIMITS);
    CHECK(run_confined(spec).failed_step == "rlimits");
  }

  TEST_CASE("no filter") {
    auto spec = probe_spec({"/bin/true"});
    spec.clear_seccomp();
    CHECK(run_confined(spec).failed_step == "seccomp");
  }

  TEST_CASE("a filter that the kernel does not take") {
    auto spec = probe_spec({"/bin/true"});
    spec.set_seccomp(std::string(8, '\xff'));
    CHECK(run_confined(spec).failed_step == "seccomp");
  }

  TEST_CASE("a host name that is too long") {
    auto spec = probe_spec({"/bin/true"});
    spec.set_hostname(std::string(65, 'x'));
    CHECK(run_confined(spec).failed_step == "hostname");
  }

  TEST_CASE("a program that is not there") {
    const auto outcome = run_confined(probe_spec({"/not/there"}));
    CHECK(outcome.failed_step == "exec");
  }
}
