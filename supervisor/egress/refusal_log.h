// What was refused to one agent's connections: an event for each, unless there is a flood of them, and counts of the
// same kind for whoever asks. Of bounded size, whatever an agent does.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "proto/egress.pb.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

class RefusalLog {
 public:
  // Events: so many at once, so many a second from then on; the rest is one event a second, with their number.
  static constexpr double kToldAtOnce = 200, kToldPerSecond = 50;
  /// Of the same name, port and reason within a second; the rest of them is one event as well.
  static constexpr std::uint32_t kToldAlike = 3;
  static constexpr std::size_t kMostKept = 256;      ///< denials by (name, port, reason); the rest is counted as one
  static constexpr std::size_t kMostDescribed = 64;  ///< of them; the rest is counted as one
  static constexpr std::size_t kMaxReasonBytes = 512;
  using Tell = std::function<void(egress::Refused&& refused)>;

  RefusalLog(Reactor& reactor, Tell tell);
  void add(egress::Refused&& refused);
  /// Tells what is held back.
  void flush();
  /// refused, failed and refusals: added to what is there.
  void describe(egress::Snapshot& snapshot) const;

 private:
  using Key = std::tuple<std::string, std::uint32_t, std::string>;
  struct Count {
    std::string rule;
    std::uint64_t count = 0;
  };
  struct Held {
    egress::Refused last;
    std::uint64_t count = 0;  // it and what came before it
  };

  struct Alike {
    std::uint32_t told = 0;
    Held held;
  };

  static Key key_of(const egress::Refused& refused);
  void count(const egress::Refused& refused);
  bool take_token();
  Held& beyond(const egress::Refused& refused) { return beyond_[refused.kind() == egress::Refused::FAILED ? 1 : 0]; }
  void tell(Held&& held);

  Reactor& reactor_;
  Tell tell_;
  Reactor::Timer timer_;  // armed while a second runs
  double tokens_ = kToldAtOnce;
  Clock::time_point filled_;
  std::map<std::pair<bool, Key>, Alike> this_second_;  // failures apart; an entry costs a token
  std::array<Held, 2> beyond_;                         // denials, failures that no token was left for
  std::map<Key, Count> counts_;
  std::uint64_t uncounted_ = 0, refused_ = 0, failed_ = 0;
};

}  // namespace kai::egress
