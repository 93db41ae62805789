// What an agent's DNS question is answered with, whichever way it came: by the rules, by the guard, then by whether the
// name leads anywhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "policies/network_rules.h"
#include "supervisor/egress/dns_message.h"
#include "supervisor/egress/dns_server.h"
#include "supervisor/egress/name_guard.h"
#include "supervisor/egress/recent_names.h"

namespace kai::egress {

class DnsQuestions {
 public:
  using Reply = std::function<void(const dns::Query& query, const dns::Answer& answer)>;

  /// `ipv6`: the agent's network has it; without, AAAA questions are answered with nothing.
  DnsQuestions(DnsServer::Agent agent, bool ipv6);
  DnsQuestions(const DnsQuestions&) = delete;
  DnsQuestions& operator=(const DnsQuestions&) = delete;

  /// `reply` is called once, before this returns or later, unless this object ends before.
  void ask(dns::Query query, Reply reply);
  /// What waits and is not allowed any more is refused before this returns.
  void rules_changed();
  [[nodiscard]] std::uint64_t asked() const { return asked_; }

 private:
  struct Asked {
    dns::Query query;
    Reply reply;
  };
  /// Of one name.
  struct Pending {
    std::vector<Asked> questions;
    std::unique_ptr<Resolver::Lookup> lookup;  ///< none yet: the name is in queue_
  };

  bool answer_reverse(const dns::Query& query, const Reply& reply);
  void ask_host(dns::Query&& query, Reply&& reply, std::string&& host);
  void resolve(dns::Query&& query, Reply&& reply, std::string&& host);
  void begin_lookups();
  void on_lookup_end(const std::string& host, const Resolved& resolved);
  void answer_pending(const std::string& host, const Resolved& resolved);
  void on_resolved(const Asked& asked, const std::string& host, const Resolved& resolved);
  void answer_with_name(const dns::Query& query, const Reply& reply, const std::string& host);
  void refuse(const dns::Query& query, const Reply& reply, const std::string& name, const std::string& reason,
              const std::string& rule);
  void fail(const dns::Query& query, const Reply& reply, const std::string& name, const std::string& reason,
            const std::string& rule, dns::Rcode rcode, std::uint16_t explanation);
  void tell(RefusedLookup&& refused);

  DnsServer::Agent agent_;
  bool ipv6_;
  NameGuard guard_;
  RecentNames let_pass_;  // names that the guard has counted
  RecentNames told_;
  std::unordered_map<std::string, Pending> pending_;
  std::deque<std::string> queue_;  // the names of pending_ that wait until they may be asked for, the first first
  std::size_t under_way_ = 0;      // the others
  std::size_t waiting_ = 0;        // questions in pending_
  Reactor::Timer next_lookups_;
  std::uint64_t asked_ = 0;
};

}  // namespace kai::egress
