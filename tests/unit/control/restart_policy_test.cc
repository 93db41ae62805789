#include "supervisor/control/restart_policy.h"

#include <doctest/doctest.h>

namespace kai {
namespace {

using std::chrono::milliseconds;

TEST_CASE("delays grow from initial over base to max") {
  RestartPolicy restarts{Policy{}};
  const std::int64_t expected[] = {0, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
  for (const std::int64_t delay : expected) {
    restarts.crashed(0, milliseconds(0));
    CHECK(restarts.delay(0.5).count() == delay);
  }
}

TEST_CASE("jitter is a share of the delay, both ways") {
  RestartPolicy restarts{Policy{}};
  restarts.crashed(0, milliseconds(0));
  restarts.crashed(0, milliseconds(0));
  CHECK(restarts.delay(0).count() == 400);
  CHECK(restarts.delay(1).count() == 600);
}

TEST_CASE("a long run starts the delays over, but not the window") {
  RestartPolicy restarts{Policy{}};
  for (int crash = 0; crash < 4; ++crash) restarts.crashed(1000, milliseconds(10));
  restarts.crashed(70'000, milliseconds(60'000));
  CHECK(restarts.delay(0.5).count() == 0);
  CHECK(restarts.crashes(70'000) == 5);
}

TEST_CASE("crash number maxCrashes + 1 in the window is one too many") {
  RestartPolicy restarts{Policy{}};
  for (int crash = 0; crash < 5; ++crash) restarts.crashed(crash, milliseconds(0));
  CHECK_FALSE(restarts.exhausted(5));
  restarts.crashed(6, milliseconds(0));
  CHECK(restarts.exhausted(6));
  CHECK_FALSE(restarts.exhausted(600'003));
  restarts.reset();
  CHECK(restarts.crashes(6) == 0);
}

}  // namespace
}  // namespace kai
