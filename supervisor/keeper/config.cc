#include "supervisor/keeper/config.h"

#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <set>

#include <yaml-cpp/yaml.h>

#include "base/unix.h"

namespace kai::keeper {
namespace {

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
  const bool egress = key == "upstreamDns" || key == "blockedDomains";
  if (egress && setting.value.IsSequence() && setting.value.size() == 0) return {};  // their default
  if (egress) {
    return failure(setting.key_place + ": " + key + " is not in this version of kaid; remove it");
  }
  return failure(setting.key_place + ": unknown key \"" + key +
                 "\"; known are stateDir, runtimeDir, policies, logLevel and redis");
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
      const Setting setting{key, value, key_place, value.IsNull() ? key_place : place(path, value.Mark())};
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
  config.config_path = fresh->config_path;
  return config;
}

}  // namespace kai::keeper
