#include "policies/decide.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "policies/domains.h"
#include "policies/manifest_formats.h"

namespace kai {
namespace {

using Kind = Verdict::Kind;

constexpr const char* kNoEgress = "no network yet: egress is not in this version, the agent has only its own loopback";
constexpr const char* kNoEgressYet = "; egress is not in this version, so no connection is made yet";

/// A rule of the policy that has a place of its own: a key that was left out decides as kAI's default.
std::string by(const Policy& policy, std::string_view key) {
  return "policy " + policy.name + " (" + policy.rule(key) + ")";
}

std::string megabytes(double count) {
  std::array<char, 32> text;
  (void)std::snprintf(text.data(), text.size(), "%.6g MB", count);
  return text.data();
}

void decide_sandbox(const Manifest& manifest, const Policy& policy, Decisions& decisions) {
  if (manifest.security.sandbox) return;
  Verdict verdict{"/security/sandbox", "false", {}, policy.rule("sandbox"), Kind::kRefused};
  const bool granted = policy.grants_power("unsandboxed");
  std::string missing;
  if (policy.sandbox) missing = "sandbox: false";
  if (!granted) missing += (missing.empty() ? "" : " and ") + std::string("unsandboxed under grants");
  if (!missing.empty()) {
    // The rule that stands in the way: the one that is said, if only one of them is.
    if (!policy.sandbox) verdict.rule = policy.rule("grants");
    verdict.reason = "the manifest asks for security.sandbox: false, which " +
                     by(policy, policy.sandbox ? "sandbox" : "grants") +
                     " does not allow: set it to true, or let the operator's policy for this agent say " + missing;
  } else {
    verdict.kind = Kind::kGranted;
    verdict.rule = policy.rule("sandbox");
    verdict.reason =
        "no file system or network of its own and no filter: it sees the host's files as an unprivileged user";
    decisions.unsandboxed = true;
  }
  decisions.verdicts.push_back(std::move(verdict));
}

void decide_memory(const MemoryConfig& memory, const Policy& policy, Decisions& decisions) {
  const std::string kept = memory.type == MemoryType::kVolatile ? "until it is terminated" : "until it is purged";
  const double most = policy.limits.memory_store_mb;
  decisions.verdicts.push_back({"/memory", "a memory store",
                                "kept " + kept + ", at most " +
                                    megabytes(std::min(memory.max_size.value_or(most), most)) +
                                    (policy.memory_encryption ? ", its values encrypted" : ""),
                                policy.rule("limits.memoryStore"), Kind::kGranted});
  if (!memory.max_size) return;
  Verdict verdict{"/memory/maxSize", megabytes(*memory.max_size), "within limits.memoryStore",
                  policy.rule("limits.memoryStore"), Kind::kGranted};
  if (*memory.max_size > policy.limits.memory_store_mb) {
    verdict.kind = Kind::kTrimmed;
    verdict.reason = "limits.memoryStore of " + by(policy, "limits.memoryStore") + " gives " +
                     megabytes(policy.limits.memory_store_mb) + ": raise it there, or ask for less";
  }
  decisions.verdicts.push_back(std::move(verdict));
}

/// The position of the policy's permission that gives `action`; the number of permissions where none does.
std::size_t rule_for(const Permission& asked, const std::string& action, const Policy& policy) {
  const auto found = std::find_if(policy.permissions.begin(), policy.permissions.end(), [&](const Permission& rule) {
    return rule.resource == asked.resource && (rule.scope == "*" || rule.scope == asked.scope) &&
           std::find(rule.actions.begin(), rule.actions.end(), action) != rule.actions.end();
  });
  return static_cast<std::size_t>(found - policy.permissions.begin());
}

Verdict decide_permission(const Permission& asked, const Policy& policy, Decisions& decisions) {
  constexpr std::array<std::string_view, 5> kGoverned = {"file", "network", "agent", "topic", "memory"};
  Verdict verdict{{},
                  asked.resource + (asked.scope.empty() ? "" : "/" + asked.scope) + " " + joined(asked.actions),
                  {},
                  policy.rule("permissions"),
                  Kind::kGranted};
  if (std::find(kGoverned.begin(), kGoverned.end(), asked.resource) == kGoverned.end()) {
    verdict.reason = "a label of the agent's own, which opens nothing: it is told to the agent";
    decisions.permissions.push_back(asked);
    return verdict;
  }
  Permission granted = asked;
  granted.actions.clear();
  std::vector<std::string> missing;
  for (const std::string& action : asked.actions) {
    const std::size_t at = rule_for(asked, action, policy);
    const bool given = at < policy.permissions.size();
    (given ? granted.actions : missing).push_back(action);
    if (given) verdict.rule = policy.rule("permissions." + std::to_string(at));
  }
  if (!granted.actions.empty()) decisions.permissions.push_back(granted);
  if (missing.empty()) {
    verdict.reason = "granted by " + by(policy, "permissions");
    return verdict;
  }
  verdict.kind = Kind::kTrimmed;
  verdict.rule = policy.rule("permissions");
  verdict.reason =
      "policy " + policy.name + " has no rule that grants " +
      (granted.actions.empty() ? "it" : joined(missing) + " (" + joined(granted.actions) + " is granted)") +
      "; the operator can add one under permissions";
  return verdict;
}

void decide_network(const NetworkPolicy& network, const Policy& policy, Decisions& decisions) {
  if (!network.allow_outbound) return;
  const std::string base = "/security/networkAccess/";
  decisions.host_network = !decisions.unsandboxed && policy.grants_power("hostNetwork");
  const bool unchecked = decisions.host_network || decisions.unsandboxed;
  const std::string why = decisions.unsandboxed ? "unsandboxed" : "by the grant hostNetwork";
  const std::string rule = policy.rule(decisions.unsandboxed ? "sandbox" : "grants");
  const std::string asked =
      network.allowed_domains.empty() ? "outbound connections" : "connections to " + joined(network.allowed_domains);
  Verdict outbound{base + "allowOutbound", asked, kNoEgress, policy.rule("network.allowedDomains"), Kind::kTrimmed};
  if (unchecked) {
    outbound.kind = Kind::kGranted;
    outbound.rule = rule;
    outbound.reason = why + ": the host's network" +
                      (decisions.unsandboxed ? ", whole" : ", TCP to every address on network.ports, and UDP anywhere");
  } else if (policy.network.allowed_domains.empty() && policy.network.allowed_cidrs.empty()) {
    outbound.reason = std::string(kNoEgress) + "; and " + by(policy, "network.allowedDomains") + " allows none";
  } else if (network.allowed_domains.empty()) {
    outbound.reason = std::string(kNoEgress) + "; and the manifest lists no allowedDomains: no list, no network";
  }
  decisions.verdicts.push_back(std::move(outbound));
  for (std::size_t at = 0; at < network.allowed_domains.size(); ++at) {
    Verdict verdict = decide_domain(network.allowed_domains[at], policy);
    if (unchecked) {
      verdict.kind = Kind::kGranted;
      verdict.reason = why + ": names are not checked";
      verdict.rule = rule;
    }
    verdict.pointer = base + "allowedDomains/" + std::to_string(at);
    decisions.verdicts.push_back(std::move(verdict));
  }
  if (!network.max_connections) return;
  Verdict verdict{base + "maxConnections", std::to_string(*network.max_connections),
                  "within networkLimit.maxConnections", policy.rule("networkLimit.maxConnections"), Kind::kGranted};
  if (*network.max_connections > policy.network_limit.max_connections) {
    verdict.kind = Kind::kTrimmed;
    verdict.reason = "networkLimit of " + by(policy, "networkLimit.maxConnections") + " gives " +
                     std::to_string(policy.network_limit.max_connections);
  }
  decisions.verdicts.push_back(std::move(verdict));
}

std::string disk_text(const Policy& policy) {
  return std::to_string(policy.limits.disk_mb) + " MB and " + std::to_string(policy.limits.inodes) +
         " files for all of its paths together";
}

Verdict decide_path(const PathPlan& plan, const FileAccessPolicy& files, const Policy& policy, bool ephemeral) {
  Verdict verdict{{}, plan.path, {}, policy.rule("limits.disk"), Kind::kGranted};
  const auto trim = [&](std::string reason) {
    verdict.kind = Kind::kTrimmed;
    verdict.reason = std::move(reason);
  };
  const std::string key = "files." + plan.path;
  switch (plan.kind) {
    case PathPlan::Kind::kPrivate:
      if (ephemeral) {
        trim("backed by memory in a run, " + disk_text(policy) + ", and empty at each start");
      } else {
        verdict.reason = "a directory of the agent's own, kept over restarts: " + disk_text(policy);
      }
      return verdict;
    case PathPlan::Kind::kHost:
      verdict.rule = policy.rule(key);
      verdict.reason = "the host's " + plan.host->host + (plan.read_only ? ", read-only" : ", writable by hostWrite");
      if (!plan.read_only || files.read_only) return verdict;
      trim(verdict.reason + ": " +
           (plan.host->write ? "write: true needs the grant hostWrite too"
                             : by(policy, key) + " does not say write: true"));
      return verdict;
    case PathPlan::Kind::kTmp:
      verdict.rule = policy.rule("limits.tmp");
      verdict.reason =
          "in memory, " + std::to_string(policy.limits.tmp_mb) + " MB with all of /tmp, and empty at each start";
      return verdict;
    case PathPlan::Kind::kInside:
      verdict.reason = "inside " + plan.inside + ", and part of it";
      return verdict;
    case PathPlan::Kind::kNoDisk:
      trim("limits.disk of " + by(policy, "limits.disk") + " is 0: the path is not there");
      return verdict;
    case PathPlan::Kind::kReserved:
      trim(std::string("the path is not there: it ") + manifest::allowed_path_fault(plan.path));
      return verdict;
    case PathPlan::Kind::kHidden:
      verdict.rule = policy.rule(key);
      trim("part of " + plan.inside +
           ", where the agent can move what stands there: the host's path is not mapped below "
           "it; list only one of the two");
      return verdict;
  }
  return verdict;
}

void decide_files(const FileAccessPolicy& files, const Policy& policy, bool ephemeral, Decisions& decisions) {
  const std::string base = "/security/fileAccess/";
  if (decisions.unsandboxed) {
    for (std::size_t at = 0; at < files.allowed_paths.size(); ++at) {
      decisions.verdicts.push_back({base + "allowedPaths/" + std::to_string(at), files.allowed_paths[at],
                                    "unsandboxed: the host's own path, with the rights of an unprivileged user",
                                    policy.rule("sandbox"), Kind::kGranted});
    }
    return;
  }
  decisions.paths = plan_paths(files, policy);
  for (std::size_t at = 0; at < decisions.paths.size(); ++at) {
    Verdict verdict = decide_path(decisions.paths[at], files, policy, ephemeral);
    verdict.pointer = base + "allowedPaths/" + std::to_string(at);
    decisions.verdicts.push_back(std::move(verdict));
  }
  if (!files.temp_file_access) return;
  Verdict verdict{base + "tempFileAccess", "/tmp",
                  std::to_string(policy.limits.tmp_mb) + " MB in memory, empty at each start",
                  policy.rule("limits.tmp"), Kind::kGranted};
  if (policy.limits.tmp_mb == 0) {
    verdict.kind = Kind::kTrimmed;
    verdict.reason =
        "limits.tmp of " + by(policy, "limits.tmp") + " is 0: /tmp has only the 1 MB that every program gets";
  }
  decisions.verdicts.push_back(std::move(verdict));
}

/// The best that the policy has for what was asked: whole, on fewer ports or for fewer names, or nothing.
struct Match {
  enum class Fit { kNone, kFewerNames, kFewerPorts, kOtherPort, kWhole } fit = Fit::kNone;
  std::size_t at = 0;
  DomainPattern rule;
};

Match best_match(const DomainPattern& asked, const Policy& policy) {
  Match best;
  for (std::size_t at = 0; at < policy.network.allowed_domains.size(); ++at) {
    const auto rule = read_domain_pattern(policy.network.allowed_domains[at]);
    if (!rule) continue;
    Match::Fit fit = Match::Fit::kNone;
    if (covers(*rule, asked)) {
      const auto& ports = policy.network.ports;
      const bool listed = std::find(ports.begin(), ports.end(), asked.port) != ports.end();
      const bool whole = rule->port == 0 ? asked.port == 0 || listed : rule->port == asked.port;
      fit = whole                                ? Match::Fit::kWhole
            : rule->port != 0 && asked.port == 0 ? Match::Fit::kFewerPorts
                                                 : Match::Fit::kOtherPort;
    } else if (covers(asked, *rule)) {
      fit = Match::Fit::kFewerNames;
    }
    if (fit > best.fit) best = {fit, at, *rule};
  }
  return best;
}

}  // namespace

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

Verdict decide_domain(const std::string& asked, const Policy& policy) {
  Verdict verdict{{}, asked, {}, policy.rule("network.allowedDomains"), Kind::kTrimmed};
  const auto pattern = read_domain_pattern(asked);
  if (!pattern) {
    verdict.reason = std::string("the entry ") + domain_pattern_fault(asked);
    return verdict;
  }
  std::string except;
  for (std::size_t at = 0; at < policy.network.blocked_domains.size(); ++at) {
    const std::string key = "network.blockedDomains." + std::to_string(at);
    const auto blocked = read_domain_pattern(policy.network.blocked_domains[at]);
    if (!blocked) continue;
    if (covers(*blocked, *pattern) && (blocked->port == 0 || blocked->port == pattern->port)) {
      verdict.rule = policy.rule(key);
      verdict.reason = "blockedDomains of policy " + policy.name + " has " + blocked->text() + ", and blocked wins";
      return verdict;
    }
    if (covers(*blocked, *pattern) || covers(*pattern, *blocked)) {
      except += (except.empty() ? ", but for " : ", ") + blocked->text();
    }
  }
  const Match match = best_match(*pattern, policy);
  const std::string key = "network.allowedDomains." + std::to_string(match.at);
  if (match.fit != Match::Fit::kNone) verdict.rule = policy.rule(key);
  switch (match.fit) {
    case Match::Fit::kWhole:
      verdict.kind = Kind::kGranted;
      verdict.reason = "allowed by " + match.rule.text() + except + kNoEgressYet;
      return verdict;
    case Match::Fit::kOtherPort:
      if (match.rule.port == 0) verdict.rule = policy.rule("network.ports");
      verdict.reason = "policy " + policy.name + " allows " + match.rule.text() +
                       (match.rule.port == 0 ? ", but not this port: add it to network.ports, or " + pattern->text() +
                                                   " to allowedDomains"
                                             : " and no other port");
      return verdict;
    case Match::Fit::kFewerPorts:
    case Match::Fit::kFewerNames:
      verdict.reason = "policy " + policy.name + " allows of it only " + match.rule.text() + except + kNoEgressYet;
      return verdict;
    case Match::Fit::kNone:
      break;
  }
  verdict.reason =
      policy.network.allowed_domains.empty()
          ? "policy " + policy.name + " allows no network: the operator can list it in network.allowedDomains"
          : "policy " + policy.name + " does not list it: the operator can add it to network.allowedDomains";
  return verdict;
}

Decisions decide(const Manifest& manifest, const Policy& policy, bool ephemeral) {
  Decisions decisions;
  const SecurityConfig& security = manifest.security;
  decide_memory(manifest.memory, policy, decisions);
  decide_sandbox(manifest, policy, decisions);
  for (std::size_t at = 0; at < security.permissions.size(); ++at) {
    Verdict verdict = decide_permission(security.permissions[at], policy, decisions);
    verdict.pointer = "/security/permissions/" + std::to_string(at);
    decisions.verdicts.push_back(std::move(verdict));
  }
  decide_network(security.network, policy, decisions);
  decide_files(security.files, policy, ephemeral, decisions);
  return decisions;
}

}  // namespace kai
