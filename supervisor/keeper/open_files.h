// Which process of an agent has the most descriptors open. Since Linux 6.2 that is one stat a process; before, /proc
// lists every descriptor, and an agent could have millions: looked at in slices, so that it costs the keeper no more.
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace kai::keeper {

/// Whether /proc/PID/fd says as its size how many there are (Linux 6.2).
bool kernel_counts_open_files();

/// One look at one agent.
class OpenFilesLook {
 public:
  /// `enough`: the limit; with a process that has as many there is nothing more to find.
  OpenFilesLook(std::vector<pid_t> processes, std::uint64_t enough, bool kernel_counts);

  /// Takes up to `budget` processes and descriptors, and lessens it by them: each is a microsecond or two. True: the
  /// look is over.
  bool step(std::size_t& budget);
  [[nodiscard]] std::uint64_t most() const { return most_; }
  [[nodiscard]] pid_t holder() const { return holder_; }

 private:
  struct CloseDirectory {
    void operator()(DIR* directory) const { (void)closedir(directory); }
  };

  void begin(pid_t process);
  void count_entry();
  void found(std::uint64_t count);

  std::vector<pid_t> processes_;  // the present one last
  std::uint64_t enough_;
  bool kernel_counts_;
  std::unique_ptr<DIR, CloseDirectory> entries_;  // of the present one, where they have to be counted
  std::uint64_t counted_ = 0;
  std::uint64_t most_ = 0;
  pid_t holder_ = 0;
};

}  // namespace kai::keeper
