#include "policies/upgrade_asks.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "policies/decide.h"
#include "policies/domains.h"
#include "policies/listed_address.h"
#include "policies/manifest_names.h"
#include "policies/wording.h"

namespace kai {
namespace {

using Kind = UpgradeFinding::Kind;
using Weight = UpgradeFinding::Weight;
using Findings = std::vector<UpgradeFinding>;

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

bool has(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

/// A port that is not said means those of the policy.
bool covers_port(std::uint16_t old_port, std::uint16_t port, const Policy& policy) {
  const auto& listed = policy.network.ports;
  return old_port == port || (old_port == 0 && std::find(listed.begin(), listed.end(), port) != listed.end());
}

/// Whether an entry of allowedDomains opens nothing that `old` did not.
bool covers_entry(const std::string& old, const std::string& entry, const Policy& policy) {
  if (old == entry) return true;
  if (looks_like_address(old) || looks_like_address(entry)) {
    const auto outer = read_listed_address(old), inner = read_listed_address(entry);
    return outer && inner && covers_port(outer->port, inner->port, policy) &&
           outer->block.prefix <= inner->block.prefix && contains(outer->block, inner->block.network);
  }
  const auto outer = read_domain_pattern(old), inner = read_domain_pattern(entry);
  return outer && inner && covers_port(outer->port, inner->port, policy) && covers(*outer, *inner);
}

bool covers_action(const std::vector<Permission>& old, const Permission& asked, const std::string& action) {
  return std::any_of(old.begin(), old.end(), [&](const Permission& had) {
    return had.resource == asked.resource && (had.scope == "*" || had.scope == asked.scope) && has(had.actions, action);
  });
}

/// Compares what two versions ask for, and looks up what the policy says to the difference.
class Asks {
 public:
  Asks(const UpgradePath& path, Findings& findings)
      : policy_(path.policy),
        from_(*path.from.manifest),
        to_(*path.to.manifest),
        security_(to_.security),
        findings_(findings) {
    // Of permissions only the actions that are new: the policy may refuse those that are not.
    Manifest asked = to_;
    for (Permission& permission : asked.security.permissions) {
      std::erase_if(permission.actions, [&](const std::string& action) {
        return covers_action(from_.security.permissions, permission, action);
      });
    }
    permissions_ = asked.security.permissions;
    verdicts_ = decide(asked, policy_, false).verdicts;
  }

  void find() {
    find_sandbox();
    find_crypto();
    find_permissions();
    find_network();
    find_files();
    find_memory();
    find_runtime();
  }

 private:
  /// What the policy says to the thing at `pointer`; where it has nothing to say, it gives it.
  void add(const std::string& pointer, const std::string& asks) {
    const auto verdict =
        std::find_if(verdicts_.begin(), verdicts_.end(), [&](const Verdict& each) { return each.pointer == pointer; });
    UpgradeFinding finding{Kind::kWidened, Weight::kNote, pointer, asks, {}};
    if (verdict != verdicts_.end()) {
      finding.message += ", which " + from_.version + " did not: " + verdict->reason;
      finding.rule = verdict->rule;
      if (verdict->kind == Verdict::Kind::kTrimmed) finding.weight = Weight::kNeedsForce;
      if (verdict->kind == Verdict::Kind::kRefused) finding.weight = Weight::kRefused;
    }
    findings_.push_back(std::move(finding));
  }
  void add(Weight weight, const std::string& pointer, std::string message, std::string rule = {}) {
    findings_.push_back({Kind::kWidened, weight, pointer, std::move(message), std::move(rule)});
  }

  void find_sandbox() {
    if (from_.security.sandbox && !security_.sandbox) add("/security/sandbox", "it asks for no sandbox");
  }

  void find_crypto() {
    const Crypto before = from_.security.crypto;
    if (before == Crypto::kNone || security_.crypto != Crypto::kNone) return;
    add(Weight::kNeedsForce, "/security/crypto",
        "its messages are not signed any more: crypto goes from " +
            std::string(manifest::name_of<Crypto>(manifest::kCryptos, before)) + " to none");
  }

  void find_permissions() {
    for (std::size_t at = 0; at < permissions_.size(); ++at) {
      const Permission& asked = permissions_[at];
      if (asked.actions.empty()) continue;
      add("/security/permissions/" + std::to_string(at),
          "it asks for the permission " + shown(asked.resource + (asked.scope.empty() ? "" : "/" + asked.scope)) + " " +
              joined(asked.actions));
    }
  }

  void find_network() {
    const std::string base = "/security/networkAccess/";
    const NetworkPolicy& now = security_.network;
    if (!now.allow_outbound) return;
    NetworkPolicy before = from_.security.network;
    if (!before.allow_outbound) {
      add(base + "allowOutbound", "it asks for outbound connections");
      before = NetworkPolicy{};
    }
    for (std::size_t at = 0; at < now.allowed_domains.size(); ++at) {
      const std::string& entry = now.allowed_domains[at];
      const bool had = std::any_of(before.allowed_domains.begin(), before.allowed_domains.end(),
                                   [&](const std::string& old) { return covers_entry(old, entry, policy_); });
      if (!had) add(base + "allowedDomains/" + std::to_string(at), "it asks for connections to " + shown(entry));
    }
    if (!before.allow_outbound) return;
    for (const std::string& blocked : before.blocked_domains) {
      if (has(now.blocked_domains, blocked)) continue;
      add(Weight::kNote, base + "blockedDomains",
          "it does not block " + shown(blocked) + " any more: what the policy allows decides alone",
          policy_.rule("network.allowedDomains"));
    }
    find_connections(before, now);
  }

  void find_connections(const NetworkPolicy& before, const NetworkPolicy& now) {
    const std::string pointer = "/security/networkAccess/maxConnections";
    const std::string text = before.max_connections ? std::to_string(*before.max_connections) : "";
    if (!before.max_connections) return;
    if (!now.max_connections) {
      add(Weight::kNote, pointer,
          "it asks for as many connections as the policy gives, " +
              std::to_string(policy_.network_limit.max_connections) + ", where " + from_.version + " asked for " + text,
          policy_.rule("networkLimit.maxConnections"));
    } else if (*now.max_connections > *before.max_connections) {
      add(pointer, "it asks for " + std::to_string(*now.max_connections) + " connections at once instead of " + text);
    }
  }

  void find_files() {
    const std::string base = "/security/fileAccess/";
    const FileAccessPolicy& before = from_.security.files;
    const FileAccessPolicy& now = security_.files;
    const bool writes = before.read_only && !now.read_only;
    for (std::size_t at = 0; at < now.allowed_paths.size(); ++at) {
      const std::string& path = now.allowed_paths[at];
      const std::string pointer = base + "allowedPaths/" + std::to_string(at);
      if (!has(before.allowed_paths, path)) {
        add(pointer, "it asks for the path " + shown(path));
      } else if (writes) {
        add(pointer, "it asks to write below " + shown(path));
      }
    }
    if (now.temp_file_access && !before.temp_file_access) add(base + "tempFileAccess", "it asks for files in /tmp");
  }

  void find_memory() {
    const double before = from_.memory.max_size.value_or(kNoLimit);
    const double now = to_.memory.max_size.value_or(kNoLimit);
    if (now == kNoLimit && before != kNoLimit) {
      add("/memory", "it asks for as much memory as the policy gives");
    } else if (now > before) {
      add("/memory/maxSize", "it asks for a larger memory store");
    }
    if (to_.memory.shared_access && !from_.memory.shared_access) {
      add(Weight::kNote, "/memory/sharedAccess",
          "other agents may read its memory, those whose own policy grants them memory/" + to_.id + " read");
    }
  }

  void find_runtime() {
    const RuntimeKind before = from_.runtime.kind, now = to_.runtime.kind;
    if (before == now) return;
    const auto name = [](RuntimeKind kind) {
      return std::string(manifest::name_of<RuntimeKind>(manifest::kRuntimeKinds, kind));
    };
    add(Weight::kNote, "/runtime/kind",
        "it runs as " + name(now) + " instead of " + name(before) +
            ": the filter of system calls is that of its kind, which every policy gives",
        "builtin");
  }

  const Policy& policy_;
  const Manifest& from_;
  const Manifest& to_;
  const SecurityConfig& security_;
  Findings& findings_;
  std::vector<Permission> permissions_;
  std::vector<Verdict> verdicts_;
};

std::string memory_text(const MemoryConfig& memory) {
  return std::string(manifest::name_of<MemoryType>(manifest::kMemoryTypes, memory.type)) + " memory on " +
         std::string(manifest::name_of<MemoryBackend>(manifest::kMemoryBackends, memory.backend));
}

}  // namespace

void find_widened(const UpgradePath& path, std::vector<UpgradeFinding>& findings) {
  Asks(path, findings).find();
}

void find_memory(const UpgradePath& path, std::vector<UpgradeFinding>& findings) {
  const MemoryConfig& from = path.from.manifest->memory;
  const MemoryConfig& to = path.to.manifest->memory;
  const auto add = [&](Weight weight, const char* pointer, std::string message, std::string rule = {}) {
    findings.push_back({Kind::kMemory, weight, pointer, std::move(message), std::move(rule)});
  };
  // Where each lies: docs/memory.md, Types and backends.
  const bool elsewhere = (from.type == MemoryType::kVolatile) != (to.type == MemoryType::kVolatile) ||
                         (from.backend == MemoryBackend::kRedis) != (to.backend == MemoryBackend::kRedis);
  const char* const pointer = from.type != to.type ? "/memory/type" : "/memory/backend";
  if (elsewhere) {
    add(Weight::kNeedsForce, pointer,
        "it begins with an empty memory: " + memory_text(from) + " is not carried over to " + memory_text(to) +
            " (kaictl memory export and import can)");
  } else if (from.backend == MemoryBackend::kIndexedDb && to.backend != MemoryBackend::kIndexedDb) {
    add(Weight::kNeedsForce, pointer,
        "it cannot read the IndexedDB databases of " + path.from.manifest->version +
            ": its memory.backend is not indexeddb. Keys stay");
  } else if (from.type != to.type || from.backend != to.backend) {
    add(Weight::kNote, pointer, memory_text(from) + " becomes " + memory_text(to) + ", with all that is in it");
  }
  const double ceiling = path.policy.limits.memory_store_mb;
  if (std::min(to.max_size.value_or(kNoLimit), ceiling) < std::min(from.max_size.value_or(kNoLimit), ceiling)) {
    add(Weight::kNote, "/memory/maxSize",
        "its memory may be smaller than that of " + path.from.manifest->version +
            ": where more is in it already, it can be read, and nothing can be added");
  }
}

}  // namespace kai
