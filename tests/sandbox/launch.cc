#include "tests/sandbox/launch.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "base/unix.h"
#include "policies/compile.h"
#include "proto/frame.h"
#include "proto/klp.pb.h"
#include "proto/starter.pb.h"
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

/// Plays control for one agent: accepts its hello and waits for its end.
void serve_klp(const Fd& klp, Outcome& outcome) {
  FrameDecoder decoder(kMaxFrameBytes + kEnvelopeOverheadBytes);
  std::string buffer(4096, '\0');
  for (;;) {
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

/// The keeper's part. The agent's pid, or 0 where a step failed.
pid_t await_verified(const Fd& channel, Outcome& outcome) {
  pid_t pid = 0;
  for (;;) {
    const Packet packet = need(receive_packet(channel.get(), 4096));
    starter::Report report;
    if (packet.bytes.empty() || !report.ParseFromString(packet.bytes)) {
      outcome.failed_step = "starter";
      outcome.detail = "ended without a report";
      return pid;
    }
    if (report.has_failure()) {
      outcome.failed_step = report.failure().step();
      outcome.detail = report.failure().detail();
      return pid;
    }
    if (report.kind_case() == starter::Report::kVerified) return pid;
    pid = report.forked();
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
  }
  return spec;
}

Outcome run_confined(const spec::SandboxSpec& spec) {
  static std::atomic<int> counter = 0;
  Outcome outcome;
  auto starters = need(keeper::Starters::open(programs() + "/kai-agent-host", root()));
  auto starter = need(starters.take());
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
    job.set_uid_base(0x7F000000);
    job.set_uid_count(1024);
  }
  fds.push_back(probe.get());
  need(send_packet(starter.channel.get(), job.SerializeAsString(), fds));
  klp.second.reset();
  output.second.reset();

  const pid_t pid = await_verified(starter.channel, outcome);
  if (outcome.failed_step.empty()) {
    serve_klp(klp.first, outcome);
    outcome.output = need(read_all(output.first.get(), kMaxOutput));
  }
  klp.first.reset();
  siginfo_t info{};
  if (pid != 0) (void)waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | __WALL);
  (void)waitid(P_PIDFD, static_cast<id_t>(starter.pidfd.get()), &info, WEXITED);
  if (group.v2_fd() >= 0) {
    outcome.usage = group.usage();
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
