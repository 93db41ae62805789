// What an agent's connections were, as the operator reads them: a line when one is made, one when it ends, and one
// where an allowed one could not be made. What is refused is a denial (denials.h).
#pragma once

#include <string>

#include "proto/egress.pb.h"
#include "supervisor/control/log.h"
#include "supervisor/control/output.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class ConnectionLog {
 public:
  ConnectionLog(EventLoop& loop, Log& log, std::string agent);

  /// Refused: of kind FAILED only.
  void write(const egress::Event& event);
  /// The agent ended: what was dropped is said now.
  void finish();

 private:
  void opened(const egress::Opened& opened);
  void closed(const egress::Closed& closed);
  void failed(const egress::Refused& failed);
  void report(bool at_end);

  Log& log_;
  std::string agent_;
  LogBudget budget_;
  Timer report_timer_;
};

/// tcp, tls, http.
const char* protocol_name(egress::Protocol protocol);

/// "allowed.example:443", "[2606:2800::1]:443": a name where there is one, else the address.
std::string endpoint_text(const std::string& name, const std::string& address, std::uint32_t port);

}  // namespace kai
