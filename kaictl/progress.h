// What kaictl itself is doing for long, told to a person on a terminal; what kaid does is told by call().
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace kai {

class Progress {
 public:
  /// `show`: Context::show_progress. Nothing is said within kQuietTime, and nothing about an empty text.
  Progress(bool show, std::string doing);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  /// What is done from here on; empty: somebody else has the terminal, or nothing takes long.
  void now(std::string doing);

 private:
  void tell();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string doing_;
  bool over_ = false;
  std::thread teller_;  // none: nobody is told
};

}  // namespace kai
