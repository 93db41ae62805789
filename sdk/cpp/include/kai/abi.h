// The border between kai-native-runner and an agent's library, in C. The runner has said `hello` before it loads the
// library. In a soft upgrade the runner has two libraries, of which one reads the channel: the serving one. It lends
// the channel to the other for each request that is meant for that, and gives it away when that is committed.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define KAI_AGENT_ABI 1U
#define KAI_AGENT_ABI_SYMBOL "kai_agent_abi"
#define KAI_AGENT_MAIN_SYMBOL "kai_agent_main"
#define KAI_AGENT_LIBRARY_SYMBOL "kai_agent_library"

/// Of kai_library.serve: another version has taken over. Exit statuses are 0 or more.
#define KAI_COMMITTED (-1)
/// Of kai_runner.serve_next.
#define KAI_NOT_LOADED (-1)

extern "C" {

/// The runner protocol's socket, and where reading and asking have got to.
struct kai_channel {
  int fd;
  const char* unread;      ///< was read and not served: whole lines, then perhaps the beginning of one. Its memory is
                           ///< that of the session which set it, until that session is called again or ended
  size_t unread_size;      ///< in bytes
  size_t last_line_bytes;  ///< of the line that is not whole; more than are in `unread` where it is too long to keep
  int64_t next_id;         ///< of the next request to the host
};

/// What the runner does for the serving library.
struct kai_runner {
  int64_t started;  ///< of the process: nanoseconds of CLOCK_MONOTONIC
  /// Loads another version's library; nullptr, or why it cannot be.
  const char* (*load)(struct kai_runner* self, const char* path);
  /// The loaded version serves the first request of the channel; as serve_one, or KAI_NOT_LOADED.
  int (*serve_next)(struct kai_runner* self, struct kai_channel* channel);
  /// The loaded version is dropped.
  void (*discard)(struct kai_runner* self);
};

/// What a library does for the runner. A session is one version of the agent; nothing of it throws.
struct kai_library {
  /// nullptr, or why this library cannot be used in a process that has another version of it.
  const char* (*refusal)();
  void* (*begin)(struct kai_runner* runner);
  /// Until the agent ends, or another version is committed. The exit status, or KAI_COMMITTED.
  int (*serve)(void* session, struct kai_channel* channel);
  /// The first request of the channel alone. Whether the agent is constructed: 1, else 0.
  int (*serve_one)(void* session, struct kai_channel* channel);
  /// From now on what this version asks of its context fails.
  void (*drop)(void* session);
  void (*end)(void* session);
};

/// Equals KAI_AGENT_ABI of the SDK that the library was built with.
__attribute__((visibility("default"))) extern const unsigned kai_agent_abi;

/// Serves the runner protocol on fd; the result is the exit status. All that libraries from before soft upgrades have.
__attribute__((visibility("default"))) int kai_agent_main(int fd);

__attribute__((visibility("default"))) extern const struct kai_library kai_agent_library;
}
