// One agent's KLP channel, control's side: who speaks is checked at hello, what it says is checked against the phase
// (proto/phase.h), answers find their requests, deadlines and the number in flight are held.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "policies/manifest.h"
#include "proto/phase.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/stream.h"

namespace kai {

/// What the hello has to say, and what the host is told in return.
struct KlpTerms {
  std::string agent_id, version;
  std::vector<std::string> capabilities;  ///< of the registered manifest; the hello may name fewer, never others
  bool runner_protocol = false;
  std::vector<Permission> permissions;  ///< granted
  std::uint32_t in_flight = 64;
  std::chrono::milliseconds message_deadline{30'000};
};

class KlpChannel {
 public:
  using Answer = std::function<void(Outcome<klp::Message>)>;
  /// None of them may destroy the channel.
  struct Handlers {
    std::function<void()> accepted;
    std::function<void(const std::string& why)> refused;  ///< the hello lied; the channel is closing
    std::function<void()> runner_hello;
    std::function<void()> started;
    std::function<void(const klp::StartFailed&)> start_failed;
    std::function<void(klp::Message&&)> message;  ///< a request or event of the agent's, `from` stamped
    std::function<void(const klp::AgentLog&)> log;
    std::function<void(klp::HealthReport&&)> health;
    std::function<void(const klp::Exit&)> exit;
    std::function<void(const std::string& why, bool by_peer)> closed;  ///< by_peer: it went; else it broke a rule
  };

  KlpChannel(EventLoop& loop, Fd socket, KlpTerms terms, Handlers handlers);

  /// A request to the agent: `from`, `capability`, `payload`, `content_type` and `metadata` are the sender's, an id is
  /// made where there is none, the rest is set here. `answer` is called once: with the response, with the agent's
  /// error, or with TIMEOUT, BUSY, TOO_LARGE, EXPIRED, NOT_RUNNING.
  void request(klp::Message message, std::chrono::milliseconds deadline, Answer answer);
  /// The answer to a request of the agent's: `response` has payload, content type and metadata.
  void reply(const klp::Message& request, klp::Message response);
  void reply_error(const klp::Message& request, const Failure& failure);
  /// An event of a topic, with `from` and `to` as its publisher had them. Nobody answers it.
  void deliver(klp::Message event);

  void request_health(std::uint64_t sequence);
  void stop(std::chrono::milliseconds grace);
  void signal(int number);

  /// Takes in what a dead host had still said.
  void drain() { stream_.drain(); }
  /// Every request in flight fails like this.
  void fail_all(const Failure& failure);

  [[nodiscard]] Phase phase() const { return phase_; }
  [[nodiscard]] std::size_t in_flight() const { return waiting_.size(); }

 private:
  struct Waiting {
    std::int64_t deadline;
    Answer answer;
  };

  void receive(std::string_view body);
  void handle(klp::Envelope& envelope);
  void handle_hello(const klp::Hello& hello);
  [[nodiscard]] std::string fault_of(const klp::Hello& hello) const;
  void handle_message(const std::string& bytes);
  void handle_answer(klp::Message&& message);
  void send(const klp::Envelope& envelope);
  void send_message(const klp::Message& message);
  void breach(const std::string& why);
  void arm_deadline(std::int64_t deadline);
  void expire();

  EventLoop& loop_;
  KlpTerms terms_;
  Handlers handlers_;
  Phase phase_ = Phase::kHello;
  std::unordered_map<std::string, Waiting> waiting_;  // by request id
  std::int64_t armed_for_ = 0;                        // 0: the timer is off
  Timer deadline_timer_;
  FrameStream stream_;
};

}  // namespace kai
