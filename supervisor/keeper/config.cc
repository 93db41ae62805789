#include "supervisor/keeper/config.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>
#include <string_view>

#include <yaml-cpp/yaml.h>

#include "base/unix.h"
#include "policies/addresses.h"
#include "policies/listed_address.h"
#include "policies/written_domains.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxServers = 16;
constexpr std::uint16_t kDnsPort = 53;
constexpr std::size_t kMaxBlocked = 1024;  // each agent's rules have them all

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string home() {
  return environment("HOME").empty() ? "/" : environment("HOME");
}

std::string xdg(const char* variable, const char* below_home) {
  const std::string value = environment(variable);
  return (value.starts_with('/') ? value : home() + "/" + below_home) + "/kai";
}

std::string place(const std::string& path, const YAML::Mark& mark) {
  return path + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1);
}

/// Without links, as kaid keeps the paths of its directories; the path itself where it does not lead anywhere.
std::string absolute_path(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  return realpath(path.c_str(), resolved.data()) != nullptr ? resolved.data() : path;
}

/// One key of the file with its value, and where each stands.
struct Setting {
  std::string key;
  YAML::Node value;
  std::string key_place, value_place;
  std::string path;  // of the file
};

Result<std::string> text(const Setting& setting) {
  if (!setting.value.IsScalar() || setting.value.Scalar().empty()) {
    return failure(setting.value_place + ": " + setting.key + " must be a text");
  }
  return setting.value.Scalar();
}

Result<> take_directory(const Setting& setting, std::string& into) {
  auto value = text(setting);
  if (!value) return tl::unexpected(value.error());
  if (!value->starts_with('/')) {
    return failure(setting.value_place + ": " + setting.key + " must be an absolute path, not \"" + *value + "\"");
  }
  into = *value;
  return {};
}

/// `redis: {url: …}`. What the url says is control's to read, but for a Unix socket: the keeper connects to that.
Result<> take_redis(const Setting& setting, Config& config) {
  const YAML::Node url = setting.value.IsMap() ? setting.value["url"] : YAML::Node(YAML::NodeType::Undefined);
  if (!url.IsDefined() || !url.IsScalar() || url.Scalar().empty() || setting.value.size() != 1) {
    return failure(setting.value_place +
                   ": redis must be {url: …} and nothing else: redis://HOST[:PORT][/DB] or unix:/PATH");
  }
  config.redis_url = url.Scalar();
  if (!config.redis_url.starts_with("redis://") && !config.redis_url.starts_with("unix:/")) {
    return failure(setting.value_place + ": redis.url must begin with redis:// or unix:/");
  }
  if (!config.redis_url.starts_with("unix:")) return {};
  std::string path = config.redis_url.substr(5, config.redis_url.find('?') - 5);
  if (path.starts_with("//")) path.erase(0, 2);
  // Else control says what is wrong with it.
  if (path.starts_with('/')) config.redis_socket = path;
  return {};
}

/// Calls `take` with each text of a list, and with the place where it stands.
Result<> each_text(const Setting& setting, std::size_t most,
                   const std::function<Result<>(const std::string&, const YAML::Mark&)>& take) {
  if (!setting.value.IsSequence()) return failure(setting.value_place + ": " + setting.key + " must be a list");
  if (setting.value.size() > most) {
    return failure(setting.value_place + ": " + setting.key + " has more than " + std::to_string(most) + " entries");
  }
  for (const YAML::Node& entry : setting.value) {
    if (!entry.IsScalar()) {
      return failure(place(setting.path, entry.Mark()) + ": an entry of " + setting.key + " must be a text");
    }
    if (auto done = take(entry.Scalar(), entry.Mark()); !done) return done;
  }
  return {};
}

struct Server {
  Address address;
  std::uint16_t port = kDnsPort;

  /// ADDRESS:PORT or [ADDRESS]:PORT.
  [[nodiscard]] std::string text() const {
    const std::string host = address_text(address);
    return (address.bits == 32 ? host : "[" + host + "]") + ":" + std::to_string(port);
  }
};

/// A DNS server, with a port or without.
std::optional<Server> server(std::string_view text) {
  const bool bracketed = text.starts_with('[') && text.ends_with(']');
  const auto alone = read_address(bracketed ? text.substr(1, text.size() - 2) : text);
  if (alone && (!bracketed || alone->bits == 128)) return Server{.address = *alone};
  const auto listed = read_listed_address(text);
  if (!listed || listed->port == 0) return std::nullopt;
  return Server{.address = listed->block.network, .port = listed->port};
}

/// Whether an IPv6 address without brackets could be one with a port behind it: ::1:53 is 0:0:0:0:0:0:1:53.
bool looks_like_port(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.starts_with('[')) return false;
  const std::string_view digits = text.substr(colon + 1);
  const auto front = read_address(text.substr(0, colon));
  return front && front->bits == 128 &&
         std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Why no DNS server can be asked at an address; nullptr: one can.
const char* unusable(const Address& address) {
  const auto within = [&](const char* block) { return contains(*read_cidr(block), address); };
  if (within("0.0.0.0/8") || within("::/128")) return "is no address that anybody has: unspecified";
  if (within("224.0.0.0/4") || within("ff00::/8")) return "is a multicast address, and a DNS server is one host";
  if (within("255.255.255.255/32")) return "is the broadcast address, and a DNS server is one host";
  if (within("fe80::/10")) {
    return "is link-local, and means a host only on one interface, which cannot be said here: write another address of "
           "the server's";
  }
  return nullptr;
}

Result<> take_upstream(const Setting& setting, Config& config) {
  return each_text(setting, kMaxServers, [&](const std::string& text, const YAML::Mark& mark) -> Result<> {
    const auto wrong = [&](const std::string& fault) {
      return failure(place(setting.path, mark) + ": an entry of upstreamDns " + fault);
    };
    const auto read = server(text);
    if (!read) {
      return wrong("must be an address, with a port or without: 9.9.9.9, 9.9.9.9:53 or \"[2620:fe::fe]:53\", not \"" +
                   text + "\"");
    }
    if (looks_like_port(text)) {
      const std::size_t colon = text.rfind(':');
      return wrong("must be in brackets where it could be read in two ways: \"[" + text.substr(0, colon) + "]" +
                   text.substr(colon) + "\" with a port, or \"[" + text + "]\" without, not \"" + text + "\"");
    }
    if (const char* fault = unusable(read->address)) return wrong("must be a server's: \"" + text + "\" " + fault);
    config.upstream_dns.push_back(read->text());
    return {};
  });
}

Result<> take_blocked(const Setting& setting, Config& config) {
  const std::string file = setting.path.substr(setting.path.rfind('/') + 1);
  return each_text(setting, kMaxBlocked, [&](const std::string& text, const YAML::Mark& mark) -> Result<> {
    const auto entry = normalized_listed_domain(text);
    if (!entry)
      return failure(place(setting.path, mark) + ": blockedDomains: \"" + text + "\" " + listed_domain_fault(text));
    config.blocked_domains.push_back({*entry, file + ":" + std::to_string(mark.line + 1)});
    return {};
  });
}

Result<> take(const Setting& setting, Config& config) {
  const std::string& key = setting.key;
  if (key == "stateDir") return take_directory(setting, config.state_dir);
  if (key == "runtimeDir") return take_directory(setting, config.runtime_dir);
  if (key == "policies") return take_directory(setting, config.policies_dir);
  if (key == "logLevel") {
    const std::string level = setting.value.IsScalar() ? setting.value.Scalar() : "";
    if (level != "debug" && level != "info" && level != "warn" && level != "error") {
      return failure(setting.value_place + ": logLevel must be debug, info, warn or error");
    }
    config.log_level = level;
    return {};
  }
  if (key == "redis") return take_redis(setting, config);
  if (key == "upstreamDns") return take_upstream(setting, config);
  if (key == "blockedDomains") return take_blocked(setting, config);
  return failure(setting.key_place + ": unknown key \"" + key +
                 "\"; known are stateDir, runtimeDir, policies, logLevel, upstreamDns, blockedDomains and redis");
}

Result<> parse(const std::string& path, const std::string& content, Config& config) {
  try {
    const YAML::Node root = YAML::Load(content);
    if (root.IsNull()) return {};
    if (!root.IsMap()) return failure(place(path, root.Mark()) + ": must be a mapping of keys to values");
    std::set<std::string> seen;
    for (const auto& entry : root) {
      const std::string key_place = place(path, entry.first.Mark());
      if (!entry.first.IsScalar()) return failure(key_place + ": a key must be a text");
      const std::string key = entry.first.Scalar();
      if (!seen.insert(key).second) return failure(key_place + ": " + key + " is there twice; keep one");
      // A value that was left out has the mark of whatever comes next.
      const YAML::Node& value = entry.second;
      const Setting setting{key, value, key_place, value.IsNull() ? key_place : place(path, value.Mark()), path};
      if (auto done = take(setting, config); !done) return done;
    }
    return {};
  } catch (const YAML::Exception& error) {
    return failure(place(path, error.mark) + ": " + error.msg);
  }
}

}  // namespace

Result<Config> load_config(const CommandLine& given, bool root) {
  Config config;
  config.given = given;
  const std::string standard = root ? "/etc/kai/kaid.yaml" : xdg("XDG_CONFIG_HOME", ".config") + "/kaid.yaml";
  const std::string path = given.config.empty() ? standard : given.config;
  if (!given.config.empty() || access(path.c_str(), F_OK) == 0) {
    const auto content = read_file(path);
    if (!content) return tl::unexpected(content.error());
    if (auto done = parse(path, *content, config); !done) return tl::unexpected(done.error());
    config.config_path = path;
  }
  config.default_policies_dir = config.policies_dir.empty();
  if (config.default_policies_dir) config.policies_dir = standard.substr(0, standard.rfind('/')) + "/policies";

  if (!given.state_dir.empty()) config.state_dir = given.state_dir;
  if (!given.runtime_dir.empty()) config.runtime_dir = given.runtime_dir;
  if (config.state_dir.empty()) config.state_dir = root ? "/var/lib/kai" : xdg("XDG_STATE_HOME", ".local/state");
  if (config.runtime_dir.empty()) {
    config.default_runtime_dir = true;
    const std::string session = environment("XDG_RUNTIME_DIR");
    config.runtime_dir = root                       ? "/run/kai"
                         : session.starts_with('/') ? session + "/kai"
                                                    : "/tmp/kai-" + std::to_string(geteuid());
  }
  return config;
}

Result<Config> reload_config(const Config& current, bool root) {
  auto fresh = load_config(current.given, root);
  if (!fresh) return fresh;
  const auto changed = [&](const char* key, const std::string& before, const std::string& now) -> Result<> {
    if (before == now || before == absolute_path(now)) return {};
    return failure((fresh->config_path.empty() ? "kaid.yaml" : fresh->config_path) + ": " + key + " was " + before +
                   " when kaid began and is " + now + " now; that needs a restart of kaid, or set it back");
  };
  if (current.redis_url != fresh->redis_url) {
    return failure((fresh->config_path.empty() ? "kaid.yaml" : fresh->config_path) +
                   ": redis.url is another than when kaid began; that needs a restart of kaid, or set it back");
  }
  if (auto same = changed("stateDir", current.state_dir, fresh->state_dir); !same) return tl::unexpected(same.error());
  if (auto same = changed("runtimeDir", current.runtime_dir, fresh->runtime_dir); !same) {
    return tl::unexpected(same.error());
  }
  if (auto same = changed("policies", current.policies_dir, fresh->policies_dir); !same) {
    return tl::unexpected(same.error());
  }
  Config config = current;
  config.log_level = fresh->log_level;
  config.upstream_dns = fresh->upstream_dns;
  config.blocked_domains = fresh->blocked_domains;
  config.config_path = fresh->config_path;
  return config;
}

}  // namespace kai::keeper
