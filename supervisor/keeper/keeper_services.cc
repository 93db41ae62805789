// Services that agents depend on, and the redis of their memory: control has no way to their Unix sockets.
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
  look_at_redis(now);
}

void Keeper::on_connect_redis(std::uint64_t id) {
  if (config_.redis_socket.empty()) {
    return fail(id, "request", Error{"kaid.yaml names no Unix socket of redis", 0, ""});
  }
  if (!redis_) {
    auto probe = SocketProbe::begin(config_.redis_socket);
    if (!probe) return fail(id, "redis", probe.error());
    wake_at_end(probe->pidfd());
    redis_.emplace(Probing{std::move(*probe), {}});
  }
  // A connection is for one.
  if (!redis_->requests.empty()) return fail(id, "request", Error{"it is being connected already", 0, ""});
  redis_->requests.push_back(id);
}

/// As with services: a child that the kernel holds stays, and nobody who asks meanwhile waits for longer than it may.
void Keeper::look_at_redis(Clock::time_point now) {
  if (!redis_) return;
  const auto outcome = redis_->probe.outcome(now);
  if (!outcome) return;
  for (const std::uint64_t request : std::exchange(redis_->requests, {})) {
    if (*outcome != 0) {
      fail(request, "redis", Error{"connect", *outcome, config_.redis_socket});
      continue;
    }
    Reply message;
    message.set_id(request);
    message.mutable_done();
    std::vector<Fd> beside;
    beside.push_back(redis_->probe.take_connection());
    reply(message, std::move(beside));
  }
  if (redis_->probe.gone()) redis_.reset();
}

}  // namespace kai::keeper
