// Against tunnels through DNS: below an allowed *.name an agent could carry data in labels to whoever answers for it.
// Each agent has a budget of lookups upstream, and one of information in new names, so that one odd name passes and a
// stream of them does not.
#pragma once

#include <cstdint>
#include <string_view>

#include "proto/egress.pb.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

class NameGuard {
 public:
  explicit NameGuard(const egress::Limits& limits) { use(limits); }
  void use(const egress::Limits& limits);

  /// A name that somebody outside has to be asked for. False: too many a second.
  bool take_lookup(Clock::time_point now);
  /// A name that was never asked for before and that only a pattern allows. `below`: its labels in front of the
  /// pattern's. False: with it, this minute's names would carry more than the budget.
  bool take_name(std::string_view below, Clock::time_point now);

  /// How many bits of information `labels` can carry: by the alphabet that they are written in, hyphens and dots aside.
  static std::uint32_t bits_of(std::string_view labels);

 private:
  double lookups_ = 0, bits_ = 0;            // left
  double lookups_rate_ = 0, bits_rate_ = 0;  // a second
  double most_lookups_ = 0, most_bits_ = 0;
  Clock::time_point lookups_at_{}, bits_at_{};
};

}  // namespace kai::egress
