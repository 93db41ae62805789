// libuv's handles with C++ lifetimes. One thread: everything here is called from the loop's own thread, except the job
// of work().
#pragma once

#include <uv.h>

#include <array>
#include <chrono>
#include <functional>
#include <vector>

namespace kai {

class EventLoop {
 public:
  EventLoop();
  /// Runs what is left (closing handles, finished jobs) before the loop goes.
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Until stop().
  void run();
  /// Until `met`, which is asked once a round, before the loop sleeps; at least one round. For tests.
  void run_until(const std::function<bool()>& met);
  void stop();

  /// Runs `task` after the callbacks of this round, before the loop sleeps: for writes that go out together, and for
  /// destroying an object that is on the stack of its own callback.
  void defer(std::function<void()> task);
  /// `hook` is called before each deferred task: what has to be written before anything that a task sends goes out.
  void before_deferred(std::function<void()> hook) { before_deferred_ = std::move(hook); }

  /// Runs `job` on libuv's thread pool, then `done` on the loop. `job` may touch nothing that the loop's thread uses.
  void work(std::function<void()> job, std::function<void()> done);
  /// Waits for every job, those too that the ends of others bring. Whoever owns what jobs use calls it before it goes.
  void finish_work();

  /// The loop's idea of now, monotonic ms, cheap.
  [[nodiscard]] std::int64_t now_ms() const { return static_cast<std::int64_t>(uv_now(&loop_)); }
  [[nodiscard]] uv_loop_t* raw() { return &loop_; }
  /// Where received bytes land before they are copied to whom they belong: one for all streams.
  [[nodiscard]] std::array<char, 65536>& scratch() { return scratch_; }

 private:
  void run_deferred();

  uv_loop_t loop_{};
  uv_prepare_t prepare_{};
  std::vector<std::function<void()>> deferred_;
  std::function<void()> before_deferred_;
  std::size_t jobs_ = 0;
  const std::function<bool()>* until_ = nullptr;
  std::array<char, 65536> scratch_{};
};

/// A one-shot timer; starting it again moves it.
class Timer {
 public:
  explicit Timer(EventLoop& loop) : loop_(loop) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void start(std::chrono::milliseconds delay, std::function<void()> action);
  void stop();
  [[nodiscard]] bool active() const;

 private:
  struct Handle;
  EventLoop& loop_;
  Handle* handle_ = nullptr;  // freed by libuv's close callback
};

/// Watches a descriptor, which must outlive it.
class Poll {
 public:
  /// `action` gets UV_READABLE | UV_WRITABLE; an error on the descriptor shows as both.
  Poll(EventLoop& loop, int fd, std::function<void(int)> action);
  ~Poll();
  Poll(const Poll&) = delete;
  Poll& operator=(const Poll&) = delete;

  /// Sets what is waited for; 0 stops.
  void watch(int events);

 private:
  struct Handle;
  Handle* handle_;
  int watched_ = 0;
};

}  // namespace kai
