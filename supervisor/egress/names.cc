#include "supervisor/egress/names.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <vector>

#include "supervisor/egress/random.h"

namespace kai::egress {
namespace {

// fde0:23a2:f472::/96 carries the IPv4 address in its last four bytes: one look says that both mean the same name. The
// global id was drawn once (RFC 4193 3.2.2).
constexpr std::array<std::uint8_t, 12> kPrefix6 = {0xFD, 0xE0, 0x23, 0xA2, 0xF4, 0x72};

// Each half of 198.18.0.0/15 is a /16; of each /24 the first and the last address stay unused, as some clients take
// them for a network's and a broadcast address.
constexpr std::uint32_t kHalf = 256 * 254;

/// Names that the rules say to the letter live in 198.18.0.0/16. At most half of all names are such: the rest of a
/// longer list is treated like what a pattern allows.
constexpr std::size_t kMaxExact = SyntheticNames::kMaxNames / 2;

Address address4(std::uint32_t slot) {
  const std::uint32_t at = slot % kHalf;
  Address address{.bits = 32};
  address.bytes[0] = 198;
  address.bytes[1] = static_cast<std::uint8_t>(18 + slot / kHalf);
  address.bytes[2] = static_cast<std::uint8_t>(at / 254);
  address.bytes[3] = static_cast<std::uint8_t>(1 + at % 254);
  return address;
}

NameAddresses addresses_of(std::uint32_t slot) {
  NameAddresses addresses{.v4 = address4(slot)};
  std::copy(kPrefix6.begin(), kPrefix6.end(), addresses.v6.bytes.begin());
  std::copy_n(addresses.v4.bytes.begin(), 4, addresses.v6.bytes.begin() + kPrefix6.size());
  return addresses;
}

bool has_prefix6(const Address& address) {
  return address.bits == 128 && std::equal(kPrefix6.begin(), kPrefix6.end(), address.bytes.begin());
}

/// nullopt: none of the addresses that names have.
std::optional<std::uint32_t> slot_of(const Address& address) {
  if (!SyntheticNames::is_synthetic(address)) return std::nullopt;
  const std::uint8_t* v4 = address.bytes.data() + (address.bits == 32 ? 0 : kPrefix6.size());
  if (v4[3] == 0 || v4[3] == 255) return std::nullopt;
  return (v4[1] - 18U) * kHalf + v4[2] * 254U + v4[3] - 1U;
}

/// FNV-1a, its upper half folded in: the same in every build and on every machine, which std::hash is not.
std::uint32_t first_slot(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001B3;
  return static_cast<std::uint32_t>((hash ^ (hash >> 32U)) % kHalf);
}

/// In the rules' order, each once.
std::vector<std::string> exact_names(const egress::Rules& rules) {
  std::vector<std::string> names;
  std::unordered_set<std::string_view> seen;
  const auto add = [&](const std::string& name) {
    if (!name.empty() && names.size() < kMaxExact && seen.insert(name).second) names.push_back(name);
  };
  for (const auto* list : {&rules.asked(), &rules.allowed()}) {
    for (const auto& pattern : *list) {
      if (!pattern.subdomains()) add(pattern.name());
    }
  }
  for (const auto& host : rules.hosts()) add(host.name());
  return names;
}

}  // namespace

SyntheticNames::SyntheticNames(const egress::Rules& rules) : cursor_(random_number<std::uint32_t>() % kHalf) {
  use(rules);
}

bool SyntheticNames::is_synthetic(const Address& address) {
  if (address.bits == 32) return address.bytes[0] == 198 && (address.bytes[1] & 0xFEU) == 18;
  return has_prefix6(address) && address.bytes[12] == 198 && (address.bytes[13] & 0xFEU) == 18;
}

// A name that is new in the rules gets the place that it has in every life, but where a name of earlier rules, or one
// with the same hash before it, has that: then the next free one.
void SyntheticNames::use(const egress::Rules& rules) {
  for (auto at = places_.begin(); at != places_.end();) {
    Place& place = at->second;
    place.exact = false;
    if (!place.entry) names_.erase(place.slot);
    at = place.entry ? std::next(at) : places_.erase(at);
  }
  for (const std::string& name : exact_names(rules)) {
    const auto [place, is_new] = places_.try_emplace(name);
    place->second.exact = true;
    if (!is_new) continue;
    Slot slot = first_slot(name);
    while (names_.contains(slot)) slot = (slot + 1) % kHalf;
    place->second.slot = slot;
    names_.emplace(slot, name);
  }
}

SyntheticNames::Places::iterator SyntheticNames::place_of(std::string_view name) {
  return places_.find(std::string(name));
}

bool SyntheticNames::evict_one() {
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    const auto place = places_.find(entry->name);
    if (entry->connections > 0 || place->second.exact) continue;
    names_.erase(place->second.slot);
    places_.erase(place);
    entries_.erase(std::next(entry).base());
    return true;
  }
  return false;
}

/// Onward from where the last one was found: an address that was given up stands for nothing for as long as possible.
SyntheticNames::Slot SyntheticNames::next_slot() {
  while (names_.contains(kHalf + cursor_)) cursor_ = (cursor_ + 1) % kHalf;
  const Slot slot = kHalf + cursor_;
  cursor_ = (cursor_ + 1) % kHalf;
  return slot;
}

SyntheticNames::Places::iterator SyntheticNames::make_place(std::string_view name) {
  while (places_.size() >= kMaxNames) {
    if (!evict_one()) return places_.end();
  }
  const Slot slot = next_slot();
  names_.emplace(slot, name);
  return places_.emplace(name, Place{.slot = slot}).first;
}

std::optional<NameAddresses> SyntheticNames::addresses(std::string_view name) {
  auto place = place_of(name);
  if (place == places_.end()) place = make_place(name);
  if (place == places_.end()) return std::nullopt;
  auto& entry = place->second.entry;
  if (entry) {
    entries_.splice(entries_.begin(), entries_, *entry);
  } else {
    entries_.push_front({.name = std::string(name), .addresses = addresses_of(place->second.slot)});
    entry = entries_.begin();
  }
  return (*entry)->addresses;
}

std::optional<std::string> SyntheticNames::name_of(const Address& address) const {
  const auto slot = slot_of(address);
  if (!slot) return std::nullopt;
  const auto found = names_.find(*slot);
  return found == names_.end() ? std::nullopt : std::optional(found->second);
}

void SyntheticNames::open(std::string_view name) {
  if (!addresses(name)) return;
  ++(*place_of(name)->second.entry)->connections;
}

void SyntheticNames::close(std::string_view name) {
  const auto place = place_of(name);
  if (place == places_.end() || !place->second.entry) return;
  Entry& entry = **place->second.entry;
  if (entry.connections > 0) --entry.connections;
}

}  // namespace kai::egress
