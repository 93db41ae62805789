#include "supervisor/control/connection_log.h"

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::uint32_t kLinesPerSecond = 200;  // two of each connection, at 100 new ones a second
constexpr std::chrono::milliseconds kReportInterval{1'000};

template <typename Event>
std::string target(const Event& event) {
  return endpoint_text(event.name(), event.address(), event.port());
}

/// What is known of where it went.
template <typename Event>
void add_address(const Event& event, std::vector<LogField>& fields) {
  if (!event.name().empty()) fields.emplace_back("name", event.name());
  if (!event.address().empty()) fields.emplace_back("address", event.address());
  if (event.port() != 0) fields.emplace_back("port", event.port());
}

template <typename Event>
std::vector<LogField> target_fields(const Event& event) {
  std::vector<LogField> fields = {{"connection", event.connection()}};
  add_address(event, fields);
  return fields;
}

}  // namespace

const char* protocol_name(egress::Protocol protocol) {
  switch (protocol) {
    case egress::TLS:
      return "tls";
    case egress::HTTP:
      return "http";
    default:
      return "tcp";
  }
}

std::string endpoint_text(const std::string& name, const std::string& address, std::uint32_t port) {
  std::string text = name.empty() ? address : name;
  if (text.find(':') != std::string::npos) text = "[" + text + "]";
  return port == 0 ? text : text + ":" + std::to_string(port);
}

ConnectionLog::ConnectionLog(EventLoop& loop, Log& log, std::string agent)
    : log_(log), agent_(std::move(agent)), budget_(kLinesPerSecond, monotonic_ms()), report_timer_(loop) {}

void ConnectionLog::write(const egress::Event& event) {
  if (!budget_.take(monotonic_ms())) {
    budget_.drop(1 + event.refused().more());
    if (!report_timer_.active()) report_timer_.start(kReportInterval, [this] { report(false); });
    return;
  }
  if (event.has_opened()) return opened(event.opened());
  if (event.has_closed()) return closed(event.closed());
  if (event.has_refused()) failed(event.refused());
}

void ConnectionLog::opened(const egress::Opened& opened) {
  std::vector<LogField> fields = target_fields(opened);
  fields.emplace_back("protocol", protocol_name(opened.protocol()));
  fields.emplace_back("verdict", "allowed");
  fields.emplace_back("rule", opened.rule());
  log_.write(LogLevel::kInfo, agent_, "kai.connected", "connected to " + target(opened), fields);
}

void ConnectionLog::closed(const egress::Closed& closed) {
  std::vector<LogField> fields = target_fields(closed);
  fields.emplace_back("sent", closed.sent());
  fields.emplace_back("received", closed.received());
  fields.emplace_back("durationMs", closed.duration_ms());
  if (!closed.rule().empty()) fields.emplace_back("rule", closed.rule());
  log_.write(LogLevel::kInfo, agent_, "kai.disconnected",
             "connection to " + target(closed) + " ended: " + closed.cause(), fields);
}

void ConnectionLog::failed(const egress::Refused& failed) {
  const bool lookup = failed.port() == 0;
  const std::string what =
      lookup ? "DNS lookup of " + failed.name() + ": " : "connection to " + target(failed) + " not made: ";
  std::vector<LogField> fields;
  add_address(failed, fields);
  fields.emplace_back("verdict", "allowed");
  if (!failed.rule().empty()) fields.emplace_back("rule", failed.rule());
  if (failed.more() != 0) fields.emplace_back("more", failed.more());
  log_.write(LogLevel::kWarn, agent_, "kai.not_connected", what + failed.reason(), fields);
}

void ConnectionLog::report(bool at_end) {
  if (const auto dropped = budget_.report(monotonic_ms(), at_end)) {
    log_.write(LogLevel::kWarn, agent_, "kai.dropped",
               std::to_string(*dropped) + " more lines about its connections are not shown (at most " +
                   std::to_string(kLinesPerSecond) + " a second); see 'kaictl net " + agent_ + "'",
               {{"dropped", *dropped}});
  }
  if (!at_end && budget_.owes_report()) report_timer_.start(kReportInterval, [this] { report(false); });
}

void ConnectionLog::finish() {
  report_timer_.stop();
  report(true);
}

}  // namespace kai
