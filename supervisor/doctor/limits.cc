// What the host lets one user have, and whether kaid runs.
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/fd.h"
#include "base/unix.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

// kaid holds about ten descriptors per agent: enough for a hundred agents.
constexpr rlim_t kOpenFiles = 1024;
// The default policy allows an agent 128 processes (policies/policy.h): room for a few agents.
constexpr rlim_t kProcesses = 1024;

std::string shown(rlim_t value) {
  return value == RLIM_INFINITY ? "unlimited" : std::to_string(value);
}

void check_limit(Checks& checks, const char* name, int resource, rlim_t enough, const char* remedy) {
  rlimit limit{};
  getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  const std::string detail = "at most " + shown(limit.rlim_max);
  checks.push_back(limit.rlim_max >= enough ? Check{name, Status::kOk, detail, ""}
                                            : Check{name, Status::kDegraded,
                                                    detail + "; " + std::to_string(enough) + " are enough", remedy});
}

}  // namespace

void check_limits(Checks& checks) {
  check_limit(checks, "open files", RLIMIT_NOFILE, kOpenFiles, "raise it: LimitNOFILE= of the unit, or ulimit -Hn");
  check_limit(checks, "processes", RLIMIT_NPROC, kProcesses, "raise it: LimitNPROC= of the unit, or ulimit -Hu");
  const long long pids = number_in("/proc/sys/kernel/pid_max");
  constexpr long long kFewPids = 8192;
  checks.push_back(pids < 0 || pids >= kFewPids
                       ? Check{"pid_max", Status::kOk, std::to_string(pids), ""}
                       : Check{"pid_max", Status::kDegraded, std::to_string(pids) + " processes on the whole machine",
                               "sysctl -w kernel.pid_max=32768"});
}

void check_daemon(Checks& checks, const std::string& socket) {
  if (socket.empty()) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, socket.data(), socket.size());
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const bool running = connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  const int why = errno;
  // Not a fault: doctor is asked before the first start too.
  checks.push_back(
      {"daemon", Status::kOk,
       running ? "kaid is running at " + socket : "kaid is not running at " + socket + ": " + std::strerror(why), ""});
}

}  // namespace kai::doctor
