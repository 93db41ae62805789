#include "supervisor/control/instance.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/unix.h"
#include "policies/network_rules.h"

namespace kai {
namespace {

// After its grace agent-host kills the runner itself; this much later the keeper kills the tree.
constexpr std::chrono::milliseconds kStopSlack{1'000};
// From the end of the channel, or the host's last word, to the end of its process.
constexpr std::chrono::milliseconds kLinger{5'000};
// More than the keeper sends (supervisor/keeper/evidence.h).
constexpr std::size_t kMaxEvidenceBytes = 4 << 20;

std::string seconds(std::chrono::milliseconds time) {
  const auto ms = time.count();
  return ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms";
}

}  // namespace

Result<PreparedSandbox> prepare_sandbox(const Compiled& compiled, PolicyRef policy) {
  const spec::SandboxSpec& spec = compiled.spec;
  PreparedSandbox prepared;
  auto memfd = sealed_memfd("kai-spec", spec.SerializeAsString());
  if (!memfd) return tl::unexpected(memfd.error());
  prepared.spec = std::move(*memfd);
  prepared.terms.agent_id = spec.agent_id();
  prepared.terms.identity = {
      spec.agent_version(), {spec.capabilities().begin(), spec.capabilities().end()}, compiled.permissions};
  prepared.terms.runner_protocol = spec.runner_protocol();
  prepared.terms.in_flight = policy->limits.in_flight;
  prepared.terms.message_deadline = policy->deadlines.message;
  prepared.terms.crypto = crypto_named(spec.crypto());
  prepared.deadlines = policy->deadlines;
  prepared.memory_limit_mb = spec.cgroup().memory_bytes() >> 20;
  prepared.process_limit = spec.cgroup().pids();
  prepared.network = spec.has_network();
  if (spec.has_network()) prepared.network_ports = network_ports(spec.network());
  prepared.profile = spec.profile();
  prepared.grants = compiled.grants;
  prepared.policy = std::move(policy);
  return prepared;
}

void log_layers(Log& log, const std::string& agent, const Instance& instance) {
  for (const std::string& layer : instance.degraded()) {
    log.write(LogLevel::kWarn, agent, "kai.degraded",
              "it runs without a layer that this machine cannot give, as its policy allows; see 'kaictl doctor'",
              {{"layer", layer}, {"rule", instance.policy()->rule("degrade")}});
  }
  for (const std::string& grant : instance.grants()) {
    log.write(LogLevel::kWarn, agent, "kai.granted", "it uses a power that its policy grants beyond the sandbox",
              {{"grant", grant}, {"rule", instance.policy()->rule("grants")}});
  }
}

Instance::Instance(EventLoop& loop, KeeperClient& keeper, const PreparedSandbox& sandbox, DenialLog& denials,
                   Handlers handlers)
    : loop_(loop),
      keeper_(keeper),
      denials_(denials),
      handlers_(std::move(handlers)),
      deadlines_(sandbox.deadlines),
      profile_(sandbox.profile),
      grants_(sandbox.grants),
      permissions_(sandbox.terms.identity.permissions),
      policy_(sandbox.policy),
      runner_protocol_(sandbox.terms.runner_protocol),
      network_(sandbox.network),
      network_ports_(sandbox.network_ports),
      hello_timer_(loop),
      start_timer_(loop),
      kill_timer_(loop) {
  facts_.memory_limit_mb = sandbox.memory_limit_mb;
  facts_.process_limit = sandbox.process_limit;
  denials_.use(policy_);
}

KeeperClient::InstanceEvents Instance::events() {
  return {
      .exited = [this](const keeper::AgentExited& exited) { on_exited(exited); },
      .limit = [this](const keeper::LimitHit& hit) { on_limit(hit); },
      .file_denied = [this](const keeper::FileDenied& denied) { on_file_denied(denied); },
      .network = [this](const egress::Event& event) { on_network(event); },
  };
}

Instance::Instance(EventLoop& loop, KeeperClient& keeper, const PreparedSandbox& sandbox, std::uint32_t uid_slot,
                   std::vector<Fd> descriptors, DenialLog& denials, Handlers handlers, Lasts lasts, Begin begin)
    : Instance(loop, keeper, sandbox, denials, std::move(handlers)) {
  begin_ = begin;
  number_ = keeper_.new_instance(events());
  const auto asked = spawn(sandbox, uid_slot, std::move(descriptors), lasts);
  if (asked) return;
  keeper::Reply reply;
  reply.mutable_failed()->set_step("request");
  reply.mutable_failed()->set_errno_value(asked.error().error_number);
  reply.mutable_failed()->set_detail(asked.error().what);
  loop_.defer([this, alive = alive_, reply] {
    if (*alive) on_spawn_answer(reply, {});
  });
}

Instance::Instance(EventLoop& loop, KeeperClient& keeper, const PreparedSandbox& sandbox,
                   KeeperClient::Adoption adoption, std::optional<std::string> key, std::optional<KlpIdentity> other,
                   DenialLog& denials, Handlers handlers)
    : Instance(loop, keeper, sandbox, denials, std::move(handlers)) {
  const keeper::Adoptable& found = adoption.instance;
  number_ = found.instance();
  keeper_.adopt(number_, events());
  pid_ = found.pid();
  setup_us_ = found.setup_us();
  degraded_.assign(found.degraded().begin(), found.degraded().end());
  spawned_ = accepted_ = activated_ = true;
  isolated_ = found.frozen();
  if (found.listener() && adoption.descriptors.size() > 1) {
    syscalls_ =
        std::make_unique<SyscallWatch>(loop_, keeper_, number_, profile_, std::move(adoption.descriptors[1]), denials_);
  }
  if (adoption.descriptors.empty()) {  // without a channel it is of no use
    kill_tree();
    return;
  }
  KlpTerms terms = sandbox.terms;
  terms.known_public_key = std::move(key);
  terms.other = std::move(other);
  channel_ = std::make_unique<KlpChannel>(loop_, std::move(adoption.descriptors[0]), std::move(terms),
                                          channel_handlers(), KlpChannel::Begin::kResume);
  if (!isolated_) arm_hello_deadline();
}

Instance::~Instance() {
  *alive_ = false;
  keeper_.forget(number_);
}

Result<> Instance::spawn(const PreparedSandbox& sandbox, std::uint32_t uid_slot, std::vector<Fd> descriptors,
                         Lasts lasts) {
  auto sockets = socket_pair(SOCK_STREAM);
  if (!sockets) return tl::unexpected(sockets.error());
  Fd spec(fcntl(sandbox.spec.get(), F_DUPFD_CLOEXEC, 0));
  if (!spec) return errno_failure("dup");
  KlpTerms terms = sandbox.terms;
  terms.held = begin_ == Begin::kHeld;
  channel_ = std::make_unique<KlpChannel>(loop_, std::move(sockets->first), std::move(terms), channel_handlers());

  // In the order of proto/keeper.proto: KLP socket, standard streams, spec, what the keeper keeps, mounts.
  descriptors.insert(descriptors.begin(), std::move(sockets->second));
  descriptors.insert(descriptors.begin() + 4, std::move(spec));
  keeper::Request request;
  request.mutable_spawn()->set_instance(number_);
  request.mutable_spawn()->set_uid_slot(uid_slot);
  request.mutable_spawn()->set_ephemeral(lasts == Lasts::kEndsWithControl);
  keeper_.request(std::move(request), std::move(descriptors),
                  [this, alive = alive_](const keeper::Reply& reply, std::vector<Fd> received) {
                    if (*alive) on_spawn_answer(reply, std::move(received));
                  });
  arm_hello_deadline();
  if (begin_ == Begin::kHeld) return {};
  start_timer_.start(deadlines_.start, [this] {
    facts_.hung = "it was not started " + seconds(deadlines_.start) +
                  " after its start was asked for (deadlines.start): onInit or onStart did not return";
    kill_tree();
  });
  return {};
}

void Instance::on_memory(klp::MemoryRequest&& request) {
  if (isolated_) return;
  if (handlers_.memory) return handlers_.memory(std::move(request));
  klp::MemoryAnswer answer;
  answer.set_id(request.id());
  answer.mutable_error()->set_code("UNAVAILABLE");
  answer.mutable_error()->set_message("a program under 'kaictl run' has no memory: register it as an agent");
  channel_->answer_memory(std::move(answer));
}

KlpChannel::Handlers Instance::channel_handlers() {
  return {
      .accepted = [this] { on_accepted(); },
      .refused =
          [this](const std::string& why) {
            facts_.refused = why;
            kill_tree();
          },
      .resumed = [this](const klp::Resume& resume) { on_resumed(resume); },
      .runner_hello = [this] { hello_timer_.stop(); },
      .started =
          [this] {
            started_word_ = true;
            check_progress();
          },
      .start_failed =
          [this](const klp::StartFailed& failed) {
            facts_.start_failed = failed;
            hello_timer_.stop();
            start_timer_.stop();
            if (!isolated_) kill_timer_.start(kLinger, [this] { kill_tree(); });
          },
      .message =
          [this](klp::Message&& message) {
            if (!isolated_) handlers_.message(std::move(message));
          },
      .memory = [this](klp::MemoryRequest&& request) { on_memory(std::move(request)); },
      .log = [this](const klp::AgentLog& log) { handlers_.log(log); },
      .health = [this](klp::HealthReport&& report) { handlers_.health(std::move(report)); },
      .exit =
          [this](const klp::Exit& exit) {
            facts_.runner = exit;
            // A program that ends at once was exec'd all the same, and that is all its start promises.
            if (!runner_protocol_) started_word_ = true;
            check_progress();
            hello_timer_.stop();
            start_timer_.stop();
            if (!isolated_) kill_timer_.start(kLinger, [this] { kill_tree(); });
          },
      .closed = [this](const std::string& why, bool by_peer) { on_channel_closed(why, by_peer); },
      .rejected = [this](const klp::Message& message, const Failure& failure) { on_rejected(message, failure); },
  };
}

void Instance::arm_hello_deadline() {
  hello_timer_.start(deadlines_.hello, [this] {
    facts_.hello_timeout = (accepted_ ? "its program said no hello on the runner protocol within "
                                      : "its agent-host said no hello within ") +
                           seconds(deadlines_.hello) + " (deadlines.hello)";
    kill_tree();
  });
}

void Instance::on_resumed(const klp::Resume& resume) {
  if (isolated_) return;
  if (resume.runner_spoke() || !runner_protocol_ || resume.phase() != klp::Resume::STARTING) hello_timer_.stop();
  if (resume.phase() == klp::Resume::STARTING) {
    start_timer_.start(deadlines_.start, [this] {
      facts_.hung = "it was not started " + seconds(deadlines_.start) + " after kaid's control was started again";
      kill_tree();
    });
  } else {
    started_ = started_word_ = true;
  }
  if (resume.phase() == klp::Resume::STOPPING) {
    facts_.stop_requested = true;
    kill_timer_.start(deadlines_.stop + kStopSlack, [this] { kill_tree(); });
  }
  permissions_ = channel_->permissions();
  handlers_.resumed(resume);
}

void Instance::on_accepted() {
  accepted_ = true;
  if (!runner_protocol_) hello_timer_.stop();
  check_progress();
}

// The keeper's answer and the host's words come by two ways: their order says nothing.
void Instance::check_progress() {
  if (over_ || isolated_ || facts_.stop_requested) return;
  if (spawned_ && accepted_ && !activated_) {
    activated_ = true;
    handlers_.activated();
  }
  if (activated_ && started_word_ && !started_) {
    started_ = true;
    hello_timer_.stop();
    start_timer_.stop();
    handlers_.started();
  }
}

void Instance::on_spawn_answer(const keeper::Reply& reply, std::vector<Fd> descriptors) {
  if (reply.has_failed()) {
    facts_.setup = reply.failed();
    return finish();
  }
  spawned_ = true;
  pid_ = reply.spawned().pid();
  setup_us_ = reply.spawned().setup_us();
  degraded_.assign(reply.spawned().degraded().begin(), reply.spawned().degraded().end());
  if (!descriptors.empty()) {
    syscalls_ =
        std::make_unique<SyscallWatch>(loop_, keeper_, number_, profile_, std::move(descriptors.front()), denials_);
  }
  if (kill_wanted_) return kill_tree();
  check_progress();
}

void Instance::on_limit(const keeper::LimitHit& hit) {
  Denial denial = limit_denial(hit, *policy_);
  const bool of_disk = hit.limit() == "disk" || hit.limit() == "inodes";
  if (of_disk && std::find(degraded_.begin(), degraded_.end(), "disk") != degraded_.end()) {
    denial.reason = "this machine can only measure private data (degraded: disk), so it is killed";
    facts_.over_limit = "its private data went over " + denial.detail + ", which this machine can only measure";
  }
  denials_.write(denial);
}

void Instance::on_file_denied(const keeper::FileDenied& denied) {
  Denial denial;
  denial.kind = Denial::Kind::kFile;
  denial.what = denied.path().empty() ? denied.access() : denied.path();
  denial.detail = denied.access() + (denied.path().empty() ? "" : " " + denied.path());
  denial.reason = "Landlock allows it nothing there";
  denial.rule = "landlock";
  denial.error = "EACCES";
  denial.process = denied.process();
  denial.pid = denied.pid();
  denial.more = denied.dropped();
  denials_.write(denial);
}

void Instance::on_network(const egress::Event& event) {
  const bool denied = event.has_refused() && event.refused().kind() != egress::Refused::FAILED;
  denied ? denials_.write(network_denial(event.refused())) : handlers_.network(event);
}

void Instance::set_network(const egress::Rules* rules) {
  if (!network_ || over_) return;
  keeper::Request request;
  request.mutable_set_network()->set_instance(number_);
  std::vector<Fd> descriptors;
  if (rules != nullptr) {
    auto memfd = sealed_memfd("kai-rules", rules->SerializeAsString());
    if (memfd) descriptors.push_back(std::move(*memfd));  // else nothing is allowed: it fails closed
  }
  keeper_.request(std::move(request), std::move(descriptors),
                  [this, alive = alive_](const keeper::Reply& reply, const std::vector<Fd>&) {
                    if (*alive && reply.has_failed()) handlers_.network_refused(reply.failed().detail());
                  });
}

void Instance::on_rejected(const klp::Message& message, const Failure& failure) {
  Denial denial;
  denial.kind = Denial::Kind::kMessage;
  denial.what = message.to();
  denial.detail = "message " + message.id() + " to " + message.to();
  denial.reason = failure.message;
  denial.rule = "klp";
  denial.error = failure.code;
  denials_.write(denial);
}

void Instance::on_channel_closed(const std::string& why, bool by_peer) {
  if (over_ || isolated_) return;
  if (!by_peer) {
    facts_.broken = why;
    return kill_tree();
  }
  // Its process is about to end, and the keeper to say so. One that lives on without its channel is of no use.
  if (!facts_.runner) kill_timer_.start(kLinger, [this] { kill_tree(); });
}

void Instance::on_exited(const keeper::AgentExited& exited) {
  // What the host said last may still be in the socket.
  if (channel_) channel_->drain();
  facts_.tree = exited;
  finish();
}

void Instance::finish() {
  over_ = true;
  syscalls_.reset();
  hello_timer_.stop();
  start_timer_.stop();
  kill_timer_.stop();
  const auto ended = std::move(handlers_.ended);
  ended(classify(facts_));
}

void Instance::stop(std::chrono::milliseconds grace) {
  if (over_ || facts_.stop_requested) return;
  facts_.stop_requested = true;
  hello_timer_.stop();
  start_timer_.stop();
  if (!accepted_) return kill_tree();
  channel_->stop(grace);
  kill_timer_.start(grace + kStopSlack, [this] { kill_tree(); });
}

void Instance::kill() {
  facts_.stop_requested = true;
  kill_tree();
}

void Instance::fail(Cause cause, const std::string& why) {
  (cause == Cause::kHung ? facts_.hung : facts_.unhealthy) = why;
  kill_tree();
}

void Instance::call_hook(klp::HookCall call, std::chrono::milliseconds deadline, HookCalls::Done done) {
  if (over_ || isolated_ || channel_ == nullptr) {
    return done(refuse("NOT_RUNNING", "its process has ended"));
  }
  channel_->call_hook(std::move(call), deadline, std::move(done));
}

void Instance::fail_start(const std::string& step, const std::string& message) {
  klp::StartFailed failed;
  failed.set_step(step);
  failed.set_message(message);
  facts_.start_failed = std::move(failed);
  kill_tree();
}

void Instance::committed(const PreparedSandbox& sandbox) {
  started_ = started_word_ = true;
  begin_ = Begin::kBySelf;
  permissions_ = sandbox.terms.identity.permissions;
  policy_ = sandbox.policy;
  if (channel_) channel_->use_identity(sandbox.terms.identity);
}

void Instance::isolate(Isolated done) {
  hello_timer_.stop();
  start_timer_.stop();
  kill_timer_.stop();
  isolated_ = true;
  set_network(nullptr);
  if (!spawned_) return done(false, {}, "its sandbox was not up yet");
  keeper::Request request;
  request.mutable_freeze()->set_instance(number_);
  request.mutable_freeze()->set_frozen(true);
  keeper_.request(std::move(request), {},
                  [this, alive = alive_, done](const keeper::Reply& reply, const std::vector<Fd>&) {
                    if (!*alive) return;
                    frozen_ = !reply.has_failed();
                    collect_evidence(done);
                  });
}

// Of one that could not be frozen too: it is about to be ended.
void Instance::collect_evidence(const Isolated& done) {
  keeper::Request request;
  request.mutable_evidence()->set_instance(number_);
  keeper_.request(std::move(request), {},
                  [this, alive = alive_, done](const keeper::Reply& reply, const std::vector<Fd>& descriptors) {
                    if (!*alive) return;
                    if (reply.has_failed() || descriptors.empty()) {
                      return done(frozen_, {}, reply.has_failed() ? reply.failed().detail() : "no text came");
                    }
                    const auto text = read_all(descriptors.front().get(), kMaxEvidenceBytes);
                    done(frozen_, text.value_or(""), text ? "" : text.error().message());
                  });
}

void Instance::kill_tree() {
  hello_timer_.stop();
  start_timer_.stop();
  kill_timer_.stop();
  kill_wanted_ = true;
  if (!spawned_ || over_) return;
  keeper_.kill(number_);
}

void Instance::signal(int number) {
  if (channel_) channel_->signal(number);
}

void Instance::usage(std::function<void(const keeper::UsageResult&)> answer) {
  keeper::Request request;
  request.mutable_usage()->set_instance(number_);
  keeper_.request(
      std::move(request), {},
      [answer = std::move(answer)](const keeper::Reply& reply, const std::vector<Fd>&) { answer(reply.usage()); });
}

}  // namespace kai
