#include "policies/explain.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "policies/decide.h"
#include "policies/exposure.h"
#include "policies/network_rules.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kMegabyte = 1 << 20;
constexpr const char* kLoopback = "its own loopback only";
constexpr const char* kReaches = "its own loopback, and by name, through egress, what is listed here";

bool has(const std::vector<std::string>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// The rule of one entry of a list: "grants", "hostNetwork" → that of grants.1.
std::string rule_of(const Policy& policy, const std::string& key, const std::vector<std::string>& list,
                    std::string_view entry) {
  const auto found = std::find(list.begin(), list.end(), entry);
  return policy.rule(found == list.end() ? key : key + "." + std::to_string(found - list.begin()));
}

std::string grant_rule(const Policy& policy, std::string_view grant) {
  return rule_of(policy, "grants", policy.grants, grant);
}

const char* kind_name(spec::Mount::Kind kind) {
  switch (kind) {
    case spec::Mount::SYSTEM:
      return "system";
    case spec::Mount::PACKAGE:
      return "package";
    case spec::Mount::PRIVATE:
      return "private";
    case spec::Mount::TMPFS:
      return "memory";
    case spec::Mount::DESCRIPTOR:
    case spec::Mount::HOST:
      return "host";
    case spec::Mount::PROGRAM:
      return "program";
    case spec::Mount::SYMLINK:
      return "link";
    case spec::Mount::CONTENT:
      return "content";
    default:
      return "other";
  }
}

/// Builds the layers of one agent, in the order in which they are explained.
class Explanation {
 public:
  Explanation(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded,
              const NetworkNow* now)
      : compiled_(compiled), spec_(compiled.spec), policy_(policy), degraded_(degraded), now_(now) {}

  Json layers() {
    namespaces();
    ids();
    mounts();
    landlock();
    seccomp();
    privileges();
    cgroup();
    rlimits();
    disk();
    network();
    permissions();
    return std::move(layers_);
  }

 private:
  enum class State { kOn, kOpened, kOff };

  /// A layer of the policy's degrade list is "degraded" where it is missing in fact. Its items are added next.
  void layer(const char* name, State state, std::string summary, std::string rule, std::string_view degrade = {},
             const char* without = "") {
    std::string word = state == State::kOn ? "on" : state == State::kOpened ? "opened" : "off";
    if (state != State::kOff && has(degraded_, degrade)) {
      word = "degraded";
      summary = without;
      rule = rule_of(policy_, "degrade", policy_.degrade, degrade);
    }
    layers_.push_back(
        {{"layer", name}, {"state", word}, {"summary", summary}, {"rule", rule}, {"items", Json::array()}});
  }
  Json& item(std::string name, Json value, std::string rule) {
    Json& items = layers_.back()["items"];
    items.push_back({{"name", std::move(name)}, {"value", std::move(value)}, {"rule", std::move(rule)}});
    return items.back();
  }
  void limit(const char* name, std::uint64_t value, const char* unit, const std::string& key) {
    item(name, value, policy_.rule(key))["unit"] = unit;
  }

  void namespaces() {
    if (spec_.unsandboxed()) {
      return layer("namespaces", State::kOpened, "user, pid, ipc, uts, cgroup; the host's files and network",
                   grant_rule(policy_, "unsandboxed"));
    }
    if (spec_.host_network()) {
      return layer("namespaces", State::kOpened, "user, mount, pid, ipc, uts, cgroup; the host's network",
                   grant_rule(policy_, "hostNetwork"));
    }
    layer("namespaces", State::kOn, "user, mount, pid, net, ipc, uts, cgroup", "builtin");
  }

  void ids() {
    layer("ids", State::kOn, "user 1000 inside, never the host's root; no supplementary groups", "builtin", "groups",
          "user 1000 inside, never the host's root; the supplementary groups of kaid's user stay");
  }

  void mounts() {
    if (spec_.unsandboxed()) {
      return layer("mounts", State::kOff, "the host's files, as an unprivileged user",
                   grant_rule(policy_, "unsandboxed"));
    }
    const bool host = std::any_of(spec_.mounts().begin(), spec_.mounts().end(),
                                  [](const spec::Mount& mount) { return mount.kind() == spec::Mount::HOST; });
    layer("mounts", host ? State::kOpened : State::kOn, "read-only root; nosuid, nodev; noexec on what is writable",
          host ? policy_.rule("files") : "builtin");
    for (const spec::Mount& mount : spec_.mounts()) add_mount(mount);
  }

  void add_mount(const spec::Mount& mount) {
    std::string rule = "builtin";
    if (mount.kind() == spec::Mount::HOST) rule = policy_.rule("files." + mount.target());
    if (mount.kind() == spec::Mount::PRIVATE) rule = policy_.rule("limits.disk");
    if (mount.kind() == spec::Mount::TMPFS)
      rule = policy_.rule(mount.target() == "/tmp" ? "limits.tmp" : "limits.disk");
    const std::string kind = kind_name(mount.kind());
    std::string value = kind + (mount.source().empty() ? "" : " " + mount.source());
    if (mount.kind() == spec::Mount::TMPFS) value += " " + std::to_string(mount.size_bytes() / kMegabyte) + " MB";
    Json& entry = item(mount.target(), value + (mount.read_only() ? ", read-only" : ", writable"), rule);
    entry["kind"] = kind;
    if (!mount.source().empty()) entry["source"] = mount.source();
    entry["readOnly"] = mount.read_only();
    if (mount.size_bytes() != 0) entry["sizeBytes"] = mount.size_bytes();
    if (mount.inodes() != 0) entry["inodes"] = mount.inodes();
  }

  void landlock() {
    if (spec_.unsandboxed()) {
      return layer("landlock", State::kOff, "no second lock on files", grant_rule(policy_, "unsandboxed"));
    }
    if (!spec_.host_network()) {
      return layer("landlock", State::kOn, "a second lock on files, by the same mounts", "builtin", "landlock",
                   "missing: files are held by mounts alone");
    }
    std::string ports;
    for (const std::uint32_t port : spec_.tcp_ports()) ports += (ports.empty() ? "" : ", ") + std::to_string(port);
    layer("landlock", State::kOn, "a second lock on files; TCP only to ports " + (ports.empty() ? "(none)" : ports),
          policy_.rule("network.ports"), "landlock", "missing: files are held by mounts alone, ports by nothing");
  }

  void seccomp() {
    if (spec_.unsandboxed()) {
      return layer("seccomp", State::kOff, "every system call", grant_rule(policy_, "unsandboxed"));
    }
    constexpr std::string_view kSyscalls = "syscalls:";
    const bool extra = std::any_of(compiled_.grants.begin(), compiled_.grants.end(),
                                   [&](const std::string& grant) { return grant.starts_with(kSyscalls); });
    layer("seccomp", extra ? State::kOpened : State::kOn,
          "profile " + spec_.profile() + "; refusals are events of the agent", "builtin", "seccompNotify",
          "the same filter, but refusals are told to the agent alone");
    for (const std::string& grant : compiled_.grants) {
      if (grant.starts_with(kSyscalls))
        item(grant.substr(kSyscalls.size()), "allowed beyond the profile", grant_rule(policy_, grant));
    }
  }

  void privileges() { layer("privileges", State::kOn, "no capabilities, securebits locked, no_new_privs", "builtin"); }

  void cgroup() {
    layer("cgroup", State::kOn, "limits of the whole process tree; no swap", policy_.rule("memoryLimit"), "cgroup",
          "missing: memory is held by a watchdog, processes by RLIMIT_NPROC, cpu by nothing");
    limit("memory", spec_.cgroup().memory_bytes() / kMegabyte, "MB", "memoryLimit");
    limit("cpu", spec_.cgroup().cpu_percent(), "percent of one core", "cpuLimit");
    limit("processes", spec_.cgroup().pids(), "", "limits.processes");
    if (has(degraded_, "io")) item("io", "missing: the disk's bandwidth is not shared out", policy_.rule("degrade"));
  }

  void rlimits() {
    layer("rlimits", State::kOn, "no core dumps, no priorities, little locked memory",
          policy_.rule("limits.openFiles"));
    for (const spec::Rlimit& each : spec_.rlimits()) {
      if (each.resource() == RLIMIT_NOFILE) limit("openFiles", each.hard(), "", "limits.openFiles");
    }
    limit("logLines", policy_.limits.log_lines, "lines per second", "limits.logLines");
    limit("inFlight", policy_.limits.in_flight, "messages", "limits.inFlight");
  }

  void disk() {
    if (!spec_.has_disk()) return layer("disk", State::kOn, "no data of its own on disk", "builtin");
    layer("disk", State::kOn, "private data as one file system of its own", policy_.rule("limits.disk"), "disk",
          "private data is measured, not held by a quota: the agent is stopped over its limit");
    limit("size", spec_.disk().size_bytes() / kMegabyte, "MB", "limits.disk");
    limit("inodes", spec_.disk().inodes(), "", "limits.inodes");
  }

  void network() {
    if (spec_.host_network()) {
      layer("network", State::kOpened,
            spec_.unsandboxed() ? "the host's" : "the host's: TCP to every address on network.ports, UDP anywhere",
            grant_rule(policy_, spec_.unsandboxed() ? "unsandboxed" : "hostNetwork"));
      return add_verdicts("/security/networkAccess/allowedDomains/");
    }
    if (now_ != nullptr) return network_now();
    const bool reaches = !network_ports(spec_.network()).empty();
    layer("network", State::kOn, reaches ? kReaches : kLoopback,
          reaches ? policy_.rule("network.allowedDomains") : "builtin");
    add_verdicts("/security/networkAccess/allowedDomains/");
    if (reaches) egress_rules(spec_.network(), policy_);
  }

  void network_now() {
    const Compiled* compiled = now_->compiled;
    const bool given = compiled != nullptr && !compiled->spec.host_network();
    const egress::Rules rules = given ? compiled->spec.network() : egress::Rules();
    const bool started_with = !network_ports(spec_.network()).empty();
    const bool reaches = started_with && !network_ports(rules).empty();
    const bool same = given && rules.SerializeAsString() == spec_.network().SerializeAsString();
    std::string summary = reaches ? kReaches : kLoopback;
    if (!same) summary += "; by policy " + now_->policy.name + " as it is now, all else by that of its start";
    if (const std::string why = why_cut(started_with, rules); !why.empty()) summary += ": " + why;
    layer("network", State::kOn, summary, reaches ? now_->policy.rule("network.allowedDomains") : "builtin");
    if (given) add_verdicts("/security/networkAccess/allowedDomains/", *compiled);
    if (reaches) egress_rules(rules, now_->policy);
  }

  /// Why it reaches nobody, although the policy of now may allow more.
  [[nodiscard]] std::string why_cut(bool started_with, const egress::Rules& rules) const {
    if (now_->compiled == nullptr) return "it refuses this agent, whose network is cut";
    if (now_->compiled->spec.host_network()) {
      return "it gives the host's network, which waits for kaictl restart " + spec_.agent_id();
    }
    const bool waits = !started_with && !network_ports(rules).empty();
    return waits ? "it gives a network, which waits for kaictl restart " + spec_.agent_id() : "";
  }

  /// What holds for whatever is reached.
  void egress_rules(const egress::Rules& rules, const Policy& policy) {
    for (const egress::Cidr& cidr : rules.cidrs()) {
      item(text_of(cidr), "addresses that names may lead to, and that it may connect to by themselves", cidr.rule());
    }
    for (const egress::Pattern& block : rules.blocked()) item(text_of(block), "blocked", block.rule());
    for (const egress::Cidr& block : rules.declined_addresses()) {
      if (!is_of_manifest(block)) item(listed_text(block), "blocked", block.rule());
    }
    for (const egress::StaticHost& host : rules.hosts()) {
      const auto address = address_of(host.address());
      item(host.name(), "at " + (address ? address_text(*address) : "no address") + ", instead of DNS", host.rule());
    }
    add_ports(rules, policy);
    item("protocols", joined(policy.network_limit.allowed_protocols), policy.rule("networkLimit.allowedProtocols"));
    item("connections", rules.limits().connections(), rules.limits().connections_rule())["unit"] =
        "at once, and new ones a second";
    item("bandwidth", policy.network_limit.bandwidth_kb, policy.rule("networkLimit.bandwidthLimit"))["unit"] =
        "KB/s each way";
  }

  /// A port that it did not have when it was started has no listener.
  void add_ports(const egress::Rules& rules, const Policy& policy) {
    const auto listening = network_ports(spec_.network());
    std::string ports, waiting;
    for (const std::uint16_t port : network_ports(rules)) {
      const bool listens = std::find(listening.begin(), listening.end(), port) != listening.end();
      std::string& list = listens ? ports : waiting;
      list += (list.empty() ? "" : ", ") + std::to_string(port);
    }
    if (!waiting.empty()) waiting = "; after kaictl restart " + spec_.agent_id() + ": " + waiting;
    item("ports", (ports.empty() ? "none" : ports) + waiting, policy.rule("network.ports"));
  }

  void permissions() {
    layer("permissions", State::kOn, compiled_.permissions.empty() ? "none" : "", policy_.rule("permissions"));
    add_verdicts("/security/permissions/");
    if (!compiled_.permissions.empty()) {
      layers_.back()["summary"] = std::to_string(compiled_.permissions.size()) + " granted";
    }
  }

  /// What became of the manifest's wishes below `pointer`.
  void add_verdicts(std::string_view pointer) { add_verdicts(pointer, compiled_); }
  void add_verdicts(std::string_view pointer, const Compiled& compiled) {
    for (const auto* list : {&compiled.granted, &compiled.trimmed}) {
      for (const Verdict& verdict : *list) {
        if (!verdict.pointer.starts_with(pointer)) continue;
        const char* word = verdict.kind == Verdict::Kind::kGranted ? "granted: " : "trimmed: ";
        item(verdict.asked, word + verdict.reason, verdict.rule);
      }
    }
  }

  const Compiled& compiled_;
  const spec::SandboxSpec& spec_;
  const Policy& policy_;
  const std::vector<std::string>& degraded_;
  const NetworkNow* now_;
  Json layers_ = Json::array();
};

Json explanation(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded,
                 const NetworkNow* now) {
  Json grants = Json::array();
  for (const std::string& grant : compiled.grants) {
    grants.push_back({{"name", grant}, {"rule", grant_rule(policy, grant)}});
  }
  Json missing = Json::array();
  for (const std::string& layer : degraded) {
    missing.push_back({{"name", layer}, {"rule", rule_of(policy, "degrade", policy.degrade, layer)}});
  }
  const Exposure exposure = exposure_of(compiled.spec, policy, degraded);
  Json items = Json::array();
  for (const Exposure::Item& item : exposure.items) {
    items.push_back({{"name", item.name}, {"points", item.points}, {"reason", item.reason}});
  }
  return {{"id", compiled.spec.agent_id()},
          {"policy", policy.name},
          {"rule", policy.rule("")},
          {"grants", std::move(grants)},
          {"degraded", std::move(missing)},
          {"exposure", {{"score", exposure.score}, {"items", std::move(items)}}},
          {"layers", Explanation(compiled, policy, degraded, now).layers()}};
}

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text;
}

/// System directories are in every sandbox: the text counts them.
bool is_of_every_sandbox(const Json& item) {
  constexpr std::array<std::string_view, 4> kKinds = {"system", "link", "content", "program"};
  const std::string kind = item.value("kind", "");
  return std::find(kKinds.begin(), kKinds.end(), kind) != kKinds.end();
}

std::string value_text(const Json& item) {
  const Json& value = item["value"];
  const std::string unit = item.value("unit", "");
  return (value.is_string() ? value.get<std::string>() : value.dump()) + (unit.empty() ? "" : " " + unit);
}

}  // namespace

std::string explain_json(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded,
                         const NetworkNow* now) {
  return explanation(compiled, policy, degraded, now).dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string explain_text(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded,
                         const NetworkNow* now) {
  const Json all = explanation(compiled, policy, degraded, now);
  std::string text = all["id"].get<std::string>() + " under policy " + policy.name + " [" + policy.rule("") +
                     "], exposure " + all["exposure"]["score"].dump() + "\n";
  for (const Json& layer : all["layers"]) {
    text += padded(layer["layer"].get<std::string>(), 12) + padded(layer["state"].get<std::string>(), 10) +
            escape_for_terminal(layer["summary"].get<std::string>()) + " [" + layer["rule"].get<std::string>() + "]\n";
    std::size_t counted = 0;
    for (const Json& item : layer["items"]) {
      if (is_of_every_sandbox(item)) {
        ++counted;
        continue;
      }
      text += "  " + escape_for_terminal(item["name"].get<std::string>() + ": " + value_text(item)) + " [" +
              item["rule"].get<std::string>() + "]\n";
    }
    if (counted > 0)
      text += "  and " + std::to_string(counted) + " files and directories of every sandbox, read-only\n";
  }
  return text;
}

}  // namespace kai
