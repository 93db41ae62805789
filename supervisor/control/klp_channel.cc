#include "supervisor/control/klp_channel.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::string_view kProtocol = "klp/1.0";
// Text beside the payload; all of it has to fit into kEnvelopeOverheadBytes.
constexpr std::size_t kMaxNameBytes = 256;

// What an agent may call its own failure. Codes that only kaid decides on (DENIED, QUARANTINED, …) are not its to say.
constexpr std::array<std::string_view, 9> kAgentCodes = {"AGENT_ERROR", "INVALID",  "UNKNOWN_CAPABILITY",
                                                         "TOO_LARGE",   "BUSY",     "TIMEOUT",
                                                         "EXPIRED",     "CONFLICT", "QUOTA_EXCEEDED"};

StreamLimits channel_limits() {
  StreamLimits limits;
  // Requests in flight are bounded by number; two of the largest size may wait while the agent reads.
  limits.queue_bytes = 4U << 20;
  limits.queue_messages = 4096;
  return limits;
}

Failure failure_of(const klp::ErrorBody& error) {
  const bool known = std::find(kAgentCodes.begin(), kAgentCodes.end(), error.code()) != kAgentCodes.end();
  return {known ? error.code() : "AGENT_ERROR", error.message(), {}, error.details_json(), error.retryable()};
}

}  // namespace

KlpChannel::KlpChannel(EventLoop& loop, Fd socket, KlpTerms terms, Handlers handlers)
    : loop_(loop),
      terms_(std::move(terms)),
      handlers_(std::move(handlers)),
      deadline_timer_(loop),
      stream_(loop, std::move(socket), channel_limits(),
              {.frame = [this](std::string_view body) { receive(body); },
               .closed =
                   [this](const std::string& why, bool by_peer) {
                     phase_ = Phase::kEnded;
                     handlers_.closed(why, by_peer);
                   }}) {}

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
    case klp::Envelope::kRunnerHello:
      return handlers_.runner_hello();
    case klp::Envelope::kStarted:
      if (phase_ == Phase::kAccepted) phase_ = Phase::kServing;
      return handlers_.started();
    case klp::Envelope::kStartFailed:
      phase_ = Phase::kClosing;
      return handlers_.start_failed(envelope.start_failed());
    case klp::Envelope::kMessage:
      return handle_message(envelope.message());
    case klp::Envelope::kHealthReport:
      return handlers_.health(std::move(*envelope.mutable_health_report()));
    case klp::Envelope::kLog:
      return handlers_.log(envelope.log());
    case klp::Envelope::kExit:
      phase_ = Phase::kEnded;
      return handlers_.exit(envelope.exit());
    default:
      return breach("a message that only kaid may send");
  }
}

std::string KlpChannel::fault_of(const klp::Hello& hello) const {
  if (hello.agent_id() != terms_.agent_id) return "it says that it is agent '" + hello.agent_id() + "'";
  if (hello.version() != terms_.version) {
    return "it says version '" + hello.version() + "', registered is '" + terms_.version + "'";
  }
  for (const std::string& capability : hello.capabilities()) {
    if (std::find(terms_.capabilities.begin(), terms_.capabilities.end(), capability) == terms_.capabilities.end()) {
      return "it claims the capability '" + capability + "', which its manifest does not have";
    }
  }
  if (hello.runner_protocol() != terms_.runner_protocol) return "it speaks another runner protocol than registered";
  return {};
}

void KlpChannel::handle_hello(const klp::Hello& hello) {
  klp::Envelope envelope;
  if (const std::string fault = fault_of(hello); !fault.empty()) {
    envelope.mutable_refused()->set_code("DENIED");
    envelope.mutable_refused()->set_reason(fault);
    send(envelope);
    phase_ = Phase::kRefused;
    return handlers_.refused(fault);
  }
  klp::Accepted& accepted = *envelope.mutable_accepted();
  for (const Permission& granted : terms_.permissions) {
    klp::Permission& permission = *accepted.add_permissions();
    permission.set_resource(granted.resource);
    permission.set_scope(granted.scope);
    for (const std::string& action : granted.actions) permission.add_actions(action);
  }
  accepted.set_max_frame_bytes(kMaxFrameBytes);
  accepted.set_max_in_flight(terms_.in_flight);
  accepted.set_message_deadline_ms(static_cast<std::uint32_t>(terms_.message_deadline.count()));
  send(envelope);
  phase_ = Phase::kAccepted;
  handlers_.accepted();
}

void KlpChannel::handle_message(const std::string& bytes) {
  klp::Message message;
  if (!message.ParseFromString(bytes)) return breach("a message that cannot be read");
  if (message.payload().size() > kMaxFrameBytes) return breach("a payload over the limit");
  for (const std::string* text : {&message.id(), &message.to(), &message.correlation_id(), &message.capability(),
                                  &message.timestamp(), &message.content_type(), &message.protocol()}) {
    if (text->size() > kMaxNameBytes) return breach("a message field over 256 bytes");
  }
  message.set_from(terms_.agent_id);
  switch (message.type()) {
    case klp::RESPONSE:
    case klp::ERROR:
      return handle_answer(std::move(message));
    case klp::REQUEST:
    case klp::EVENT:
      return handlers_.message(std::move(message));
    default:
      return breach("a message without a type");
  }
}

void KlpChannel::handle_answer(klp::Message&& message) {
  const auto found = waiting_.find(message.correlation_id());
  if (found == waiting_.end()) return;  // too late: its sender has its TIMEOUT already
  const Answer answer = std::move(found->second.answer);
  waiting_.erase(found);
  if (message.type() == klp::ERROR) {
    answer(tl::unexpected(failure_of(message.error())));
  } else {
    answer(std::move(message));
  }
}

void KlpChannel::request(klp::Message message, std::chrono::milliseconds deadline, Answer answer) {
  if (phase_ != Phase::kServing) return answer(refuse("NOT_RUNNING", "agent '" + terms_.agent_id + "' is not running"));
  if (message.payload().size() > kMaxFrameBytes) {
    return answer(refuse("TOO_LARGE", "the payload has " + std::to_string(message.payload().size()) +
                                          " bytes, at most " + std::to_string(kMaxFrameBytes) + " are allowed"));
  }
  if (waiting_.size() >= terms_.in_flight) {
    return answer(refuse(
        "BUSY",
        "agent '" + terms_.agent_id + "' has " + std::to_string(waiting_.size()) + " requests in flight, its limit",
        "Try again when it has answered some"));
  }
  message.set_protocol(std::string(kProtocol));
  if (message.id().empty()) message.set_id(new_uuid());
  message.set_to(terms_.agent_id);
  message.set_type(klp::REQUEST);
  message.set_timestamp(iso_now());
  message.set_deadline_ms(static_cast<std::uint32_t>(deadline.count()));
  const std::int64_t deadline_at = loop_.now_ms() + deadline.count();
  waiting_.emplace(message.id(), Waiting{deadline_at, std::move(answer)});
  arm_deadline(deadline_at);
  send_message(message);
}

void KlpChannel::arm_deadline(std::int64_t deadline) {
  if (armed_for_ != 0 && armed_for_ <= deadline) return;
  armed_for_ = deadline;
  deadline_timer_.start(std::chrono::milliseconds(deadline - loop_.now_ms()), [this] { expire(); });
}

void KlpChannel::expire() {
  // The request that the timer was set for may be answered long since: it is not moved for each answer.
  armed_for_ = 0;
  std::vector<Answer> expired;
  for (auto entry = waiting_.begin(); entry != waiting_.end();) {
    if (entry->second.deadline <= loop_.now_ms()) {
      expired.push_back(std::move(entry->second.answer));
      entry = waiting_.erase(entry);
    } else {
      arm_deadline((entry++)->second.deadline);
    }
  }
  for (const Answer& answer : expired) {
    answer(refuse("TIMEOUT", "agent '" + terms_.agent_id + "' did not answer in time",
                  "Give it longer with --timeout, or see what it does with 'kaictl logs " + terms_.agent_id + "'"));
  }
}

void KlpChannel::fail_all(const Failure& failure) {
  deadline_timer_.stop();
  armed_for_ = 0;
  for (const auto& [id, entry] : std::exchange(waiting_, {})) entry.answer(tl::unexpected(failure));
}

void KlpChannel::reply(const klp::Message& request, klp::Message response) {
  response.set_protocol(std::string(kProtocol));
  response.set_id(new_uuid());
  response.set_from(request.to());
  response.set_to(terms_.agent_id);
  response.set_type(klp::RESPONSE);
  response.set_correlation_id(request.id());
  response.set_timestamp(iso_now());
  send_message(response);
}

void KlpChannel::deliver(klp::Message event) {
  event.set_protocol(std::string(kProtocol));
  event.set_type(klp::EVENT);
  send_message(event);
}

void KlpChannel::reply_error(const klp::Message& request, const Failure& failure) {
  klp::Message message;
  message.set_protocol(std::string(kProtocol));
  message.set_id(new_uuid());
  message.set_from("kaid");
  message.set_to(terms_.agent_id);
  message.set_type(klp::ERROR);
  message.set_correlation_id(request.id());
  message.set_timestamp(iso_now());
  message.mutable_error()->set_code(failure.code);
  message.mutable_error()->set_message(failure.message);
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
}

void KlpChannel::signal(int number) {
  klp::Envelope envelope;
  envelope.mutable_signal()->set_number(number);
  send(envelope);
}

}  // namespace kai
