#include "bench/filter_cost.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/unix.h"
#include "bench/report.h"
#include "policies/filters.h"

namespace kai::bench {
namespace {

constexpr int kCalls = 200'000;

template <typename Call>
double cost_of(Call call) {
  const Clock::time_point begin = Clock::now();
  for (int round = 0; round < kCalls; ++round) call();
  return microseconds_since(begin) / kCalls;
}

bool install(const std::string& program) {
  std::vector<sock_filter> code(program.size() / sizeof(sock_filter));
  std::memcpy(code.data(), program.data(), code.size() * sizeof(sock_filter));
  const sock_fprog filter{static_cast<unsigned short>(code.size()), code.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0;
}

}  // namespace

Result<CallCost> cost_of_calls(const std::string& profile) {
  std::string program;
  if (!profile.empty()) {
    auto filter = compiled_filter(profile, {});
    if (!filter) return tl::unexpected(filter.error());
    program = filter->silent;  // a notification costs only what is refused
  }
  auto pipe = make_pipe();
  if (!pipe) return tl::unexpected(pipe.error());
  const pid_t child = fork();
  if (child < 0) return errno_failure("fork");
  if (child == 0) {
    if (!program.empty() && !install(program)) _exit(1);
    CallCost cost;
    cost.getpid = cost_of([] { (void)syscall(SYS_getpid); });
    cost.prctl = cost_of([] { (void)syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0); });
    const bool told = write(pipe->second.get(), &cost, sizeof cost) == sizeof cost;
    _exit(told ? 0 : 1);
  }
  pipe->second.reset();
  CallCost cost;
  const bool heard = read(pipe->first.get(), &cost, sizeof cost) == sizeof cost;
  (void)waitpid(child, nullptr, 0);
  if (!heard) return failure("the filter cannot be installed", profile);
  return cost;
}

}  // namespace kai::bench
