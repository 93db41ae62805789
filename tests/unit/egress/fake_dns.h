// A DNS server of the test's own, on the test's own loop: it answers as a test says, by UDP and TCP at one port.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

/// Turns the loop until `done`; false: not within `patience`.
bool turn_until(Reactor& reactor, const std::function<bool()>& done,
                std::chrono::milliseconds patience = std::chrono::seconds(10));

class FakeDns {
 public:
  struct Asked {
    std::uint16_t id = 0, type = 0;
    std::string name;      ///< in lower case
    std::string question;  ///< as it stood in the message
    bool edns = false, tcp = false;
    std::function<void(const std::string& bytes)> send;  ///< one datagram; by TCP, these very bytes
    std::function<void()> close;                         ///< TCP
    sockaddr_storage peer{};                             ///< UDP

    /// A whole answer to this very question; by TCP with its length.
    void answer(std::size_t answers, const std::string& records, std::uint16_t flags = 0x8180,
                std::size_t authorities = 0) const;
    [[nodiscard]] std::string message(std::size_t answers, const std::string& records, std::uint16_t flags = 0x8180,
                                      std::size_t authorities = 0) const;
  };
  using Behaviour = std::function<void(const Asked& asked)>;

  /// In the network namespace of whoever calls, at a port that is free.
  explicit FakeDns(Reactor& reactor, Behaviour behaviour, const char* address = "127.0.0.1");
  FakeDns(const FakeDns&) = delete;
  FakeDns& operator=(const FakeDns&) = delete;

  /// "127.0.0.1:40123".
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] std::size_t asked_of(const std::string& name, std::uint16_t type) const;

  Behaviour behaviour;
  std::vector<Asked> asked;

 private:
  struct Stream {
    Fd socket;
    Reactor::Watch watch;
    std::string received;
  };
  void on_datagrams();
  void on_streams();
  void on_stream(const std::shared_ptr<Stream>& stream);
  void take(const std::string& message, Asked asked);

  Reactor& reactor_;
  std::string address_;
  Fd datagrams_, listener_;
  Reactor::Watch datagrams_watch_, listener_watch_;
  std::list<std::shared_ptr<Stream>> streams_;
};

/// A server that knows the name's one IPv4 and one IPv6 address.
FakeDns::Behaviour one_address(std::uint8_t last = 1, std::size_t ttl = 300);

}  // namespace kai::egress
