// A DnsServer between real sockets: an agent's network namespace as its starter makes it (sandbox/network.h), and
// another one that stands for the host's, with a DNS server of the test's own. One thread: whoever waits turns the
// loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "fake_dns.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/dns_server.h"

namespace kai::egress {

/// What a client received, taken apart by hand.
struct DnsAnswer {
  std::string bytes;
  std::uint16_t id = 0, flags = 0, answers = 0, authorities = 0, additionals = 0;
  std::string question, rest;  ///< as they stand there; `rest` are the records
  [[nodiscard]] int rcode() const { return flags & 0xF; }
  [[nodiscard]] bool truncated() const { return (flags & 0x0200) != 0; }
  /// Of the one A or AAAA record; else empty.
  [[nodiscard]] std::string address() const;
  [[nodiscard]] bool says(const std::string& text) const { return rest.find(text) != std::string::npos; }
};

class DnsRig {
 public:
  /// Allowed: "allowed.test", what is below "wide.test", "mapped.test" (in hosts), and more names that tests ask for.
  DnsRig();

  /// Turns the loop until `done`; false: not in time.
  bool until(const std::function<bool()>& done, std::chrono::milliseconds patience = std::chrono::seconds(60));
  /// Runs `body` in the agent's network namespace.
  static void in_agent(const std::function<void()>& body);
  /// A socket of the agent's, connected to `address` at port 53: answers from elsewhere it does not see.
  static Fd client(int type = SOCK_DGRAM, const std::string& address = "8.8.8.8", int receive_buffer = 0);
  /// A question, and its answer by UDP; nullopt: none came.
  std::optional<DnsAnswer> ask(const std::string& name, std::uint16_t type, const std::string& server = "8.8.8.8");
  std::optional<DnsAnswer> ask_bytes(const std::string& message, const std::string& server = "8.8.8.8",
                                     std::chrono::milliseconds patience = std::chrono::seconds(5));
  static std::optional<DnsAnswer> read_answer(const std::string& bytes);
  static std::string question(const std::string& name, std::uint16_t type, std::uint16_t id = 0x1234);

  Rules rules;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Resolver> resolver;
  std::unique_ptr<FakeDns> upstream;
  std::unique_ptr<SyntheticNames> names;
  std::vector<RefusedLookup> refused;
  std::unique_ptr<DnsServer> server;
};

}  // namespace kai::egress
