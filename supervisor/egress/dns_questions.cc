#include "supervisor/egress/dns_questions.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "policies/domains.h"
#include "supervisor/egress/reverse_name.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

constexpr const char* kBuiltin = "builtin";
/// A client asks for A, AAAA and HTTPS at once, and again: one line is enough.
constexpr auto kToldAgainAfter = std::chrono::seconds(1);
constexpr std::size_t kMostTold = 64;
/// Names that wait for the next second's budget are looked at so often.
constexpr std::chrono::milliseconds kQueuePause{20};

bool is_address_type(std::uint16_t type) {
  return type == dns::kA || type == dns::kAaaa;
}

/// RFC 6761 6.3: always the asker's own loopback, whoever says otherwise.
bool is_localhost(std::string_view host) {
  return host == "localhost" || host.ends_with(".localhost");
}

Address loopback(std::uint16_t type) {
  Address address{.bits = type == dns::kA ? 32U : 128U};
  if (type == dns::kA) {
    address.bytes = {127, 0, 0, 1};
  } else {
    address.bytes[15] = 1;
  }
  return address;
}

bool has_static_address(const egress::Rules& rules, std::string_view host) {
  return std::any_of(rules.hosts().begin(), rules.hosts().end(),
                     [&](const auto& entry) { return entry.name() == host; });
}

/// The labels that an agent may choose: those in front of the narrowest pattern that it is below of. Of "any name",
/// those in front of the last two, which somebody had to register. nullopt: a rule says the name to the letter.
std::optional<std::string_view> chosen_labels(const egress::Rules& rules, std::string_view host) {
  std::size_t fixed = 0;
  for (const auto* list : {&rules.asked(), &rules.allowed()}) {
    for (const auto& pattern : *list) {
      const DomainPattern domain{.name = pattern.name(), .subdomains = pattern.subdomains()};
      if (domain.is_anything() || !names_host(domain, host)) continue;
      if (!domain.subdomains) return std::nullopt;
      fixed = std::max(fixed, domain.name.size());
    }
  }
  if (fixed > 0) return host.substr(0, host.size() - fixed - 1);
  const std::size_t last = host.rfind('.');
  const std::size_t registered = last == std::string_view::npos || last == 0 ? last : host.rfind('.', last - 1);
  return registered == std::string_view::npos ? std::string_view() : host.substr(0, registered);
}

}  // namespace

DnsQuestions::DnsQuestions(DnsServer::Agent agent, bool ipv6)
    : agent_(std::move(agent)),
      ipv6_(ipv6),
      guard_(agent_.rules.limits()),
      let_pass_(SyntheticNames::kMaxNames),
      told_(kMostTold),
      next_lookups_(agent_.reactor, [this] { begin_lookups(); }) {}

void DnsQuestions::ask(dns::Query query, Reply reply) {
  ++asked_;
  if (query.fault != dns::Rcode::kNoError) return reply(query, {.rcode = query.fault});
  const std::string text = query.question->name.text();
  if (query.question->type == dns::kPtr && answer_reverse(query, reply)) return;
  auto host = canonical_host(text);
  if (!host) {
    return refuse(query, reply, text, "this is no name of a host: letters, digits, - and _, with dots between",
                  kBuiltin);
  }
  ask_host(std::move(query), std::move(reply), std::move(*host));
}

/// False: an ordinary name, or somebody's address.
bool DnsQuestions::answer_reverse(const dns::Query& query, const Reply& reply) {
  const auto address = address_of_reverse(query.question->name);
  if (!address) return false;
  const bool is_own = is_loopback(*address);
  if (!is_own && !SyntheticNames::is_synthetic(*address)) return false;
  const auto name = is_own ? std::optional<std::string>("localhost") : agent_.names.name_of(*address);
  dns::Answer answer{.rcode = name ? dns::Rcode::kNoError : dns::Rcode::kNoName};
  if (name) answer.pointer = dns::Name::of(*name);
  reply(query, answer);
  return true;
}

void DnsQuestions::ask_host(dns::Query&& query, Reply&& reply, std::string&& host) {
  const std::uint16_t type = query.question->type;
  if (is_localhost(host)) {
    dns::Answer answer;
    if (is_address_type(type)) answer.address = loopback(type);
    return reply(query, answer);
  }
  const NetworkDecision decision = decide_lookup(agent_.rules, host);
  if (!decision.allowed) return refuse(query, reply, host, decision.reason, decision.rule);
  if (!is_address_type(type)) return reply(query, {});
  if (has_static_address(agent_.rules, host)) return answer_with_name(query, reply, host);
  const auto chosen = chosen_labels(agent_.rules, host);
  const auto now = agent_.reactor.now();
  if (chosen && !let_pass_.time_of(host)) {
    if (!guard_.take_name(*chosen, now)) {
      return refuse(query, reply, host,
                    "with it, the new names of this minute could carry more than " +
                        std::to_string(agent_.rules.limits().name_bits()) +
                        " bits to whoever answers for them, as a tunnel through DNS does: wait, or have the names "
                        "listed one by one",
                    decision.rule);
    }
    let_pass_.put(host, now);
  }
  resolve(std::move(query), std::move(reply), std::move(host));
}

/// What is known, or asked for already, costs nobody outside anything: only a name's first question is counted.
void DnsQuestions::resolve(dns::Query&& query, Reply&& reply, std::string&& host) {
  if (const Resolved* known = agent_.resolver.known(host)) {
    const Resolved resolved = *known;  // whoever is answered may ask again, and change the cache
    return on_resolved({std::move(query), std::move(reply)}, host, resolved);
  }
  const bool is_new = !pending_.contains(host);
  if (is_new && pending_.size() >= DnsServer::kMaxPending) {
    return fail(query, reply, host,
                std::to_string(DnsServer::kMaxPending) + " other names wait to be looked up, at most " +
                    std::to_string(agent_.rules.limits().lookups()) +
                    " a second for one agent: have it look up fewer new names at once",
                kBuiltin, dns::Rcode::kServerFailure, dns::kOtherError);
  }
  if (waiting_ >= DnsServer::kMaxWaiting) {
    return fail(query, reply, host,
                std::to_string(DnsServer::kMaxWaiting) +
                    " other DNS questions of the agent wait for an answer: have it ask less at once, and see with "
                    "kaictl doctor whether the name servers are slow",
                kBuiltin, dns::Rcode::kServerFailure, dns::kOtherError);
  }
  ++waiting_;
  pending_[host].questions.push_back({std::move(query), std::move(reply)});
  if (!is_new) return;
  queue_.push_back(std::move(host));
  begin_lookups();
}

void DnsQuestions::begin_lookups() {
  while (!queue_.empty() && under_way_ < DnsServer::kMaxLookups) {
    if (!guard_.take_lookup(agent_.reactor.now())) return next_lookups_.arm_in(kQueuePause);
    const std::string host = std::move(queue_.front());
    queue_.pop_front();
    ++under_way_;
    auto lookup =
        agent_.resolver.lookup(host, [this, host](const Resolved& resolved) { on_lookup_end(host, resolved); });
    if (lookup != nullptr) pending_.at(host).lookup = std::move(lookup);
  }
}

void DnsQuestions::on_lookup_end(const std::string& host, const Resolved& resolved) {
  --under_way_;
  if (!queue_.empty()) next_lookups_.arm_in(std::chrono::milliseconds(0));
  answer_pending(host, resolved);
}

/// Whoever is answered may ask again: nothing of what is answered is in pending_ then.
void DnsQuestions::answer_pending(const std::string& host, const Resolved& resolved) {
  const auto ended = pending_.extract(host);
  waiting_ -= ended.mapped().questions.size();
  for (const Asked& asked : ended.mapped().questions) on_resolved(asked, ended.key(), resolved);
}

void DnsQuestions::rules_changed() {
  guard_.use(agent_.rules.limits());
  std::vector<std::string> refused;
  for (const auto& [host, pending] : pending_) {
    if (!decide_lookup(agent_.rules, host).allowed) refused.push_back(host);
  }
  for (const std::string& host : refused) {
    if (std::erase(queue_, host) == 0) --under_way_;
  }
  for (const std::string& host : refused) answer_pending(host, {});
  if (!queue_.empty()) next_lookups_.arm_in(std::chrono::milliseconds(0));
}

void DnsQuestions::on_resolved(const Asked& asked, const std::string& host, const Resolved& resolved) {
  using Status = Resolved::Status;
  // The rules may have changed since it was asked.
  const NetworkDecision decision = decide_lookup(agent_.rules, host);
  if (!decision.allowed) return refuse(asked.query, asked.reply, host, decision.reason, decision.rule);
  const auto fail_with = [&](const std::string& reason, dns::Rcode rcode, std::uint16_t explanation) {
    fail(asked.query, asked.reply, host, reason, decision.rule, rcode, explanation);
  };
  switch (resolved.status) {
    case Status::kFound:
      return answer_with_name(asked.query, asked.reply, host);
    case Status::kNoName:
      return fail_with("it is allowed, and does not exist (NXDOMAIN)", dns::Rcode::kNoName, dns::kOtherError);
    case Status::kNoAddress:
      return fail_with("it is allowed, and has neither an IPv4 nor an IPv6 address", dns::Rcode::kNoError,
                       dns::kOtherError);
    case Status::kFailed:
      return fail_with("it is allowed, and could not be resolved: " + resolved.detail, dns::Rcode::kServerFailure,
                       dns::kNoReachableAuthority);
  }
}

/// Both families, whichever the name has: the one that the agent takes says nothing about how egress reaches it.
void DnsQuestions::answer_with_name(const dns::Query& query, const Reply& reply, const std::string& host) {
  const auto addresses = agent_.names.addresses(host);
  if (!addresses) {
    return fail(query, reply, host,
                "all " + std::to_string(SyntheticNames::kMaxNames) + " addresses of the agent stand for names in use",
                kBuiltin, dns::Rcode::kServerFailure, dns::kOtherError);
  }
  dns::Answer answer;
  if (query.question->type == dns::kA) answer.address = addresses->v4;
  if (query.question->type == dns::kAaaa && ipv6_) answer.address = addresses->v6;
  reply(query, answer);
}

void DnsQuestions::refuse(const dns::Query& query, const Reply& reply, const std::string& name,
                          const std::string& reason, const std::string& rule) {
  tell({.name = name, .reason = reason, .rule = rule});
  reply(query,
        {.rcode = dns::Rcode::kRefused, .explanation = dns::Explanation{.code = dns::kProhibited, .text = reason}});
}

void DnsQuestions::fail(const dns::Query& query, const Reply& reply, const std::string& name, const std::string& reason,
                        const std::string& rule, dns::Rcode rcode, std::uint16_t explanation) {
  tell({.name = name, .reason = reason, .rule = rule, .failed = true});
  dns::Answer answer{.rcode = rcode};
  if (rcode == dns::Rcode::kServerFailure) answer.explanation = dns::Explanation{.code = explanation, .text = reason};
  reply(query, answer);
}

void DnsQuestions::tell(RefusedLookup&& refused) {
  const auto now = agent_.reactor.now();
  // What holds for every name is told of one of them.
  const bool whichever = !agent_.rules.has_limits() || (refused.failed && refused.rule == kBuiltin);
  const std::string key = (whichever ? "" : refused.name) + '\0' + refused.reason;
  const auto told = told_.time_of(key);
  if (told && now - *told < kToldAgainAfter) return;
  told_.put(key, now);
  agent_.on_refused(refused);
}

}  // namespace kai::egress
