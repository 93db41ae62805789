#include "tests/sandbox/launch.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <stdexcept>

#include "base/unix.h"
#include "policies/compile.h"
#include "proto/frame.h"
#include "proto/klp.pb.h"
#include "supervisor/keeper/starters.h"

namespace kai::test {
namespace {

constexpr std::size_t kMaxOutput = 1 << 20;

template <typename T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}
void need(Result<> result) {
  if (!result) throw std::runtime_error(result.error().message());
}

bool root() {
  return geteuid() == 0;
}

sandbox::CgroupTree& groups() {
  static sandbox::CgroupTree tree = sandbox::CgroupTree::open("kai-test-" + std::to_string(getpid()), root());
  static const struct Remove {
    ~Remove() { tree.remove(); }
  } remove;
  return tree;
}

std::string programs() {
  return need(program_directory());
}

/// Plays control for the filter's notifications: explains each, and answers it with its errno.
class Listener {
 public:
  Listener(Fd fd, std::string profile) : fd_(std::move(fd)), profile_(std::move(profile)) {}

  [[nodiscard]] int fd() const { return fd_.get(); }
  /// After POLLIN: one notification. Nothing where the process has ended meanwhile.
  std::optional<Refusal> answer() {
    seccomp_notif notification{};
    if (ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, &notification) < 0) return std::nullopt;
    std::array<std::uint64_t, 6> arguments{};
    std::copy(std::begin(notification.data.args), std::end(notification.data.args), arguments.begin());
    Refusal refusal = explain_refusal(profile_, notification.data.arch, notification.data.nr, arguments);
    seccomp_notif_resp response{};
    response.id = notification.id;
    response.error = -refusal.error_number;
    (void)ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response);  // ENOENT: it has ended meanwhile
    return refusal;
  }
  void close() { fd_.reset(); }

 private:
  Fd fd_;
  std::string profile_;
};

/// Waits until `fd` can be read and answers notifications meanwhile.
void await_readable(int fd, Listener& listener, std::vector<Refusal>& refusals) {
  for (;;) {
    pollfd wanted[] = {{fd, POLLIN, 0}, {listener.fd(), POLLIN, 0}};
    if (poll(wanted, 2, -1) < 0) continue;
    if ((wanted[1].revents & POLLIN) != 0) {
      if (auto refusal = listener.answer()) refusals.push_back(std::move(*refusal));
      continue;
    }
    if ((wanted[1].revents & (POLLHUP | POLLERR)) != 0) listener.close();
    if (wanted[0].revents != 0) return;
  }
}

/// Plays control for one agent: accepts its hello and waits for its end.
void serve_klp(const Fd& klp, Listener& listener, Outcome& outcome) {
  FrameDecoder decoder(kMaxFrameBytes + kEnvelopeOverheadBytes);
  std::string buffer(4096, '\0');
  for (;;) {
    await_readable(klp.get(), listener, outcome.refusals);
    const ssize_t count = read(klp.get(), buffer.data(), buffer.size());
    if (count <= 0) return;
    decoder.feed(std::string_view(buffer).substr(0, static_cast<std::size_t>(count)));
    while (auto frame = need(decoder.next())) {
      klp::Envelope envelope;
      if (!envelope.ParseFromArray(frame->data(), static_cast<int>(frame->size()))) return;
      if (envelope.has_hello()) {
        klp::Envelope accepted;
        accepted.mutable_accepted()->set_max_in_flight(1);
        accepted.mutable_accepted()->set_max_frame_bytes(kMaxFrameBytes);
        accepted.mutable_accepted()->set_message_deadline_ms(1000);
        std::string bytes;
        append_frame(bytes, accepted.SerializeAsString());
        (void)send(klp.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);  // it may have ended already
      } else if (envelope.has_start_failed()) {
        outcome.failed_step = envelope.start_failed().step();
        outcome.detail = envelope.start_failed().message();
      } else if (envelope.has_exit()) {
        outcome.signaled = envelope.exit().signaled();
        outcome.code = envelope.exit().code();
      }
    }
  }
}

struct Launched {
  pid_t pid = 0;  ///< 0 where a step failed before there was one
  Fd listener;    ///< empty: the filter is silent, or there is none
};

/// The keeper's part, until the sandbox is verified. Nobody answers notifications here: set-up makes none.
Launched await_verified(const Fd& channel, Outcome& outcome) {
  Launched launched;
  for (;;) {
    pollfd wanted[] = {{channel.get(), POLLIN, 0}, {launched.listener.get(), POLLIN, 0}};
    if (poll(wanted, 2, -1) < 0) continue;
    // The agent's own calls come after the report that it is verified: that one is in the channel then.
    const bool reported = poll(wanted, 1, 0) == 1;
    if (!reported && (wanted[1].revents & POLLIN) != 0) {
      outcome.failed_step = "listener";
      outcome.detail = "set-up made a call that the filter refuses";
      (void)kill(launched.pid, SIGKILL);
      return launched;
    }
    if (!reported) continue;
    Packet packet = need(receive_packet(channel.get(), 4096));
    starter::Report report;
    if (packet.bytes.empty() || !report.ParseFromString(packet.bytes)) {
      outcome.failed_step = "starter";
      outcome.detail = "ended without a report";
      return launched;
    }
    outcome.degraded.assign(report.degraded().begin(), report.degraded().end());
    switch (report.kind_case()) {
      case starter::Report::kForked:
        launched.pid = report.forked();
        break;
      case starter::Report::kListener:
        launched.listener = std::move(packet.fds.at(0));
        break;
      case starter::Report::kVerified:
        return launched;
      default:
        outcome.failed_step = report.failure().step();
        outcome.detail = report.failure().detail();
        return launched;
    }
  }
}

}  // namespace

spec::SandboxSpec probe_spec(const std::vector<std::string>& arguments) {
  std::vector<std::string> inside = arguments;
  const bool probe = inside[0] == "probe";
  if (probe) inside[0] = "/agent/probe";
  spec::SandboxSpec spec = compile_run("run-test", builtin_policy(!root()), inside, {});
  if (probe) {
    auto* mount = spec.add_mounts();
    mount->set_kind(spec::Mount::DESCRIPTOR);
    mount->set_target("/agent/probe");
    mount->set_read_only(true);
  }
  return spec;
}

Outcome run_confined(const spec::SandboxSpec& wanted, const LaunchOptions& options) {
  static std::atomic<int> counter = 0;
  Outcome outcome;
  spec::SandboxSpec spec = wanted;
  if (!options.without.empty()) spec.set_agent_version(options.without);  // tests/sandbox/without.cc reads it there
  const std::string program = options.without.empty() ? "/kai-agent-host" : "/agent-host-without";
  auto starters = need(keeper::Starters::open(programs() + program, root()));
  auto starter = need(options.host_network ? starters.launch_in_host_network() : starters.take());
  auto klp = need(socket_pair(SOCK_STREAM));
  auto output = need(make_pipe());
  const Fd input(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Fd memfd = need(sealed_memfd("spec", spec.SerializeAsString()));
  const Fd probe(open((programs() + "/sandbox-probe").c_str(), O_RDONLY | O_CLOEXEC));

  starter::Job job;
  job.set_packages_dir("/var/empty");
  job.set_program_dir(programs());
  job.set_sdk_dir(programs());
  std::vector<int> fds = {memfd.get(), klp.second.get(), input.get(), output.second.get(), output.second.get()};
  sandbox::AgentCgroup group;
  if (groups().backend() != sandbox::CgroupTree::Backend::kNone) {
    group = need(groups().create("test-" + std::to_string(counter++)));
    need(group.limit(spec.cgroup()));
    job.set_v2_group(true);
    job.set_v1_groups(static_cast<std::uint32_t>(group.v1_tasks().size()));
    fds.push_back(group.v2_fd());
    for (const Fd& tasks : group.v1_tasks()) fds.push_back(tasks.get());
  }
  if (root()) {
    job.set_uid_base(options.uid_base);
    job.set_uid_count(1024);
  }
  job.set_private_data(options.private_data);
  if (options.private_data != starter::NONE) fds.push_back(options.data_fd);
  fds.push_back(probe.get());
  need(send_packet(starter.channel.get(), job.SerializeAsString(), fds));
  klp.second.reset();
  output.second.reset();

  Launched launched = await_verified(starter.channel, outcome);
  if (outcome.failed_step.empty()) {
    Listener listener(std::move(launched.listener), spec.profile());
    serve_klp(klp.first, listener, outcome);
    outcome.output = need(read_all(output.first.get(), kMaxOutput));
  }
  klp.first.reset();
  siginfo_t info{};
  if (launched.pid != 0) (void)waitid(P_PID, static_cast<id_t>(launched.pid), &info, WEXITED | __WALL);
  (void)waitid(P_PIDFD, static_cast<id_t>(starter.pidfd.get()), &info, WEXITED);
  if (group.v2_fd() >= 0) {
    outcome.usage = group.usage();
    pollfd event{.fd = group.pids_event_fd(), .events = POLLPRI, .revents = 0};
    outcome.pids_event = poll(&event, 1, 0) == 1 && (event.revents & POLLPRI) != 0;
    // The kernel lets a group go when the last process is fully gone: cgroup.events tells when it is "populated 0".
    while (!group.remove()) sched_yield();
  }
  return outcome;
}

Outcome run_free(const std::vector<std::string>& arguments) {
  Outcome outcome;
  auto output = need(make_pipe());
  const std::string program = arguments[0] == "probe" ? programs() + "/sandbox-probe" : arguments[0];
  const pid_t pid = fork();
  if (pid == 0) {
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    (void)dup2(output.second.get(), STDOUT_FILENO);
    (void)dup2(output.second.get(), STDERR_FILENO);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  output.second.reset();
  outcome.output = need(read_all(output.first.get(), kMaxOutput));
  int status = 0;
  (void)waitpid(pid, &status, 0);
  outcome.signaled = WIFSIGNALED(status);
  outcome.code = outcome.signaled ? WTERMSIG(status) : WEXITSTATUS(status);
  return outcome;
}

}  // namespace kai::test
