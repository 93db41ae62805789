// kai-agent-host: started by the keeper only, with its channel on descriptor 3.
#include <sys/prctl.h>

#include <cstdio>
#include <string_view>

#include "agent-host/serve.h"
#include "agent-host/starter.h"
#include "proto/quiet.h"

namespace {
constexpr int kChannelFd = 3;
}

int main(int argc, char** argv) {
  kai::silence_protobuf();
  // --root or --user, then maybe --host-network.
  const std::string_view who = argc > 1 ? argv[1] : "";
  const bool host_network = argc == 3 && std::string_view(argv[2]) == "--host-network";
  if ((who != "--root" && who != "--user") || (argc != 2 && !host_network)) {
    std::fprintf(stderr, "kai-agent-host is started by kaid; see kaid(8)\n");
    return 2;
  }
  (void)prctl(PR_SET_NAME, "kai-agent-host");  // it was exec'd by descriptor and is named after its number
  kai::Confined confined = kai::start_agent(kChannelFd, {.root = who == "--root", .host_network = host_network});
  kai::SupervisorLinks links{std::move(confined.klp), std::move(confined.keeper), confined.outlives_keeper};
  return kai::serve(confined.spec, std::move(links));
}
