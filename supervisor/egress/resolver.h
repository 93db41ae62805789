// What a name leads to, asked of the operator's DNS servers (RFC 1035, 6891, 7766). Answers are believed only from the
// server that was asked, with its id, question and port; CNAME chains are followed inside an answer; what was found or
// not found is kept for its time. A slow, lying or babbling server costs one lookup its deadline and nothing else.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "policies/addresses.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

struct Resolved {
  enum class Status {
    kFound,
    kNoName,     ///< NXDOMAIN
    kNoAddress,  ///< the name exists, and has neither IPv4 nor IPv6 address
    kFailed,     ///< no usable answer: `detail` says from whom and why
  };
  Status status = Status::kFailed;
  std::vector<Address> addresses;  ///< both families as the servers ordered them, IPv4 first; at most kMaxAddresses
  std::string detail;
};

class Resolver {
 public:
  static constexpr std::size_t kMaxAddresses = 16;
  static constexpr std::size_t kMaxLookups = 1024;  ///< under way at the same time; more fail at once
  static constexpr std::size_t kMaxCached = 8192;

  using Done = std::function<void(const Resolved& resolved)>;
  /// A lookup under way: destroying it means that nobody waits any more.
  class Lookup {
   public:
    virtual ~Lookup() = default;
  };

  explicit Resolver(Reactor& reactor);
  ~Resolver();

  /// "9.9.9.9", "[2620:fe::fe]:53", "127.0.0.1:5353", in the order in which they are tried. Texts that are no address
  /// come back, for the log.
  std::vector<std::string> use_servers(const std::vector<std::string>& servers);
  /// The nameserver lines of a resolv.conf(5).
  static std::vector<std::string> servers_of(std::string_view resolv_conf);

  /// What the cache has of a canonical name; nullptr: somebody has to be asked. Valid until the next call of any.
  [[nodiscard]] const Resolved* known(const std::string& name) const;
  /// `name` is canonical. From the cache, `done` is called before this returns, which then gives nullptr; else later,
  /// once, unless the Lookup was destroyed. The same question is asked once for all who wait for it.
  [[nodiscard]] std::unique_ptr<Lookup> lookup(const std::string& name, Done done);

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace kai::egress
