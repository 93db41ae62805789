// An agent of another time: its ABI number is not the runner's.
#include <kai/abi.h>

const unsigned kai_agent_abi = KAI_AGENT_ABI + 1;
int kai_agent_main(int fd) {
  return fd;
}
