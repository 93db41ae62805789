// kaid: the keeper. See keeper.h; what control does is in supervisor/control.
#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "proto/quiet.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/store.h"

namespace {

constexpr int kExitUsage = 2;

constexpr const char* kHelp =
    "usage: kaid [--config FILE] [--state-dir DIR] [--runtime-dir DIR]\n"
    "\n"
    "Supervises agents in the foreground: each in its own sandbox, spoken to with kaictl.\n"
    "\n"
    "  --config FILE       configuration (default /etc/kai/kaid.yaml; as an ordinary user\n"
    "                      ~/.config/kai/kaid.yaml), if it is there\n"
    "  --state-dir DIR     packages, registry and log (/var/lib/kai; ~/.local/state/kai)\n"
    "  --runtime-dir DIR   where kaid.sock is made (/run/kai; $XDG_RUNTIME_DIR/kai)\n"
    "  --version           print the version and exit\n"
    "\n"
    "SIGTERM or SIGINT stops every agent and then kaid; one more, two seconds later or\n"
    "more, does not wait for them. SIGHUP reads the configuration and the policies again,\n"
    "SIGUSR2 replaces kaid and its control by the programs now on disk while agents run.\n"
    "Exit status: 0 stopped, 1 failed, 2 usage or configuration. See kaid(8).\n";

int usage_error(const char* what) {
  std::fprintf(stderr, "kaid: %s; try kaid --help\n", what);
  return kExitUsage;
}

/// `check_only`: for a kaid that asks whether this one would serve in its place.
int serve(const kai::keeper::CommandLine& given, bool check_only) {
  using namespace kai::keeper;
  const Identity identity = find_identity();
  auto config = load_config(given, identity.root);
  if (!config) {
    std::fprintf(stderr, "kaid: %s\n", config.error().message().c_str());
    return kExitUsage;
  }
  auto policies = load_policies(*config, identity.root);
  if (!policies) {
    std::fprintf(stderr, "kaid: %s\n", policies.error().message().c_str());
    return kExitUsage;
  }
  const auto programs = find_programs();
  if (!programs) {
    std::fprintf(stderr, "kaid: its other programs are not where they should be: %s\n",
                 programs.error().message().c_str());
    return 1;
  }
  if (check_only) return 0;
  auto state = take_inheritance();
  if (!state) {
    std::fprintf(stderr, "kaid: %s\n", state.error().message().c_str());
    return 1;
  }
  std::optional<Locks> held;
  Stored stored;
  if (!*state) {
    stored = sort_stored(take_stored());
    *state = std::move(stored.state);
  } else {
    held = Locks{inherited((*state)->state_lock()), inherited((*state)->runtime_lock())};
    if (!held->state || !held->runtime) {
      std::fprintf(stderr, "kaid: the kaid before left its locks out; start this one anew\n");
      return 1;
    }
    if (!(*state)->notify_socket().empty()) (void)setenv("NOTIFY_SOCKET", (*state)->notify_socket().c_str(), 1);
  }
  auto locks = prepare_directories(*config, identity, std::move(held));
  if (!locks) {
    std::fprintf(stderr, "kaid: %s\n", locks.error().message().c_str());
    return 1;
  }
  auto keeper = Keeper::create(std::move(*config), identity, *programs, std::move(*policies), std::move(*locks),
                               *state ? &**state : nullptr, std::move(stored.useless));
  if (!keeper) {
    std::fprintf(stderr, "kaid: %s\n", keeper.error().message().c_str());
    return 1;
  }
  return keeper->run();
}

}  // namespace

int main(int argc, char** argv) {
  kai::silence_protobuf();
  // Every agent holds some descriptors here, and the soft limit is made for programs that use select(2).
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  umask(022);  // the modes that the code names are the ones that are meant
  // A writer that is gone is an error of the write, not of the process.
  (void)signal(SIGPIPE, SIG_IGN);
  constexpr option kOptions[] = {{"config", required_argument, nullptr, 'c'},
                                 {"state-dir", required_argument, nullptr, 's'},
                                 {"runtime-dir", required_argument, nullptr, 'r'},
                                 {"check-handover", required_argument, nullptr, 'k'},
                                 {"version", no_argument, nullptr, 'v'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {nullptr, 0, nullptr, 0}};
  kai::keeper::CommandLine given;
  bool check_only = false;
  opterr = 0;
  for (int option = 0; (option = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (option) {
      case 'c':
        given.config = optarg;
        break;
      case 's':
        given.state_dir = optarg;
        break;
      case 'r':
        given.runtime_dir = optarg;
        break;
      case 'k':
        if (optarg != std::to_string(kai::keeper::kHandoverVersion)) {
          std::fprintf(stderr, "kaid: cannot take over from version %s of the state; stop kaid and start it again\n",
                       optarg);
          return 1;
        }
        check_only = true;
        break;
      case 'v':
        std::puts("kaid " KAI_VERSION);
        return 0;
      case 'h':
        std::fputs(kHelp, stdout);
        return 0;
      default:
        return usage_error("unknown option, or one without its value");
    }
  }
  if (optind != argc) return usage_error("takes no arguments");
  return serve(given, check_only);
}
