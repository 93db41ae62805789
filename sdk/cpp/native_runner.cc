// Runs one agent: kai-native-runner LIBRARY.so, with the runner protocol (docs/runner-protocol.md) on descriptor 3.
// All of the protocol but `hello` is in the library (kai/agent.hpp), which is called through a few C functions
// (kai/abi.h); in a soft upgrade there are two libraries, and the runner calls now this one, now that one.
#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kai/abi.h"
#include "sdk/cpp/libraries.h"

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

int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// A version of the agent: a library, and its session.
struct Version {
  Library* library = nullptr;
  void* session = nullptr;
};

class Runner : public kai_runner {
 public:
  Runner() : kai_runner{monotonic_ns(), &load_next, &serve_next, &discard_next} {}

  int run(const char* path, int fd) {
    if (access(path, F_OK) != 0) return fail(kNotFound, std::string(path) + ": " + std::strerror(errno));
    serving_.library = libraries_.load(path);
    if (serving_.library == nullptr) return fail(kCannotRun, libraries_.failure());
    if (serving_.library->functions == nullptr) return serving_.library->main(fd);

    serving_.session = serving_.library->functions->begin(this);
    kai_channel channel{fd, "", 0, 0, 1};
    for (;;) {
      const int status = serving_.library->functions->serve(serving_.session, &channel);
      if (status != KAI_COMMITTED) {
        serving_.library->functions->end(serving_.session);
        return status;
      }
      drop(serving_);
      serving_ = next_;
      next_ = {};
    }
  }

 private:
  static const char* load_next(kai_runner* self, const char* path) { return static_cast<Runner*>(self)->load(path); }
  static int serve_next(kai_runner* self, kai_channel* channel) {
    const Version& next = static_cast<Runner*>(self)->next_;
    return next.library == nullptr ? KAI_NOT_LOADED : next.library->functions->serve_one(next.session, channel);
  }
  static void discard_next(kai_runner* self) {
    auto* runner = static_cast<Runner*>(self);
    if (runner->next_.library != nullptr) runner->drop(runner->next_);
    runner->next_ = {};
  }

  const char* load(const char* path) {
    Library* library = libraries_.load(path);
    if (library == nullptr) {
      why_ = libraries_.failure();
      return why_.c_str();
    }
    const char* refusal = "it was built with an SDK that has no soft upgrades: build it again, or upgrade hard";
    if (library->functions != nullptr) refusal = library->functions->refusal();
    if (refusal != nullptr) {
      library->is_dropped = true;
      why_ = std::string(path) + ": " + refusal;
      return why_.c_str();
    }
    next_ = {library, library->functions->begin(this)};
    return nullptr;
  }

  // Neither the session ends nor the library: what its threads, and sockets that it gave away, need is in there.
  void drop(const Version& version) {
    version.library->functions->drop(version.session);
    version.library->is_dropped = true;
    dropped_.push_back(version.session);
  }

  Libraries libraries_;
  Version serving_;
  Version next_;
  std::vector<void*> dropped_;
  std::string why_;
};

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
  static auto& runner = *new Runner;  // never destroyed: threads of dropped versions may run as long as the process
  return runner.run(argv[1], fd);
}
