#include "policies/written_domains.h"

#include <idn2.h>

#include <algorithm>
#include <memory>

#include "policies/domains.h"
#include "policies/listed_address.h"

namespace kai {
namespace {

constexpr const char* kNoName = "is no valid international name (IDNA 2008): write what it is registered as";
constexpr const char* kUrl =
    "must be a name alone, such as a.example, not a URL: no https:// in front and no path behind";

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::optional<std::string> looked_up(const std::string& name, int flags) {
  std::uint8_t* converted = nullptr;
  const int result = idn2_lookup_u8(reinterpret_cast<const std::uint8_t*>(name.c_str()), &converted,
                                    IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL | flags);
  const std::unique_ptr<std::uint8_t, decltype(&idn2_free)> owner(converted, idn2_free);
  if (result != IDN2_OK || converted == nullptr) return std::nullopt;
  return std::string(reinterpret_cast<const char*>(converted));
}

/// Of a name alone. What comes back is ASCII and no more: a digit or dot of another script has become one of ASCII's.
std::optional<std::string> lookup_form(const std::string& name) {
  if (name.find('\0') != std::string::npos) return std::nullopt;
  const auto strict = looked_up(name, IDN2_USE_STD3_ASCII_RULES);
  // libidn2 drops what the STD3 rules do not take ("ü*.de" → "ü.de") instead of refusing the name.
  if (strict != looked_up(name, 0)) return std::nullopt;
  return strict;
}

/// Whether IDNA makes each A-label of an ASCII name: of another, nobody could say which name it shows.
bool has_true_labels(std::string_view name) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    std::string label(name.substr(begin, end - begin));
    begin = end + 1;
    std::transform(label.begin(), label.end(), label.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    if (label.starts_with("xn--") && lookup_form(label) != label) return false;
  }
  return true;
}

}  // namespace

std::optional<std::string> ascii_domain(std::string_view text) {
  if (is_ascii(text))
    return has_true_labels(text.substr(0, text.find(':'))) ? std::optional(std::string(text)) : std::nullopt;
  std::string_view name = text.substr(0, text.find(':'));
  const std::string_view port = text.substr(name.size());
  const std::string_view front = name.starts_with("*.") ? name.substr(0, 2) : std::string_view();
  name.remove_prefix(front.size());
  if (name.ends_with('.')) name.remove_suffix(1);
  const auto converted = lookup_form(std::string(name));
  // Only canonical_host's own check says that it is a name, and not an address in the digits of another script.
  if (!converted || !canonical_host(*converted) || !is_ascii(port)) return std::nullopt;
  return std::string(front).append(*converted).append(port);
}

const char* written_domain_fault(std::string_view text) {
  if (text.find('/') != std::string_view::npos) return kUrl;
  const auto ascii = ascii_domain(text);
  return ascii ? domain_pattern_fault(*ascii) : kNoName;
}

std::optional<std::string> normalized_domain(std::string_view text) {
  const auto ascii = ascii_domain(text);
  const auto pattern = ascii ? read_domain_pattern(*ascii) : std::nullopt;
  return pattern ? std::optional(pattern->text()) : std::nullopt;
}

const char* listed_domain_fault(std::string_view text) {
  return looks_like_address(text) ? listed_address_fault(text) : written_domain_fault(text);
}

std::optional<std::string> normalized_listed_domain(std::string_view text) {
  if (listed_domain_fault(text) != nullptr) return std::nullopt;
  return looks_like_address(text) ? std::optional(std::string(text)) : normalized_domain(text);
}

const char* manifest_domain_fault(std::string_view text) {
  if (text == "*") return "must be names: * alone, whatever there is, no manifest can ask for";
  return listed_domain_fault(text);
}

std::optional<std::string> normalized_manifest_domain(std::string_view text) {
  return manifest_domain_fault(text) == nullptr ? normalized_listed_domain(text) : std::nullopt;
}

std::optional<std::string> written_host(std::string_view text) {
  const auto ascii = ascii_domain(text);
  return ascii ? canonical_host(*ascii) : std::nullopt;
}

}  // namespace kai
