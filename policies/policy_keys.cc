#include "policies/policy_keys.h"

#include <algorithm>

#include "policies/addresses.h"
#include "policies/listed_address.h"
#include "policies/network_rules.h"
#include "policies/policy_formats.h"
#include "policies/wording.h"
#include "policies/written_domains.h"

namespace kai::policy_file {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

// Upper bounds: the keeper's own (supervisor/keeper/check.cc) where it has one, else far beyond what a machine gives,
// so that a slip of the hand is an error and no sum overflows.
constexpr std::uint32_t kMaxMegabytes = 1 << 20;  // 1 TiB
constexpr std::uint32_t kMaxTmpMegabytes = 16 << 10;
constexpr std::uint32_t kMaxCpuPercent = 100 * 1024;
constexpr std::uint32_t kMaxProcesses = (1 << 16) - 1;  // RLIMIT_NPROC is one more
constexpr std::uint32_t kMaxOpenFiles = 1 << 20;        // fs.nr_open
constexpr std::uint32_t kMaxInodes = 1 << 24;
constexpr std::uint32_t kMaxBandwidth = 10 << 20;  // 10 GB/s in KB/s
constexpr milliseconds kShortest(1);
constexpr hours kDay(24);
constexpr hours kWeek(7 * 24);
constexpr std::size_t kMaxEntries = 1024;
constexpr std::size_t kLongestName = 1024;  // a name that is 253 bytes long in A-labels may be longer in UTF-8
constexpr const char* kDnsPortFault = "must not be port 53, which is the DNS of the agent's own: nothing else is there";

void read_domains(const Value& value, std::vector<std::string>& target, Format format) {
  value.texts(target, kMaxEntries, kLongestName, format);
  for (std::string& each : target) {
    if (auto entry = normalized_listed_domain(each)) each = std::move(*entry);
  }
}

const char* allowed_domain_fault(std::string_view text) {
  if (looks_like_address(text) && listed_address_fault(text) == nullptr) {
    return "must be a name: addresses and blocks of them belong in network.allowedCidrs";
  }
  if (const char* fault = written_domain_fault(text)) return fault;
  return text.ends_with(":53") ? kDnsPortFault : nullptr;
}

void read_ports(const Value& value, std::vector<std::uint16_t>& target) {
  target.clear();
  value.list(kMaxNetworkPorts, [&](const Value& element) {
    std::uint32_t port = 0;
    element.count(port, 1, 65535);
    if (port == kDnsPort) element.fail(kDnsPortFault);
    if (std::find(target.begin(), target.end(), port) != target.end()) element.fail("is there twice");
    target.push_back(static_cast<std::uint16_t>(port));
  });
}

/// A key that is no plain name is a fault at its own place.
bool key_is(const Value& value, const std::string& name, Format format) {
  const char* fault = format(name);
  if (fault != nullptr) value.reading().fail(value.node().key_place, shown(name) + " " + fault);
  return fault == nullptr;
}

void read_hosts(const Value& value, std::map<std::string, std::string>& target) {
  constexpr std::size_t kMaxHosts = 200;  // all of them fit into the 64 KiB that the keeper lets /etc/hosts have
  value.mapping(kMaxHosts, [&](const std::string& name, const Value& address) {
    if (!key_is(address, name, host_name_fault)) return;
    std::string text;
    address.text(text, 64, address_fault);
    const std::string host = *written_host(name);
    if (!target.emplace(host, text).second) {
      value.reading().fail(address.node().key_place, shown(name) + " is there twice, as " + host);
    }
    value.reading().said(value.key() + "." + host, address.node().key_place);
  });
}

void read_files(const Value& value, std::map<std::string, HostFile>& target) {
  constexpr std::size_t kMaxFiles = 256;
  value.mapping(kMaxFiles, [&](const std::string& path, const Value& each) {
    if (!key_is(each, path, path_fault)) return;
    HostFile file;
    each.fields({"host", "write"}, [&](std::string_view name, const Value& field) {
      if (name == "host") field.text(file.host, 1024, host_path_fault);
      if (name == "write") field.boolean(file.write);
    });
    if (file.host.empty()) each.fail("needs host: the directory or file of this machine that stands behind it");
    target[path] = file;
  });
}

void read_permissions(const Value& value, std::vector<Permission>& target) {
  value.list(256, [&](const Value& each) {
    Permission permission;
    each.fields({"resource", "scope", "actions"}, [&](std::string_view name, const Value& field) {
      if (name == "resource") field.text(permission.resource, 128, resource_fault);
      if (name == "scope") field.text(permission.scope, 1024, any_text_fault);
      if (name == "actions") field.words(permission.actions, {"read", "write", "execute", "delete"});
    });
    if (permission.resource.empty()) each.fail("needs resource: agent, topic, memory, file, network or a label");
    if (permission.actions.empty()) each.fail("needs actions: at least one of read, write, execute, delete");
    target.push_back(std::move(permission));
  });
}

void read_services(const Value& value, std::map<std::string, std::string>& target) {
  value.mapping(256, [&](const std::string& name, const Value& address) {
    if (key_is(address, name, resource_fault)) address.text(target[name], 1024, service_fault);
  });
}

// Not sorted: the order of contracts.md, in which messages and docs/policy.md list them.
constexpr Key kKeys[] = {
    {"name", [](const Value& value, Policy& policy) { value.text(policy.name, 64, policy_name_fault); }},
    {"agentId", [](const Value& value, Policy& policy) { value.text(policy.agent_id, 128, id_glob_fault); }},
    {"sandbox", [](const Value& value, Policy& policy) { value.boolean(policy.sandbox); }},
    {"autoRestart", [](const Value& value, Policy& policy) { value.boolean(policy.auto_restart); }},
    {"maxCrashes", [](const Value& value, Policy& policy) { value.count(policy.max_crashes, 0, 1000); }},
    {"crashWindow", [](const Value& value, Policy& policy) { value.duration(policy.crash_window, kShortest, kWeek); }},
    {"backoff.initial",
     [](const Value& value, Policy& policy) { value.duration(policy.backoff.initial, milliseconds(0), kDay); }},
    {"backoff.base", [](const Value& value, Policy& policy) { value.duration(policy.backoff.base, kShortest, kDay); }},
    {"backoff.max", [](const Value& value, Policy& policy) { value.duration(policy.backoff.max, kShortest, kDay); }},
    {"backoff.jitter", [](const Value& value, Policy& policy) { value.fraction(policy.backoff.jitter, 1); }},
    {"backoff.resetAfter",
     [](const Value& value, Policy& policy) { value.duration(policy.backoff.reset_after, kShortest, kWeek); }},
    {"memoryLimit",
     [](const Value& value, Policy& policy) { value.count(policy.memory_limit_mb, 1, kMaxMegabytes, "MB"); }},
    {"cpuLimit",
     [](const Value& value, Policy& policy) { value.count(policy.cpu_limit_percent, 1, kMaxCpuPercent, "percent"); }},
    {"networkLimit.maxConnections",
     [](const Value& value, Policy& policy) { value.count(policy.network_limit.max_connections, 0, 65535); }},
    {"networkLimit.bandwidthLimit",
     [](const Value& value, Policy& policy) {
       value.count(policy.network_limit.bandwidth_kb, 1, kMaxBandwidth, "KB/s");
     }},
    {"networkLimit.allowedProtocols",
     [](const Value& value, Policy& policy) {
       value.words(policy.network_limit.allowed_protocols, {"tls", "http", "tcp"});
     }},
    {"limits.processes",
     [](const Value& value, Policy& policy) { value.count(policy.limits.processes, 2, kMaxProcesses); }},
    {"limits.openFiles",
     [](const Value& value, Policy& policy) { value.count(policy.limits.open_files, 16, kMaxOpenFiles); }},
    {"limits.disk",
     [](const Value& value, Policy& policy) { value.count(policy.limits.disk_mb, 0, kMaxMegabytes, "MB"); }},
    {"limits.tmp",
     [](const Value& value, Policy& policy) { value.count(policy.limits.tmp_mb, 0, kMaxTmpMegabytes, "MB"); }},
    {"limits.inodes", [](const Value& value, Policy& policy) { value.count(policy.limits.inodes, 64, kMaxInodes); }},
    {"limits.logLines",
     [](const Value& value, Policy& policy) { value.count(policy.limits.log_lines, 1, 100'000, "lines per second"); }},
    {"limits.memoryStore",
     [](const Value& value, Policy& policy) { value.count(policy.limits.memory_store_mb, 0, kMaxMegabytes, "MB"); }},
    {"limits.inFlight", [](const Value& value, Policy& policy) { value.count(policy.limits.in_flight, 1, 4096); }},
    {"network.allowedDomains",
     [](const Value& value, Policy& policy) {
       read_domains(value, policy.network.allowed_domains, allowed_domain_fault);
     }},
    {"network.blockedDomains",
     [](const Value& value, Policy& policy) {
       read_domains(value, policy.network.blocked_domains, listed_domain_fault);
     }},
    {"network.allowedCidrs",
     [](const Value& value, Policy& policy) { value.texts(policy.network.allowed_cidrs, 256, 64, cidr_fault); }},
    {"network.ports", [](const Value& value, Policy& policy) { read_ports(value, policy.network.ports); }},
    {"network.hosts", [](const Value& value, Policy& policy) { read_hosts(value, policy.network.hosts); }},
    {"files", [](const Value& value, Policy& policy) { read_files(value, policy.files); }},
    {"permissions", [](const Value& value, Policy& policy) { read_permissions(value, policy.permissions); }},
    {"services", [](const Value& value, Policy& policy) { read_services(value, policy.services); }},
    {"trustedKeys",
     [](const Value& value, Policy& policy) { value.texts(policy.trusted_keys, 256, 64, public_key_fault); }},
    {"allowUnsigned",
     [](const Value& value, Policy& policy) {
       if (const auto word = value.one_of({"never", "local"})) {
         policy.allow_unsigned = *word == 0 ? Unsigned::kNever : Unsigned::kLocal;
       }
     }},
    {"grants", [](const Value& value, Policy& policy) { value.texts(policy.grants, 256, 128, grant_fault); }},
    {"degrade",
     [](const Value& value, Policy& policy) {
       value.words(policy.degrade, {"cgroup", "landlock", "seccompNotify", "io", "disk", "groups"});
     }},
    {"deadlines.hello",
     [](const Value& value, Policy& policy) { value.duration(policy.deadlines.hello, kShortest, kDay); }},
    {"deadlines.start",
     [](const Value& value, Policy& policy) { value.duration(policy.deadlines.start, kShortest, kDay); }},
    {"deadlines.message",
     [](const Value& value, Policy& policy) { value.duration(policy.deadlines.message, kShortest, kDay); }},
    {"deadlines.stop",
     [](const Value& value, Policy& policy) { value.duration(policy.deadlines.stop, kShortest, kDay); }},
    {"health.interval",
     [](const Value& value, Policy& policy) { value.duration(policy.health.interval, milliseconds(10), kDay); }},
    {"health.misses", [](const Value& value, Policy& policy) { value.count(policy.health.misses, 1, 1000); }},
    {"quarantine.mode",
     [](const Value& value, Policy& policy) {
       if (const auto word = value.one_of({"freeze", "kill"})) policy.quarantine.kill = *word == 1;
     }},
    {"quarantine.denials",
     [](const Value& value, Policy& policy) { value.count(policy.quarantine.denials, 1, 1'000'000); }},
    {"quarantine.denialWindow",
     [](const Value& value, Policy& policy) { value.duration(policy.quarantine.denial_window, kShortest, kWeek); }},
    {"quarantine.maxRetries.low",
     [](const Value& value, Policy& policy) { value.count(policy.quarantine.retries_low, 0, 1000); }},
    {"quarantine.maxRetries.medium",
     [](const Value& value, Policy& policy) { value.count(policy.quarantine.retries_medium, 0, 1000); }},
    {"quarantine.maxRetries.high",
     [](const Value& value, Policy& policy) { value.count(policy.quarantine.retries_high, 0, 1000); }},
    {"quarantine.maxRetries.critical",
     [](const Value& value, Policy& policy) { value.count(policy.quarantine.retries_critical, 0, 1000); }},
    {"upgrade.probation",
     [](const Value& value, Policy& policy) { value.duration(policy.upgrade.probation, milliseconds(0), kDay); }},
    {"upgrade.maxSoftSwaps",
     [](const Value& value, Policy& policy) { value.count(policy.upgrade.max_soft_swaps, 0, 10'000); }},
    {"audit.messages", [](const Value& value, Policy& policy) { value.boolean(policy.audit_messages); }},
    {"memoryEncryption", [](const Value& value, Policy& policy) { value.boolean(policy.memory_encryption); }},
};

/// The names that may stand in the mapping whose keys begin with `prefix`, each once.
std::vector<std::string_view> names_in(std::string_view prefix) {
  std::vector<std::string_view> names;
  for (const Key& key : kKeys) {
    if (!key.name.starts_with(prefix)) continue;
    const std::string_view rest = key.name.substr(prefix.size());
    const std::string_view name = rest.substr(0, rest.find('.'));
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

}  // namespace

std::span<const Key> all_keys() {
  return kKeys;
}

void read_keys(const Value& value, Policy& policy) {
  const Node& node = value.node();
  if (node.kind != Node::Kind::kMapping) {
    const std::string what = value.key().empty() ? "a policy" : value.key();
    return value.reading().fail(node.place, what + " must be a mapping of keys and values");
  }
  const std::string prefix = value.key().empty() ? "" : value.key() + ".";
  const std::vector<std::string_view> names = names_in(prefix);
  for (const Node& child : node.children) {
    const std::string dotted = prefix + child.key;
    const auto* key =
        std::find_if(std::begin(kKeys), std::end(kKeys), [&](const Key& each) { return each.name == dotted; });
    const bool is_group = std::find(names.begin(), names.end(), std::string_view(child.key)) != names.end();
    if (key != std::end(kKeys)) {
      key->read(Value(child, dotted, value.reading()), policy);
    } else if (is_group) {
      read_keys(Value(child, dotted, value.reading()), policy);
    } else {
      value.unknown_key(child, names, value.key().empty() ? "a policy" : value.key());
    }
  }
}

}  // namespace kai::policy_file
