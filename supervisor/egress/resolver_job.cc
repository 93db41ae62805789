#include "supervisor/egress/resolver_job.h"

#include <algorithm>
#include <utility>

namespace kai::egress {
namespace {

using std::chrono::seconds;

constexpr seconds kLeastTtl{1}, kMostTtl{3600};
constexpr seconds kLeastNegativeTtl{5}, kMostNegativeTtl{60};
constexpr seconds kFailureTtl{1};
/// Where one family did not answer: not for long, as it may be back.
constexpr seconds kMostHalfTtl{5};

std::string rcode_text(dns::Rcode rcode) {
  switch (rcode) {
    case dns::Rcode::kFormatError:
      return "FORMERR";
    case dns::Rcode::kServerFailure:
      return "SERVFAIL";
    case dns::Rcode::kNotImplemented:
      return "NOTIMP";
    case dns::Rcode::kRefused:
      return "REFUSED";
    default:
      return "RCODE " + std::to_string(static_cast<unsigned>(rcode));
  }
}

/// IPv4 first; where there are too many, each family has half.
std::vector<Address> merge(const dns::Reply* v4, const dns::Reply* v6) {
  std::vector<Address> addresses;
  constexpr std::size_t kHalf = Resolver::kMaxAddresses / 2;
  const std::size_t count6 = v6 == nullptr ? 0 : v6->addresses.size();
  const std::size_t count4 = v4 == nullptr ? 0 : v4->addresses.size();
  const std::size_t most4 = Resolver::kMaxAddresses - std::min(count6, kHalf);
  const std::size_t taken4 = std::min(count4, most4);
  const std::size_t taken6 = std::min(count6, Resolver::kMaxAddresses - taken4);
  if (v4 != nullptr)
    addresses.assign(v4->addresses.begin(), v4->addresses.begin() + static_cast<std::ptrdiff_t>(taken4));
  if (v6 != nullptr) {
    addresses.insert(addresses.end(), v6->addresses.begin(),
                     v6->addresses.begin() + static_cast<std::ptrdiff_t>(taken6));
  }
  return addresses;
}

}  // namespace

TypeLookup::TypeLookup(Reactor& reactor, std::shared_ptr<const DnsServers> servers, dns::Question question,
                       std::function<void()> on_end)
    : reactor_(reactor), servers_(std::move(servers)), question_(std::move(question)), on_end_(std::move(on_end)) {}

void TypeLookup::next() {
  constexpr std::size_t kRounds = 2;
  while (tried_ < kRounds * servers_->size()) {
    const DnsServerAddress& server = (*servers_)[tried_ % servers_->size()];
    const bool edns = tried_ < servers_->size();
    ++tried_;
    exchange_ = std::make_unique<DnsExchange>(
        reactor_, server, question_, edns, [this](DnsExchange::Outcome&& outcome) { on_outcome(std::move(outcome)); });
    auto started = exchange_->start();
    if (started) return;
    fault_ = server.text + " could not be asked: " + started.error().message();
  }
  exchange_.reset();
  ended_ = true;
}

void TypeLookup::on_outcome(DnsExchange::Outcome&& outcome) {
  if (!outcome.reply) {
    fault_ = std::move(outcome.fault);
  } else if (outcome.reply->endless) {
    fault_ = (*servers_)[(tried_ - 1) % servers_->size()].text + " answered with CNAMEs that lead on and on";
  } else if (outcome.reply->rcode != dns::Rcode::kNoError && outcome.reply->rcode != dns::Rcode::kNoName) {
    fault_ = (*servers_)[(tried_ - 1) % servers_->size()].text + " answered " + rcode_text(outcome.reply->rcode);
  } else {
    reply_ = std::move(outcome.reply);
    exchange_.reset();
    ended_ = true;
  }
  if (!ended_) next();
  if (ended_) on_end_();
}

ResolverJob::ResolverJob(Reactor& reactor, std::shared_ptr<const DnsServers> servers, const dns::Name& name,
                         std::function<void()> on_end)
    : on_end_(std::move(on_end)),
      v4_(reactor, servers, {.name = name, .type = dns::kA}, [this] { on_type_end(); }),
      v6_(reactor, servers, {.name = name, .type = dns::kAaaa}, [this] { on_type_end(); }),
      deadline_(reactor, [this] { end(); }),
      other_family_(reactor, [this] { end(); }) {}

void ResolverJob::start() {
  v4_.start();
  v6_.start();
  ended_ = v4_.ended() && v6_.ended();
  if (!ended_) deadline_.arm_in(kDeadline);
}

void ResolverJob::on_type_end() {
  if (v4_.ended() && v6_.ended()) return end();
  if (v4_.has_addresses() || v6_.has_addresses()) other_family_.arm_in(kOtherFamily);
}

void ResolverJob::end() {
  deadline_.stop();
  other_family_.stop();
  ended_ = true;
  const auto on_end = std::move(on_end_);
  on_end();
}

ResolverJob::Outcome ResolverJob::outcome() const {
  using Status = Resolved::Status;
  const dns::Reply *v4 = v4_.reply(), *v6 = v6_.reply();
  const auto ttl_of = [](const dns::Reply* reply) { return reply == nullptr ? kMostHalfTtl : reply->ttl; };
  Outcome outcome{.resolved = {.addresses = merge(v4, v6)}};
  if (!outcome.resolved.addresses.empty()) {
    outcome.resolved.status = Status::kFound;
    seconds ttl = kMostTtl;
    for (const auto* type : {&v4_, &v6_}) {
      if (type->has_addresses() || type->reply() == nullptr) ttl = std::min(ttl, ttl_of(type->reply()));
    }
    outcome.ttl = std::max(ttl, kLeastTtl);
  } else if (v4 == nullptr || v6 == nullptr) {
    const std::string& fault = v4 == nullptr && !v4_.fault().empty() ? v4_.fault() : v6_.fault();
    outcome.resolved.status = Status::kFailed;
    outcome.resolved.detail =
        fault.empty() ? "no DNS server answered within " + std::to_string(kDeadline.count() / 1000) + " s" : fault;
    outcome.ttl = kFailureTtl;
  } else {
    // Of a name that is there, some servers say NXDOMAIN for the type that it has not (RFC 4074 4.2).
    const bool absent = v4->rcode == dns::Rcode::kNoName && v6->rcode == dns::Rcode::kNoName;
    outcome.resolved.status = absent ? Status::kNoName : Status::kNoAddress;
    outcome.ttl = std::clamp(std::min(v4->ttl, v6->ttl), kLeastNegativeTtl, kMostNegativeTtl);
  }
  return outcome;
}

}  // namespace kai::egress
