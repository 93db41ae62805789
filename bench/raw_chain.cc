#include "bench/raw_chain.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unix.h"
#include "bench/report.h"

namespace kai::bench {
namespace {

bool read_whole(int fd, std::string& buffer) {
  std::size_t at = 0;
  while (at < buffer.size()) {
    const ssize_t count = read(fd, buffer.data() + at, buffer.size() - at);
    if (count <= 0) return false;
    at += static_cast<std::size_t>(count);
  }
  return true;
}

/// Takes a message from `up`, passes it to `down` and its answer back. Without a `down` it is the echo.
[[noreturn]] void relay(int up, int down, std::size_t bytes) {
  std::string buffer(bytes, 0);
  for (;;) {
    if (!read_whole(up, buffer)) _exit(0);
    if (down >= 0 && (!write_all(down, buffer) || !read_whole(down, buffer))) _exit(0);
    if (!write_all(up, buffer)) _exit(0);
  }
}

}  // namespace

Result<RawChain> RawChain::make(int processes, std::size_t message_bytes) {
  std::vector<pid_t> children;
  Fd down;
  // From the far end: each process has the end below it already, and gives the one above it to the next.
  for (int number = 0; number < processes; ++number) {
    auto pair = socket_pair(SOCK_STREAM);
    if (!pair) return tl::unexpected(pair.error());
    const pid_t child = fork();
    if (child < 0) return errno_failure("fork");
    if (child == 0) {
      pair->first.reset();
      relay(pair->second.get(), down.get(), message_bytes);
    }
    children.push_back(child);
    down = std::move(pair->first);
  }
  return RawChain(std::move(down), std::move(children), message_bytes);
}

RawChain::~RawChain() {
  socket_.reset();  // ends the chain, one after the other
  for (const pid_t child : children_) waitpid(child, nullptr, 0);
}

Result<double> RawChain::round_trip() {
  const Clock::time_point begin = Clock::now();
  if (auto written = write_all(socket_.get(), buffer_); !written) return tl::unexpected(written.error());
  if (!read_whole(socket_.get(), buffer_)) return failure("the chain ended");
  return microseconds_since(begin);
}

}  // namespace kai::bench
