// kai-doctor: what this machine gives to kAI, what is missing, and how to get it. Each check asks the kernel itself, in
// a child where it would change something, and leaves nothing behind. No daemon is needed.
#pragma once

#include <string>
#include <vector>

namespace kai::doctor {

enum class Status {
  kOk,
  kDegraded,  ///< agents start, with less: a layer that the default policy lets be missing, or a runtime
  kMissing,   ///< under the default policy no agent starts
};

struct Check {
  std::string name;
  Status status = Status::kOk;
  std::string detail;
  std::string remedy;  ///< what to do; empty where nothing has to be done
};
using Checks = std::vector<Check>;

void check_kernel(Checks& checks);      ///< system calls, seccomp
void check_layers(Checks& checks);      ///< Landlock, disk limits, io weights, news of refused files
void check_namespaces(Checks& checks);  ///< the seven, id maps, a proc of one's own
void check_network(Checks& checks);     ///< what egress needs, name servers
void check_cgroups(Checks& checks);     ///< backend, delegation
void check_programs(Checks& checks);    ///< runtimes, kAI's own programs, SDKs
void check_limits(Checks& checks);      ///< open files, processes
/// Whether kaid answers at `socket`; only told, never a fault. Empty: not asked.
void check_daemon(Checks& checks, const std::string& socket);

/// The worst of all.
Status result_of(const Checks& checks);
/// ok, degraded, missing.
const char* status_name(Status status);
/// Aligned lines, and the result as the last one.
std::string as_text(const Checks& checks);
/// {"result":…,"checks":[{"name","status","detail","remedy"}]}, without LF.
std::string as_json(const Checks& checks);

}  // namespace kai::doctor
