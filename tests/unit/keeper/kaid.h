// A real kaid and real agents, with the test in control's place (stand_in_control.cc).
#pragma once

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

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "policies/compile.h"
#include "proto/egress.pb.h"
#include "proto/frame.h"
#include "proto/keeper.pb.h"
#include "proto/klp.pb.h"

namespace kai::keeper::test {

namespace fs = std::filesystem;

constexpr int kPatienceMs = 20'000;

/// Answers every notification of a filter with EPERM, as control would.
inline void answer_all(Fd listener) {
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
    (void)signal(SIGPIPE, SIG_IGN);  // what is written to an agent that has ended is an error of the write
    std::string name = geteuid() == 0 ? "/run/kai-keeper-XXXXXX" : "/tmp/kai-keeper-XXXXXX";
    top = mkdtemp(name.data());
    REQUIRE(chmod(top.c_str(), 0755) == 0);
    const fs::path built = *program_directory();
    for (const char* part : {"bin", "sdk", "policies"}) fs::create_directory(top / part);
    fs::copy_file(built / "kaid", top / "bin/kaid");
    fs::copy_file(built / "kai-agent-host", top / "bin/kai-agent-host");
    fs::copy_file(built / "stand-in-control", top / "bin/kai-control");
    fs::copy_file(built / "stand-in-control", top / "bin/kai-egress");
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
    listening_.reset();
    egress_listening_.reset();
    listening_ = listen_at(name);
    egress_listening_ = listen_at(name + "-egress");
    std::ofstream(top / "bin/test-socket") << name;
    pid = launch();
    return next_control();
  }

  /// Takes the place of the egress that the keeper has started, or starts: what the keeper tells it is read by the
  /// test.
  struct Egress {
    Fd alive;    ///< until it is closed
    Fd channel;  ///< egress.Command
    pid_t pid = 0;

    /// The next command and its descriptors.
    std::pair<egress::Command, std::vector<Fd>> next() const {
      pollfd wanted{channel.get(), POLLIN, 0};
      REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
      auto packet = receive_packet(channel.get(), 64 << 10, MSG_DONTWAIT);
      REQUIRE(packet);
      egress::Command command;
      REQUIRE(command.ParseFromString(packet->bytes));
      return {std::move(command), std::move(packet->fds)};
    }
  };
  Egress next_egress() const {
    pollfd wanted{egress_listening_.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    Egress egress;
    egress.alive.reset(accept4(egress_listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    auto packet = receive_packet(egress.alive.get(), 64);
    REQUIRE(packet);
    REQUIRE(packet->fds.size() == 1);
    egress.channel = std::move(packet->fds[0]);
    ucred peer{};
    socklen_t length = sizeof peer;
    REQUIRE(getsockopt(egress.alive.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
    egress.pid = peer.pid;
    return egress;
  }

  /// The hello to the control that the keeper has started, or starts.
  Reply next_control() {
    pollfd wanted{listening_.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    test_.reset(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    auto packet = receive_packet(test_.get(), 64);
    REQUIRE(packet);
    REQUIRE(packet->fds.size() == 1);
    channel_ = std::move(packet->fds[0]);
    return next();
  }

  /// Whether an agent had a filter with a listener.
  [[nodiscard]] bool answers() const { return !answering_.empty(); }
  pid_t control() const {
    ucred peer{};
    socklen_t length = sizeof peer;
    REQUIRE(getsockopt(test_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
    return peer.pid;
  }
  /// It exits 0.
  void end_control() { test_.reset(); }
  /// kill -9 of control; the hello to the next one.
  Reply kill_control() {
    REQUIRE(kill(control(), SIGKILL) == 0);
    // Its death is known, and the test's copy of its channel closed with it, before the next one speaks.
    char byte = 0;
    REQUIRE(read(test_.get(), &byte, 1) == 0);
    channel_.reset();
    events.clear();
    return next_control();
  }

  /// The exit status of a kaid that is not expected to serve, and what it said.
  std::pair<int, std::string> run_to_end() {
    auto pipe = make_pipe();
    REQUIRE(pipe);
    const pid_t child = launch(pipe->second.get());
    pipe->second.reset();
    const auto said = read_all(pipe->first.get(), 1 << 16);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, said ? *said : ""};
  }

  /// The next packet; its descriptors are in `fds`.
  Reply next() {
    pollfd wanted{channel_.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    auto packet = receive_packet(channel_.get(), 16 << 10, MSG_DONTWAIT);
    REQUIRE(packet);
    Reply reply;
    REQUIRE(reply.ParseFromString(packet->bytes));
    fds = std::move(packet->fds);
    return reply;
  }
  /// Without waiting for the answer.
  std::uint64_t send(Request request, const std::vector<int>& descriptors = {}) {
    request.set_id(++last_id_);
    REQUIRE(send_packet(channel_.get(), request.SerializeAsString(), descriptors));
    return last_id_;
  }
  /// Whether something has come, which is read.
  bool answers_within(int patience_ms) {
    pollfd wanted{channel_.get(), POLLIN, 0};
    if (poll(&wanted, 1, patience_ms) != 1) return false;
    (void)next();
    return true;
  }
  /// The answer to `request`; events that come before it are kept in `events`.
  Reply ask(Request request, const std::vector<int>& descriptors = {}) {
    return answer_to(send(std::move(request), descriptors));
  }
  Reply answer_to(std::uint64_t id) {
    return event([&](const Reply& reply) { return reply.id() == id; });
  }

  /// Starts an agent and accepts its hello, so that its program runs. Its input is a pipe from `input`, its output one
  /// that the keeper keeps the end of.
  Reply spawn(const spec::SandboxSpec& spec, std::uint64_t instance, bool ephemeral = false) {
    auto klp = socket_pair(SOCK_STREAM);
    const auto memfd = sealed_memfd("spec", spec.SerializeAsString());
    auto in = make_pipe();
    auto out = make_pipe();
    REQUIRE(klp);
    REQUIRE(in);
    REQUIRE(out);
    REQUIRE(memfd);
    Request request;
    request.mutable_spawn()->set_instance(instance);
    request.mutable_spawn()->set_uid_slot(static_cast<std::uint32_t>(7 + instance));
    request.mutable_spawn()->set_ephemeral(ephemeral);
    std::vector<int> beside = {klp->second.get(), in->first.get(), out->second.get(), STDERR_FILENO, memfd->get()};
    const int kept = keep >= 0 ? keep : out->first.get();
    if (!ephemeral) beside.insert(beside.end(), {kept, kept});
    const std::uint64_t asked = send(request, beside);
    if (behind_spawn) answer_behind = send(std::move(*std::exchange(behind_spawn, std::nullopt)), fds_behind);
    const Reply reply = answer_to(asked);
    input[instance] = std::move(in->second);
    output[instance] = std::move(out->first);
    if (!reply.has_spawned()) return reply;
    if (!fds.empty()) answering_.emplace_back(answer_all, std::move(fds[0]));
    klp::Envelope accepted;
    accepted.mutable_accepted()->set_max_in_flight(1);
    accepted.mutable_accepted()->set_max_frame_bytes(kMaxFrameBytes);
    accepted.mutable_accepted()->set_message_deadline_ms(1000);
    std::string bytes;
    append_frame(bytes, accepted.SerializeAsString());
    char byte = 0;
    REQUIRE(read(klp->first.get(), &byte, 1) == 1);  // its hello has begun to arrive
    REQUIRE(write_all(klp->first.get(), bytes));
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
  LimitHit limit(const std::string& name) {
    return event([&](const Reply& reply) { return reply.has_limit() && reply.limit().limit() == name; }).limit();
  }
  AgentExited exited() {
    return event([](const Reply& reply) { return reply.has_exited(); }).exited();
  }

  /// SIGTERM; control ends; the exit status of kaid.
  int stop() {
    REQUIRE(kill(pid, SIGTERM) == 0);
    (void)event([](const Reply& reply) { return reply.has_stopping(); });
    klp_.clear();
    input.clear();
    test_.reset();
    return wait();
  }
  /// Its exit status.
  int wait() {
    int status = 0;
    REQUIRE(waitpid(std::exchange(pid, 0), &status, 0) > 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  /// SIGUSR2; the hello of the next version to its control.
  Reply replace_programs() {
    REQUIRE(kill(pid, SIGUSR2) == 0);
    char byte = 0;
    REQUIRE(read(test_.get(), &byte, 1) == 0);
    channel_.reset();
    events.clear();
    return next_control();
  }
  /// Another file takes the name of kaid, as a package manager does it.
  void install(const std::string& contents) const {
    const fs::path fresh = top / "bin/kaid.new";
    if (contents.empty()) {
      fs::copy_file(*program_directory() + "/kaid", fresh);
    } else {
      std::ofstream(fresh) << contents;
      fs::permissions(fresh, fs::perms(0755));
    }
    fs::rename(fresh, top / "bin/kaid");
  }
  /// kill -9 of kaid itself.
  void crash() {
    REQUIRE(kill(pid, SIGKILL) == 0);
    CHECK(wait() == -1);
  }

  fs::path top;
  int keep = -1;                        ///< what Spawn gives the keeper to keep; -1: the end of the agent's output
  std::optional<Request> behind_spawn;  ///< sent right behind the next Spawn, with `fds_behind`
  std::vector<int> fds_behind;
  std::uint64_t answer_behind = 0;  ///< the id of its answer
  rlim_t most_files = 0;            ///< how many kaid may have; 0: as many as the test
  pid_t pid = 0;
  std::vector<Fd> fds;
  std::vector<Reply> events;
  std::map<std::uint64_t, Fd> input, output;  ///< of the agents, by instance

 private:
  pid_t launch(int errors = STDERR_FILENO) {
    const std::string program = top / "bin/kaid", config = top / "kaid.yaml", state = top / "state", run = top / "run";
    const pid_t child = fork();
    if (child != 0) return child;
    const rlimit files{most_files, most_files};
    if (most_files != 0 && setrlimit(RLIMIT_NOFILE, &files) < 0) _exit(127);
    (void)dup2(errors, STDERR_FILENO);
    execl(program.c_str(), "kaid", "--config", config.c_str(), "--state-dir", state.c_str(), "--runtime-dir",
          run.c_str(), nullptr);
    _exit(127);
  }

  static Fd listen_at(const std::string& name) {
    Fd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(listen(fd.get(), 8) == 0);
    return fd;
  }

  Fd listening_, egress_listening_, test_, channel_;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, Fd> klp_;
  std::vector<std::thread> answering_;
};

/// A Python program as an agent with private data at /data: 8 MB and 200 files.
inline spec::SandboxSpec python(const std::string& program) {
  Policy policy = builtin_policy(geteuid() != 0);
  policy.limits.open_files = 64;
  auto spec = compile_run("disk-test", policy, {"/usr/bin/python3", "-c", program}, {});
  spec.set_ephemeral(false);
  spec.mutable_disk()->set_size_bytes(8 << 20);
  spec.mutable_disk()->set_inodes(200);
  spec.mutable_cgroup()->set_pids(12);
  auto* mount = spec.add_mounts();
  mount->set_kind(spec::Mount::PRIVATE);
  mount->set_source("data");
  mount->set_target("/data");
  return spec;
}

/// Loop devices that have a file below `directory`.
inline int attached_below(const fs::path& directory) {
  int count = 0;
  for (const auto& block : fs::directory_iterator("/sys/block")) {
    std::ifstream backing(block.path() / "loop" / "backing_file");
    std::string name;
    count += std::getline(backing, name) && name.starts_with(directory.string()) ? 1 : 0;
  }
  return count;
}

}  // namespace kai::keeper::test
