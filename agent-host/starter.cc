#include "agent-host/starter.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/unix.h"
#include "proto/starter.pb.h"
#include "sandbox/apply.h"
#include "sandbox/namespaces.h"
#include "sandbox/network.h"

namespace kai {
namespace {

constexpr std::size_t kMaxJobBytes = 16 << 10;
constexpr std::size_t kMaxSpecBytes = 4 << 20;

struct Failure {
  const char* step;
  Error error;
};

[[noreturn]] void report_and_exit(const Fd& channel, const Failure& failure) {
  starter::Report report;
  auto* message = report.mutable_failure();
  message->set_step(failure.step);
  message->set_errno_value(failure.error.error_number);
  message->set_detail(failure.error.context.empty() ? failure.error.what
                                                    : failure.error.what + " " + failure.error.context);
  (void)send_packet(channel.get(), report.SerializeAsString());
  _exit(1);
}

/// The job, taken apart.
struct Work {
  starter::Job job;
  spec::SandboxSpec spec;
  Fd cgroup;  // v2 directory
  Fd private_data;
  std::vector<Fd> descriptors;
  sandbox::Setup setup;
};

Result<spec::SandboxSpec> read_spec(const Fd& memfd) {
  struct stat status {};
  if (fstat(memfd.get(), &status) < 0) return errno_failure("fstat", "spec");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > kMaxSpecBytes) return failure("spec too large");
  std::string bytes(size, '\0');
  if (pread(memfd.get(), bytes.data(), size, 0) != static_cast<ssize_t>(size)) return errno_failure("pread", "spec");
  spec::SandboxSpec spec;
  if (!spec.ParseFromString(bytes)) return failure("not a spec");
  return spec;
}

Result<> take_apart(Packet packet, Work& work) {
  if (!work.job.ParseFromString(packet.bytes)) return failure("not a job");
  const bool has_data = work.job.private_data() != starter::NONE;
  const std::size_t fixed = 5 + (work.job.v2_group() ? 1U : 0U) + work.job.v1_groups() + (has_data ? 1U : 0U);
  if (packet.fds.size() < fixed) return failure("a descriptor is missing");
  auto spec = read_spec(packet.fds[0]);
  if (!spec) return tl::unexpected(spec.error());
  work.spec = std::move(*spec);
  std::size_t at = 1;
  sandbox::Setup& setup = work.setup;
  for (Fd* place : {&setup.klp, &setup.standard_input, &setup.standard_output, &setup.standard_error}) {
    *place = std::move(packet.fds[at++]);
  }
  if (work.job.v2_group()) work.cgroup = std::move(packet.fds[at++]);
  for (std::uint32_t group = 0; group < work.job.v1_groups(); ++group) {
    setup.v1_tasks.push_back(std::move(packet.fds[at++]));
  }
  if (has_data) work.private_data = std::move(packet.fds[at++]);
  while (at < packet.fds.size()) work.descriptors.push_back(std::move(packet.fds[at++]));
  setup.drop_groups = work.job.uid_count() > 0;
  setup.outlives_keeper = work.job.outlives_keeper();
  return {};
}

// As root the agent's ids are those of its range; as an ordinary user they are the caller's own.
sandbox::Owner agent_on_host(const starter::Job& job) {
  if (job.uid_count() == 0) return {geteuid(), getegid()};
  return {job.uid_base() + sandbox::kAgentUid, job.uid_base() + sandbox::kAgentGid};
}

Result<> prepare_file_system(Work& work, sandbox::SystemMounts system, std::optional<sandbox::OverlayMaker> overlays) {
  if (work.spec.unsandboxed()) {  // before the private data covers a part of the host
    auto entries = sandbox::prepare_host_entries();
    if (!entries) return tl::unexpected(entries.error());
    work.setup.host_entries = std::move(*entries);
  }
  if (!overlays) {
    auto made = sandbox::OverlayMaker::create();
    if (!made) return tl::unexpected(made.error());
    overlays = std::move(*made);
  }
  const sandbox::Owner agent = agent_on_host(work.job);
  auto data = sandbox::PrivateData::open(work.job.private_data(), work.private_data, agent);
  if (!data) return tl::unexpected(data.error());
  const sandbox::Sources sources{.packages_dir = work.job.packages_dir(),
                                 .program_dir = work.job.program_dir(),
                                 .sdk_dir = work.job.sdk_dir(),
                                 .private_data = std::move(*data),
                                 .overlays = &*overlays,
                                 .map_owners = work.job.uid_count() > 0,
                                 .agent = agent};
  auto mounts = sandbox::prepare_mounts(work.spec, sources, work.descriptors, std::move(system));
  if (!mounts) return tl::unexpected(mounts.error());
  work.setup.mounts = std::move(*mounts);
  return {};
}

/// As root: an agent may open its own output again by its name (/dev/stdout), which the kernel decides by the owner of
/// the pipe. Nameless pipes only: what has a name on the host keeps its owner.
Result<> give_streams(const Work& work) {
  if (work.job.uid_count() == 0) return {};
  constexpr long kPipeFileSystem = 0x50495045;  // PIPEFS_MAGIC, linux/magic.h
  const sandbox::Owner agent = agent_on_host(work.job);
  const sandbox::Setup& setup = work.setup;
  for (const Fd* stream : {&setup.standard_input, &setup.standard_output, &setup.standard_error}) {
    struct statfs status {};
    if (fstatfs(stream->get(), &status) < 0) return errno_failure("fstatfs", "standard stream");
    if (status.f_type != kPipeFileSystem) continue;
    if (fchown(stream->get(), agent.uid, agent.gid) < 0) return errno_failure("fchown", "standard stream");
  }
  return {};
}

/// What the agent's connections arrive at is for the keeper alone: nothing of it is here when the agent is made.
Result<> give_network(const Work& work, const Fd& channel, Result<std::vector<Fd>> network) {
  if (!work.job.network()) return {};
  if (!network) return tl::unexpected(network.error());
  std::vector<std::uint16_t> ports;
  for (const std::uint32_t port : work.job.network_ports()) ports.push_back(static_cast<std::uint16_t>(port));
  if (auto done = sandbox::open_network(*network, ports); !done) return done;
  std::vector<int> beside;
  for (const Fd& fd : *network) beside.push_back(fd.get());
  starter::Report report;
  report.set_network(true);
  return send_packet(channel.get(), report.SerializeAsString(), beside);
}

// The parent's part after clone3: the child waits on `go` until its id maps are written.
[[noreturn]] void finish_starter(pid_t child, const Work& work, const Fd& channel, Fd go) {
  // The keeper has to know its child before that one can say anything, and to wait for it whatever fails from here on.
  starter::Report report;
  report.set_forked(child);
  (void)send_packet(channel.get(), report.SerializeAsString());
  const sandbox::IdRange range{work.job.uid_base(), work.job.uid_count()};
  if (auto done = sandbox::write_id_maps(child, range); !done) report_and_exit(channel, {"id maps", done.error()});
  if (auto done = write_all(go.get(), "g"); !done) report_and_exit(channel, {"id maps", done.error()});
  _exit(0);
}

Confined confine(Work work, Fd channel, Fd go, Apply apply) {
  char byte = 0;
  if (read(go.get(), &byte, 1) != 1) _exit(1);  // the starter failed, and said so
  // What the steps do not need goes now: later its numbers are those of other descriptors.
  go.reset();
  work.cgroup.reset();
  work.private_data.reset();
  work.descriptors.clear();
  work.setup.report = std::move(channel);
  work.setup.spec = &work.spec;
  if (auto done = apply(work.setup); !done) {
    report_and_exit(work.setup.report, {done.error().step, done.error().error});
  }
  starter::Report report;
  report.set_verified(true);
  for (const std::string& layer : work.setup.degraded) report.add_degraded(layer);
  if (auto sent = send_packet(work.setup.report.get(), report.SerializeAsString()); !sent) _exit(1);
  return Confined{std::move(work.spec), std::move(work.setup.klp), std::move(work.setup.report),
                  work.setup.outlives_keeper};
}

}  // namespace

Confined start_agent(int channel_number, const StarterOptions& options, Apply apply) {
  Fd channel(channel_number);
  (void)fcntl(channel.get(), F_SETFD, FD_CLOEXEC);
  Work work;
  // What can be done before the job is known is done now. A fault is told to the keeper with the job's answer.
  std::optional<Failure> fault;
  auto host = sandbox::namespace_ids();
  if (!host) fault = Failure{"starter", host.error()};
  if (auto done = sandbox::enter_starter_namespaces(options.root, options.host_network); !done)
    fault = Failure{"starter namespaces", done.error()};
  auto devices = sandbox::prepare_devices();
  if (!fault && !devices) fault = Failure{"devices", devices.error()};

  auto system = sandbox::SystemMounts::prepare();
  std::optional<sandbox::OverlayMaker> overlays;
  // It covers a part of the host, which an unsandboxed agent is to see.
  if (!options.host_network) {
    auto made = sandbox::OverlayMaker::create();
    if (!fault && !made) fault = Failure{"overlays", made.error()};
    if (made) overlays = std::move(*made);
  }
  // For an agent that has none, it goes again. The host's own network is never made to be an agent's.
  Result<std::vector<Fd>> network = failure("in the host's network");
  if (!options.host_network) network = sandbox::prepare_network();

  auto packet = receive_packet(channel.get(), kMaxJobBytes);
  if (!packet || packet->fds.empty()) _exit(0);  // the keeper ended
  if (fault) report_and_exit(channel, *fault);
  if (auto done = take_apart(std::move(*packet), work); !done) report_and_exit(channel, {"starter", done.error()});
  work.setup.host = *host;
  work.setup.devices = std::move(*devices);
  if (auto done = prepare_file_system(work, std::move(system), std::move(overlays)); !done)
    report_and_exit(channel, {"mounts", done.error()});
  if (auto done = give_network(work, channel, std::move(network)); !done)
    report_and_exit(channel, {"network", done.error()});
  auto go = make_pipe();
  if (!go) report_and_exit(channel, {"starter", go.error()});

  if (auto done = give_streams(work); !done) report_and_exit(channel, {"streams", done.error()});
  if (work.job.uid_count() > 0) {
    const auto owner = sandbox::own_next_namespace(agent_on_host(work.job).uid);
    if (!owner) report_and_exit(channel, {"clone3", owner.error()});
  }
  const auto child = sandbox::clone_agent(work.cgroup ? work.cgroup.get() : -1);
  if (!child) report_and_exit(channel, {"clone3", child.error()});
  if (*child > 0) finish_starter(*child, work, channel, std::move(go->second));
  go->second.reset();
  return confine(std::move(work), std::move(channel), std::move(go->first), apply);
}

}  // namespace kai
