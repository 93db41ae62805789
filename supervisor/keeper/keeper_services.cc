// Services that agents depend on: control has no way to their Unix sockets.
#include <utility>

#include "supervisor/keeper/check.h"
#include "supervisor/keeper/keeper.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMostProbing = 32;  // addresses at the same time: each is a child

}  // namespace

void Keeper::on_probe_service(std::uint64_t id, const std::string& address) {
  const auto path = check_service(address, policies_.parsed);
  if (!path) return fail(id, "request", path.error());
  auto found = probing_.find(address);
  if (found == probing_.end()) {
    if (probing_.size() >= kMostProbing) return fail(id, "service", Error{"too many at the same time", 0, ""});
    auto probe = SocketProbe::begin(*path);
    if (!probe) return fail(id, "service", probe.error());
    wake_at_end(probe->pidfd());
    found = probing_.emplace(address, Probing{std::move(*probe), {}}).first;
  }
  if (found->second.requests.size() >= kMaxAgents) return fail(id, "service", Error{"asked too often", 0, ""});
  found->second.requests.push_back(id);
}

/// A child that the kernel holds stays, and answers for whoever asks next: there is never more than one an address.
void Keeper::look_at_services(Clock::time_point now) {
  for (auto next = probing_.begin(); next != probing_.end();) {
    Probing& probing = next->second;
    if (const auto outcome = probing.probe.outcome(now)) {
      for (const std::uint64_t request : std::exchange(probing.requests, {})) {
        *outcome == 0 ? done(request) : fail(request, "service", Error{"connect", *outcome, next->first});
      }
    }
    next = probing.probe.gone() ? probing_.erase(next) : std::next(next);
  }
}

}  // namespace kai::keeper
