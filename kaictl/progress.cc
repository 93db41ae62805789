#include "kaictl/progress.h"

#include <unistd.h>

#include <csignal>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/client.h"

namespace kai {

Progress::Progress(bool show, std::string doing) : doing_(std::move(doing)) {
  if (!show) return;
  // Signals are the main thread's, which may hold them back, as while a password is typed.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    teller_ = std::thread([this] { tell(); });
  } catch (const std::system_error&) {
    // No thread can be had: the work is done all the same, in silence.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Progress::~Progress() {
  if (!teller_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  teller_.join();
}

void Progress::now(std::string doing) {
  {
    const std::lock_guard lock(mutex_);
    doing_ = std::move(doing);
  }
  changed_.notify_one();
}

void Progress::tell() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kQuietTime, [this] { return over_; });
  for (std::string told; !over_; changed_.wait(lock)) {
    if (!doing_.empty() && doing_ != told) {
      static_cast<void>(write_all(STDERR_FILENO, "kaictl: " + escape_for_terminal(doing_) + "\n"));
    }
    told = doing_;
  }
}

}  // namespace kai
