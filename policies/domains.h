// Which names a policy or a manifest means, and whether a host is one of them. Pure and ASCII only: an international
// name is its A-labels (xn--…). Names are compared label by label, in lower case, without the dot at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kai {

/// One entry of allowedDomains or blockedDomains: name, *.name (what is below it, not itself), either with :port, or *.
struct DomainPattern {
  std::string name;  ///< lower case; empty for *
  bool subdomains = false;
  std::uint16_t port = 0;  ///< 0: not said

  [[nodiscard]] bool is_anything() const { return name.empty(); }
  /// As it is written.
  [[nodiscard]] std::string text() const;
  bool operator==(const DomainPattern&) const = default;
};

/// nullptr: well-formed; else what is wrong, for "must …" or "is …".
const char* domain_pattern_fault(std::string_view text);
/// nullopt where domain_pattern_fault has something to say.
std::optional<DomainPattern> read_domain_pattern(std::string_view text);

/// The host that a program or a DNS question names, as patterns have it; nullopt: no DNS name (an address in any
/// spelling, NUL, an empty or too long label).
std::optional<std::string> canonical_host(std::string_view host);

/// Whether `host` (canonical) is `name` or, with `subdomains`, below it. Everything is where `name` is empty.
bool names_host(std::string_view name, bool subdomains, std::string_view host);
/// Whether `host` (canonical) is one of the pattern's names. The port is not looked at.
bool names_host(const DomainPattern& pattern, std::string_view host);
/// The same, and `port` is the pattern's, where it has one.
bool matches(const DomainPattern& pattern, std::string_view host, std::uint16_t port);
/// Whether every name of `inner` is one of `outer`'s. Ports are not looked at.
bool covers(const DomainPattern& outer, const DomainPattern& inner);

}  // namespace kai
