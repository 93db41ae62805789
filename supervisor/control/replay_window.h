// The messages that one channel has brought lately, so that none is taken twice (klp.md: 10,000 ids or 5 minutes).
//
// Ids are an agent's own words, and an agent may be hostile: they are kept as SipHash values under a key of this
// process. Nobody outside can choose ids that collide, and a full window costs about 600 KB whatever the ids are; one
// that was never used costs nothing.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <unordered_set>

namespace kai {

using UuidBytes = std::array<std::uint8_t, 16>;

/// A UUIDv7 of RFC 9562 in its text form, 8-4-4-4-12 hex digits of either case. nullopt: it is none.
std::optional<UuidBytes> parse_uuid_v7(std::string_view text);

class ReplayWindow {
 public:
  static constexpr std::size_t kIds = 10'000;
  static constexpr std::int64_t kMs = 5 * 60'000;

  /// false: `id` was seen within the window. `now_ms` is monotonic.
  [[nodiscard]] bool accept(const UuidBytes& id, std::int64_t now_ms);

 private:
  struct Seen {
    std::uint64_t hash;
    std::int64_t at_ms;
  };
  struct Window {
    std::deque<Seen> in_order;  // oldest first
    std::unordered_set<std::uint64_t> hashes;
  };

  void forget_oldest();

  std::optional<Window> window_;  // from the first id on
};

}  // namespace kai
