#include "policies/domains.h"

#include <algorithm>
#include <charconv>

#include "policies/manifest_formats.h"

namespace kai {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

struct Parts {
  std::string_view name;  // with a leading *. and without the dot at the end
  std::string_view port;  // with its colon; empty: not said
};

Parts split(std::string_view text) {
  Parts parts{.name = text.substr(0, text.find(':'))};
  parts.port = text.substr(parts.name.size());
  if (parts.name.size() > 1 && parts.name.ends_with('.')) parts.name.remove_suffix(1);
  return parts;
}

}  // namespace

std::string DomainPattern::text() const {
  const std::string host = is_anything() ? "*" : (subdomains ? "*." : "") + name;
  return port == 0 ? host : host + ":" + std::to_string(port);
}

const char* domain_pattern_fault(std::string_view text) {
  if (text == "*") return nullptr;
  const std::string_view below = text.starts_with("*.") ? text.substr(2) : text;
  if (below.find('*') != std::string_view::npos) {
    return "may have a * only as a whole (\"*\") or in front (*.name, which is what is below name)";
  }
  const Parts parts = split(text);
  return manifest::domain_fault(std::string(parts.name).append(parts.port));
}

std::optional<DomainPattern> read_domain_pattern(std::string_view text) {
  if (domain_pattern_fault(text) != nullptr) return std::nullopt;
  if (text == "*") return DomainPattern{};
  Parts parts = split(text);
  DomainPattern pattern;
  if (parts.name.starts_with("*.")) {
    pattern.subdomains = true;
    parts.name.remove_prefix(2);
  }
  pattern.name = lower(parts.name);
  if (!parts.port.empty()) {
    (void)std::from_chars(parts.port.data() + 1, parts.port.data() + parts.port.size(), pattern.port);
  }
  return pattern;
}

std::optional<std::string> canonical_host(std::string_view host) {
  if (host.size() > 1 && host.ends_with('.')) host.remove_suffix(1);
  // domain_fault takes *.name and name:port too, which no host is.
  if (host.find_first_of("*:") != std::string_view::npos) return std::nullopt;
  if (manifest::domain_fault(host) != nullptr) return std::nullopt;
  return lower(host);
}

bool names_host(std::string_view name, bool subdomains, std::string_view host) {
  if (name.empty()) return true;
  if (!subdomains) return host == name;
  // The dot before the name: evilallowed.com is not below allowed.com.
  return host.size() > name.size() + 1 && host.ends_with(name) && host[host.size() - name.size() - 1] == '.';
}

bool names_host(const DomainPattern& pattern, std::string_view host) {
  return names_host(pattern.name, pattern.subdomains, host);
}

bool matches(const DomainPattern& pattern, std::string_view host, std::uint16_t port) {
  return (pattern.port == 0 || pattern.port == port) && names_host(pattern, host);
}

bool covers(const DomainPattern& outer, const DomainPattern& inner) {
  if (outer.is_anything()) return true;
  if (inner.is_anything()) return false;
  if (!inner.subdomains) return names_host(outer, inner.name);
  return outer.subdomains && (outer.name == inner.name || names_host(outer, inner.name));
}

}  // namespace kai
