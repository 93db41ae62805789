#include "supervisor/egress/reactor.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace kai::egress {

Reactor::Watch::Watch(Watch&& other) noexcept
    : reactor_(std::exchange(other.reactor_, nullptr)), fd_(other.fd_), id_(other.id_) {}

Reactor::Watch& Reactor::Watch::operator=(Watch&& other) noexcept {
  if (this == &other) return *this;
  stop();
  reactor_ = std::exchange(other.reactor_, nullptr);
  fd_ = other.fd_;
  id_ = other.id_;
  return *this;
}

void Reactor::Watch::stop() {
  if (reactor_ == nullptr) return;
  (void)epoll_ctl(reactor_->epoll_.get(), EPOLL_CTL_DEL, fd_, nullptr);
  std::exchange(reactor_, nullptr)->watches_.erase(id_);
}

void Reactor::Watch::forget() {
  if (reactor_ != nullptr) std::exchange(reactor_, nullptr)->watches_.erase(id_);
}

void Reactor::Watch::use(OnReady on_ready) {
  if (reactor_ == nullptr) return;
  reactor_->watches_.insert_or_assign(id_, std::make_shared<OnReady>(std::move(on_ready)));
}

void Reactor::Timer::arm(Clock::time_point when) {
  stop();
  due_ = {std::max(when, reactor_.now()), ++reactor_.last_armed_};
  reactor_.timers_.emplace(due_, this);
  armed_ = true;
}

void Reactor::Timer::stop() {
  if (!std::exchange(armed_, false)) return;
  reactor_.timers_.erase(due_);
}

Result<std::unique_ptr<Reactor>> Reactor::create() {
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return errno_failure("epoll_create1");
  return std::unique_ptr<Reactor>(new Reactor(std::move(epoll)));
}

Result<Reactor::Watch> Reactor::watch(int fd, std::uint32_t events, OnReady on_ready) {
  const std::uint64_t id = ++last_id_;  // never used again: an event of a watch that is gone finds nobody
  epoll_event event{.events = events | EPOLLET, .data = {.u64 = id}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return errno_failure("epoll_ctl");
  watches_.emplace(id, std::make_shared<OnReady>(std::move(on_ready)));
  return Watch(this, fd, id);
}

int Reactor::patience_ms(std::chrono::milliseconds most) const {
  using std::chrono::ceil, std::chrono::milliseconds;
  if (!later_.empty()) return 0;
  if (timers_.empty()) return static_cast<int>(most.count());
  const auto due = ceil<milliseconds>(timers_.begin()->first.first - Clock::now());
  const auto wait = std::max(milliseconds(0), due);
  return static_cast<int>(most.count() < 0 ? wait.count() : std::min(most, wait).count());
}

void Reactor::run_timers() {
  // One that is armed meanwhile is due now or later, and comes behind all of these.
  const std::pair<Clock::time_point, std::uint64_t> last(now_, last_armed_);
  while (!timers_.empty() && timers_.begin()->first <= last) {
    Timer& timer = *timers_.begin()->second;
    timer.stop();
    timer.action_();
  }
}

Result<> Reactor::turn(std::chrono::milliseconds patience) {
  std::array<epoll_event, 64> events{};
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), patience_ms(patience));
  if (count < 0 && errno != EINTR) return errno_failure("epoll_wait");
  now_ = Clock::now();
  ++round_;
  const std::vector<Action> actions = std::exchange(later_, {});
  for (int at = 0; at < count; ++at) {
    const epoll_event& event = events[static_cast<std::size_t>(at)];
    const auto found = watches_.find(event.data.u64);
    if (found == watches_.end()) continue;
    const auto handler = found->second;  // a handler that ends its own watch lives until it returns
    (*handler)(event.events);
  }
  for (const Action& action : actions) action();
  run_timers();
  return {};
}

Result<> Reactor::run() {
  while (!stopped_) {
    if (auto done = turn(std::chrono::milliseconds(-1)); !done) return done;
  }
  return {};
}

}  // namespace kai::egress
