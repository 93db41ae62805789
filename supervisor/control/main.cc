// kai-control: the unprivileged half of kaid. It is started by the keeper (supervisor/keeper), which is at the other
// end of descriptor 3, and does everything that operators and agents ask for. One thread, one loop.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <google/protobuf/stubs/logging.h>

#include "proto/quiet.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/control.h"
#include "supervisor/control/memory_manager.h"

namespace kai {
namespace {

constexpr int kKeeperFd = 3;
// As an ordinary user there is one id for all; the registry still numbers its agents.
constexpr std::uint32_t kOrdinarySlots = 65536;

// Before there is a log. Journald and terminals get the same line.
int give_up(const char* what, const Error& error) {
  std::fprintf(stderr, "kaid: %s: %s\n", what, error.message().c_str());
  return 1;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void ignore_signals() {
  // The keeper decides when to end and says so; a terminal's Ctrl-C reaches the whole process group.
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) std::signal(number, SIG_IGN);
}

int run() {
  ignore_signals();
  raise_descriptor_limit();
  // It would write to standard error what agents make it say; whoever parses checks the result.
  google::protobuf::SetLogHandler(nullptr);
  auto greeting = KeeperClient::receive_hello(kKeeperFd);
  if (!greeting) return give_up("kai-control is started by kaid, not by hand", greeting.error());
  const keeper::Hello* const hello = &greeting->hello;

  LogOptions options;
  options.directory = hello->state_dir() + "/log";
  options.level = parse_log_level(hello->log_level()).value_or(LogLevel::kInfo);
  options.stream_format = choose_stream_format(STDERR_FILENO, false);
  auto log = Log::open(options);
  if (!log) return give_up("the log cannot be opened", log.error());
  auto registry =
      Registry::open(hello->state_dir() + "/db/registry.db", hello->root() ? hello->uid_slots() : kOrdinarySlots);
  if (!registry) return give_up("the registry cannot be opened", registry.error());
  auto packages = PackageStore::open(hello->state_dir() + "/packages");
  if (!packages) return give_up("the package store cannot be opened", packages.error());

  Policies policies(!hello->root());
  if (auto taken = policies.take(greeting->policies); !taken) return give_up("the policies", taken.error());
  // Who waits in it (a name that does not resolve, a long verification) must not keep the audit from the disk.
  setenv("UV_THREADPOOL_SIZE", "12", 0);
  EventLoop loop;
  auto audit = AuditLog::open(loop, **log, hello->state_dir() + "/audit");
  if (!audit) return give_up("the audit cannot be opened", audit.error());
  KeeperClient keeper(loop, Fd(kKeeperFd));
  auto memory = MemoryManager::open(
      loop, keeper, **log,
      {hello->state_dir(), hello->runtime_dir(), hello->redis_url(), hello->again() || !greeting->adoptions.empty()});
  if (!memory) return give_up("agents' memory", memory.error());
  Control control({loop, keeper, **log, *registry, *packages, *hello, policies, **audit, **memory}, options.directory,
                  std::move(greeting->adoptions));
  if (auto started = control.start(); !started) return give_up("kaid cannot serve", started.error());
  loop.run();
  return control.exit_status();
}

}  // namespace
}  // namespace kai

int main() {
  kai::silence_protobuf();
  return kai::run();
}
