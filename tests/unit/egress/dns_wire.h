// DNS messages byte by byte, right ones and wrong ones: what the code under test writes is not used for it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kai::egress {

inline constexpr std::uint16_t kTypeA = 1, kTypeNs = 2, kTypeCname = 5, kTypeSoa = 6, kTypePtr = 12, kTypeMx = 15,
                               kTypeTxt = 16, kTypeAaaa = 28, kTypeSrv = 33, kTypeOpt = 41, kTypeSvcb = 64,
                               kTypeHttps = 65, kTypeAny = 255;
inline constexpr std::uint16_t kAnswerFlags = 0x8180;

inline std::string u16(std::size_t value) {
  return {static_cast<char>(value >> 8U & 0xFFU), static_cast<char>(value & 0xFFU)};
}
inline std::string u32(std::size_t value) {
  return u16(value >> 16U) + u16(value);
}

/// Labels as they are: no check, no escapes.
inline std::string wire_name(std::string_view text) {
  std::string wire;
  while (!text.empty()) {
    const std::string_view label = text.substr(0, text.find('.'));
    wire += static_cast<char>(label.size());
    wire += label;
    text.remove_prefix(label.size() + (label.size() < text.size() ? 1 : 0));
  }
  return wire + '\0';
}
inline std::string pointer(std::size_t target) {
  return u16(0xC000U | target);
}

inline std::string wire_header(std::uint16_t id, std::uint16_t flags, std::size_t questions, std::size_t answers,
                               std::size_t authorities = 0, std::size_t additionals = 0) {
  return u16(id) + u16(flags) + u16(questions) + u16(answers) + u16(authorities) + u16(additionals);
}
inline std::string wire_question(std::string_view name, std::uint16_t type, std::uint16_t klass = 1) {
  return wire_name(name) + u16(type) + u16(klass);
}
/// `owner` is on the wire already: wire_name() or pointer().
inline std::string wire_record(const std::string& owner, std::uint16_t type, std::size_t ttl, const std::string& data) {
  return owner + u16(type) + u16(1) + u32(ttl) + u16(data.size()) + data;
}
inline std::string a_data(std::uint8_t last) {
  return {'\x5D', '\xB8', '\xD8', static_cast<char>(last)};
}  // 93.184.216.
inline std::string aaaa_data(std::uint8_t last) {
  return std::string("\x26\x06\x28\x00", 4) + std::string(11, '\0') + static_cast<char>(last);  // 2606:2800::
}
inline std::string soa_data(std::size_t minimum) {
  return wire_name("ns.test") + wire_name("host.test") + u32(1) + u32(2) + u32(3) + u32(4) + u32(minimum);
}
inline std::string wire_opt(std::uint16_t size, std::size_t ttl = 0, const std::string& options = {}) {
  return std::string(1, '\0') + u16(kTypeOpt) + u16(size) + u32(ttl) + u16(options.size()) + options;
}

}  // namespace kai::egress
