#include "tests/unit/control/fake_keeper.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "base/text.h"
#include "base/unix.h"
#include "proto/frame.h"

namespace kai::test {

FakeHost::FakeHost(EventLoop& loop, std::vector<Fd> given, spec::SandboxSpec described)
    : spec(std::move(described)), loop_(loop) {
  Fd klp = std::move(given.front());
  given.erase(given.begin());
  descriptors = std::move(given);
  stream_ = std::make_unique<FrameStream>(
      loop_, std::move(klp), StreamLimits{},
      FrameStream::Handlers{.frame =
                                [this](std::string_view body) {
                                  klp::Envelope envelope;
                                  envelope.ParseFromArray(body.data(), static_cast<int>(body.size()));
                                  received.push_back(envelope);
                                  script ? script(envelope) : behave(envelope);
                                },
                            .closed = [this](const std::string&, bool) { closed = true; }});
}

void FakeHost::say_hello() {
  klp::Envelope envelope;
  klp::Hello& hello = *envelope.mutable_hello();
  hello.set_agent_id(spec.agent_id());
  hello.set_version(spec.agent_version());
  *hello.mutable_capabilities() = spec.capabilities();
  hello.set_runner_protocol(spec.runner_protocol());
  send(envelope);
}

void FakeHost::send(const klp::Envelope& envelope) {
  stream_->send(envelope.SerializeAsString());
}

void FakeHost::send_raw(std::string_view bytes) {
  // Whatever fits: a hostile host does not care.
  static_cast<void>(::write(stream_->fd(), bytes.data(), bytes.size()));
}

void FakeHost::hang_up() {
  stream_->close();
}

Fd FakeHost::take_socket() {
  Fd socket(fcntl(stream_->fd(), F_DUPFD_CLOEXEC, 0));
  stream_->close();
  return socket;
}

void FakeHost::write_output(int stream, std::string_view text) {
  if (::write(descriptors.at(static_cast<std::size_t>(stream)).get(), text.data(), text.size()) < 0) std::abort();
}

void FakeHost::answer(const klp::Message& request, klp::Message answer) {
  answer.set_protocol("klp/1.0");
  answer.set_id(new_uuid());
  answer.set_from("liar");  // control stamps it
  answer.set_to(request.from());
  answer.set_correlation_id(request.id());
  answer.set_timestamp(iso_now());
  klp::Envelope envelope;
  answer.SerializeToString(envelope.mutable_message());
  send(envelope);
}

void FakeHost::behave(const klp::Envelope& envelope) {
  klp::Envelope out;
  switch (envelope.kind_case()) {
    case klp::Envelope::kAccepted:
      if (spec.runner_protocol()) {
        out.mutable_runner_hello()->set_sdk("fake");
        send(out);
      }
      if (envelope.accepted().held()) return;  // until COMMIT
      out.mutable_started();
      return send(out);
    case klp::Envelope::kMessage: {
      klp::Message request, response;
      request.ParseFromString(envelope.message());
      if (request.type() != klp::REQUEST) return;
      response.set_type(klp::RESPONSE);
      response.set_payload(request.payload());
      return answer(request, response);
    }
    case klp::Envelope::kHealthRequest:
      out.mutable_health_report()->set_sequence(envelope.health_request().sequence());
      out.mutable_health_report()->set_status(klp::HealthReport::HEALTHY);
      out.mutable_health_report()->set_uptime_ms(7);
      return send(out);
    case klp::Envelope::kHookCall:
      if (on_hook) return on_hook(envelope.hook_call());
      out.mutable_hook_done()->set_id(envelope.hook_call().id());
      if (envelope.hook_call().hook() == klp::HookCall::SAVE_STATE) out.mutable_hook_done()->set_state(state);
      if (envelope.hook_call().hook() == klp::HookCall::HEALTH) {
        out.mutable_hook_done()->mutable_health()->set_status(klp::HealthReport::HEALTHY);
      }
      return send(out);
    case klp::Envelope::kSignal:
      out.mutable_exit()->set_signaled(true);
      out.mutable_exit()->set_code(envelope.signal().number());
      send(out);
      return loop_.defer([this] { exit(0); });
    case klp::Envelope::kStop:
      out.mutable_exit()->set_code(0);
      send(out);
      return loop_.defer([this] { exit(0); });
    default:
      return;
  }
}

FakeKeeper::FakeKeeper(EventLoop& loop, Fd socket) : loop_(loop), socket_(std::move(socket)) {
  static_cast<void>(set_nonblocking(socket_.get()));
  poll_ = std::make_unique<Poll>(loop_, socket_.get(), [this](int) { receive(); });
  poll_->watch(UV_READABLE);
}

void FakeKeeper::send(const keeper::Reply& reply, const Fd& descriptor) {
  std::vector<int> fds;
  if (descriptor) fds.push_back(descriptor.get());
  if (!send_packet(socket_.get(), reply.SerializeAsString(), fds)) std::abort();
}

namespace {

Fd memfd_of(const std::vector<std::pair<std::string, std::string>>& files) {
  keeper::Policies texts;
  for (const auto& [name, text] : files) {
    auto& file = *texts.add_files();
    file.set_name(name);
    file.set_text(text);
  }
  return std::move(*sealed_memfd("policies", texts.SerializeAsString()));
}

}  // namespace

void FakeKeeper::limit(std::uint64_t instance, const std::string& limit, std::uint64_t value) {
  keeper::Reply reply;
  reply.mutable_limit()->set_instance(instance);
  reply.mutable_limit()->set_limit(limit);
  reply.mutable_limit()->set_value(value);
  send(reply);
}

void FakeKeeper::file_denied(std::uint64_t instance, const std::string& access, const std::string& path) {
  keeper::Reply reply;
  reply.mutable_file_denied()->set_instance(instance);
  reply.mutable_file_denied()->set_access(access);
  reply.mutable_file_denied()->set_path(path);
  reply.mutable_file_denied()->set_process("sh");
  send(reply);
}

void FakeKeeper::stop_control() {
  keeper::Reply reply;
  reply.mutable_stopping();
  send(reply);
}

void FakeKeeper::reload_control(const std::vector<std::pair<std::string, std::string>>& files,
                                const std::string& error) {
  keeper::Reply reply;
  reply.mutable_reload()->set_error(error);
  send(reply, error.empty() ? memfd_of(files) : Fd());
}

void FakeKeeper::exited(std::uint64_t instance, bool signaled, int code, std::uint32_t oom_kills,
                        std::uint32_t pids_refused) {
  if (hosts.erase(instance) == 0) return;
  keeper::Reply reply;
  reply.mutable_exited()->set_instance(instance);
  reply.mutable_exited()->set_signaled(signaled);
  reply.mutable_exited()->set_code(code);
  reply.mutable_exited()->set_oom_kills(oom_kills);
  reply.mutable_exited()->set_pids_refused(pids_refused);
  send(reply);
}

Fd FakeKeeper::bring_egress(bool again) {
  auto sockets = socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK);
  if (!sockets) std::abort();
  keeper::Reply reply;
  reply.mutable_egress()->set_again(again);
  send(reply, sockets->first);
  return std::move(sockets->second);
}

void FakeKeeper::set_network(std::uint64_t instance, const std::vector<Fd>& descriptors) {
  std::optional<egress::Rules> rules;
  if (!descriptors.empty()) {
    const auto text = read_all(descriptors.front().get(), 4 << 20);
    if (!text || !rules.emplace().ParseFromString(*text)) std::abort();
  }
  networks.emplace_back(instance, std::move(rules));
}

void FakeKeeper::receive() {
  for (;;) {
    auto packet = receive_packet(socket_.get(), 65536);
    if (!packet) return;
    keeper::Request request;
    if (packet->bytes.empty() || !request.ParseFromString(packet->bytes)) {
      poll_->watch(0);
      return;
    }
    keeper::Reply reply;
    reply.set_id(request.id());
    if (request.has_spawn()) {
      spawn(request, std::move(packet->fds));
      continue;
    }
    if (request.has_ready()) ready = true;
    if (request.has_usage()) {
      reply.mutable_usage()->set_known(true);
      reply.mutable_usage()->set_memory_bytes(32 << 20);
      reply.mutable_usage()->set_cpu_us(1000);
    } else if (request.has_describe()) {
      described.push_back(request.describe().pid());
      reply.mutable_process()->set_name("probe\x1b[2J");
      reply.mutable_process()->set_pid(7);
    } else if (request.has_probe_service() && !services.contains(request.probe_service().address())) {
      reply.mutable_failed()->set_step("service");
      reply.mutable_failed()->set_errno_value(ECONNREFUSED);
      reply.mutable_failed()->set_detail("connect " + request.probe_service().address());
    } else if (request.has_connect_redis()) {
      reply.mutable_failed()->set_step("redis");
      reply.mutable_failed()->set_errno_value(ENOENT);
      reply.mutable_failed()->set_detail("connect");
    } else if (request.has_freeze() && !freeze_error.empty()) {
      reply.mutable_failed()->set_step("cgroup");
      reply.mutable_failed()->set_detail(freeze_error);
    } else if (request.has_evidence()) {
      reply.mutable_evidence()->set_processes(1);
      send(reply, std::move(*sealed_memfd("evidence", "pid 4711 stands still\n")));
      continue;
    } else if (request.has_read_policies()) {
      reply.mutable_reload()->set_error(policies_error);
      send(reply, policies_error.empty() ? memfd_of(policies) : Fd());
      continue;
    } else {
      if (request.has_freeze()) frozen.push_back(request.freeze().instance());
      if (request.has_set_network()) set_network(request.set_network().instance(), packet->fds);
      if (request.has_drop_data()) dropped.push_back(request.drop_data().agent_id());
      reply.mutable_done();
    }
    send(reply);
    if (request.has_kill()) {
      killed.push_back(request.kill().instance());
      exited(request.kill().instance(), true, SIGKILL);
    }
  }
}

FakeHost& FakeKeeper::stand_in(std::uint64_t instance, std::vector<Fd> descriptors, const std::string& agent) {
  spec::SandboxSpec spec;
  spec.set_agent_id(agent);
  spec.set_runner_protocol(true);
  auto host = std::make_unique<FakeHost>(loop_, std::move(descriptors), std::move(spec));
  host->exit = [this, instance](int code) { exited(instance, false, code); };
  return *hosts.emplace(instance, std::move(host)).first->second;
}

void FakeKeeper::spawn(const keeper::Request& request, std::vector<Fd> descriptors) {
  ++spawned;
  keeper::Reply reply;
  reply.set_id(request.id());
  if (!fail_step.empty()) {
    reply.mutable_failed()->set_step(fail_step);
    reply.mutable_failed()->set_errno_value(EPERM);
    reply.mutable_failed()->set_detail("in a test");
    return send(reply);
  }
  spec::SandboxSpec spec;
  const auto text = read_all(descriptors.at(4).get(), 4 << 20);
  if (!text || !spec.ParseFromString(*text) || lseek(descriptors.at(4).get(), 0, SEEK_SET) != 0) std::abort();
  descriptors.erase(descriptors.begin() + 4);
  // The reading ends of its output, which a keeper keeps until the instance ends.
  if (!request.spawn().ephemeral()) descriptors.erase(descriptors.begin() + 4, descriptors.begin() + 6);
  const std::uint64_t instance = request.spawn().instance();
  auto host = std::make_unique<FakeHost>(loop_, std::move(descriptors), std::move(spec));
  host->exit = [this, instance](int code) { exited(instance, false, code); };
  FakeHost& up = *hosts.emplace(instance, std::move(host)).first->second;
  reply.mutable_spawned()->set_pid(4711);
  reply.mutable_spawned()->set_setup_us(900);
  send(reply, std::exchange(listener, Fd()));
  if (on_spawn) {
    on_spawn(up);
  } else {
    up.say_hello();
  }
}

}  // namespace kai::test
