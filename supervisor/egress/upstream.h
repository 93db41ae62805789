// One question to one DNS server: by UDP from a port of its own, then by TCP where the answer was cut off or its
// question came back changed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "policies/addresses.h"
#include "supervisor/egress/dns_message.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

struct DnsServerAddress {
  /// "9.9.9.9", "2620:fe::fe", "[2620:fe::fe]:53", "127.0.0.1:5353". nullopt: none of these.
  static std::optional<DnsServerAddress> read(std::string_view text);

  Address address;
  std::uint16_t port = 0;
  std::string text;
};

class DnsExchange {
 public:
  struct Outcome {
    std::optional<dns::Reply> reply;
    std::string fault;  ///< without a reply: "9.9.9.9:53 did not answer within 2 s"
  };
  using Done = std::function<void(Outcome&& outcome)>;
  /// A server has so long for each way of asking.
  static constexpr std::chrono::milliseconds kPatience{2000};

  /// `server` has to outlive it. `done` is called once, as the last thing that is done here: it may destroy this.
  DnsExchange(Reactor& reactor, const DnsServerAddress& server, dns::Question question, bool edns, Done done);
  /// An Error: the question could not be sent, and `done` will not be called.
  Result<> start();

 private:
  Result<> open(int type);
  void on_datagrams();
  void ask_by_stream();
  void on_stream();
  void on_stream_answer();
  /// False: nothing (more) to be had now, or the exchange has ended.
  bool receive_some();
  void fail(std::string_view what, int error_number = 0);
  void finish(Outcome outcome);

  Reactor& reactor_;
  const DnsServerAddress& server_;
  dns::Request request_;
  Done done_;
  Fd socket_;
  Reactor::Watch watch_;
  Reactor::Timer patience_, again_;
  std::string unsent_;    // by TCP
  std::string received_;  // by TCP, with the two bytes of its length
  std::uint32_t ignored_ = 0;
};

}  // namespace kai::egress
