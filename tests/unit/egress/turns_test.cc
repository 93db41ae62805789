// Who moves bytes when: the token bucket, and the turns of an agent's connections.
#include "supervisor/egress/turns.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include <doctest/doctest.h>

#include "supervisor/egress/rate_meter.h"
#include "supervisor/egress/shaper.h"

namespace {

using namespace kai::egress;
using std::chrono::milliseconds;

TEST_CASE("a token bucket gives its rate, and a tenth of a second at once") {
  constexpr std::uint64_t kRate = 1'000'000;
  TokenBucket bucket(kRate);
  Clock::time_point now(milliseconds(1));
  std::uint64_t given = 0;
  const auto take_all = [&] {
    while (const std::uint64_t some = bucket.available(now, 10'000)) {
      bucket.take(some);
      given += some;
    }
  };
  take_all();
  CHECK(given == doctest::Approx(kRate / 10).epsilon(0.1));
  given = 0;
  for (int waits = 0; waits < 1'000 && now < Clock::time_point(milliseconds(2'001)); ++waits) {
    REQUIRE(bucket.next(now) > now);
    now = bucket.next(now);
    CHECK(bucket.available(now, 1) == 1);  // it was worth to ask
    take_all();
  }
  CHECK(given == doctest::Approx(2 * kRate).epsilon(0.02));
  now += std::chrono::hours(1);
  given = 0;
  take_all();
  CHECK(given == doctest::Approx(kRate / 10).epsilon(0.1));
}

TEST_CASE("a limit of nothing gives nothing, and a lower one takes back what was saved up") {
  TokenBucket nothing(0);
  const Clock::time_point now(milliseconds(1));
  CHECK(nothing.available(now, 1) == 0);
  CHECK(nothing.next(now) > now + std::chrono::minutes(1));
  TokenBucket bucket(1 << 30);
  CHECK(bucket.available(now, 1 << 20) == 1 << 20);
  bucket.use(200'000);
  CHECK(bucket.available(now, 1 << 20) == 20'000);
}

TEST_CASE("a rate is of the last seconds") {
  RateMeter meter;
  Clock::time_point now(std::chrono::hours(1));
  CHECK(meter.per_second(now) == 0);
  for (int second = 0; second < 10; ++second) meter.count(1'000, now += std::chrono::seconds(1));
  CHECK(meter.per_second(now) == doctest::Approx(1'000).epsilon(0.5));
  CHECK(meter.per_second(now + std::chrono::seconds(10)) == 0);
}

/// Has always more to send.
struct Greedy final : Lane {
  Greedy() : Lane(Way::kSent) {}
  Step move(std::uint64_t most) override {
    ++turns;
    bytes += most;
    return {.bytes = most, .more = true};
  }
  std::uint64_t bytes = 0;
  int turns = 0;
};

TEST_CASE("turns go round, and an agent of many connections gets no more of a round than one of a single one") {
  auto reactor = std::move(*Reactor::create());
  Turns many(*reactor, 100ULL << 30), single(*reactor, 100ULL << 30);
  std::vector<std::unique_ptr<Greedy>> lanes;
  for (int at = 0; at < 50; ++at) {
    lanes.push_back(std::make_unique<Greedy>());
    many.wake(*lanes.back());
  }
  Greedy alone;
  single.wake(alone);
  for (int round = 0; round < 200; ++round) REQUIRE(reactor->turn(milliseconds(0)));
  std::uint64_t all = 0;
  for (const auto& lane : lanes) {
    CHECK(lane->turns >= lanes.front()->turns - 1);
    CHECK(lane->turns <= lanes.front()->turns + 1);
    all += lane->bytes;
  }
  CHECK(static_cast<double>(all) == doctest::Approx(static_cast<double>(alone.bytes)).epsilon(0.1));
  for (const auto& lane : lanes) many.leave(*lane);
  single.leave(alone);
}

TEST_CASE("who waits for tokens is served in the order of waiting, and who left is not") {
  auto reactor = std::move(*Reactor::create());
  Turns turns(*reactor, 1'000'000);
  std::vector<Greedy> lanes(4);
  for (Greedy& lane : lanes) turns.wake(lane);
  turns.leave(lanes[3]);
  const int before = lanes[3].turns;
  const auto end = Clock::now() + milliseconds(500);
  while (Clock::now() < end) REQUIRE(reactor->turn(milliseconds(20)));
  for (std::size_t at = 0; at < 3; ++at) {
    CHECK(lanes[at].turns > 10);
    CHECK(std::abs(lanes[at].turns - lanes[0].turns) <= 2);
    turns.leave(lanes[at]);
  }
  CHECK(lanes[3].turns == before);
}

TEST_CASE("what was left for the next round finds out that its agent is gone") {
  auto reactor = std::move(*Reactor::create());
  Greedy lane;
  {
    Turns turns(*reactor, 100ULL << 30);
    turns.wake(lane);
    turns.leave(lane);
  }
  const int before = lane.turns;
  REQUIRE(reactor->turn(milliseconds(0)));
  CHECK(lane.turns == before);
}

TEST_CASE("a timer that arms itself for now does not keep the loop from the rest") {
  auto reactor = std::move(*Reactor::create());
  int calls = 0;
  Reactor::Timer* self = nullptr;
  Reactor::Timer timer(*reactor, [&] {
    ++calls;
    self->arm(reactor->now());
  });
  self = &timer;
  timer.arm(reactor->now());
  for (int round = 1; round <= 5; ++round) {
    REQUIRE(reactor->turn(milliseconds(0)));
    CHECK(calls == round);
  }
}

}  // namespace
