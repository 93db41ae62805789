#include "sandbox/delegated_unit.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#include <cerrno>
#include <sstream>

#include "base/result.h"
#include "base/unix.h"
#include "sandbox/hierarchies.h"

namespace kai::sandbox {
namespace {

// Whether `group` is a unit that systemd has handed over to root's programs (Delegate=), which it marks.
bool is_delegated_to_root(const std::string& group) {
  struct stat status {};
  char mark = '0';
  return lstat(group.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == 0 &&
         getxattr(group.c_str(), "trusted.delegate", &mark, sizeof mark) == 1 && mark == '1';
}

// What keeps a unit there stands in a leaf of its own, since groups below have controllers.
Result<> move_into_leaf(const std::string& unit) {
  const auto processes = read_file(unit + "/cgroup.procs");
  if (!processes) return tl::unexpected(processes.error());
  if (processes->empty()) return {};
  const std::string leaf = join(unit, "holder");
  if (mkdir(leaf.c_str(), 0755) < 0 && errno != EEXIST) return errno_failure("mkdir", leaf);
  std::istringstream lines(*processes);
  for (std::string pid; lines >> pid;) {
    auto moved = write_file(leaf + "/cgroup.procs", pid);
    if (!moved && moved.error().error_number != ESRCH) return moved;
  }
  return {};
}

}  // namespace

bool take_delegated_unit(const std::string& group) {
  return is_delegated_to_root(group) && move_into_leaf(group).has_value();
}

}  // namespace kai::sandbox
