#include "supervisor/egress/resolver.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "supervisor/egress/resolver_cache.h"
#include "supervisor/egress/resolver_job.h"

namespace kai::egress {
namespace {

/// Of the words of a line of resolv.conf(5), the one that begins at `at`, which then is behind it.
std::string_view word(std::string_view line, std::size_t& at) {
  constexpr std::string_view kBlank = " \t\r";
  at = std::min(line.find_first_not_of(kBlank, at), line.size());
  const std::size_t begin = at;
  at = std::min(line.find_first_of(kBlank, at), line.size());
  return line.substr(begin, at - begin);
}

struct Waiter {
  Resolver::Done done;
  bool gone = false;
};

}  // namespace

class Resolver::State {
 public:
  explicit State(Reactor& reactor) : reactor_(reactor) {}

  void use_servers(DnsServers servers) {
    servers_ = std::make_shared<const DnsServers>(std::move(servers));
    cache_.clear();  // the others may know otherwise
  }

  const Resolved* cached(const std::string& name) { return cache_.find(name, reactor_.now()); }

  /// A Resolved: nobody needs to wait, it is known already.
  std::optional<Resolved> wait(const std::string& name, const std::shared_ptr<Waiter>& waiter) {
    if (const auto found = lookups_.find(name); found != lookups_.end()) {
      found->second.waiters.push_back(waiter);
      return std::nullopt;
    }
    const auto wire = dns::Name::of(name);
    if (!wire) return Resolved{.detail = "it is no DNS name"};
    if (servers_->empty()) return Resolved{.detail = "no DNS server is known: set upstreamDns in kaid.yaml"};
    if (lookups_.size() >= kMaxLookups) {
      return Resolved{.detail = std::to_string(kMaxLookups) + " other lookups are under way"};
    }
    auto job = std::make_unique<ResolverJob>(reactor_, servers_, *wire, [this, name] { on_end(name); });
    job->start();
    if (job->ended()) return keep(name, job->outcome());
    lookups_.emplace(name, UnderWay{.job = std::move(job), .waiters = {waiter}});
    return std::nullopt;
  }

  void leave(const std::string& name, const std::shared_ptr<Waiter>& waiter) {
    const auto found = lookups_.find(name);
    if (found == lookups_.end()) return;
    if (std::erase(found->second.waiters, waiter) > 0 && found->second.waiters.empty()) lookups_.erase(found);
  }

 private:
  struct UnderWay {
    std::unique_ptr<ResolverJob> job;
    std::vector<std::shared_ptr<Waiter>> waiters;
  };

  Resolved keep(const std::string& name, ResolverJob::Outcome outcome) {
    cache_.put(name, outcome.resolved, reactor_.now() + outcome.ttl);
    return std::move(outcome.resolved);
  }

  // Whoever is called may end any lookup, the resolver itself, or begin the same again: nothing of this is touched
  // then.
  void on_end(const std::string& name) {
    auto ended = lookups_.extract(name);
    const Resolved resolved = keep(ended.key(), ended.mapped().job->outcome());
    for (const auto& waiter : ended.mapped().waiters) {
      const Done done = std::move(waiter->done);
      if (!waiter->gone) done(resolved);
    }
  }

  Reactor& reactor_;
  std::shared_ptr<const DnsServers> servers_ = std::make_shared<const DnsServers>();
  ResolverCache cache_{kMaxCached};
  std::unordered_map<std::string, UnderWay> lookups_;
};

namespace {

template <typename State>
class Waiting : public Resolver::Lookup {
 public:
  Waiting(std::weak_ptr<State> state, std::string name, std::shared_ptr<Waiter> waiter)
      : state_(std::move(state)), name_(std::move(name)), waiter_(std::move(waiter)) {}
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() override {
    waiter_->gone = true;
    if (const auto state = state_.lock()) state->leave(name_, waiter_);
  }

 private:
  std::weak_ptr<State> state_;
  std::string name_;
  std::shared_ptr<Waiter> waiter_;
};

}  // namespace

Resolver::Resolver(Reactor& reactor) : state_(std::make_shared<State>(reactor)) {}
Resolver::~Resolver() = default;

std::vector<std::string> Resolver::use_servers(const std::vector<std::string>& servers) {
  DnsServers good;
  std::vector<std::string> wrong;
  for (const std::string& text : servers) {
    if (auto server = DnsServerAddress::read(text)) {
      good.push_back(std::move(*server));
    } else {
      wrong.push_back(text);
    }
  }
  state_->use_servers(std::move(good));
  return wrong;
}

std::vector<std::string> Resolver::servers_of(std::string_view resolv_conf) {
  std::vector<std::string> servers;
  while (!resolv_conf.empty()) {
    const std::string_view line = resolv_conf.substr(0, resolv_conf.find('\n'));
    resolv_conf.remove_prefix(std::min(resolv_conf.size(), line.size() + 1));
    std::size_t at = 0;
    if (word(line, at) != "nameserver") continue;
    if (const auto server = word(line, at); !server.empty()) servers.emplace_back(server);
  }
  return servers;
}

const Resolved* Resolver::known(const std::string& name) const {
  return state_->cached(name);
}

std::unique_ptr<Resolver::Lookup> Resolver::lookup(const std::string& name, Done done) {
  if (const Resolved* found = known(name)) {
    const Resolved resolved = *found;  // whoever is told may ask again, and change the cache
    done(resolved);
    return nullptr;
  }
  auto waiter = std::make_shared<Waiter>();
  waiter->done = std::move(done);
  if (const auto resolved = state_->wait(name, waiter)) {
    waiter->done(*resolved);
    return nullptr;
  }
  return std::make_unique<Waiting<State>>(state_, name, waiter);
}

}  // namespace kai::egress
