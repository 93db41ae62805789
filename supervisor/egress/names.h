// Addresses that stand for names: one IPv4 address of 198.18.0.0/15 (RFC 2544, nobody's on the Internet) and one IPv6
// address of a unique local range (RFC 4193) for each (agent, name). A connection to one is a connection to that name.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "policies/addresses.h"
#include "proto/egress.pb.h"

namespace kai::egress {

struct NameAddresses {
  Address v4, v6;
};

/// Of one agent.
class SyntheticNames {
 public:
  /// So many names have addresses at the same time; the one that was not used for the longest gives its up, unless it
  /// is one that the rules name, or in use.
  static constexpr std::size_t kMaxNames = 4096;

  /// Names that the rules say to the letter have the same addresses in every life of egress: an agent that remembers
  /// one is understood after egress was killed. Others begin at a random place.
  explicit SyntheticNames(const egress::Rules& rules);
  SyntheticNames(const SyntheticNames&) = delete;
  SyntheticNames& operator=(const SyntheticNames&) = delete;
  /// The rules are others now: what has addresses keeps them.
  void use(const egress::Rules& rules);

  /// Of a canonical name; made when it has none. nullopt: all are in use.
  std::optional<NameAddresses> addresses(std::string_view name);
  /// nullopt: it stands for nothing (any more), or is none of these ranges.
  [[nodiscard]] std::optional<std::string> name_of(const Address& address) const;
  /// Whether it lies in one of the two ranges.
  static bool is_synthetic(const Address& address);

  /// A connection by this name begins or ends.
  void open(std::string_view name);
  void close(std::string_view name);

  struct Entry {
    std::string name;
    NameAddresses addresses;
    std::uint32_t connections = 0;
  };
  /// The last used first.
  [[nodiscard]] const std::list<Entry>& entries() const { return entries_; }

 private:
  using Slot = std::uint32_t;  ///< what an address stands for, counted through the range
  struct Place {
    Slot slot = 0;
    bool exact = false;  ///< the rules name it
    std::optional<std::list<Entry>::iterator> entry;
  };
  using Places = std::unordered_map<std::string, Place>;

  Places::iterator place_of(std::string_view name);
  Places::iterator make_place(std::string_view name);
  bool evict_one();
  Slot next_slot();

  std::list<Entry> entries_;
  Places places_;  // every name that has an address, and those of the rules that nobody asked for yet
  std::unordered_map<Slot, std::string> names_;
  Slot cursor_ = 0;
};

}  // namespace kai::egress
