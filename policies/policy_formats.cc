#include "policies/policy_formats.h"

#include <fnmatch.h>
#include <seccomp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/base64.h"
#include "base/text.h"
#include "policies/addresses.h"
#include "policies/domains.h"
#include "policies/manifest_formats.h"
#include "policies/written_domains.h"

namespace kai::policy_file {
namespace {

constexpr std::string_view kIdCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
constexpr std::size_t kLongestId = 64;
constexpr std::size_t kLongestPath = 1024;  // the keeper's limit on a mount

bool is_or_below(std::string_view path, std::string_view directory) {
  return path == directory || (path.starts_with(directory) && path[directory.size()] == '/');
}

bool is_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() && port != 0 && text.front() != '0';
}

}  // namespace

const char* policy_name_fault(std::string_view text) {
  if (text == "builtin") return "must not be builtin, which is what kAI's own policy is called";
  const bool fine = text.size() <= kLongestId && text.find_first_not_of(kIdCharacters) == std::string_view::npos &&
                    std::string_view("._-").find(text.front()) == std::string_view::npos;
  return fine ? nullptr : "must have 1 to 64 letters, digits, . _ or -, and begin with a letter or digit";
}

const char* id_glob_fault(std::string_view text) {
  const bool fine = std::all_of(text.begin(), text.end(), [](char c) {
    return c == '*' || c == '?' || kIdCharacters.find(c) != std::string_view::npos;
  });
  return fine ? nullptr : "must be an agent's id with * and ? for what varies (letters, digits, . _ - only)";
}

bool can_match_an_id(std::string_view glob) {
  const auto stars = static_cast<std::size_t>(std::count(glob.begin(), glob.end(), '*'));
  if (stars == 0 && glob.find('?') == std::string_view::npos) return is_agent_id(glob);
  return glob.size() - stars <= kLongestId && std::string_view("._-").find(glob.front()) == std::string_view::npos;
}

bool glob_covers(std::string_view outer, std::string_view inner) {
  // The inner pattern is read as if it were an id: its * may only be taken by a * of the outer one, as fnmatch's ?
  // would take it for one character.
  const bool sure = outer.find('?') == std::string_view::npos || inner.find('*') == std::string_view::npos;
  return sure && fnmatch(std::string(outer).c_str(), std::string(inner).c_str(), FNM_NOESCAPE) == 0;
}

const char* path_fault(std::string_view text) {
  if (text.empty() || text.front() != '/') return "must be an absolute path";
  if (text.size() > kLongestPath) return "must have at most 1024 bytes";
  if (text == "/") return nullptr;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('/', at + 1), text.size());
    const std::string_view component = text.substr(at + 1, end - at - 1);
    if (component == "..") return "must not contain ..";
    if (component.empty() || component == ".") return "must be normalized: no //, no . and no / at the end";
    if (component.size() > 255) return "has a component of more than 255 bytes";
    at = end;
  }
  return nullptr;
}

const char* host_path_fault(std::string_view text) {
  if (const char* fault = path_fault(text)) return fault;
  if (text == "/") return "must not be /: name the directory that the agent needs";
  constexpr std::array<std::string_view, 3> kKernel = {"/proc", "/sys", "/dev"};
  const bool kernel = std::any_of(kKernel.begin(), kKernel.end(),
                                  [&](std::string_view directory) { return is_or_below(text, directory); });
  return kernel ? "must not be in /proc, /sys or /dev, which are the kernel's" : nullptr;
}

const char* host_name_fault(std::string_view text) {
  return written_host(text) ? nullptr : "must be a DNS name";
}

const char* address_fault(std::string_view text) {
  return read_address(text) ? nullptr : "must be an IPv4 or IPv6 address";
}

const char* service_fault(std::string_view text) {
  constexpr const char* kForm = "must be unix:/path or tcp:host:port";
  if (text.starts_with("unix:")) return path_fault(text.substr(5)) == nullptr && text.size() > 6 ? nullptr : kForm;
  const std::size_t colon = text.rfind(':');
  if (!text.starts_with("tcp:") || colon <= 4) return kForm;
  std::string_view host = text.substr(4, colon - 4);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = read_address(host);
  const bool is_host = bracketed ? address && address->bits == 128
                                 : (address && address->bits == 32) || canonical_host(host).has_value();
  return is_host && colon + 1 < text.size() && is_port(text.substr(colon + 1)) ? nullptr : kForm;
}

const char* public_key_fault(std::string_view text) {
  constexpr std::size_t kBytes = 42;  // "Ed", key id, Ed25519 public key
  const auto bytes = decode_base64(text);
  const bool fine = bytes && bytes->size() == kBytes && bytes->starts_with("Ed");
  return fine ? nullptr
              : "must be a minisign public key: the 56 characters of base64 in the last line of its .pub file";
}

const char* resource_fault(std::string_view text) {
  return manifest::capability_fault(text);
}

const char* any_text_fault(std::string_view) {
  return nullptr;
}

const char* grant_fault(std::string_view text) {
  constexpr std::array<std::string_view, 5> kPowers = {"unsandboxed", "hostWrite", "hostNetwork", "hostMounts",
                                                       "signerChange"};
  if (std::find(kPowers.begin(), kPowers.end(), text) != kPowers.end()) return nullptr;
  constexpr std::string_view kSyscalls = "syscalls:";
  if (!text.starts_with(kSyscalls)) {
    return "must be one of unsandboxed, hostWrite, hostNetwork, hostMounts, signerChange, syscalls:NAME";
  }
  const std::string name(text.substr(kSyscalls.size()));
  // compiled_filter never lets them through whatever their arguments (policies/filters.h).
  if (name == "seccomp" || name == "prctl") {
    return "must not be seccomp or prctl, by which an agent hides its denials from you";
  }
  const bool known = !name.empty() && name.find('\0') == std::string::npos &&
                     seccomp_syscall_resolve_name(name.c_str()) != __NR_SCMP_ERROR;
  return known ? nullptr : "must name a system call of Linux after syscalls: (one grant for each)";
}

}  // namespace kai::policy_file
