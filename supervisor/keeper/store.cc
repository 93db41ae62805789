#include "supervisor/keeper/store.h"

#include <poll.h>
#include <signal.h>

#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unix.h"
#include "supervisor/keeper/handover.h"

namespace kai::keeper {
namespace {

constexpr std::string_view kState = "state-";
constexpr std::array kWhat = {"pidfd", "channel", "output", "error", "listener", "directory"};  // as enum Kept
constexpr int kEndMs = 2'000;

using Descriptors = std::multimap<std::string, Fd>;

/// Of the newest state; it stays in the store until a newer one is there.
Descriptors::iterator newest_state(Descriptors& stored) {
  auto newest = stored.end();
  std::uint64_t most = 0;
  for (auto at = stored.begin(); at != stored.end(); ++at) {
    std::uint64_t number = 0;
    const std::string& name = at->first;
    if (!name.starts_with(kState)) continue;
    (void)std::from_chars(name.data() + kState.size(), name.data() + name.size(), number);
    if (newest == stored.end() || number > most) newest = at;
    most = std::max(most, number);
  }
  return newest;
}

/// The number of a descriptor that its owner takes with inherited(); 0: it is not there.
std::int32_t take(Descriptors& stored, const std::string& name) {
  const auto found = stored.find(name);
  if (found == stored.end()) return 0;
  const int number = found->second.release();
  stored.erase(found);
  return number;
}

std::int32_t take(Descriptors& stored, std::uint64_t instance, Kept what) {
  return take(stored, stored_name(instance, what));
}

bool has_network(const Descriptors& stored, const handover::Agent& agent) {
  for (std::size_t at = 0; at < static_cast<std::size_t>(agent.network_size()); ++at) {
    if (!stored.contains(stored_network_name(agent.told().instance(), at))) return false;
  }
  return true;
}

void fill_in(handover::State& state, Descriptors& stored) {
  auto* agents = state.mutable_agents();
  for (int at = 0; at < agents->size();) {
    handover::Agent& agent = (*agents)[at];
    const std::uint64_t instance = agent.told().instance();
    // Without it nothing can be said of the process.
    const bool there = stored.contains(stored_name(instance, Kept::kPidfd)) &&
                       stored.contains(stored_name(instance, Kept::kChannel)) &&
                       agent.told().listener() == stored.contains(stored_name(instance, Kept::kListener)) &&
                       has_network(stored, agent);
    if (!there) {
      agents->DeleteSubrange(at, 1);
      continue;
    }
    agent.set_pidfd(take(stored, instance, Kept::kPidfd));
    agent.set_channel(take(stored, instance, Kept::kChannel));
    agent.set_output(take(stored, instance, Kept::kOutput));
    agent.set_error(take(stored, instance, Kept::kError));
    agent.set_listener(take(stored, instance, Kept::kListener));
    agent.set_directory(take(stored, instance, Kept::kDirectory));
    for (int place = 0; place < agent.network_size(); ++place) {
      agent.set_network(place, take(stored, stored_network_name(instance, static_cast<std::size_t>(place))));
    }
    agent.set_orphan(true);
    ++at;
  }
}

}  // namespace

std::string stored_name(std::uint64_t instance, Kept what) {
  return "agent-" + std::to_string(instance) + "-" + kWhat[static_cast<std::size_t>(what)];
}

std::string stored_network_name(std::uint64_t instance, std::size_t at) {
  return "agent-" + std::to_string(instance) + "-network-" + std::to_string(at);
}

std::string stored_state_name(std::uint64_t number) {
  return std::string(kState) + std::to_string(number);
}

Stored sort_stored(Descriptors stored) {
  Stored sorted;
  if (const auto newest = newest_state(stored); newest != stored.end()) {
    if (auto state = read_state(newest->second)) {
      fill_in(*state, stored);
      if (!state->agents().empty()) {
        stored.erase(newest);
        sorted.state = std::move(*state);
      }
    }
  }
  for (const auto& [name, fd] : stored) {
    sorted.useless.push_back(name);
    if (name.ends_with(kWhat[0])) (void)signal_pidfd(fd.get(), SIGKILL);
  }
  for (const auto& [name, fd] : stored) {
    pollfd ended{.fd = fd.get(), .events = POLLIN, .revents = 0};
    if (name.ends_with(kWhat[0])) (void)poll(&ended, 1, kEndMs);
  }
  return sorted;
}

}  // namespace kai::keeper
