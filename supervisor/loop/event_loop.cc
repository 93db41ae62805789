#include "supervisor/loop/event_loop.h"

#include <memory>
#include <utility>

namespace kai {

EventLoop::EventLoop() {
  uv_loop_init(&loop_);
  uv_prepare_init(&loop_, &prepare_);
  prepare_.data = this;
  uv_prepare_start(&prepare_, [](uv_prepare_t* handle) { static_cast<EventLoop*>(handle->data)->run_deferred(); });
  // It alone is no reason to go on.
  uv_unref(reinterpret_cast<uv_handle_t*>(&prepare_));
}

EventLoop::~EventLoop() {
  deferred_.clear();
  uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), nullptr);
  uv_run(&loop_, UV_RUN_DEFAULT);
  uv_loop_close(&loop_);
}

void EventLoop::run() {
  uv_run(&loop_, UV_RUN_DEFAULT);
  run_deferred();
}

void EventLoop::run_until(const std::function<bool()>& met) {
  until_ = &met;
  while (until_ != nullptr) {
    uv_run(&loop_, UV_RUN_DEFAULT);
    if (until_ == nullptr) return;
    // The last handle or job is gone with this round: then there is no other that would ask.
    until_ = nullptr;
    run_deferred();
    if (!met()) until_ = &met;
  }
}

void EventLoop::stop() {
  uv_stop(&loop_);
}

void EventLoop::defer(std::function<void()> task) {
  deferred_.push_back(std::move(task));
}

void EventLoop::run_deferred() {
  do {
    for (auto& task : std::exchange(deferred_, {})) {
      if (before_deferred_) before_deferred_();
      task();
    }
    if (until_ != nullptr && (*until_)()) {
      until_ = nullptr;
      uv_stop(&loop_);
    }
  } while (!deferred_.empty());
}

void EventLoop::work(std::function<void()> job, std::function<void()> done) {
  struct Work {
    uv_work_t request{};
    std::function<void()> job, done;
    std::size_t& running;
  };
  ++jobs_;
  auto* work = new Work{{}, std::move(job), std::move(done), jobs_};
  work->request.data = work;
  uv_queue_work(
      &loop_, &work->request, [](uv_work_t* request) { static_cast<Work*>(request->data)->job(); },
      [](uv_work_t* request, int) {
        const std::unique_ptr<Work> owned(static_cast<Work*>(request->data));
        --owned->running;
        owned->done();
      });
}

void EventLoop::finish_work() {
  if (jobs_ > 0) run_until([this] { return jobs_ == 0; });
}

struct Timer::Handle {
  uv_timer_t timer{};
  std::function<void()> action;
};

Timer::~Timer() {
  if (handle_ == nullptr) return;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_->timer),
           [](uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); });
}

void Timer::start(std::chrono::milliseconds delay, std::function<void()> action) {
  if (handle_ == nullptr) {
    handle_ = new Handle;
    uv_timer_init(loop_.raw(), &handle_->timer);
    handle_->timer.data = handle_;
  }
  handle_->action = std::move(action);
  uv_timer_start(
      &handle_->timer,
      [](uv_timer_t* timer) {
        // Moved out first: the action may start this timer again, or destroy its owner.
        const auto run = std::move(static_cast<Handle*>(timer->data)->action);
        run();
      },
      static_cast<std::uint64_t>(std::max<std::int64_t>(delay.count(), 0)), 0);
}

void Timer::stop() {
  if (handle_ != nullptr) uv_timer_stop(&handle_->timer);
}

bool Timer::active() const {
  return handle_ != nullptr && uv_is_active(reinterpret_cast<const uv_handle_t*>(&handle_->timer)) != 0;
}

struct Poll::Handle {
  uv_poll_t poll{};
  std::function<void(int)> action;
};

Poll::Poll(EventLoop& loop, int fd, std::function<void(int)> action) : handle_(new Handle) {
  handle_->action = std::move(action);
  uv_poll_init(loop.raw(), &handle_->poll, fd);
  handle_->poll.data = handle_;
}

Poll::~Poll() {
  // The handle and the action in it live until the close callback: the action may be running now.
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_->poll),
           [](uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); });
}

void Poll::watch(int events) {
  if (events == watched_) return;
  watched_ = events;
  if (events == 0) {
    uv_poll_stop(&handle_->poll);
    return;
  }
  uv_poll_start(&handle_->poll, events, [](uv_poll_t* poll, int status, int ready) {
    // EPOLLERR and the like: reading or writing says what it is.
    static_cast<Handle*>(poll->data)->action(status < 0 ? UV_READABLE | UV_WRITABLE : ready);
  });
}

}  // namespace kai
