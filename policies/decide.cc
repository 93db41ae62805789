#include "policies/decide.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "policies/manifest_formats.h"

namespace kai {
namespace {

using Kind = Verdict::Kind;

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

}  // namespace

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
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
  decide_network(manifest, policy, decisions);
  decide_files(security.files, policy, ephemeral, decisions);
  return decisions;
}

}  // namespace kai
