#include "supervisor/egress/dns_name.h"

#include <algorithm>
#include <utility>

#include "supervisor/egress/random.h"

namespace kai::egress::dns {
namespace {

constexpr std::size_t kHeaderBytes = 12;
constexpr std::size_t kMaxLabel = 63;
/// As many as a name can have labels: more pointers than that only cost time.
constexpr int kMaxPointers = 127;

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

void append_escaped(std::string& text, char c) {
  if (c > ' ' && c <= '~' && c != '.' && c != '\\') {
    text += c;
    return;
  }
  const auto byte = static_cast<unsigned char>(c);
  text += {'\\', static_cast<char>('0' + byte / 100), static_cast<char>('0' + byte / 10 % 10),
           static_cast<char>('0' + byte % 10)};
}

}  // namespace

std::optional<Name> Name::of(std::string_view text) {
  Name name;
  name.wire_.clear();
  while (!text.empty()) {
    const std::string_view label = text.substr(0, text.find('.'));
    if (label.empty() || label.size() > kMaxLabel) return std::nullopt;
    name.wire_ += static_cast<char>(label.size());
    name.wire_ += label;
    text.remove_prefix(std::min(text.size(), label.size() + 1));
  }
  name.wire_ += '\0';
  if (name.wire_.size() > kMaxBytes) return std::nullopt;
  return name;
}

std::optional<Name> Name::read(Bytes message, std::size_t& at) {
  Name name;
  name.wire_.clear();
  std::size_t here = at, run = at;  // a pointer has to lead in front of the run of labels that it ends
  int pointers = 0;
  for (;;) {
    if (here >= message.size()) return std::nullopt;
    const std::size_t length = message[here];
    if (length >= 0xC0) {
      if (here + 1 >= message.size()) return std::nullopt;
      const std::size_t target = ((length & 0x3FU) << 8U) | message[here + 1];
      if (target < kHeaderBytes || target >= run || ++pointers > kMaxPointers) return std::nullopt;
      if (pointers == 1) at = here + 2;
      here = run = target;
      continue;
    }
    if (length > kMaxLabel || length >= message.size() - here) return std::nullopt;
    if (name.wire_.size() + 1 + length > kMaxBytes) return std::nullopt;
    name.wire_.append(reinterpret_cast<const char*>(message.data()) + here, 1 + length);
    here += 1 + length;
    if (length == 0) break;
  }
  if (pointers == 0) at = here;
  return name;
}

std::string Name::text() const {
  if (wire_.size() == 1) return ".";
  std::string text;
  for (std::size_t at = 0; wire_[at] != '\0';) {
    if (!text.empty()) text += '.';
    const auto length = static_cast<std::size_t>(wire_[at]);
    for (const char c : std::string_view(wire_).substr(at + 1, length)) append_escaped(text, c);
    at += 1 + length;
  }
  return text;
}

Name Name::with_random_case() const {
  Name name = *this;
  std::uint64_t bits = 0;
  unsigned left = 0;
  for (char& c : name.wire_) {  // a length byte is below 'A'
    if (!is_letter(c)) continue;
    if (left-- == 0) {
      bits = random_number<std::uint64_t>();
      left = 63;
    }
    c = static_cast<char>((c & ~0x20) | ((bits & 1U) != 0 ? 0x20 : 0));
    bits >>= 1U;
  }
  return name;
}

bool Name::same_as(const Name& other) const {
  return std::equal(wire_.begin(), wire_.end(), other.wire_.begin(), other.wire_.end(),
                    [](char a, char b) { return lower(a) == lower(b); });
}

}  // namespace kai::egress::dns
