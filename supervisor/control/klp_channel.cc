#include "supervisor/control/klp_channel.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace kai {
namespace {

// What may wait for an agent that does not read, by whose it is. Each is less than the next, and all less than the
// stream's own limits, which end the channel: nobody but the agent itself gets it there.
constexpr std::size_t kMaxEventBytes = (1 << 20) + kEnvelopeOverheadBytes;
constexpr std::size_t kMaxEventMessages = 1024;
constexpr std::size_t kMaxRequestBytes = 3 << 20;
constexpr std::size_t kMaxRequestMessages = 2048;
constexpr std::size_t kMaxAnswerBytes = 8 << 20;

// What an agent may call its own failure. Codes that only kaid decides on (DENIED, QUARANTINED, …) are not its to say.
constexpr std::array<std::string_view, 9> kAgentCodes = {"AGENT_ERROR", "INVALID",  "UNKNOWN_CAPABILITY",
                                                         "TOO_LARGE",   "BUSY",     "TIMEOUT",
                                                         "EXPIRED",     "CONFLICT", "QUOTA_EXCEEDED"};

StreamLimits channel_limits() {
  StreamLimits limits;
  limits.queue_bytes = 12U << 20;
  limits.queue_messages = 4096;
  return limits;
}

Failure failure_of(const klp::ErrorBody& error, const std::string& agent) {
  const bool known = std::find(kAgentCodes.begin(), kAgentCodes.end(), error.code()) != kAgentCodes.end();
  return {known ? error.code() : "AGENT_ERROR", error.message(), {}, error.details_json(), error.retryable(), agent};
}

bool is_answer(klp::Type type) {
  return type == klp::RESPONSE || type == klp::ERROR;
}

}  // namespace

klp::Permission to_klp(const Permission& granted) {
  klp::Permission permission;
  permission.set_resource(granted.resource);
  permission.set_scope(granted.scope);
  for (const std::string& action : granted.actions) permission.add_actions(action);
  return permission;
}

KlpChannel::KlpChannel(EventLoop& loop, Fd socket, KlpTerms terms, Handlers handlers, Begin begin)
    : loop_(loop),
      begin_(begin),
      terms_(std::move(terms)),
      handlers_(std::move(handlers)),
      stream_(loop, std::move(socket), channel_limits(),
              {.frame = [this](std::string_view body) { receive(body); },
               .closed =
                   [this](const std::string& why, bool by_peer) {
                     phase_ = Phase::kEnded;
                     handlers_.closed(why, by_peer);
                   },
               .drained = [this] { requests_.pump(); }}),
      requests_(loop, terms_.agent_id, terms_.in_flight,
                {.has_room =
                     [this](std::size_t bytes) {
                       return stream_.queued_messages() < kMaxRequestMessages &&
                              stream_.queued_bytes() + bytes <= kMaxRequestBytes;
                     },
                 .send = [this](const klp::Message& message) { send_message(message); }}),
      hooks_(loop, [this](const klp::Envelope& envelope) { send(envelope); }) {}

void KlpChannel::breach(const std::string& why) {
  phase_ = Phase::kEnded;
  stream_.close();
  handlers_.closed(why, false);
}

void KlpChannel::receive(std::string_view body) {
  klp::Envelope envelope;
  if (!envelope.ParseFromArray(body.data(), static_cast<int>(body.size())))
    return breach("a frame that is no envelope");
  if (!legal_from_host(phase_, envelope.kind_case())) {
    return breach("message kind " + std::to_string(envelope.kind_case()) + " is not allowed in phase " +
                  std::string(to_string(phase_)));
  }
  handle(envelope);
}

void KlpChannel::handle(klp::Envelope& envelope) {
  switch (envelope.kind_case()) {
    case klp::Envelope::kHello:
      return handle_hello(envelope.hello());
    case klp::Envelope::kResume:
      return handle_resume(envelope.resume());
    case klp::Envelope::kRunnerHello:
      return handlers_.runner_hello();
    case klp::Envelope::kStarted:
      if (phase_ == Phase::kAccepted) phase_ = Phase::kServing;
      return handlers_.started();
    case klp::Envelope::kStartFailed:
      phase_ = Phase::kClosing;
      return handlers_.start_failed(envelope.start_failed());
    case klp::Envelope::kMessage:
      return handle_message(envelope.message(), envelope.signature());
    case klp::Envelope::kMemoryRequest:
      return handlers_.memory(std::move(*envelope.mutable_memory_request()));
    case klp::Envelope::kHealthReport:
      return handlers_.health(std::move(*envelope.mutable_health_report()));
    case klp::Envelope::kHookDone:
      return handle_hook_done(std::move(*envelope.mutable_hook_done()));
    case klp::Envelope::kLog:
      return handlers_.log(envelope.log());
    case klp::Envelope::kExit:
      phase_ = Phase::kEnded;
      return handlers_.exit(envelope.exit());
    default:
      return breach("a message that only kaid may send");
  }
}

std::string KlpChannel::take_hello(const klp::Hello& hello) {
  if (hello.agent_id() != terms_.agent_id) return "it says that it is agent '" + hello.agent_id() + "'";
  if (terms_.other && hello.version() == terms_.other->version) terms_.identity = *std::exchange(terms_.other, {});
  if (hello.version() != terms_.identity.version) {
    return "it says version '" + hello.version() + "', registered is '" + terms_.identity.version + "'";
  }
  const auto& known = terms_.identity.capabilities;
  for (const std::string& capability : hello.capabilities()) {
    if (std::find(known.begin(), known.end(), capability) == known.end()) {
      return "it claims the capability '" + capability + "', which its manifest does not have";
    }
  }
  if (hello.runner_protocol() != terms_.runner_protocol) return "it speaks another runner protocol than registered";
  auto signature = MessageSignature::of(terms_.crypto, hello.public_key());
  if (!signature) return signature.error().what;
  check_.emplace(std::move(*signature));
  return {};
}

void KlpChannel::refuse_hello(const std::string& fault) {
  klp::Envelope envelope;
  envelope.mutable_refused()->set_code("DENIED");
  envelope.mutable_refused()->set_reason(fault);
  send(envelope);
  phase_ = Phase::kRefused;
  handlers_.refused(fault);
}

void KlpChannel::handle_resume(const klp::Resume& resume) {
  if (begin_ != Begin::kResume) return breach("it resumes a channel that was not lost");
  std::string fault = take_hello(resume.hello());
  if (fault.empty() && terms_.known_public_key && *terms_.known_public_key != resume.hello().public_key()) {
    fault = "it resumes with another public key than that of its hello";
  }
  if (!fault.empty()) return refuse_hello(fault);
  klp::Envelope envelope;
  envelope.mutable_resumed();
  send(envelope);
  phase_ = phase_after(resume.phase());
  handlers_.resumed(resume);
}

void KlpChannel::handle_hello(const klp::Hello& hello) {
  if (const std::string fault = take_hello(hello); !fault.empty()) return refuse_hello(fault);
  klp::Envelope envelope;
  klp::Accepted& accepted = *envelope.mutable_accepted();
  for (const Permission& granted : terms_.identity.permissions) *accepted.add_permissions() = to_klp(granted);
  accepted.set_max_frame_bytes(kMaxFrameBytes);
  accepted.set_max_in_flight(terms_.in_flight);
  accepted.set_message_deadline_ms(static_cast<std::uint32_t>(terms_.message_deadline.count()));
  accepted.add_services("topics");
  accepted.add_services("memory");
  accepted.set_held(terms_.held);
  send(envelope);
  phase_ = Phase::kAccepted;
  handlers_.accepted();
}

void KlpChannel::call_hook(klp::HookCall call, std::chrono::milliseconds deadline, HookCalls::Done done) {
  if (!legal_from_control(phase_, klp::Envelope::kHookCall)) {
    return done(refuse("NOT_RUNNING", "agent '" + terms_.agent_id + "' is not running"));
  }
  hooks_.call(std::move(call), deadline, std::move(done));
}

void KlpChannel::handle_hook_done(klp::HookDone&& done) {
  const bool commits = hooks_.under_way(done.id()) == klp::HookCall::COMMIT && !done.has_error();
  if (commits && phase_ == Phase::kAccepted) phase_ = Phase::kServing;
  if (!hooks_.answer(std::move(done), terms_.agent_id)) breach("an answer to a hook call that was never made");
}

void KlpChannel::handle_message(const std::string& bytes, const std::string& signature) {
  klp::Message message;
  if (!message.ParseFromString(bytes)) return breach("a message that cannot be read");
  if (const std::string fault = size_fault(message); !fault.empty()) return breach(fault);
  if (!is_answer(message.type()) && message.type() != klp::REQUEST && message.type() != klp::EVENT) {
    return breach("a message without a type");
  }
  message = known_fields(std::move(message));
  message.set_from(terms_.agent_id);
  if (const auto refusal = check_->refusal(message, bytes, signature, unix_ms(), loop_.now_ms())) {
    return reject(message, *refusal);
  }
  if (!is_answer(message.type())) return handlers_.message(std::move(message));
  const std::string request = message.correlation_id();
  if (message.type() == klp::ERROR) {
    requests_.answer(request, tl::unexpected(failure_of(message.error(), terms_.agent_id)));
  } else {
    requests_.answer(request, std::move(message));
  }
}

// Who waits for it is told, whoever that is: the one whose request it answers, or its own sender.
void KlpChannel::reject(const klp::Message& message, const Failure& failure) {
  if (failure.code == "BAD_SIGNATURE" || failure.code == "REPLAY") handlers_.rejected(message, failure);
  Failure told = failure;
  if (is_answer(message.type())) {
    told.message = "the answer of agent '" + terms_.agent_id + "' was not taken: " + failure.message;
    return requests_.answer(message.correlation_id(), tl::unexpected(std::move(told)));
  }
  told.message = "the message was not taken: " + failure.message;
  reply_error(message, told);
}

void KlpChannel::request(klp::Message message, std::chrono::milliseconds deadline, Answer answer) {
  if (phase_ != Phase::kServing) return answer(refuse("NOT_RUNNING", "agent '" + terms_.agent_id + "' is not running"));
  if (message.payload().size() > kMaxFrameBytes) {
    return answer(refuse("TOO_LARGE", "the payload has " + std::to_string(message.payload().size()) +
                                          " bytes, at most " + std::to_string(kMaxFrameBytes) + " are allowed"));
  }
  message.set_protocol(std::string(kKlpProtocol));
  if (message.id().empty()) message.set_id(new_uuid());
  message.set_to(terms_.agent_id);
  message.set_type(klp::REQUEST);
  message.set_timestamp(iso_now());
  requests_.add(std::move(message), deadline, std::move(answer));
}

void KlpChannel::reply(const klp::Message& request, klp::Message response) {
  if (stream_.queued_bytes() + response.payload().size() > kMaxAnswerBytes) {
    return reply_error(request,
                       refuse("BUSY", "the answer found no place: the agent has not read those before").value());
  }
  response.set_protocol(std::string(kKlpProtocol));
  if (response.id().empty()) response.set_id(new_uuid());
  response.set_from(request.to());
  response.set_to(terms_.agent_id);
  response.set_type(klp::RESPONSE);
  response.set_correlation_id(request.id());
  response.set_timestamp(iso_now());
  send_message(response);
}

void KlpChannel::answer_memory(klp::MemoryAnswer answer) {
  klp::Envelope envelope;
  *envelope.mutable_memory_answer() = std::move(answer);
  const klp::MemoryAnswer& said = envelope.memory_answer();
  // That something was written must not be unsaid; it is small, and counts towards the stream's own limit.
  const bool read = said.has_got() || said.has_listed() || (said.has_indexed_db() && !said.indexed_db().has_done());
  const std::size_t bytes = envelope.ByteSizeLong();
  if (read && (stream_.queued_bytes() + bytes > kMaxAnswerBytes || bytes > kMaxFrameBytes + kEnvelopeOverheadBytes)) {
    klp::MemoryError& error = *envelope.mutable_memory_answer()->mutable_error();
    error.set_code("BUSY");
    error.set_message("the answer found no place: the agent has not read those before");
    error.set_retryable(true);
  }
  send(envelope);
}

bool KlpChannel::deliver(klp::Message event) {
  if (stream_.queued_messages() >= kMaxEventMessages ||
      stream_.queued_bytes() + event.payload().size() > kMaxEventBytes) {
    return false;
  }
  event.set_protocol(std::string(kKlpProtocol));
  event.set_type(klp::EVENT);
  event.set_timestamp(iso_now());
  send_message(event);
  return true;
}

void KlpChannel::reply_error(const klp::Message& request, const Failure& failure) {
  klp::Message message;
  message.set_protocol(std::string(kKlpProtocol));
  message.set_id(new_uuid());
  message.set_from(failure.from.empty() ? "kaid" : failure.from);
  message.set_to(terms_.agent_id);
  message.set_type(klp::ERROR);
  message.set_correlation_id(request.id());
  message.set_timestamp(iso_now());
  message.mutable_error()->set_code(failure.code);
  // What another agent said of its failure may be as long as its frame; here it has to fit beside nothing at all.
  constexpr std::size_t kMaxErrorBytes = 256 << 10;
  message.mutable_error()->set_message(std::string(clip_utf8(failure.message, kMaxErrorBytes)));
  if (failure.details_json.size() <= kMaxErrorBytes) message.mutable_error()->set_details_json(failure.details_json);
  message.mutable_error()->set_retryable(failure.retryable);
  send_message(message);
}

void KlpChannel::send_message(const klp::Message& message) {
  klp::Envelope envelope;
  message.SerializeToString(envelope.mutable_message());
  send(envelope);
}

// What the phase does not allow is not sent: the host may have reached its end a moment ago.
void KlpChannel::send(const klp::Envelope& envelope) {
  if (!legal_from_control(phase_, envelope.kind_case())) return;
  stream_.send(envelope.SerializeAsString());
}

void KlpChannel::request_health(std::uint64_t sequence) {
  klp::Envelope envelope;
  envelope.mutable_health_request()->set_sequence(sequence);
  send(envelope);
}

void KlpChannel::stop(std::chrono::milliseconds grace) {
  klp::Envelope envelope;
  envelope.mutable_stop()->set_grace_ms(static_cast<std::uint32_t>(grace.count()));
  send(envelope);
  if (phase_ == Phase::kAccepted || phase_ == Phase::kServing) phase_ = Phase::kClosing;
  requests_.fail_waiting(refuse("NOT_RUNNING", "agent '" + terms_.agent_id + "' is stopping").value());
}

void KlpChannel::signal(int number) {
  klp::Envelope envelope;
  envelope.mutable_signal()->set_number(number);
  send(envelope);
}

}  // namespace kai
