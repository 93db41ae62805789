// A domain name as DNS messages carry it (RFC 1035 3.1, 4.1.4): read from hostile bytes, compared, and shown.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kai::egress::dns {

using Bytes = std::span<const std::uint8_t>;

class Name {
 public:
  static constexpr std::size_t kMaxBytes = 255;

  /// The root.
  Name() : wire_(1, '\0') {}
  /// Of a text without escapes, such as canonical_host's. nullopt: an empty or too long label, or too long.
  static std::optional<Name> of(std::string_view text);
  /// The one that begins at `at`, which then is what follows it. nullopt: none that is well-formed. Compression is
  /// followed backwards only, and never into the header.
  static std::optional<Name> read(Bytes message, std::size_t& at);

  /// Without the dot at the end; "." is the root. Whatever is not printable, and a dot inside a label, is \DDD.
  [[nodiscard]] std::string text() const;
  /// Uncompressed labels, in the case that they were sent in.
  [[nodiscard]] const std::string& wire() const { return wire_; }
  /// The same letters, each in a case that is drawn (draft-vixie-dnsext-dns0x20): whoever forges an answer has to guess
  /// it too.
  [[nodiscard]] Name with_random_case() const;
  /// DNS does not tell upper case from lower case in ASCII (RFC 4343).
  [[nodiscard]] bool same_as(const Name& other) const;

 private:
  std::string wire_;
};

}  // namespace kai::egress::dns
