#include "base/text.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace kai {
namespace {

struct CodePoint {
  std::uint32_t value = 0;
  std::size_t length = 0;  // in bytes; 0: not UTF-8 at this place
};

CodePoint decode(std::string_view bytes) {
  const auto byte = [&](std::size_t at) { return static_cast<std::uint8_t>(bytes[at]); };
  const std::uint8_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return {};
  std::uint32_t value = first & (0x7FU >> length);
  for (std::size_t at = 1; at < length; ++at) {
    if ((byte(at) & 0xC0) != 0x80) return {};
    value = value << 6 | (byte(at) & 0x3FU);
  }
  constexpr std::array<std::uint32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return {};
  return {value, length};
}

bool drives_a_terminal(std::uint32_t value) {
  return value < 0x20 || (value >= 0x7F && value < 0xA0)  // C0, DEL, C1
         || value == 0x061C || value == 0x00AD            // Arabic letter mark, soft hyphen
         || (value >= 0x200B && value <= 0x200F)          // zero-width and direction marks
         || (value >= 0x2028 && value <= 0x202E)          // separators, embeddings, overrides
         || (value >= 0x2060 && value <= 0x206F)          // word joiner, isolates, deprecated formats
         || value == 0xFEFF || (value >= 0xFFF9 && value <= 0xFFFB) || (value >= 0xE0000 && value <= 0xE007F);
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    // Most text is ASCII: eight bytes at a time.
    std::uint64_t word = 0;
    while (bytes.size() >= sizeof word) {
      std::memcpy(&word, bytes.data(), sizeof word);
      if ((word & 0x8080808080808080U) != 0) break;
      bytes.remove_prefix(sizeof word);
    }
    if (bytes.empty()) return true;
    const std::size_t length = decode(bytes).length;
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string escape_for_terminal(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  std::array<char, 16> buffer;
  while (!bytes.empty()) {
    const CodePoint point = decode(bytes);
    if (point.length == 0) {
      std::snprintf(buffer.data(), buffer.size(), "\\x%02x",
                    static_cast<unsigned>(static_cast<std::uint8_t>(bytes[0])));
      text += buffer.data();
    } else if (!drives_a_terminal(point.value)) {
      text += bytes.substr(0, point.length);
    } else if (point.value == '\n') {
      text += "\\n";
    } else if (point.value == '\t') {
      text += "\\t";
    } else if (point.value == '\r') {
      text += "\\r";
    } else if (point.value == 0x1B) {
      text += "\\e";
    } else {
      std::snprintf(buffer.data(), buffer.size(), point.value < 0x80 ? "\\x%02x" : "\\u{%04x}", point.value);
      text += buffer.data();
    }
    bytes.remove_prefix(point.length == 0 ? 1 : point.length);
  }
  return text;
}

void append_json_string(std::string& out, std::string_view bytes) {
  out += '"';
  std::array<char, 16> buffer;
  while (!bytes.empty()) {
    std::size_t plain = 0;
    while (plain < bytes.size() && bytes[plain] >= 0x20 && bytes[plain] < 0x7F && bytes[plain] != '"' &&
           bytes[plain] != '\\') {
      ++plain;
    }
    out += bytes.substr(0, plain);
    bytes.remove_prefix(plain);
    if (bytes.empty()) break;
    const CodePoint point = decode(bytes);
    if (point.length == 0) {
      std::snprintf(buffer.data(), buffer.size(), "\\\\x%02x",
                    static_cast<unsigned>(static_cast<std::uint8_t>(bytes[0])));
      out += buffer.data();
    } else if (point.value == '"' || point.value == '\\') {
      out += '\\';
      out += bytes[0];
    } else if (point.value == '\n') {
      out += "\\n";
    } else if (point.value == '\t') {
      out += "\\t";
    } else if (!drives_a_terminal(point.value)) {
      out += bytes.substr(0, point.length);
    } else if (point.value < 0x10000) {
      std::snprintf(buffer.data(), buffer.size(), "\\u%04x", point.value);
      out += buffer.data();
    } else {  // RFC 8259, 7: beyond the Basic Multilingual Plane as a surrogate pair
      const std::uint32_t offset = point.value - 0x10000;
      std::snprintf(buffer.data(), buffer.size(), "\\u%04x\\u%04x", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
      out += buffer.data();
    }
    bytes.remove_prefix(point.length == 0 ? 1 : point.length);
  }
  out += '"';
}

std::string_view clip_utf8(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<std::uint8_t>(text[limit]) & 0xC0) == 0x80) --limit;
  return text.substr(0, limit);
}

bool is_agent_id(std::string_view id) {
  const auto alphanumeric = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  if (id.empty() || id.size() > 64 || !alphanumeric(id[0])) return false;
  for (const char c : id) {
    if (!alphanumeric(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return id != "kaid" && id != "operator" && id != "topic";
}

std::int64_t unix_ms() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

std::int64_t monotonic_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

std::string iso_time(std::int64_t time) {
  // Years 0000 to 9999: what ISO 8601 writes with four digits. A time from a sandbox may be anything.
  const std::int64_t unix_ms = std::clamp<std::int64_t>(time, -62'167'219'200'000, 253'402'300'799'999);
  const std::int64_t ms = ((unix_ms % 1000) + 1000) % 1000;
  const std::time_t seconds = (unix_ms - ms) / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 64> buffer;
  const std::size_t length = std::strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(buffer.data() + length, buffer.size() - length, ".%03dZ", static_cast<int>(ms));
  return buffer.data();
}

std::string iso_now() {
  return iso_time(unix_ms());
}

std::string new_uuid() {
  std::array<std::uint8_t, 16> bytes;
  // getrandom(2) never fails for up to 256 bytes once the pool is ready; without randomness nothing may go on.
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) std::abort();
  const auto ms = static_cast<std::uint64_t>(unix_ms());
  for (std::size_t at = 0; at < 6; ++at) bytes[at] = static_cast<std::uint8_t>(ms >> (40 - 8 * at));
  bytes[6] = static_cast<std::uint8_t>(0x70 | (bytes[6] & 0x0F));
  bytes[8] = static_cast<std::uint8_t>(0x80 | (bytes[8] & 0x3F));
  std::string text;
  std::array<char, 3> hex;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    if (at == 4 || at == 6 || at == 8 || at == 10) text += '-';
    std::snprintf(hex.data(), hex.size(), "%02x", static_cast<unsigned>(bytes[at]));
    text += hex.data();
  }
  return text;
}

}  // namespace kai
