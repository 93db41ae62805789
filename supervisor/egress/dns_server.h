// The DNS server of one agent: what it listens on is in the agent's network namespace, and answers for allowed names
// alone. A and AAAA are addresses that stand for the name (names.h), if the name exists; HTTPS, SVCB and every other
// type of an allowed name are empty; anything else is REFUSED (with RFC 8914's "Prohibited").
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/name_guard.h"
#include "supervisor/egress/names.h"
#include "supervisor/egress/reactor.h"
#include "supervisor/egress/resolver.h"

namespace kai::egress {

/// A lookup that was not answered with addresses: why, by which rule. `failed`: allowed, but the name leads nowhere.
struct RefusedLookup {
  std::string name;  ///< as the agent sent it, or what of it could be read
  std::string reason, rule;
  bool failed = false;
};

class DnsServer {
 public:
  struct Agent {
    Reactor& reactor;
    Resolver& resolver;
    SyntheticNames& names;
    const egress::Rules& rules;  ///< as they are at the time of each question: the owner may change them in place
    std::function<void(const RefusedLookup& refused)> on_refused;
  };
  static constexpr std::size_t kMaxStreams = 16;    ///< DNS over TCP, open at the same time
  static constexpr std::size_t kMaxLookups = 64;    ///< names that are asked for upstream at the same time
  static constexpr std::size_t kMaxPending = 256;   ///< names: those, and those that wait until they may be asked for
  static constexpr std::size_t kMaxWaiting = 1024;  ///< questions for all these names

  /// sandbox/network.h: kDnsDatagrams, kDnsStreams.
  static Result<std::unique_ptr<DnsServer>> create(Agent agent, Fd datagrams, Fd streams);
  virtual ~DnsServer() = default;
  /// The rules have changed.
  virtual void rules_changed() = 0;
  [[nodiscard]] virtual std::uint64_t questions() const = 0;
};

}  // namespace kai::egress
