#include "supervisor/keeper/directory_watch.h"

#include <fcntl.h>

#include <algorithm>

namespace kai::keeper {

void DirectoryWatch::tick(Clock::time_point now) {
  if (now < next_) return;
  if (!measurement_) {
    took_ = {};
    measurement_.emplace(Fd(openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  }
  const auto begin = Clock::now();
  const bool whole = measurement_->step(kSlice);
  const auto end = Clock::now();
  took_ += end - begin;
  const DiskUsage& seen = measurement_->usage();
  usage_ = whole ? seen : DiskUsage{std::max(usage_.bytes, seen.bytes), std::max(usage_.inodes, seen.inodes)};
  too_deep_ = measurement_->too_deep();
  if (!whole) return;
  measurement_.reset();
  next_ = end + std::max<Clock::duration>(std::chrono::milliseconds(500), 10 * took_);
}

}  // namespace kai::keeper
