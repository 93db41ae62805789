#include "supervisor/egress/refusal_log.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/text.h"

namespace kai::egress {

RefusalLog::RefusalLog(Reactor& reactor, Tell tell)
    : reactor_(reactor), tell_(std::move(tell)), timer_(reactor, [this] { flush(); }), filled_(reactor.now()) {}

RefusalLog::Key RefusalLog::key_of(const Refused& refused) {
  return {refused.name().empty() ? refused.address() : refused.name(), refused.port(), refused.reason()};
}

void RefusalLog::count(const Refused& refused) {
  if (refused.kind() == Refused::FAILED) {
    ++failed_;
    return;
  }
  ++refused_;
  const Key key = key_of(refused);
  const auto found = counts_.find(key);
  if (found != counts_.end()) {
    ++found->second.count;
  } else if (counts_.size() < kMostKept) {
    counts_.emplace(key, Count{refused.rule(), 1});
  } else {
    ++uncounted_;
  }
}

void RefusalLog::add(Refused&& refused) {
  if (refused.reason().size() > kMaxReasonBytes) {
    refused.set_reason(std::string(clip_utf8(refused.reason(), kMaxReasonBytes)) + "…");
  }
  count(refused);
  if (!timer_.armed()) timer_.arm_in(std::chrono::seconds(1));
  const auto hold = [&refused](Held& held) {
    held.last = std::move(refused);
    ++held.count;
  };
  auto key = std::pair(refused.kind() == Refused::FAILED, key_of(refused));
  const auto alike = this_second_.find(key);
  if (alike != this_second_.end() && alike->second.told >= kToldAlike) return hold(alike->second.held);
  if (!take_token()) return hold(beyond(refused));
  ++this_second_[std::move(key)].told;
  tell_(std::move(refused));
}

bool RefusalLog::take_token() {
  const std::chrono::duration<double> since = reactor_.now() - std::exchange(filled_, reactor_.now());
  tokens_ = std::min(kToldAtOnce, tokens_ + since.count() * kToldPerSecond);
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

void RefusalLog::tell(Held&& held) {
  held.last.set_more(held.count - 1);
  tell_(std::move(held.last));
}

void RefusalLog::flush() {
  timer_.stop();
  for (auto& [key, alike] : std::exchange(this_second_, {})) {
    if (alike.held.count == 0) continue;
    if (take_token()) {
      tell(std::move(alike.held));
      continue;
    }
    Held& sum = beyond(alike.held.last);
    sum.count += alike.held.count;
    sum.last = std::move(alike.held.last);
  }
  for (Held& held : beyond_) {
    if (held.count > 0) tell(std::exchange(held, {}));
  }
}

void RefusalLog::describe(Snapshot& snapshot) const {
  snapshot.set_refused(snapshot.refused() + refused_);
  snapshot.set_failed(snapshot.failed() + failed_);
  std::vector<std::pair<const Key*, const Count*>> sorted;
  for (const auto& [key, count] : counts_) sorted.emplace_back(&key, &count);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& one, const auto& other) { return one.second->count > other.second->count; });
  std::uint64_t rest_of_them = uncounted_;
  for (const auto& [key, count] : sorted) {
    if (static_cast<std::size_t>(snapshot.refusals_size()) >= kMostDescribed) {
      rest_of_them += count->count;
      continue;
    }
    Refusals& refusals = *snapshot.add_refusals();
    std::tie(*refusals.mutable_name(), std::ignore, *refusals.mutable_reason()) = *key;
    refusals.set_port(std::get<1>(*key));
    refusals.set_rule(count->rule);
    refusals.set_count(count->count);
  }
  if (rest_of_them == 0) return;
  Refusals& rest = *snapshot.add_refusals();
  rest.set_reason("others, which are not told one by one");
  rest.set_count(rest_of_them);
}

}  // namespace kai::egress
