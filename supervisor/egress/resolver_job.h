// One name's lookup: its IPv4 and IPv6 addresses, asked for side by side, of one server after the other.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/egress/resolver.h"
#include "supervisor/egress/upstream.h"

namespace kai::egress {

using DnsServers = std::vector<DnsServerAddress>;

/// One type of record. Servers are tried in order, twice; the second time without EDNS, which a few drop.
class TypeLookup {
 public:
  TypeLookup(Reactor& reactor, std::shared_ptr<const DnsServers> servers, dns::Question question,
             std::function<void()> on_end);
  /// May end at once, and then does not call `on_end`.
  void start() { next(); }

  [[nodiscard]] bool ended() const { return ended_; }
  /// nullptr: none (yet).
  [[nodiscard]] const dns::Reply* reply() const { return reply_ ? &*reply_ : nullptr; }
  [[nodiscard]] bool has_addresses() const { return reply_ && !reply_->addresses.empty(); }
  [[nodiscard]] const std::string& fault() const { return fault_; }

 private:
  void next();
  void on_outcome(DnsExchange::Outcome&& outcome);

  Reactor& reactor_;
  std::shared_ptr<const DnsServers> servers_;
  dns::Question question_;
  std::function<void()> on_end_;
  std::size_t tried_ = 0;
  bool ended_ = false;
  std::optional<dns::Reply> reply_;
  std::string fault_;
  std::unique_ptr<DnsExchange> exchange_;
};

class ResolverJob {
 public:
  /// For all tries together.
  static constexpr std::chrono::milliseconds kDeadline{8000};
  /// Once one family has addresses, for the other: there are servers that never answer about IPv6.
  static constexpr std::chrono::milliseconds kOtherFamily{1000};

  struct Outcome {
    Resolved resolved;
    std::chrono::seconds ttl{0};
  };

  ResolverJob(Reactor& reactor, std::shared_ptr<const DnsServers> servers, const dns::Name& name,
              std::function<void()> on_end);
  /// May end at once, and then does not call `on_end`.
  void start();
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] Outcome outcome() const;

 private:
  void on_type_end();
  void end();

  std::function<void()> on_end_;
  TypeLookup v4_, v6_;
  Reactor::Timer deadline_, other_family_;
  bool ended_ = false;
};

}  // namespace kai::egress
