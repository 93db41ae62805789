// A library that needs what nobody has.
#include <kai/abi.h>
extern "C" int missing_function(int);

const unsigned kai_agent_abi = KAI_AGENT_ABI;
int kai_agent_main(int fd) {
  return missing_function(fd);
}
