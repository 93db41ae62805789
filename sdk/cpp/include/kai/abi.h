// The border between kai-native-runner and an agent's library, in C. The runner has said `hello` before it loads the
// library.
#pragma once

#define KAI_AGENT_ABI 1U
#define KAI_AGENT_ABI_SYMBOL "kai_agent_abi"
#define KAI_AGENT_MAIN_SYMBOL "kai_agent_main"

extern "C" {

/// Equals KAI_AGENT_ABI of the SDK that the library was built with.
__attribute__((visibility("default"))) extern const unsigned kai_agent_abi;

/// Serves the runner protocol on fd; the result is the exit status.
__attribute__((visibility("default"))) int kai_agent_main(int fd);
}
