#include <charconv>
#include <optional>

#include "supervisor/memory/redis_store.h"

namespace kai {

namespace {

constexpr std::size_t kMaxSocketPath = 107;  // sockaddr_un::sun_path without its NUL
constexpr int kMaxDatabase = 65'535;

std::optional<int> number(std::string_view text, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > most) return std::nullopt;
  return value;
}

std::optional<int> hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

/// RFC 3986, section 2.1: a password may have any byte.
std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const auto high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
    if (!high || !low) return std::nullopt;
    out += static_cast<char>(*high * 16 + *low);
    i += 2;
  }
  return out;
}

tl::unexpected<Error> wrong(std::string_view what) {
  return failure("redis.url: " + std::string(what) +
                 "; it is redis://[USER:PASSWORD@]HOST[:PORT][/DB] or unix:/PATH[?db=N]");
}

tl::unexpected<Error> wrong_database() {
  return wrong("the database is not a number from 0 to " + std::to_string(kMaxDatabase));
}

Result<RedisUrl> parse_unix(std::string_view rest) {
  RedisUrl url;
  if (rest.starts_with("///")) rest.remove_prefix(2);
  const auto query = rest.find('?');
  url.path = rest.substr(0, query);
  if (query != rest.npos) {
    const std::string_view option = rest.substr(query + 1);
    if (!option.starts_with("db=")) return wrong("the only option of a Unix socket is db");
    const auto database = number(option.substr(3), kMaxDatabase);
    if (!database) return wrong_database();
    url.database = *database;
  }
  if (!url.path.starts_with("/") || url.path.starts_with("//")) return wrong("the socket's path is not absolute");
  if (url.path.size() > kMaxSocketPath || url.path.find('\0') != url.path.npos)
    return wrong("the socket's path is longer than " + std::to_string(kMaxSocketPath) + " bytes, or has a NUL");
  return url;
}

Result<> parse_user(std::string_view user, RedisUrl& url) {
  const auto colon = user.find(':');
  if (colon == user.npos) return wrong("there is no \":\" between the user and the password");
  const auto name = percent_decode(user.substr(0, colon)), password = percent_decode(user.substr(colon + 1));
  if (!name || !password) return wrong("a % in the user or password is not followed by two hex digits");
  if (password->empty()) return wrong("the password is empty");
  url.user = *name;
  url.password = *password;
  return {};
}

Result<> parse_host(std::string_view host, RedisUrl& url) {
  std::string_view port;
  if (host.starts_with("[")) {  // an IPv6 address
    const auto end = host.find(']');
    if (end == host.npos) return wrong("the \"[\" of an IPv6 address is not closed");
    port = host.substr(end + 1);
    host = host.substr(1, end - 1);
  } else if (const auto colon = host.find(':'); colon != host.npos) {
    port = host.substr(colon);
    host = host.substr(0, colon);
  }
  if (host.empty() || host.size() > 253) return wrong("the host has not 1 to 253 bytes");
  for (const char c : host)
    if (c <= ' ' || c == 0x7f) return wrong("the host has a space or a control character");
  url.host = host;
  if (port.empty()) return {};
  const auto parsed = port.starts_with(":") ? number(port.substr(1), 65'535) : std::nullopt;
  if (!parsed || *parsed == 0) return wrong("the port is not a number from 1 to 65535");
  url.port = static_cast<std::uint16_t>(*parsed);
  return {};
}

}  // namespace

Result<RedisUrl> parse_redis_url(const std::string& text) {
  std::string_view rest = text;
  if (rest.starts_with("unix:")) return parse_unix(rest.substr(5));
  constexpr std::string_view kScheme = "redis://";
  if (rest.starts_with("rediss:")) return wrong("TLS (rediss) is not in this version");
  if (!rest.starts_with(kScheme)) return wrong("it begins with neither redis:// nor unix:");
  rest.remove_prefix(kScheme.size());
  RedisUrl url;
  // The last one: a password that was not percent-encoded is meant as it stands.
  if (const auto at = rest.rfind('@'); at != rest.npos) {
    if (auto user = parse_user(rest.substr(0, at), url); !user) return tl::unexpected(user.error());
    rest.remove_prefix(at + 1);
  }
  if (const auto slash = rest.find('/'); slash != rest.npos) {
    const std::string_view name = rest.substr(slash + 1);
    const auto database = name.empty() ? std::optional(0) : number(name, kMaxDatabase);
    if (!database) return wrong_database();
    url.database = *database;
    rest = rest.substr(0, slash);
  }
  if (auto host = parse_host(rest, url); !host) return tl::unexpected(host.error());
  return url;
}

}  // namespace kai
