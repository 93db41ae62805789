// Layers beside namespaces, seccomp and cgroups: Landlock, disk limits, io weights, and whether the kernel tells of the
// files that it refuses.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>

#include "base/unix.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

constexpr const char* kMakeFileSystem = "/usr/sbin/mke2fs";

/// What an ABI of Landlock brought (landlock(7)).
struct LandlockAbi {
  long abi;
  const char* brought;
};
constexpr std::array<LandlockAbi, 3> kAbis = {{{4, "TCP ports"}, {6, "signals and abstract sockets"}, {7, "audit"}}};

void check_landlock(Checks& checks) {
  constexpr unsigned kVersion = 1;  // LANDLOCK_CREATE_RULESET_VERSION
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, kVersion);
  if (abi < 1) {
    const std::string why = std::strerror(errno);
    checks.push_back({"landlock", Status::kMissing, why,
                      "use a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in its lsm= parameter; or let the "
                      "operator's policies say degrade: [landlock]"});
    return;
  }
  std::string detail = "ABI " + std::to_string(abi) + ": files";
  std::string absent;
  for (const LandlockAbi& each : kAbis) {
    std::string& list = abi >= each.abi ? detail : absent;
    list += (list.empty() ? "" : ", ") + std::string(each.brought);
  }
  // Second locks: their absence takes nothing away that another layer does not hold.
  if (!absent.empty()) detail += "; a newer kernel has " + absent + " too";
  checks.push_back({"landlock", Status::kOk, detail, ""});
}

void check_disk(Checks& checks) {
  if (geteuid() != 0) {
    checks.push_back(
        {"disk limits", Status::kDegraded,
         "an ordinary user cannot mount a file system of a size: private data is measured, and an agent over "
         "its limit is ended",
         "run kaid as root"});
    return;
  }
  std::string fault;
  std::string remedy;
  const auto known = read_file("/proc/filesystems");
  if (access(kMakeFileSystem, X_OK) < 0) {
    fault = std::string(kMakeFileSystem) + " is not there";
    remedy = "apt install e2fsprogs";
  } else if (const Fd loop(open("/dev/loop-control", O_RDWR | O_CLOEXEC)); !loop) {
    fault = std::string("/dev/loop-control: ") + std::strerror(errno);
    remedy = "modprobe loop; in a container, give it /dev/loop-control and loop devices";
  } else if (!known || known->find("\text4\n") == std::string::npos) {
    fault = "the kernel has no ext4";
    remedy = "modprobe ext4";
  }
  Check check{"disk limits", Status::kOk, "a file system of its own for each agent's private data (loop, ext4)", ""};
  if (!fault.empty()) {
    check = {"disk limits", Status::kMissing, fault + "; needed by agents with allowedPaths",
             remedy + "; or let the operator's policies say degrade: [disk]"};
  }
  checks.push_back(std::move(check));
}

/// Only told: weights divide what everybody wants at once, and take nothing where nobody else wants it.
void check_io(Checks& checks) {
  std::string scheduler = "no weights: the cgroup backend has no io controller";
  for (const char* const file : {"/sys/fs/cgroup/blkio/blkio.bfq.weight", "/sys/fs/cgroup/blkio/blkio.weight"}) {
    if (access(file, F_OK) == 0) scheduler = "weights by blkio";
  }
  const auto controllers = read_file("/sys/fs/cgroup/cgroup.controllers");
  if (controllers && controllers->find("io") != std::string::npos) scheduler = "weights by the io controller";
  checks.push_back({"io weights", Status::kOk, scheduler, ""});
}

struct AuditStatus {
  nlmsghdr header;
  audit_status status;
};

/// Whether the kernel's audit is on; nullopt: this user may not ask.
std::optional<bool> audit_enabled() {
  const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT));
  if (!socket) return std::nullopt;
  nlmsghdr request{};
  request.nlmsg_len = NLMSG_LENGTH(0);
  request.nlmsg_type = AUDIT_GET;
  request.nlmsg_flags = NLM_F_REQUEST;
  if (send(socket.get(), &request, request.nlmsg_len, 0) < 0) return std::nullopt;
  AuditStatus answer{};
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  (void)setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (recv(socket.get(), &answer, sizeof answer, 0) < 0 || answer.header.nlmsg_type != AUDIT_GET) return std::nullopt;
  return answer.status.enabled != 0;
}

/// Told, never a fault: files are refused all the same.
void check_file_denials(Checks& checks) {
  const std::optional<bool> enabled = geteuid() == 0 ? audit_enabled() : std::nullopt;
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, 1U);
  std::string detail = "refused files are in the log (Landlock, by the kernel's audit)";
  std::string remedy;
  if (geteuid() != 0) {
    detail = "refused files are refused, but not in the log: only root hears the kernel's audit";
  } else if (abi < 7) {
    detail = "refused files are refused, but not in the log: Landlock tells them from Linux 6.15 on";
  } else if (!enabled) {
    detail = "refused files are refused, but not in the log: this kernel's audit does not answer";
  } else if (!*enabled) {
    detail = "refused files are refused, but not in the log: the kernel's audit is off";
    remedy = "auditctl -e 1, before kaid starts";
  }
  checks.push_back({"file denials", Status::kOk, detail, remedy});
}

}  // namespace

void check_layers(Checks& checks) {
  check_landlock(checks);
  check_disk(checks);
  check_io(checks);
  check_file_denials(checks);
}

}  // namespace kai::doctor
