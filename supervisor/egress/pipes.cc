#include "supervisor/egress/pipes.h"

#include <fcntl.h>

#include <utility>

#include "base/unix.h"

namespace kai::egress {
namespace {

// Of the machines that kAI is built for; where pages are larger, there are fewer places.
constexpr std::size_t kPageBytes = 4096;

}  // namespace

Result<Pipe> PipePool::take() {
  if (!spare_.empty()) {
    Pipe pipe = std::move(spare_.back());
    spare_.pop_back();
    return pipe;
  }
  auto ends = make_pipe(O_NONBLOCK);
  if (!ends) return tl::unexpected(ends.error());
  // EPERM: /proc/sys/fs/pipe-user-pages-soft is used up, and this is a pipe of few places. It carries the same bytes in
  // more calls.
  const int bytes = fcntl(ends->second.get(), F_SETPIPE_SZ, kPipeBytes);
  const std::size_t places = bytes > 0 ? static_cast<std::size_t>(bytes) / kPageBytes : 1;
  return Pipe{.read = std::move(ends->first), .write = std::move(ends->second), .places = places};
}

void PipePool::give_back(Pipe pipe) {
  // Small ones were made in a moment of pressure, and would outlive it.
  const bool small = pipe.places < kPipeBytes / kPageBytes;
  if (!small && spare_.size() < kMaxSpare) spare_.push_back(std::move(pipe));
}

}  // namespace kai::egress
