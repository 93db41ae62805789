// One connection of an agent: what it is for, what is spoken on it, the way to its server, and then bytes both ways.
//
//   looking ─► dialling ─► open ─► ended
//
// Each step may end it. Nothing reaches a server before the look is over, and tcp, where anything may be spoken, is not
// looked at.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/dial.h"
#include "supervisor/egress/flow.h"
#include "supervisor/egress/http_flow.h"
#include "supervisor/egress/rate_meter.h"
#include "supervisor/egress/reactor.h"
#include "supervisor/egress/turns.h"

namespace kai::egress {

class Traffic;

class AgentConnection {
 public:
  /// `traffic` has found the destination allowed, by `rule`, and what is spoken has to be one of `expected`.
  AgentConnection(Traffic& traffic, std::uint64_t id, Fd socket, Destination destination, std::string rule,
                  std::vector<egress::Protocol> expected);
  AgentConnection(const AgentConnection&) = delete;
  AgentConnection& operator=(const AgentConnection&) = delete;
  ~AgentConnection();
  void start();

  /// Ends it, with RST to both, if the rules of now do not allow it.
  void check_again();
  /// Ends it, with RST to both. `rule`: that wants it; empty: none.
  void end(const std::string& cause, const std::string& rule = {});

  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] const Destination& destination() const { return destination_; }
  [[nodiscard]] Clock::time_point began() const { return began_; }
  [[nodiscard]] Clock::time_point last_byte() const { return last_byte_; }
  void describe(egress::ConnectionInfo& info, Clock::time_point now) const;

 private:
  friend class Traffic;
  enum class Phase { kLooking, kDialling, kOpen, kEnded };

  struct Stream final : Lane {
    Stream(AgentConnection& owner, Way its_way) : Lane(its_way), connection(owner), way(its_way) {}
    Step move(std::uint64_t most) override { return connection.move(*this, most); }
    AgentConnection& connection;
    const Way way;
    std::unique_ptr<Flow> flow;
    bool ended = false;
    std::uint64_t bytes = 0;
    RateMeter rate;
  };

  Side& from(const Stream& stream) { return &stream == &up_ ? agent_ : server_; }
  Side& to(const Stream& stream) { return &stream == &up_ ? server_ : agent_; }
  Lane::Step move(Stream& stream, std::uint64_t most);
  Flow::Step pass_on(Stream& stream, std::uint64_t most);
  void on_ready(Side& side, std::uint32_t events);

  std::uint64_t look();
  bool look_at_protocol();
  std::uint64_t look_at_tls();
  std::uint64_t look_at_http();
  void watch_head();
  void on_head_deadline();

  void dial();
  void on_dialled(tl::expected<Dial::Connected, Dial::Failed>&& outcome);
  void open(Dial::Connected&& connected);

  void on_stream_ended(Stream& stream);
  void on_broken(Stream& stream, const Flow::Step& step);
  [[nodiscard]] NetworkDecision decide() const;
  [[nodiscard]] NetworkDecision decide_dialled_address() const;

  /// `rule`: that refuses it; empty: it is allowed, by rule_.
  void refuse(egress::Refused::Kind kind, const std::string& reason, const std::string& rule = {},
              const std::string& address = {});
  void close(const std::string& cause, bool reset, const std::string& rule = {});
  void drop(bool reset);

  Traffic& traffic_;
  const std::uint64_t id_;
  const Destination destination_;
  std::string rule_;
  std::vector<egress::Protocol> expected_;
  Clock::time_point began_, last_byte_;
  Phase phase_ = Phase::kLooking;
  egress::Protocol protocol_ = egress::TCP;
  bool protocol_known_ = false;
  Side agent_, server_;
  Stream up_{*this, Way::kSent}, down_{*this, Way::kReceived};
  HttpFlow* http_ = nullptr;  // up_'s, where it is one
  std::unique_ptr<Dial> dial_;
  Reactor::Timer head_;  // until what has to be looked at is there
  Address dialled_;
  bool own_ = false, mapped_ = false;                  // of dialled_, see Dial::Connected
  std::string cause_;                                  // who ended first
  std::uint64_t heads_ = 0;                            // requests whose head was whole when head_ was armed
  std::list<AgentConnection*>::iterator in_activity_;  // Traffic's, while it is open
};

}  // namespace kai::egress
