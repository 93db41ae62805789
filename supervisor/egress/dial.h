// The way to what an agent meant: name → addresses (the rules' hosts, or DNS) → each checked right before it is dialled
// → connected. Several are tried as RFC 8305 has it: IPv4 and IPv6 in turn, the next one when the one before has not
// answered for a moment or has failed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "base/fd.h"
#include "policies/addresses.h"
#include "policies/network_rules.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/reactor.h"
#include "supervisor/egress/resolver.h"

namespace kai::egress {

/// What an agent connected to.
struct Destination {
  std::string name;  ///< canonical; empty: it named the address
  Address address;   ///< as the agent sees it
  std::uint16_t port = 0;
};

/// What the rules say of it, before anything is resolved.
NetworkDecision decide_destination(const egress::Rules& rules, const Destination& destination);

/// What the rules' hosts say of a name.
std::vector<Address> mapped_addresses(const egress::Rules& rules, const std::string& name);

class Dial {
 public:
  static constexpr auto kNextAfter = std::chrono::milliseconds(250);  ///< RFC 8305 section 5
  /// Tried at the same time; a name may have many addresses, and none that answers.
  static constexpr std::size_t kMaxAttempts = 3;
  /// The oldest of as many makes room for the next address after this; a SYN is sent again after a second.
  static constexpr auto kGivenUpAfter = std::chrono::milliseconds(2'000);

  struct Connected {
    Fd socket;
    Reactor::Watch watch;      ///< for whoever uses it now to take over
    std::uint32_t events = 0;  ///< what it has said
    Address address;
    bool own = false;     ///< one of this host's
    bool mapped = false;  ///< by the rules' hosts
  };
  struct Failed {
    bool denied = false;  ///< the rules allow none of the addresses, of which `address` is the first
    std::string address;  ///< else the one that was tried last; empty: none
    std::string reason, rule;
  };
  /// Called once. May be called before start() returns, and must not destroy the Dial.
  using Done = std::function<void(tl::expected<Connected, Failed>&& outcome)>;

  /// `rules` as they are at each step.
  Dial(Reactor& reactor, Resolver& resolver, const egress::Rules& rules, const Destination& destination, Done done);
  Dial(const Dial&) = delete;
  Dial& operator=(const Dial&) = delete;
  void start();
  /// Nobody waits any more.
  void cancel();

 private:
  struct Attempt {
    std::uint64_t id = 0;
    Clock::time_point began;
    Fd socket;
    Reactor::Watch watch;
    Address address;
    bool own = false;
  };

  void on_resolved(const Resolved& resolved);
  void try_next();
  /// False: not yet, and try_next() is called then.
  bool make_room();
  /// False: this address is none to wait for, and why is noted.
  bool attempt(const Address& address);
  bool allowed(const Address& address, bool& own);
  void on_answer(std::uint64_t id, std::uint32_t events);
  void note(const Address& address, const std::string& what);
  void fail();
  void finish(tl::expected<Connected, Failed>&& outcome);

  Reactor& reactor_;
  Resolver& resolver_;
  const egress::Rules& rules_;
  const Destination& destination_;
  Done done_;
  std::unique_ptr<Resolver::Lookup> lookup_;
  std::vector<Address> left_;      // to be tried, the next one last
  std::vector<Attempt> attempts_;  // oldest first
  std::uint64_t last_id_ = 0;
  Reactor::Timer next_, deadline_;
  bool mapped_ = false, looking_up_ = false, dialled_ = false, finished_ = false;
  Failed denied_;       // the first address that the rules do not allow
  std::string tried_;   // "203.0.113.5: Connection refused, …"
  std::string last_;    // tried
  std::string failed_;  // what says more than tried_
};

}  // namespace kai::egress
