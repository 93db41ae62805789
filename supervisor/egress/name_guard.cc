#include "supervisor/egress/name_guard.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace kai::egress {
namespace {

void refill(double& tokens, Clock::time_point& at, Clock::time_point now, double rate, double most) {
  const std::chrono::duration<double> since = now - at;
  at = now;
  tokens = std::min(most, tokens + rate * since.count());
}

enum Alphabet : unsigned { kDecimal = 1, kHexadecimal = 2, kLetters = 4, kOthers = 8 };

unsigned alphabet_of(char c) {
  if (c >= '0' && c <= '9') return kDecimal;
  if (c >= 'a' && c <= 'f') return kHexadecimal;
  if (c >= 'g' && c <= 'z') return kLetters;
  return kOthers;
}

/// How many different characters there are in the smallest alphabet that has them all: 10, 16, 26, 36 or 64.
double size_of(unsigned alphabets) {
  if ((alphabets & kOthers) != 0) return 64;
  const bool digits = (alphabets & kDecimal) != 0;
  if ((alphabets & kLetters) != 0) return digits ? 36 : 26;
  return (alphabets & kHexadecimal) != 0 ? 16 : 10;
}

}  // namespace

// What was left is scaled to the new budget: a change of the rules gives no fresh one.
void NameGuard::use(const egress::Limits& limits) {
  const double lookups = limits.lookups(), bits = limits.name_bits();
  lookups_ = most_lookups_ > 0 ? lookups_ / most_lookups_ * lookups : lookups;
  bits_ = most_bits_ > 0 ? bits_ / most_bits_ * bits : bits;
  lookups_rate_ = most_lookups_ = lookups;
  most_bits_ = bits;
  bits_rate_ = bits / 60;
}

bool NameGuard::take_lookup(Clock::time_point now) {
  refill(lookups_, lookups_at_, now, lookups_rate_, most_lookups_);
  if (lookups_ < 1) return false;
  lookups_ -= 1;
  return true;
}

bool NameGuard::take_name(std::string_view below, Clock::time_point now) {
  refill(bits_, bits_at_, now, bits_rate_, most_bits_);
  const double bits = bits_of(below);
  if (bits > bits_) return false;
  bits_ -= bits;
  return true;
}

std::uint32_t NameGuard::bits_of(std::string_view labels) {
  unsigned alphabets = 0;
  std::uint32_t characters = 0;
  for (const char c : labels) {
    if (c == '.' || c == '-') continue;
    alphabets |= alphabet_of(c);
    ++characters;
  }
  return static_cast<std::uint32_t>(std::ceil(characters * std::log2(size_of(alphabets))));
}

}  // namespace kai::egress
