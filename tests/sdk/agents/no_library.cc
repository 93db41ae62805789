// An agent of an SDK from before soft upgrades: the border is one function.
#include <unistd.h>

#include <kai/abi.h>

const unsigned kai_agent_abi = KAI_AGENT_ABI;
int kai_agent_main(int fd) {
  char byte = 0;
  return read(fd, &byte, 1) == 1 ? 7 : 8;
}
