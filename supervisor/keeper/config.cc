#include "supervisor/keeper/config.h"

#include <dirent.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

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

Result<std::string> text(const std::string& path, const std::string& key, const YAML::Node& node) {
  if (!node.IsScalar() || node.Scalar().empty())
    return failure(place(path, node.Mark()) + ": " + key + " must be a text");
  return node.Scalar();
}

Result<std::string> directory(const std::string& path, const std::string& key, const YAML::Node& node) {
  auto value = text(path, key, node);
  if (value && !value->starts_with('/')) {
    return failure(place(path, node.Mark()) + ": " + key + " must be an absolute path, not \"" + *value + "\"");
  }
  return value;
}

Result<> take(const std::string& path, const std::string& key, const YAML::Node& node, Config& config) {
  const auto store = [](Result<std::string> value, std::string& into) -> Result<> {
    if (!value) return tl::unexpected(value.error());
    into = *value;
    return {};
  };
  if (key == "stateDir") return store(directory(path, key, node), config.state_dir);
  if (key == "runtimeDir") return store(directory(path, key, node), config.runtime_dir);
  if (key == "policies") return store(directory(path, key, node), config.policies_dir);
  if (key == "logLevel") {
    const std::string level = node.IsScalar() ? node.Scalar() : "";
    if (level != "debug" && level != "info" && level != "warn" && level != "error") {
      return failure(place(path, node.Mark()) + ": logLevel must be debug, info, warn or error");
    }
    config.log_level = level;
    return {};
  }
  const bool egress = key == "upstreamDns" || key == "blockedDomains";
  if (egress && node.IsSequence() && node.size() == 0) return {};  // their default
  if (egress || key == "redis") {
    return failure(place(path, node.Mark()) + ": " + key + " is not in this version of kaid; remove it");
  }
  return failure(place(path, node.Mark()) + ": unknown key \"" + key +
                 "\"; known are stateDir, runtimeDir, policies and logLevel");
}

Result<> parse(const std::string& path, const std::string& content, Config& config) {
  try {
    const YAML::Node root = YAML::Load(content);
    if (root.IsNull()) return {};
    if (!root.IsMap()) return failure(path + ": must be a mapping of keys to values");
    for (const auto& entry : root) {
      if (!entry.first.IsScalar()) return failure(place(path, entry.first.Mark()) + ": a key must be a text");
      if (auto done = take(path, entry.first.Scalar(), entry.second, config); !done) return done;
    }
    return {};
  } catch (const YAML::Exception& error) {
    return failure(place(path, error.mark) + ": " + error.msg);
  }
}

// Operator policies come with a later version: one that is there and not obeyed would be worse than none.
Result<> refuse_policies(const std::string& directory, bool named_by_operator) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(opendir(directory.c_str()), closedir);
  if (!entries) {
    if (errno == ENOENT && !named_by_operator) return {};
    return errno_failure("policies directory", directory);
  }
  while (const dirent* entry = readdir(entries.get())) {
    if (std::string_view(entry->d_name).ends_with(".yaml")) {
      return failure(
          directory + "/" + entry->d_name +
          ": this version of kaid has only the built-in policy and does not read operator policies; move the "
          "file away to start without it");
    }
  }
  return {};
}

}  // namespace

Result<Config> load_config(const CommandLine& given, bool root) {
  Config config;
  const std::string standard = root ? "/etc/kai/kaid.yaml" : xdg("XDG_CONFIG_HOME", ".config") + "/kaid.yaml";
  const std::string path = given.config.empty() ? standard : given.config;
  if (!given.config.empty() || access(path.c_str(), F_OK) == 0) {
    const auto content = read_file(path);
    if (!content) return tl::unexpected(content.error());
    if (auto done = parse(path, *content, config); !done) return tl::unexpected(done.error());
    config.config_path = path;
  }
  const bool policies_named = !config.policies_dir.empty();
  if (!policies_named) config.policies_dir = standard.substr(0, standard.rfind('/')) + "/policies";
  if (auto done = refuse_policies(config.policies_dir, policies_named); !done) return tl::unexpected(done.error());

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

}  // namespace kai::keeper
