// kai-egress: started by the keeper (supervisor/keeper/egress_process.h), which is at the other end of descriptor 3.
#include <sys/resource.h>

#include <csignal>
#include <cstdio>

#include "proto/quiet.h"
#include "supervisor/egress/confine.h"
#include "supervisor/egress/egress.h"

namespace kai::egress {
namespace {

constexpr int kKeeperFd = 3;

int give_up(const char* what, const Error& error) {
  std::fprintf(stderr, "kaid: egress: %s: %s\n", what, error.message().c_str());
  return 1;
}

int run() {
  // The keeper decides when to end; a terminal's Ctrl-C reaches the whole process group.
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) std::signal(number, SIG_IGN);
  // A connection is two descriptors, and two more while its bytes are under way.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  if (auto done = confine(); !done) return give_up("it cannot give up its rights", done.error());
  auto reactor = Reactor::create();
  if (!reactor) return give_up("epoll", reactor.error());
  auto egress = Egress::create(**reactor, Fd(kKeeperFd));
  if (!egress) return give_up("kai-egress is started by kaid, not by hand", egress.error());
  if (auto done = (*reactor)->run(); !done) return give_up("epoll", done.error());
  return 0;
}

}  // namespace
}  // namespace kai::egress

int main() {
  kai::silence_protobuf();
  return kai::egress::run();
}
