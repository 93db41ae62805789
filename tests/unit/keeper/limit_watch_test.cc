// When a limit is said to have been reached, and when not again.
#include "supervisor/keeper/limit_watch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "supervisor/keeper/open_files.h"

namespace {

using kai::keeper::LimitWatch;
using kai::keeper::OpenFilesLook;
using std::chrono::milliseconds;

kai::spec::SandboxSpec spec() {
  kai::spec::SandboxSpec made;
  made.mutable_cgroup()->set_memory_bytes(1000);
  made.mutable_cgroup()->set_pids(20);
  made.mutable_disk()->set_size_bytes(1 << 20);
  made.mutable_disk()->set_inodes(100);
  auto* limit = made.add_rlimits();
  limit->set_resource(RLIMIT_NOFILE);
  limit->set_soft(40);
  limit->set_hard(40);
  return made;
}

}  // namespace

TEST_CASE("counted limits: told when they go up, once a second, and at the end") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  auto now = LimitWatch::Clock::now();
  watch.look_at_pids(0, false, now, hits);
  CHECK(hits.empty());
  watch.look_at_pids(3, false, now, hits);
  REQUIRE(hits.size() == 1);
  CHECK(hits[0].instance() == 7);
  CHECK(hits[0].limit() == "pids");
  CHECK(hits[0].value() == 20);
  CHECK(hits[0].count() == 3);
  watch.look_at_pids(900, false, now + milliseconds(500), hits);
  CHECK(hits.size() == 1);
  watch.look_at_pids(900, false, now + milliseconds(1000), hits);
  REQUIRE(hits.size() == 2);
  CHECK(hits[1].count() == 900);
  watch.look_at_pids(900, false, now + milliseconds(5000), hits);
  CHECK(hits.size() == 2);
  watch.look_at_memory(1, now + milliseconds(5001), hits);
  watch.look_at_pids(901, true, now + milliseconds(5001), hits);
  REQUIRE(hits.size() == 4);
  CHECK(hits[2].limit() == "memory");
  CHECK(hits[3].count() == 901);
}

TEST_CASE("full disks: told once until there is room again") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  const auto start = LimitWatch::Clock::now();
  const auto at = [&](std::uint64_t free_bytes, std::uint64_t free_inodes, int second) {
    hits.clear();
    watch.look_at_space({4 << 20, free_bytes, 100, free_inodes}, start + std::chrono::seconds(second), hits);
    std::string said;
    for (const auto& hit : hits) said += hit.limit() + " ";
    return said;
  };
  CHECK(at(4 << 20, 100, 0) == "");
  CHECK(at(70 << 10, 1, 1) == "");
  CHECK(at(8 << 10, 0, 2) == "disk inodes ");
  CHECK(at(0, 0, 4) == "");
  CHECK(at(70 << 10, 1, 5) == "");  // a little less full
  CHECK(at(0, 0, 6) == "");
  CHECK(at(2 << 20, 50, 7) == "");
  CHECK(at(0, 0, 8) == "disk inodes ");
}

TEST_CASE("a directory over its limit has to end") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  const auto now = LimitWatch::Clock::now();
  CHECK_FALSE(watch.look_at_directory({1 << 20, 100}, false, now, hits));
  CHECK(hits.empty());
  CHECK(watch.look_at_directory({(1 << 20) + 1, 5}, false, now, hits));
  CHECK(watch.look_at_directory({0, 101}, false, now, hits));
  CHECK(watch.look_at_directory({0, 1}, true, now, hits));
  REQUIRE(hits.size() == 2);
  CHECK(hits[0].limit() == "disk");
  CHECK(hits[1].limit() == "inodes");
}

TEST_CASE("descriptors: which process has as many as it may") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  const auto now = LimitWatch::Clock::now();
  watch.look_at_open_files(39, {"node", 3}, now, hits);
  CHECK(hits.empty());
  watch.look_at_open_files(40, {"node", 3}, now, hits);
  REQUIRE(hits.size() == 1);
  CHECK(hits[0].limit() == "nofile");
  CHECK(hits[0].process() == "node");
  CHECK(hits[0].pid() == 3);
}

TEST_CASE("processes are named as /proc shows them") {
  const auto self = kai::keeper::name_process(getpid(), getpid());
  REQUIRE(self);
  CHECK(self->comm == "unit_keeper");
  CHECK(self->inner_pid > 0);
  CHECK_FALSE(kai::keeper::name_process(0, getpid()));
  CHECK_FALSE(kai::keeper::name_process(getpid(), 0x7fffffff));
  CHECK(kai::keeper::pid_namespace(getpid()) != 0);
  CHECK(kai::keeper::pid_namespace(0x7fffffff) == 0);
}

TEST_CASE("a process is its agent's however deep it stands" * doctest::skip(geteuid() != 0)) {
  const auto channel = kai::socket_pair(SOCK_SEQPACKET);
  REQUIRE(channel);
  constexpr int kOn = 1;
  REQUIRE(setsockopt(channel->first.get(), SOL_SOCKET, SO_PASSCRED, &kOn, sizeof kOn) == 0);
  constexpr pid_t kDepth = 80;
  const pid_t helper = fork();
  if (helper == 0) {
    if (unshare(CLONE_NEWPID) < 0) _exit(1);
    while (fork() == 0) {
      if (getpid() == 1) (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getpid() == 1 || getpid() == kDepth) (void)write(channel->second.get(), "x", 1);
      if (getpid() == kDepth) break;
    }
    for (;;) pause();
  }
  const auto sender = [&]() -> pid_t {
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    REQUIRE(recvmsg(channel->first.get(), &message, 0) == 1);
    ucred credentials{};
    std::memcpy(&credentials, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof credentials);
    return credentials.pid;
  };
  const pid_t agent = sender();
  const pid_t deepest = sender();
  const auto name = kai::keeper::name_process(deepest, agent);
  REQUIRE(name);
  CHECK(name->inner_pid == kDepth);
  CHECK(kai::keeper::pid_namespace(deepest) == kai::keeper::pid_namespace(agent));
  CHECK_FALSE(kai::keeper::name_process(getpid(), agent));
  CHECK_FALSE(kai::keeper::name_process(helper, agent));
  REQUIRE(kill(helper, SIGKILL) == 0);
  REQUIRE(waitpid(helper, nullptr, 0) == helper);
}

TEST_CASE("the process with the most descriptors, by the kernel's count and by an own one") {
  std::vector<kai::Fd> files;
  for (int at = 0; at < 100; ++at) files.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  for (const bool kernel_counts : {false, true}) {
    if (kernel_counts && !kai::keeper::kernel_counts_open_files()) continue;
    CAPTURE(kernel_counts);
    const auto count = [&](std::uint64_t enough) {
      std::size_t budget = 10'000;
      OpenFilesLook look({0x7fffffff, getpid(), 0x7ffffffe}, enough, kernel_counts);
      CHECK(look.step(budget));
      CHECK(budget > 9'000);
      CHECK(look.holder() == getpid());
      return look.most();
    };
    const std::uint64_t before = count(1 << 20);
    CHECK(before > 100);
    const auto pipe = kai::make_pipe();
    REQUIRE(pipe);
    CHECK(count(1 << 20) == before + 2);
    CHECK(count(50) >= 50);
  }
}

TEST_CASE("descriptors are counted a slice at a time") {
  std::vector<kai::Fd> files;
  for (int at = 0; at < 100; ++at) files.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  OpenFilesLook look({getpid(), 0x7fffffff}, 1 << 20, false);
  int slices = 0;
  for (bool over = false; !over; ++slices) {
    std::size_t budget = 10;
    over = look.step(budget);
    CHECK((over || budget == 0));
  }
  CHECK(slices > 10);
  CHECK(look.most() > 100);
  CHECK(look.holder() == getpid());
}
