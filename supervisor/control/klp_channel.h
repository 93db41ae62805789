// One agent's KLP channel, control's side: who speaks is checked at hello, what it says is checked against the phase
// (proto/phase.h) and as a message (message_check.h), answers find their requests (pending_requests.h).
//
// What control holds for an agent that reads slowly is bounded, and the bounds are the agent's alone: requests wait,
// events are lost, answers become a BUSY. Only one that asks on and on without reading is ended.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "policies/manifest.h"
#include "proto/phase.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/hook_calls.h"
#include "supervisor/control/message_check.h"
#include "supervisor/control/pending_requests.h"
#include "supervisor/control/stream.h"

namespace kai {

/// What depends on the agent's version.
struct KlpIdentity {
  std::string version;
  std::vector<std::string> capabilities;  ///< of the registered manifest; the hello may name fewer, never others
  std::vector<Permission> permissions;    ///< granted
};

/// What the hello has to say, and what the host is told in return.
struct KlpTerms {
  std::string agent_id;
  KlpIdentity identity;
  /// Of a host that resumes: the other version that it may have come to in an upgrade that nobody saw the end of.
  std::optional<KlpIdentity> other;
  bool runner_protocol = false;
  bool held = false;  ///< it waits for hook calls (proto/klp.proto)
  std::uint32_t in_flight = 64;
  std::chrono::milliseconds message_deadline{30'000};
  Crypto crypto = Crypto::kNone;                ///< what its messages are signed with
  std::optional<std::string> known_public_key;  ///< of the hello of a host that resumes; absent: not known
};

klp::Permission to_klp(const Permission& granted);

class KlpChannel {
 public:
  using Answer = PendingRequests::Answer;
  /// None of them may destroy the channel.
  struct Handlers {
    std::function<void()> accepted;
    std::function<void(const std::string& why)> refused;  ///< the hello lied; the channel is closing
    std::function<void(const klp::Resume&)> resumed;      ///< of an adopted one, in the place of accepted
    std::function<void()> runner_hello;
    std::function<void()> started;
    std::function<void(const klp::StartFailed&)> start_failed;
    std::function<void(klp::Message&&)> message;       ///< a request or event of the agent's, `from` stamped
    std::function<void(klp::MemoryRequest&&)> memory;  ///< each is answered by answer_memory
    std::function<void(const klp::AgentLog&)> log;
    std::function<void(klp::HealthReport&&)> health;
    std::function<void(const klp::Exit&)> exit;
    std::function<void(const std::string& why, bool by_peer)> closed;  ///< by_peer: it went; else it broke a rule
    /// A message of the agent's was not taken, BAD_SIGNATURE or REPLAY: its sender has been told, the operator has not.
    std::function<void(const klp::Message&, const Failure&)> rejected = [](const klp::Message&, const Failure&) {};
  };

  /// kResume: the host's first word is Resume, or a hello that nobody had answered.
  enum class Begin { kHello, kResume };

  KlpChannel(EventLoop& loop, Fd socket, KlpTerms terms, Handlers handlers, Begin begin = Begin::kHello);

  /// A request to the agent: `from`, `capability`, `payload`, `content_type` and `metadata` are the sender's, an id is
  /// made where there is none, the rest is set here. `answer` is called once: with the response, with the agent's
  /// error, or with TIMEOUT, BUSY, TOO_LARGE, EXPIRED, INVALID, REPLAY, BAD_SIGNATURE, NOT_RUNNING.
  void request(klp::Message message, std::chrono::milliseconds deadline, Answer answer);
  /// The answer to a request of the agent's: `response` has payload, content type and metadata.
  void reply(const klp::Message& request, klp::Message response);
  void reply_error(const klp::Message& request, const Failure& failure);
  /// The answer to a request of its memory.
  void answer_memory(klp::MemoryAnswer answer);
  /// An event of a topic, with `from` and `to` as its publisher had them. Nobody answers it. false: it is lost, as the
  /// agent has not read those before it.
  [[nodiscard]] bool deliver(klp::Message event);

  /// One of its hooks (hook_calls.h). Not in a phase for it: NOT_RUNNING, at once.
  void call_hook(klp::HookCall call, std::chrono::milliseconds deadline, HookCalls::Done done);
  /// Another version serves behind the same channel.
  void use_identity(KlpIdentity identity) { terms_.identity = std::move(identity); }
  [[nodiscard]] const std::vector<Permission>& permissions() const { return terms_.identity.permissions; }
  /// The version that its hello said.
  [[nodiscard]] const std::string& version() const { return terms_.identity.version; }

  /// The requests that it was not sent yet, for whoever keeps them meanwhile.
  [[nodiscard]] std::vector<QueuedRequest> take_waiting() { return requests_.take_waiting(); }
  /// It may be sent one more at once.
  [[nodiscard]] bool has_place() const { return phase_ == Phase::kServing && requests_.has_place(); }
  [[nodiscard]] std::size_t in_flight() const { return requests_.in_flight(); }
  /// `action` when it owes no answer any more, now or later; the one before is forgotten.
  void when_drained(std::function<void()> action) { requests_.when_drained(std::move(action)); }

  void request_health(std::uint64_t sequence);
  void stop(std::chrono::milliseconds grace);
  void signal(int number);

  /// Takes in what a dead host had still said.
  void drain() { stream_.drain(); }
  /// Every request in flight or waiting fails like this.
  void fail_all(const Failure& failure) {
    hooks_.fail(failure);
    requests_.fail_all(failure);
  }

  [[nodiscard]] Phase phase() const { return phase_; }
  /// Of its hello; empty: none was accepted yet, or its crypto is none.
  [[nodiscard]] std::string public_key() const { return check_ ? check_->public_key() : std::string(); }

 private:
  void receive(std::string_view body);
  void handle(klp::Envelope& envelope);
  void handle_hello(const klp::Hello& hello);
  void handle_resume(const klp::Resume& resume);
  /// Why it is not the host that was registered; empty: it is, and check_ is made.
  std::string take_hello(const klp::Hello& hello);
  void refuse_hello(const std::string& fault);
  void handle_hook_done(klp::HookDone&& done);
  void handle_message(const std::string& bytes, const std::string& signature);
  void reject(const klp::Message& message, const Failure& failure);
  void send(const klp::Envelope& envelope);
  void send_message(const klp::Message& message);
  void breach(const std::string& why);

  EventLoop& loop_;
  Begin begin_;
  KlpTerms terms_;
  Handlers handlers_;
  Phase phase_ = Phase::kHello;
  std::optional<MessageCheck> check_;  // from the hello on
  FrameStream stream_;
  PendingRequests requests_;
  HookCalls hooks_;
};

}  // namespace kai
