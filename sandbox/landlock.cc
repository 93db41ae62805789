#include "sandbox/landlock.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/unix.h"
#include "sandbox/confine.h"

namespace kai::sandbox {
namespace {

// <linux/landlock.h> of the kernel, as Debian 12's stops at ABI 2. The structures only grow; a kernel that does not
// know the later members takes them when they are 0.
struct RulesetAttributes {
  std::uint64_t handled_access_fs;
  std::uint64_t handled_access_net;  // ABI 4
  std::uint64_t scoped;              // ABI 6
};
struct [[gnu::packed]] PathBeneath {
  std::uint64_t allowed_access;
  std::int32_t parent_fd;
};
struct NetPort {
  std::uint64_t allowed_access;
  std::uint64_t port;
};
constexpr unsigned kCreateRulesetVersion = 1;
constexpr int kRulePathBeneath = 1;
constexpr int kRuleNetPort = 2;
constexpr std::uint64_t kBindTcp = 1U << 0;
constexpr std::uint64_t kConnectTcp = 1U << 1;
constexpr std::uint64_t kScopeAbstractUnixSocket = 1U << 0;
constexpr std::uint64_t kScopeSignal = 1U << 1;
// ABI 7: audit shows what the runner is denied, which comes by execve, and not what verify tries to be sure of it.
constexpr unsigned kLogFlags = 1U << 0 | 1U << 1;  // LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF, _LOG_NEW_EXEC_ON

// LANDLOCK_ACCESS_FS_*
constexpr std::uint64_t kExecute = 1U << 0;
constexpr std::uint64_t kWriteFile = 1U << 1;
constexpr std::uint64_t kReadFile = 1U << 2;
constexpr std::uint64_t kReadDirectory = 1U << 3;
constexpr std::uint64_t kMakeCharacterDevice = 1U << 6;
constexpr std::uint64_t kMakeBlockDevice = 1U << 11;
constexpr std::uint64_t kAbi1 = (1U << 13) - 1;
constexpr std::uint64_t kRefer = 1U << 13;        // ABI 2: rename and link between directories
constexpr std::uint64_t kTruncate = 1U << 14;     // ABI 3
constexpr std::uint64_t kIoctlDevice = 1U << 15;  // ABI 5

constexpr std::uint64_t kRead = kReadFile | kReadDirectory;
constexpr std::uint64_t kRun = kRead | kExecute;
constexpr std::uint64_t kOwn = (kAbi1 & ~(kExecute | kMakeCharacterDevice | kMakeBlockDevice)) | kRefer | kTruncate;
constexpr std::uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDevice;

// What mode and mount let everybody write, and the domain does not: nobody needs to feed the kernel's random numbers.
constexpr const char* kWitness = "/dev/urandom";

std::uint64_t known_rights(long abi) {
  std::uint64_t rights = kAbi1;
  if (abi >= 2) rights |= kRefer;
  if (abi >= 3) rights |= kTruncate;
  if (abi >= 5) rights |= kIoctlDevice;
  return rights;
}

class Ruleset {
 public:
  static Result<Ruleset> create(long abi, bool restrict_tcp) {
    RulesetAttributes attributes{known_rights(abi), 0, 0};
    if (restrict_tcp) attributes.handled_access_net = kBindTcp | kConnectTcp;
    if (abi >= 6) attributes.scoped = kScopeAbstractUnixSocket | kScopeSignal;
    Fd fd(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
    if (!fd) return errno_failure("landlock_create_ruleset");
    return Ruleset(std::move(fd), attributes.handled_access_fs);
  }

  /// What lies beneath `path`, as it is mounted now; for a file only the rights that files have.
  Result<> allow(const std::string& path, std::uint64_t rights) const {
    const Fd place(open(path.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
    if (!place) return errno_failure("open", path);
    struct stat status {};
    if (fstat(place.get(), &status) < 0) return errno_failure("fstat", path);
    rights &= handled_;
    if (!S_ISDIR(status.st_mode)) rights &= kOfFiles;
    const PathBeneath rule{rights, place.get()};
    if (syscall(SYS_landlock_add_rule, fd_.get(), kRulePathBeneath, &rule, 0) < 0) {
      return errno_failure("landlock_add_rule", path);
    }
    return {};
  }

  Result<> allow_connect(std::uint16_t port) const {
    const NetPort rule{kConnectTcp, port};
    if (syscall(SYS_landlock_add_rule, fd_.get(), kRuleNetPort, &rule, 0) < 0) {
      return errno_failure("landlock_add_rule", "port " + std::to_string(port));
    }
    return {};
  }

  Result<> enter(unsigned flags) const {
    if (syscall(SYS_landlock_restrict_self, fd_.get(), flags) < 0) return errno_failure("landlock_restrict_self");
    return {};
  }

 private:
  Ruleset(Fd fd, std::uint64_t handled) : fd_(std::move(fd)), handled_(handled) {}

  Fd fd_;
  std::uint64_t handled_;
};

/// 0: the mount needs no rule of its own.
std::uint64_t rights_of(const spec::Mount& mount) {
  switch (mount.kind()) {
    case spec::Mount::TMPFS:
    case spec::Mount::PRIVATE:
    case spec::Mount::HOST:
    case spec::Mount::STATE:
      return mount.read_only() ? kRead : kOwn;
    case spec::Mount::DESCRIPTOR:
      return mount.read_only() ? kRun : kOwn;
    case spec::Mount::SYSTEM:
    case spec::Mount::PACKAGE:
    case spec::Mount::PROGRAM:
      return mount.target().starts_with("/etc/") ? kRead : kRun;
    case spec::Mount::CONTENT:
      return kRead;
    default:
      return 0;  // a symlink is followed, and judged where it leads
  }
}

Result<> allow_mounts(const Setup& setup, const Ruleset& ruleset) {
  constexpr std::string_view kEtc = "/etc/";
  bool etc = false;
  for (int at = 0; at < setup.spec->mounts_size(); ++at) {
    const spec::Mount& mount = setup.spec->mounts(at);
    const std::uint64_t rights = rights_of(mount);
    if (rights == 0) continue;
    if (rights == kRead && mount.target().starts_with(kEtc)) {  // a dozen small files: one rule
      etc = true;
      continue;
    }
    auto done = ruleset.allow(mount.target(), rights);
    if (!done && mount.optional() && done.error().error_number == ENOENT) continue;  // the host does not have it
    if (!done) return done;
  }
  return etc ? ruleset.allow("/etc", kRead) : Result<>{};
}

// Listing is what mounts decide. /proc is only read: glibc, Node, Python and bash write nothing there but thread names,
// and do without. TCGETS and its like on devices are asked by isatty(3). Random numbers are only read (kWitness).
Result<> allow_own_places(const Ruleset& ruleset) {
  constexpr std::uint64_t kDevice = kReadFile | kIoctlDevice;
  constexpr std::array<std::pair<const char*, std::uint64_t>, 7> kPlaces = {
      {{"/", kReadDirectory},
       {"/proc", kRead},
       {"/dev", kDevice},
       {"/dev/shm", kOwn},
       {"/dev/null", kDevice | kWriteFile | kTruncate},
       {"/dev/zero", kDevice | kWriteFile},
       {"/dev/full", kDevice | kWriteFile}}};
  for (const auto& [path, rights] : kPlaces) {
    if (auto done = ruleset.allow(path, rights); !done) return done;
  }
  return {};
}

}  // namespace

Result<> enter_landlock(Setup& setup) {
  constexpr std::string_view kLandlock = "landlock";
  constexpr long kTcpAbi = 4;
  constexpr long kHostNetworkAbi = 6;  // TCP ports, and the host's abstract sockets, which come with its network
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, kCreateRulesetVersion);
  const auto missing = abi < 1 ? errno_failure("landlock_create_ruleset: this kernel has no Landlock")
                               : failure(
                                     "Landlock keeps an agent apart from others on the host's network from Linux "
                                     "6.12 on; its ABI here is",
                                     std::to_string(abi));
  if (abi < (setup.spec->host_network() ? kHostNetworkAbi : 1)) {
    if (!may_miss(*setup.spec, kLandlock)) return missing;
    setup.degraded.emplace_back(kLandlock);
    if (abi < 1) return {};
  }
  const bool restrict_tcp = setup.spec->host_network() && abi >= kTcpAbi;
  const auto ruleset = Ruleset::create(abi, restrict_tcp);
  if (!ruleset) return tl::unexpected(ruleset.error());
  if (auto done = allow_own_places(*ruleset); !done) return done;
  if (auto done = allow_mounts(setup, *ruleset); !done) return done;
  for (const std::uint32_t port : setup.spec->tcp_ports()) {
    if (!restrict_tcp) break;
    if (auto done = ruleset->allow_connect(static_cast<std::uint16_t>(port)); !done) return done;
  }
  constexpr long kLogAbi = 7;
  return ruleset->enter(abi >= kLogAbi ? kLogFlags : 0);
}

Result<> verify_landlock() {
  // access(2) asks mode and mount, but not Landlock: only with its yes does the no of open(2) prove something.
  if (access(kWitness, W_OK) < 0) return errno_failure("postcondition cannot be checked: access", kWitness);
  const Fd opened(open(kWitness, O_WRONLY | O_CLOEXEC));
  if (opened || errno != EACCES) return failure("postcondition does not hold: Landlock refuses to open", kWitness);
  return {};
}

}  // namespace kai::sandbox
