#include "sandbox/apply.h"

#include <signal.h>
#include <sys/prctl.h>

#include <array>
#include <cstdlib>

#include "sandbox/confine.h"
#include "sandbox/landlock.h"
#include "sandbox/mounts.h"
#include "sandbox/namespaces.h"
#include "sandbox/verify.h"

namespace kai::sandbox {
namespace {

Result<> forget_host_addresses(Setup&) {
  if (prctl(PR_SET_DUMPABLE, 0) < 0) return errno_failure("prctl", "PR_SET_DUMPABLE");
  return {};
}

Result<> die_with_keeper(Setup& setup) {
  if (prctl(PR_SET_PDEATHSIG, setup.outlives_keeper ? 0 : SIGKILL) < 0)
    return errno_failure("prctl", "PR_SET_PDEATHSIG");
  return {};
}

constexpr std::array kSteps = {
    Step{"session", For::kEvery, [](Setup&) { return leave_session(); },
         "first: from here on no terminal, job control or key of whoever started kaid reaches this process"},
    Step{"cgroup", For::kEvery, [](Setup& setup) { return enter_cgroups(setup.v1_tasks); },
         "before anything is allocated that has to be charged; needs CAP_SYS_ADMIN for its namespace"},
    Step{"counts", For::kEvery, [](Setup&) { return bound_counts(); },
         "while the host's /proc and CAP_SYS_RESOURCE are there; before the agent can use any of it up"},
    Step{"ids", For::kEvery, [](Setup& setup) { return become_agent(setup.drop_groups); },
         "after the groups are joined, before files are made: the root's files shall belong to the agent's range"},
    Step{"dumpable", For::kEvery, forget_host_addresses,
         "after the id maps were written (before, an ordinary user's starter could not write them); setresuid resets "
         "it"},
    Step{"hostname", For::kEvery, [](Setup& setup) { return set_host_name(setup.spec->hostname()); },
         "while CAP_SYS_ADMIN is there"},
    Step{"root", For::kSandboxed, [](Setup& setup) { return build_root(*setup.spec, setup.mounts, setup.devices); },
         "while CAP_SYS_ADMIN is there; the detached mounts were made outside"},
    Step{"host_root", For::kUnsandboxed,
         [](Setup& setup) { return build_host_root(*setup.spec, setup.mounts, setup.host_entries); },
         "in place of root, by the operator's grant: the host's files, with the program's own beside them"},
    Step{"descriptors", For::kEvery,
         [](Setup& setup) {
           // Used up; their numbers are about to be those of others.
           setup.v1_tasks.clear();
           for (auto* mounts : {&setup.mounts, &setup.devices, &setup.host_entries}) mounts->clear();
           return settle_descriptors(setup.standard_input, setup.standard_output, setup.standard_error, setup.klp,
                                     setup.report);
         },
         "after the last use of a host descriptor: what stays open is exactly 0 to 4"},
    Step{"rlimits", For::kEvery, [](Setup& setup) { return set_rlimits(*setup.spec); },
         "after everything that needs memory, files or processes of its own"},
    Step{"capabilities", For::kEvery, [](Setup&) { return drop_capabilities(); },
         "after the last privileged step; before the filter, which refuses capset"},
    Step{"no_new_privs", For::kEvery, [](Setup&) { return set_no_new_privs(); }, "the filter needs it (seccomp(2))"},
    Step{"parent_death", For::kEvery, die_with_keeper,
         "after the last change of ids, which clears it; before the filter, which refuses to change it back. None for "
         "one "
         "that outlives its keeper, whose descriptors the service manager keeps"},
    Step{"landlock", For::kSandboxed, enter_landlock,
         "needs no_new_privs; after the root is built, as it names places in it; before the filter, which refuses it"},
    Step{"seccomp", For::kSandboxed,
         [](Setup& setup) { return load_seccomp(*setup.spec, setup.report, setup.degraded); },
         "last: it refuses what the steps above needed"},
    Step{"verify", For::kEvery, [](Setup& setup) { return verify(setup); },
         "what the kernel says now is believed, not what the steps returned"},
};

}  // namespace

bool Step::applies(const Setup& setup) const {
  return which == For::kEvery || (which == For::kUnsandboxed) == setup.spec->unsandboxed();
}

std::span<const Step> steps() {
  return kSteps;
}

tl::expected<void, StepFailure> apply(Setup& setup) {
  for (const Step& step : kSteps) {
    if (!step.applies(setup)) continue;
    if (auto done = step.run(setup); !done) return tl::unexpected(StepFailure{step.name, done.error()});
  }
  return {};
}

}  // namespace kai::sandbox
