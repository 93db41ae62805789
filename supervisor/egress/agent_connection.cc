#include "supervisor/egress/agent_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "policies/network_rules.h"
#include "supervisor/egress/agent_traffic.h"
#include "supervisor/egress/first_bytes.h"
#include "supervisor/egress/socket_address.h"
#include "supervisor/egress/splice_flow.h"

namespace kai::egress {
namespace {

constexpr std::uint32_t kInterest = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
constexpr std::uint32_t kReadable = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
constexpr std::uint32_t kWritable = EPOLLOUT | EPOLLHUP | EPOLLERR;
constexpr std::uint32_t kHungUp = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

// Of what waits for the agent's first word.
constexpr const char* kServerFirst =
    "; a protocol in which the server speaks first needs tcp in networkLimit.allowedProtocols";

/// Whoever sends little waits for the answer: Nagle's algorithm was the sender's to choose, not ours.
void send_at_once(int socket) {
  constexpr int kOn = 1;
  (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof kOn);
}

bool has(const std::vector<Protocol>& protocols, Protocol protocol) {
  return std::find(protocols.begin(), protocols.end(), protocol) != protocols.end();
}

}  // namespace

AgentConnection::AgentConnection(Traffic& traffic, std::uint64_t id, Fd socket, Destination destination,
                                 std::string rule, std::vector<Protocol> expected)
    : traffic_(traffic),
      id_(id),
      destination_(std::move(destination)),
      rule_(std::move(rule)),
      expected_(std::move(expected)),
      began_(traffic.agent().reactor.now()),
      last_byte_(began_),
      head_(traffic.agent().reactor, [this] { on_head_deadline(); }) {
  agent_.socket = std::move(socket);
}

AgentConnection::~AgentConnection() {
  traffic_.turns().leave(up_);
  traffic_.turns().leave(down_);
}

void AgentConnection::start() {
  if (!destination_.name.empty()) traffic_.agent().names.open(destination_.name);
  bound_buffers(agent_.socket.get(),
                std::min(kAgentBuffer, server_buffer(traffic_.agent().rules.limits().connections())));
  auto watch = traffic_.agent().reactor.watch(agent_.socket.get(), kInterest,
                                              [this](std::uint32_t events) { on_ready(agent_, events); });
  if (!watch) return refuse(Refused::FAILED, "egress could not watch it: " + watch.error().message());
  agent_.watch = std::move(*watch);
  if (has(expected_, TCP)) return dial();
  if (auto done = keep_urgent_data_in_place(agent_.socket.get()); !done) {
    return refuse(Refused::FAILED, "egress could not look at it: " + done.error().message());
  }
  head_.arm_in(std::chrono::milliseconds(traffic_.agent().rules.limits().head_ms()));
  traffic_.turns().wake(up_);
}

void AgentConnection::on_ready(Side& side, std::uint32_t events) {
  if ((events & kHungUp) != 0) side.hung_up = true;
  // splice(2) never passes a byte that is marked as urgent: better an end with its reason than one that nobody
  // understands.
  if ((events & EPOLLPRI) != 0) {
    const std::string who = &side == &agent_ ? "the agent" : "the server";
    return end(who + " sent urgent data of TCP's, which is obsolete (RFC 6093) and does not pass egress");
  }
  Stream& from = &side == &agent_ ? up_ : down_;
  Stream& to = &side == &agent_ ? down_ : up_;
  if (phase_ == Phase::kDialling && (events & (EPOLLERR | EPOLLHUP)) != 0) {
    return refuse(Refused::FAILED, "the agent gave the connection up before it was made");
  }
  // Of a stream that has ended nobody would find out by reading.
  if ((events & EPOLLERR) != 0 && from.ended) return on_broken(from, {.state = Flow::State::kBroken, .broken = &side});
  if ((events & kReadable) != 0 && !from.ended) {
    side.readable = true;
    traffic_.turns().wake(from);
  }
  if ((events & kWritable) != 0 && !side.writable) {
    side.writable = true;
    if (phase_ == Phase::kOpen) traffic_.turns().wake(to);
  }
}

Lane::Step AgentConnection::move(Stream& stream, std::uint64_t most) {
  if (phase_ == Phase::kLooking) return {.cost = look()};
  if (phase_ != Phase::kOpen || stream.ended) return {};
  const Flow::Step step = pass_on(stream, most);
  if (step.state == Flow::State::kBroken) {
    on_broken(stream, step);
  } else if (step.state == Flow::State::kEnded) {
    on_stream_ended(stream);
  } else if (&stream == &up_ && http_ != nullptr) {
    watch_head();
  }
  return {.bytes = step.bytes, .more = step.state == Flow::State::kMore};
}

Flow::Step AgentConnection::pass_on(Stream& stream, std::uint64_t most) {
  Flow::Step step = stream.flow->move(from(stream), to(stream), most);
  if (step.bytes > 0) {
    last_byte_ = traffic_.agent().reactor.now();
    stream.bytes += step.bytes;
    stream.rate.count(step.bytes, last_byte_);
    traffic_.count(*this, stream.way, step.bytes);
  }
  return step;
}

std::uint64_t AgentConnection::look() {
  if (!protocol_known_ && !look_at_protocol()) return 0;
  return protocol_ == TLS ? look_at_tls() : look_at_http();
}

bool AgentConnection::look_at_protocol() {
  protocol_ = expected_.front();
  if (expected_.size() > 1) {
    const FirstByte first = look_at_first_byte(agent_);
    if (first.state == FirstBytes::State::kEnded) drop(true);
    if (first.state != FirstBytes::State::kRight) return false;
    protocol_ = first.byte == kTlsHandshake ? TLS : HTTP;
  }
  protocol_known_ = true;
  return true;
}

std::uint64_t AgentConnection::look_at_tls() {
  const FirstBytes looked = look_at_hello(agent_, destination_.name);
  switch (looked.state) {
    case FirstBytes::State::kWaits:
      break;
    case FirstBytes::State::kRight:
      dial();
      break;
    case FirstBytes::State::kWrong:
      refuse(Refused::CONNECTION, looked.reason, traffic_.agent().rules.protocols_rule());
      break;
    case FirstBytes::State::kEnded:
      // Without a word: a client that had a second connection in reserve, or looked whether the port is open.
      if (looked.looked_at == 0) {
        drop(true);
      } else {
        refuse(Refused::FAILED, "the agent ended the connection within its ClientHello");
      }
  }
  return looked.looked_at;
}

std::uint64_t AgentConnection::look_at_http() {
  if (http_ == nullptr) {
    const std::string host = destination_.name.empty() ? address_text(destination_.address) : destination_.name;
    auto flow = std::make_unique<HttpFlow>(host, destination_.port);
    http_ = flow.get();
    up_.flow = std::move(flow);
  }
  const Flow::Step step = http_->look(agent_);
  up_.bytes += step.bytes;
  if (step.state == Flow::State::kMore) {
    dial();
  } else if (step.state == Flow::State::kBroken && !step.fault.empty()) {
    refuse(Refused::CONNECTION, step.fault, traffic_.agent().rules.protocols_rule());
  } else if (step.state != Flow::State::kWaits) {
    if (up_.bytes == 0) {
      drop(true);
    } else {
      refuse(Refused::FAILED, "the agent ended the connection within the head of its request");
    }
  }
  return step.bytes;
}

/// A head that has begun on an open connection has to be whole in time too.
void AgentConnection::watch_head() {
  if (!http_->in_head()) return head_.stop();
  if (head_.armed() && heads_ == http_->requests()) return;
  heads_ = http_->requests();
  head_.arm_in(std::chrono::milliseconds(traffic_.agent().rules.limits().head_ms()));
}

void AgentConnection::on_head_deadline() {
  const std::string waited = std::to_string(traffic_.agent().rules.limits().head_ms()) + " ms";
  if (phase_ == Phase::kOpen) return close("the agent did not send the whole head of a request in " + waited, true);
  if (!protocol_known_) return refuse(Refused::FAILED, "the agent said nothing for " + waited + kServerFirst);
  const std::string what = protocol_ == TLS ? "a whole ClientHello" : "the whole head of a request";
  refuse(Refused::FAILED, "the agent did not send " + what + " in " + waited + kServerFirst);
}

void AgentConnection::dial() {
  phase_ = Phase::kDialling;
  head_.stop();
  AgentTraffic::Agent& agent = traffic_.agent();
  dial_ = std::make_unique<Dial>(agent.reactor, agent.resolver, agent.rules, destination_,
                                 [this](auto&& outcome) { on_dialled(std::move(outcome)); });
  dial_->start();
}

void AgentConnection::on_dialled(tl::expected<Dial::Connected, Dial::Failed>&& outcome) {
  if (!outcome) {
    const Dial::Failed& failed = outcome.error();
    return refuse(failed.denied ? Refused::CONNECTION : Refused::FAILED, failed.reason, failed.rule, failed.address);
  }
  open(std::move(*outcome));
}

void AgentConnection::open(Dial::Connected&& connected) {
  server_.socket = std::move(connected.socket);
  server_.watch = std::move(connected.watch);
  server_.watch.use([this](std::uint32_t events) { on_ready(server_, events); });
  server_.readable = (connected.events & kReadable) != 0;
  server_.hung_up = (connected.events & kHungUp) != 0;
  dialled_ = connected.address;
  own_ = connected.own;
  mapped_ = connected.mapped;
  // The rules may have changed since the dialling began.
  if (const NetworkDecision decision = decide_dialled_address(); !decision.allowed) {
    return refuse(Refused::CONNECTION, decision.reason, decision.rule, address_text(dialled_));
  }
  send_at_once(agent_.socket.get());
  send_at_once(server_.socket.get());
  phase_ = Phase::kOpen;
  last_byte_ = traffic_.agent().reactor.now();
  if (up_.flow == nullptr) up_.flow = std::make_unique<SpliceFlow>(traffic_.agent().pipes);
  down_.flow = std::make_unique<SpliceFlow>(traffic_.agent().pipes);
  traffic_.opened(*this);
  Opened event;
  event.set_connection(id_);
  event.set_name(destination_.name);
  event.set_address(address_text(dialled_));
  event.set_port(destination_.port);
  event.set_protocol(protocol_);
  event.set_rule(rule_);
  traffic_.agent().events.opened(std::move(event));
  traffic_.turns().wake(up_);
  if (phase_ == Phase::kOpen && server_.readable) traffic_.turns().wake(down_);
}

void AgentConnection::on_stream_ended(Stream& stream) {
  stream.ended = true;
  stream.flow.reset();
  if (stream.way == Way::kSent) http_ = nullptr;
  head_.stop();
  // Where this process dies before the other stream has ended, this one has ended in order all the same.
  end_in_order(to(stream).socket.get());
  if (cause_.empty()) cause_ = stream.way == Way::kSent ? "closed by the agent" : "closed by the server";
  if (up_.ended && down_.ended) return close(cause_, false);
}

void AgentConnection::on_broken(Stream& stream, const Flow::Step& step) {
  // What its peer said before the reset (a server that refuses an upload) still arrives, as it would without egress.
  Stream& answer = &stream == &up_ ? down_ : up_;
  if (step.broken == &to(stream) && !answer.ended) {
    to(stream).readable = to(stream).hung_up = true;
    (void)pass_on(answer, Turns::kTurnBytes);
  }
  if (step.broken != nullptr) return close(step.broken == &agent_ ? "reset by the agent" : "reset by the server", true);
  if (stream.way == Way::kSent && http_ != nullptr) {
    Refused event;
    event.set_kind(Refused::CONNECTION);
    event.set_name(destination_.name);
    event.set_address(address_text(dialled_));
    event.set_port(destination_.port);
    event.set_reason(step.fault);
    event.set_rule(traffic_.agent().rules.protocols_rule());
    traffic_.refused(std::move(event));
  }
  close(step.fault, true);
}

NetworkDecision AgentConnection::decide_dialled_address() const {
  const Rules& rules = traffic_.agent().rules;
  NetworkDecision decision = decide_dialled(rules, dialled_, destination_.port);
  if (decision.allowed && own_) decision = decide_own_address(rules, dialled_);
  if (!decision.allowed || !mapped_) return decision;
  for (const Address& address : mapped_addresses(rules, destination_.name)) {
    if (address.bits == dialled_.bits && address.bytes == dialled_.bytes) return decision;
  }
  return {false, "network.hosts does not say " + address_text(dialled_) + " any more", rules.allowed_rule()};
}

/// By the rules of now.
NetworkDecision AgentConnection::decide() const {
  const Rules& rules = traffic_.agent().rules;
  NetworkDecision decision = decide_destination(rules, destination_);
  if (!decision.allowed) return decision;
  const auto expected = expected_protocols(rules, destination_.port);
  const bool decided = protocol_known_ || phase_ != Phase::kLooking;
  if (expected.empty() || (decided && !has(expected, TCP) && !has(expected, protocol_))) {
    return {false, "what is spoken on it is not in networkLimit.allowedProtocols", rules.protocols_rule()};
  }
  return phase_ == Phase::kOpen ? decide_dialled_address() : decision;
}

void AgentConnection::check_again() {
  if (const NetworkDecision decision = decide(); !decision.allowed) {
    return end("not allowed any more: " + decision.reason, decision.rule);
  }
  if (phase_ != Phase::kLooking || protocol_known_) return;
  expected_ = expected_protocols(traffic_.agent().rules, destination_.port);
  if (has(expected_, TCP)) return dial();
  traffic_.turns().wake(up_);
}

void AgentConnection::end(const std::string& cause, const std::string& rule) {
  if (phase_ == Phase::kEnded) return;
  if (phase_ == Phase::kOpen) return close(cause, true, rule);
  refuse(Refused::FAILED, cause, rule);
}

void AgentConnection::refuse(Refused::Kind kind, const std::string& reason, const std::string& rule,
                             const std::string& address) {
  Refused event;
  event.set_kind(kind);
  event.set_name(destination_.name);
  event.set_address(address.empty() && destination_.name.empty() ? address_text(destination_.address) : address);
  event.set_port(destination_.port);
  event.set_reason(reason);
  event.set_rule(rule.empty() ? rule_ : rule);
  drop(true);
  traffic_.refused(std::move(event));
}

void AgentConnection::close(const std::string& cause, bool reset, const std::string& rule) {
  Closed event;
  event.set_connection(id_);
  event.set_name(destination_.name);
  event.set_address(address_text(dialled_));
  event.set_port(destination_.port);
  event.set_sent(up_.bytes);
  event.set_received(down_.bytes);
  const auto age = traffic_.agent().reactor.now() - began_;
  event.set_duration_ms(static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(age).count()));
  event.set_cause(cause);
  event.set_rule(rule.empty() ? rule_ : rule);
  drop(reset);
  traffic_.agent().events.closed(std::move(event));
}

void AgentConnection::drop(bool reset) {
  const bool was_open = std::exchange(phase_, Phase::kEnded) == Phase::kOpen;
  for (Stream* stream : {&up_, &down_}) {
    traffic_.turns().leave(*stream);
    stream->ended = true;
    stream->flow.reset();
  }
  http_ = nullptr;
  head_.stop();
  for (Side* side : {&agent_, &server_}) {
    if (reset && side->socket) reset_on_close(side->socket.get());
    side->watch.forget();
    side->socket.reset();
  }
  if (dial_) dial_->cancel();
  if (!destination_.name.empty()) traffic_.agent().names.close(destination_.name);
  traffic_.ended(*this, was_open);
}

void AgentConnection::describe(ConnectionInfo& info, Clock::time_point now) const {
  info.set_connection(id_);
  info.set_name(destination_.name);
  const bool open = phase_ == Phase::kOpen;
  if (open) info.set_address(address_text(dialled_));
  if (!open && destination_.name.empty()) info.set_address(address_text(destination_.address));
  info.set_port(destination_.port);
  info.set_protocol(protocol_);
  info.set_age_ms(
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now - began_).count()));
  info.set_sent(up_.bytes);
  info.set_received(down_.bytes);
  info.set_sent_per_second(up_.rate.per_second(now));
  info.set_received_per_second(down_.rate.per_second(now));
  info.set_connecting(!open);
}

}  // namespace kai::egress
