// A real kaid and real agents, with the test in control's place: what the keeper tells, hands on and refuses.
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "policies/compile.h"
#include "proto/frame.h"
#include "proto/keeper.pb.h"
#include "proto/klp.pb.h"
#include "tests/unit/keeper/hung_directory.h"

namespace {

namespace fs = std::filesystem;
using kai::Fd;
using kai::keeper::Reply;
using kai::keeper::Request;

constexpr int kPatienceMs = 20'000;

/// Answers every notification of a filter with EPERM, as control would.
void answer_all(Fd listener) {
  for (;;) {
    pollfd wanted{listener.get(), POLLIN, 0};
    if (poll(&wanted, 1, -1) < 0) continue;
    if ((wanted.revents & POLLIN) == 0) return;
    seccomp_notif notification{};
    if (ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &notification) < 0) continue;
    seccomp_notif_resp response{};
    response.id = notification.id;
    response.error = -EPERM;
    (void)ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_SEND, &response);
  }
}

class Kaid {
 public:
  Kaid() {
    std::string name = geteuid() == 0 ? "/run/kai-keeper-XXXXXX" : "/tmp/kai-keeper-XXXXXX";
    top = mkdtemp(name.data());
    REQUIRE(chmod(top.c_str(), 0755) == 0);
    const fs::path built = *kai::program_directory();
    for (const char* part : {"bin", "sdk", "policies"}) fs::create_directory(top / part);
    fs::copy_file(built / "kaid", top / "bin/kaid");
    fs::copy_file(built / "kai-agent-host", top / "bin/kai-agent-host");
    fs::copy_file(built / "stand-in-control", top / "bin/kai-control");
    std::ofstream(top / "kaid.yaml") << "policies: " << (top / "policies").string() << "\n";
  }
  ~Kaid() {
    test_.reset();
    channel_.reset();
    if (pid > 0) (void)kill(pid, SIGKILL);
    if (pid > 0) (void)waitpid(pid, nullptr, 0);
    for (std::thread& thread : answering_) thread.join();
    fs::remove_all(top);
  }
  Kaid(const Kaid&) = delete;
  Kaid& operator=(const Kaid&) = delete;

  void policy(const std::string& text) const { std::ofstream(top / "policies/10-test.yaml") << text; }

  /// Starts it and gives its hello.
  Reply start() {
    const std::string name = "kai-test-" + std::to_string(getpid()) + top.filename().string();
    const Fd listening(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    REQUIRE(bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(listen(listening.get(), 1) == 0);
    pid = launch(name);
    pollfd wanted{listening.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    test_.reset(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    auto packet = kai::receive_packet(test_.get(), 64);
    REQUIRE(packet);
    REQUIRE(packet->fds.size() == 1);
    channel_ = std::move(packet->fds[0]);
    return next();
  }

  /// The exit status of a kaid that is not expected to serve, and what it said.
  std::pair<int, std::string> run_to_end() {
    auto pipe = kai::make_pipe();
    REQUIRE(pipe);
    const pid_t child = launch("", pipe->second.get());
    pipe->second.reset();
    const auto said = kai::read_all(pipe->first.get(), 1 << 16);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, said ? *said : ""};
  }

  /// The next packet; its descriptors are in `fds`.
  Reply next() {
    pollfd wanted{channel_.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    auto packet = kai::receive_packet(channel_.get(), 16 << 10, MSG_DONTWAIT);
    REQUIRE(packet);
    Reply reply;
    REQUIRE(reply.ParseFromString(packet->bytes));
    fds = std::move(packet->fds);
    return reply;
  }
  /// The answer to `request`; events that come before it are kept in `events`.
  Reply ask(Request request, const std::vector<int>& descriptors = {}) {
    request.set_id(++last_id_);
    REQUIRE(kai::send_packet(channel_.get(), request.SerializeAsString(), descriptors));
    for (;;) {
      Reply reply = next();
      if (reply.id() == last_id_) return reply;
      events.push_back(std::move(reply));
    }
  }

  /// Starts an agent and accepts its hello, so that its program runs.
  Reply spawn(const kai::spec::SandboxSpec& spec, std::uint64_t instance) {
    auto klp = kai::socket_pair(SOCK_STREAM);
    const auto memfd = kai::sealed_memfd("spec", spec.SerializeAsString());
    const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    REQUIRE(klp);
    REQUIRE(memfd);
    Request request;
    request.mutable_spawn()->set_instance(instance);
    request.mutable_spawn()->set_uid_slot(static_cast<std::uint32_t>(7 + instance));
    const Reply reply = ask(request, {klp->second.get(), null.get(), null.get(), STDERR_FILENO, memfd->get()});
    if (!reply.has_spawned()) return reply;
    if (!fds.empty()) answering_.emplace_back(answer_all, std::move(fds[0]));
    kai::klp::Envelope accepted;
    accepted.mutable_accepted()->set_max_in_flight(1);
    accepted.mutable_accepted()->set_max_frame_bytes(kai::kMaxFrameBytes);
    accepted.mutable_accepted()->set_message_deadline_ms(1000);
    std::string bytes;
    kai::append_frame(bytes, accepted.SerializeAsString());
    char byte = 0;
    REQUIRE(read(klp->first.get(), &byte, 1) == 1);  // its hello has begun to arrive
    REQUIRE(kai::write_all(klp->first.get(), bytes));
    klp_[instance] = std::move(klp->first);
    return reply;
  }

  /// The next event of that kind, from those that came before too.
  template <typename Has>
  Reply event(Has has) {
    for (auto at = events.begin(); at != events.end(); ++at) {
      if (!has(*at)) continue;
      Reply found = std::move(*at);
      events.erase(at);
      return found;
    }
    for (;;) {
      Reply reply = next();
      if (has(reply)) return reply;
      events.push_back(std::move(reply));
    }
  }
  kai::keeper::LimitHit limit(const std::string& name) {
    return event([&](const Reply& reply) { return reply.has_limit() && reply.limit().limit() == name; }).limit();
  }
  kai::keeper::AgentExited exited() {
    return event([](const Reply& reply) { return reply.has_exited(); }).exited();
  }

  /// SIGTERM; control ends; the exit status of kaid.
  int stop() {
    REQUIRE(kill(pid, SIGTERM) == 0);
    (void)event([](const Reply& reply) { return reply.has_stopping(); });
    klp_.clear();
    test_.reset();
    int status = 0;
    REQUIRE(waitpid(std::exchange(pid, 0), &status, 0) > 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  fs::path top;
  pid_t pid = 0;
  std::vector<Fd> fds;
  std::vector<Reply> events;

 private:
  pid_t launch(const std::string& socket_name, int errors = STDERR_FILENO) {
    const std::string program = top / "bin/kaid", config = top / "kaid.yaml", state = top / "state", run = top / "run";
    const pid_t child = fork();
    if (child != 0) return child;
    (void)setenv("KAI_TEST_SOCKET", socket_name.c_str(), 1);
    (void)dup2(errors, STDERR_FILENO);
    execl(program.c_str(), "kaid", "--config", config.c_str(), "--state-dir", state.c_str(), "--runtime-dir",
          run.c_str(), nullptr);
    _exit(127);
  }

  Fd test_, channel_;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, Fd> klp_;
  std::vector<std::thread> answering_;
};

/// A Python program as an agent with private data at /data: 8 MB and 200 files.
kai::spec::SandboxSpec python(const std::string& program) {
  kai::Policy policy = kai::builtin_policy(geteuid() != 0);
  policy.limits.open_files = 64;
  auto spec = kai::compile_run("disk-test", policy, {"/usr/bin/python3", "-c", program}, {});
  spec.set_ephemeral(false);
  spec.mutable_disk()->set_size_bytes(8 << 20);
  spec.mutable_disk()->set_inodes(200);
  spec.mutable_cgroup()->set_pids(12);
  auto* mount = spec.add_mounts();
  mount->set_kind(kai::spec::Mount::PRIVATE);
  mount->set_source("data");
  mount->set_target("/data");
  return spec;
}

/// Loop devices that have a file below `directory`.
int attached_below(const fs::path& directory) {
  int count = 0;
  for (const auto& block : fs::directory_iterator("/sys/block")) {
    std::ifstream backing(block.path() / "loop" / "backing_file");
    std::string name;
    count += std::getline(backing, name) && name.starts_with(directory.string()) ? 1 : 0;
  }
  return count;
}

Request drop_data() {
  Request request;
  request.mutable_drop_data()->set_agent_id("disk-test");
  return request;
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
