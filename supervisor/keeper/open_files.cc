#include "supervisor/keeper/open_files.h"

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <utility>

namespace kai::keeper {

bool kernel_counts_open_files() {
  struct stat own {};
  return stat("/proc/self/fd", &own) == 0 && own.st_size > 0;  // this process has some
}

OpenFilesLook::OpenFilesLook(std::vector<pid_t> processes, std::uint64_t enough, bool kernel_counts)
    : processes_(std::move(processes)), enough_(enough), kernel_counts_(kernel_counts) {}

bool OpenFilesLook::step(std::size_t& budget) {
  for (; budget > 0 && !processes_.empty() && most_ < enough_; --budget) {
    if (entries_) {
      count_entry();
    } else {
      begin(processes_.back());
    }
  }
  return processes_.empty() || most_ >= enough_;
}

void OpenFilesLook::begin(pid_t process) {
  const std::string path = "/proc/" + std::to_string(process) + "/fd";
  counted_ = 0;
  struct stat status {};
  if (kernel_counts_) return found(stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0);
  entries_.reset(opendir(path.c_str()));
  if (!entries_) found(0);  // it has ended, or hides that
}

void OpenFilesLook::count_entry() {
  const dirent* entry = readdir(entries_.get());
  if (entry == nullptr) return found(counted_);
  const std::string_view name = entry->d_name;
  if (name != "." && name != "..") ++counted_;
  if (counted_ >= enough_) found(counted_);
}

void OpenFilesLook::found(std::uint64_t count) {
  if (count > most_) {
    most_ = count;
    holder_ = processes_.back();
  }
  entries_.reset();
  processes_.pop_back();
}

}  // namespace kai::keeper
