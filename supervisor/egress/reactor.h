// One thread, one edge-triggered epoll(7), and timers. Edge-triggered, as a relay that waits in both directions would
// else change its interest with every packet. Not libuv: its polls are level-triggered.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::egress {

using Clock = std::chrono::steady_clock;

class Reactor {
 public:
  /// EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR …: what is new. Whoever is called reads or writes until EAGAIN, or calls
  /// later() to go on.
  using OnReady = std::function<void(std::uint32_t events)>;
  using Action = std::function<void()>;

  /// A descriptor that is watched as long as this lives; the descriptor has to live longer. Its handler may destroy it.
  class Watch {
   public:
    Watch() = default;
    Watch(Watch&& other) noexcept;
    Watch& operator=(Watch&& other) noexcept;
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() { stop(); }
    void stop();
    /// stop() of a descriptor that is closed next, and with it leaves epoll by itself: saves a system call. Not for one
    /// of which there is a duplicate.
    void forget();
    /// From now on `on_ready` is called instead.
    void use(OnReady on_ready);
    [[nodiscard]] bool active() const { return reactor_ != nullptr; }

   private:
    friend class Reactor;
    Watch(Reactor* reactor, int fd, std::uint64_t id) : reactor_(reactor), fd_(fd), id_(id) {}
    Reactor* reactor_ = nullptr;
    int fd_ = -1;
    std::uint64_t id_ = 0;
  };

  /// Called once, when its time has come, unless it was stopped or destroyed before. May be armed again at any time; an
  /// action that arms a timer for now sees it called in the next round.
  class Timer {
   public:
    Timer(Reactor& reactor, Action action) : reactor_(reactor), action_(std::move(action)) {}
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    ~Timer() { stop(); }
    void arm(Clock::time_point when);
    void arm_in(std::chrono::milliseconds delay) { arm(reactor_.now() + delay); }
    void stop();
    [[nodiscard]] bool armed() const { return armed_; }

   private:
    friend class Reactor;
    Reactor& reactor_;
    Action action_;
    bool armed_ = false;
    std::pair<Clock::time_point, std::uint64_t> due_;
  };

  static Result<std::unique_ptr<Reactor>> create();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  Result<Watch> watch(int fd, std::uint32_t events, OnReady on_ready);
  /// In the next round, after whoever else is ready has had its turn. `action` must outlive that, or find out that its
  /// object is gone.
  void later(Action action) { later_.push_back(std::move(action)); }
  /// When this round began: exact enough for deadlines, and no system call.
  [[nodiscard]] Clock::time_point now() const { return now_; }
  /// Another number in each round.
  [[nodiscard]] std::uint64_t round() const { return round_; }

  /// Until stop().
  Result<> run();
  /// One round: waits for at most `patience`, and less where a timer is due. For tests.
  Result<> turn(std::chrono::milliseconds patience);
  void stop() { stopped_ = true; }

 private:
  explicit Reactor(Fd epoll) : epoll_(std::move(epoll)) {}
  [[nodiscard]] int patience_ms(std::chrono::milliseconds most) const;
  void run_timers();

  Fd epoll_;
  Clock::time_point now_ = Clock::now();
  std::uint64_t round_ = 0, last_id_ = 0, last_armed_ = 0;
  std::unordered_map<std::uint64_t, std::shared_ptr<OnReady>> watches_;
  std::map<std::pair<Clock::time_point, std::uint64_t>, Timer*> timers_;  // the second: in the order of arming
  std::vector<Action> later_;
  bool stopped_ = false;
};

}  // namespace kai::egress
