// Runs one agent: kai-native-runner LIBRARY.so, with the runner protocol (docs/runner-protocol.md) on descriptor 3.
// All of the protocol but `hello` is in the library (kai/agent.hpp), which is called through one C function
// (kai/abi.h).
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kai/abi.h"

namespace {

// As env(1) and shells use them: found but not runnable, and not found.
constexpr int kUsage = 2;
constexpr int kCannotRun = 126;
constexpr int kNotFound = 127;

int fail(int status, const std::string& message) {
  std::fprintf(stderr, "kai-native-runner: %s\n", message.c_str());
  return status;
}

int runner_descriptor() {
  const char* given = std::getenv("KAI_RUNNER_FD");
  return given == nullptr ? 3 : std::atoi(given);
}

bool say_hello(int fd) {
  const std::string hello =
      R"({"jsonrpc":"2.0","method":"hello","params":{"sdk":"cpp/)" KAI_VERSION R"(","protocol":1}})"
      "\n";
  return send(fd, hello.data(), hello.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(hello.size());
}

int run(const char* path, int fd) {
  if (access(path, F_OK) != 0) return fail(kNotFound, std::string(path) + ": " + std::strerror(errno));
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail(kCannotRun, std::string("cannot load the agent: ") + dlerror());

  const auto* abi = static_cast<const unsigned*>(dlsym(library, KAI_AGENT_ABI_SYMBOL));
  void* entry = dlsym(library, KAI_AGENT_MAIN_SYMBOL);
  if (abi == nullptr || entry == nullptr) {
    return fail(kCannotRun, std::string(path) + " is not an agent: end one of its source files with KAI_AGENT(Class)");
  }
  if (*abi != KAI_AGENT_ABI) {
    return fail(kCannotRun, std::string(path) + " was built for agent ABI " + std::to_string(*abi) +
                                "; this runner has " + std::to_string(KAI_AGENT_ABI) +
                                ": build it again with this SDK");
  }
  return reinterpret_cast<int (*)(int)>(entry)(fd);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return fail(kUsage, "usage: kai-native-runner LIBRARY.so");
  // A line that the agent prints is a line of its log at once, not when a buffer is full.
  std::setvbuf(stdout, nullptr, _IOLBF, 0);

  const int fd = runner_descriptor();
  // Programs that the agent starts have no runner channel: neither its number nor the descriptor.
  unsetenv("KAI_RUNNER_FD");
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || !say_hello(fd)) {
    return fail(kUsage, "descriptor " + std::to_string(fd) + " is not a runner channel (" + std::strerror(errno) +
                            "); agents are started by kaictl start");
  }
  return run(argv[1], fd);
}
