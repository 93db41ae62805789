#include "supervisor/control/replay_window.h"

#include <sodium.h>

#include <cstring>

namespace kai {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr bool is_hyphen_place(std::size_t at) {
  return at == 8 || at == 13 || at == 18 || at == 23;
}

using HashKey = std::array<unsigned char, crypto_shorthash_KEYBYTES>;

std::uint64_t keyed_hash(const UuidBytes& id) {
  static const HashKey key = [] {
    HashKey made;
    randombytes_buf(made.data(), made.size());
    return made;
  }();
  std::array<unsigned char, crypto_shorthash_BYTES> out;
  crypto_shorthash(out.data(), id.data(), id.size(), key.data());
  std::uint64_t hash = 0;
  static_assert(sizeof hash == out.size());
  std::memcpy(&hash, out.data(), out.size());
  return hash;
}

}  // namespace

std::optional<UuidBytes> parse_uuid_v7(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  UuidBytes bytes{};
  std::size_t digits = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (is_hyphen_place(at)) {
      if (text[at] != '-') return std::nullopt;
      continue;
    }
    const int digit = hex_digit(text[at]);
    if (digit < 0) return std::nullopt;
    std::uint8_t& byte = bytes[digits / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | digit);
    ++digits;
  }
  const bool version_7 = bytes[6] >> 4 == 7;
  const bool rfc_variant = bytes[8] >> 6 == 2;
  if (!version_7 || !rfc_variant) return std::nullopt;
  return bytes;
}

void ReplayWindow::forget_oldest() {
  window_->hashes.erase(window_->in_order.front().hash);
  window_->in_order.pop_front();
}

bool ReplayWindow::accept(const UuidBytes& id, std::int64_t now_ms) {
  if (!window_) window_.emplace();
  while (!window_->in_order.empty() && window_->in_order.front().at_ms <= now_ms - kMs) forget_oldest();
  const std::uint64_t hash = keyed_hash(id);
  if (!window_->hashes.insert(hash).second) return false;
  window_->in_order.push_back({hash, now_ms});
  if (window_->in_order.size() > kIds) forget_oldest();
  return true;
}

}  // namespace kai
