// kai-agent-host: started by the keeper only, with its channel on descriptor 3.
#include <sys/prctl.h>

#include <cstdio>
#include <cstring>

#include "agent-host/serve.h"
#include "agent-host/starter.h"
#include "proto/quiet.h"

namespace {
constexpr int kChannelFd = 3;
}

int main(int argc, char** argv) {
  kai::silence_protobuf();
  const bool root = argc == 2 && std::strcmp(argv[1], "--root") == 0;
  if (!root && !(argc == 2 && std::strcmp(argv[1], "--user") == 0)) {
    std::fprintf(stderr, "kai-agent-host is started by kaid; see kaid(8)\n");
    return 2;
  }
  (void)prctl(PR_SET_NAME, "kai-agent-host");  // it was exec'd by descriptor and is named after its number
  kai::Confined confined = kai::start_agent(kChannelFd, root);
  return kai::serve(confined.spec, std::move(confined.klp));
}
