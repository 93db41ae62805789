#include "sandbox/verify.h"

#include <dirent.h>
#include <grp.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "base/unix.h"
#include "sandbox/landlock.h"

namespace kai::sandbox {
namespace {

tl::unexpected<Error> broken(std::string_view postcondition, std::string_view found = {}) {
  return failure("postcondition does not hold: " + std::string(postcondition), std::string(found));
}

/// The value of one line of /proc/self/status, without its tabs.
std::string_view status_value(std::string_view status, std::string_view key) {
  const std::string line = "\n" + std::string(key) + ":\t";
  const std::size_t at = status.find(line);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = status.substr(at + line.size());
  return rest.substr(0, rest.find('\n'));
}

Result<> verify_credentials(const Setup& setup, std::string_view status) {
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    if (status_value(status, set) != "0000000000000000") return broken("no capabilities", set);
  }
  if (status_value(status, "NoNewPrivs") != "1") return broken("no_new_privs");
  const char* filter_mode = setup.spec->unsandboxed() ? "0" : "2";
  if (status_value(status, "Seccomp") != filter_mode) return broken("seccomp mode", status_value(status, "Seccomp"));
  uid_t uid[3];
  gid_t gid[3];
  if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0) {
    return errno_failure("getresuid");
  }
  for (const uid_t id : uid) {
    if (id != kAgentUid) return broken("the agent's uid", std::to_string(id));
  }
  for (const gid_t id : gid) {
    if (id != kAgentGid) return broken("the agent's gid", std::to_string(id));
  }
  if (setup.drop_groups && getgroups(0, nullptr) != 0) return broken("no supplementary groups");
  if (getpid() != 1) return broken("pid 1 of its own pid namespace", std::to_string(getpid()));
  return {};
}

Result<> verify_namespaces(const Setup& setup) {
  const auto own = namespace_ids();
  if (!own) return tl::unexpected(own.error());
  const bool host_network = setup.spec->host_network() || setup.spec->unsandboxed();
  for (std::size_t at = 0; at < std::size(NamespaceIds::kNames); ++at) {
    const std::string_view name = NamespaceIds::kNames[at];
    const bool shared = own->inode[at] == setup.host.inode[at];
    if (shared && !(host_network && name == "net")) return broken("own namespace", name);
    if (!shared && host_network && name == "net") return broken("the host's network, as granted", name);
  }
  return {};
}

// What the agent and its children inherit: session, death with the keeper, closed memory, limits, name.
Result<> verify_process(const Setup& setup) {
  if (getsid(0) != getpid()) return broken("own session", std::to_string(getsid(0)));
  if (prctl(PR_GET_DUMPABLE) != 0) return broken("not dumpable");
  int death_signal = 0;
  const int wanted = setup.outlives_keeper ? 0 : SIGKILL;
  if (prctl(PR_GET_PDEATHSIG, &death_signal) < 0 || death_signal != wanted) return broken("death with the keeper");
  constexpr int kSecureBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                              SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if ((prctl(PR_GET_SECUREBITS) & kSecureBits) != kSecureBits) return broken("locked securebits");
  utsname names{};
  if (uname(&names) < 0) return errno_failure("uname");
  if (setup.spec->hostname() != names.nodename) return broken("the agent's host name", names.nodename);
  for (const auto& limit : setup.spec->rlimits()) {
    rlimit now{};
    if (getrlimit(static_cast<__rlimit_resource>(limit.resource()), &now) < 0) return errno_failure("getrlimit");
    if (now.rlim_cur != limit.soft() || now.rlim_max != limit.hard()) {
      return broken("limit", std::to_string(limit.resource()));
    }
  }
  return {};
}

bool has_option(std::string_view options, std::string_view option) {
  while (!options.empty()) {
    const std::size_t comma = options.find(',');
    if (options.substr(0, comma) == option) return true;
    if (comma == std::string_view::npos) break;
    options.remove_prefix(comma + 1);
  }
  return false;
}

// proc_pid_mountinfo(5): id parent major:minor root mount-point options …
Result<> verify_mount(std::string_view line) {
  std::array<std::string_view, 6> field;
  for (auto& value : field) {
    const std::size_t space = line.find(' ');
    value = line.substr(0, space);
    if (space == std::string_view::npos) return broken("mountinfo in its known format");
    line.remove_prefix(space + 1);
  }
  const std::string_view target = field[4];
  const std::string_view options = field[5];
  const bool device_node = target.starts_with("/dev/") && target != "/dev/shm";
  if (!has_option(options, "nosuid")) return broken("every mount nosuid", target);
  if (!device_node && !has_option(options, "nodev")) return broken("every mount nodev", target);
  if (has_option(options, "rw") && !has_option(options, "noexec")) return broken("what is writable is noexec", target);
  return {};
}

Result<> verify_mounts() {
  const auto table = read_file("/proc/self/mountinfo");
  if (!table) return tl::unexpected(table.error());
  std::string_view rest = *table;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    if (auto done = verify_mount(rest.substr(0, end)); !done) return done;
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return {};
}

// 0 to 4 and nothing else, the socket to the keeper the last of them; and none of those is the filter's listener, with
// which an agent could answer its own denials.
Result<> verify_descriptors() {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc/self/fd"), closedir);
  if (!directory) return errno_failure("opendir", "/proc/self/fd");
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    const long fd = std::strtol(entry->d_name, nullptr, 10);
    if (fd == dirfd(directory.get())) continue;
    if (fd > kReportFd) return broken("no inherited descriptor", entry->d_name);
    std::array<char, 64> target{};
    if (readlinkat(dirfd(directory.get()), entry->d_name, target.data(), target.size() - 1) < 0) target[0] = '?';
    if (std::string_view(target.data()) == "anon_inode:seccomp notify") return broken("no listener", entry->d_name);
  }
  return {};
}

bool degraded(const Setup& setup, std::string_view layer) {
  return std::find(setup.degraded.begin(), setup.degraded.end(), layer) != setup.degraded.end();
}

}  // namespace

Result<> verify(const Setup& setup) {
  const auto status = read_file("/proc/self/status");
  if (!status) return tl::unexpected(status.error());
  if (auto done = verify_credentials(setup, *status); !done) return done;
  if (auto done = verify_namespaces(setup); !done) return done;
  if (auto done = verify_process(setup); !done) return done;
  if (auto done = verify_descriptors(); !done) return done;
  if (setup.spec->unsandboxed()) return {};  // granted: the host's files, no filter
  if (auto done = verify_mounts(); !done) return done;
  return degraded(setup, "landlock") ? Result<>{} : verify_landlock();
}

}  // namespace kai::sandbox
