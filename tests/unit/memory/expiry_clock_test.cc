#include "supervisor/memory/expiry_clock.h"

#include <sys/stat.h>

#include <filesystem>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/temp_directory.h"
#include "tests/unit/memory/put_file.h"

using kai::ExpiryClock;
using kai::MachineTime;

namespace {

constexpr std::int64_t kHour = 3'600'000;
constexpr std::int64_t kWall = 1'800'000'000'000;

ExpiryClock load(const std::string& path, const MachineTime& now) {
  auto clock = ExpiryClock::load(path, now);
  REQUIRE_MESSAGE(clock, clock.error().message());
  return *clock;
}

}  // namespace

TEST_CASE("a clock without a file begins at 1 and goes on with the time since boot") {
  const kai::TempDirectory directory;
  const ExpiryClock clock = load(directory / "clock", {"a", 50'000, kWall});
  CHECK(clock.at(50'000) == 1);
  CHECK(clock.at(51'234) == 1'235);
}

TEST_CASE("within a boot of the machine the wall clock does not matter, forward or backward") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  CHECK(load(path, {"a", 1'000, kWall}).save({"a", 5'000, kWall + 4'000}));
  CHECK(load(path, {"a", 6'000, kWall + 10'000 * kHour}).at(6'000) == 5'001);
  CHECK(load(path, {"a", 7'000, kWall - 10'000 * kHour}).at(7'000) == 6'001);
  CHECK(load(path, {"a", 8'000, -5}).at(8'000) == 7'001);
}

TEST_CASE("what was not saved within a boot is not lost") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  CHECK(load(path, {"a", 1'000, kWall}).at(900'000) == 899'001);
  CHECK(load(path, {"a", 900'000, kWall}).at(900'000) == 899'001);
}

TEST_CASE("over a boot of the machine the wall clock tells how long it was") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  CHECK(load(path, {"a", 1'000, kWall}).save({"a", 2'000, kWall + 1'000}));  // shows 1,001
  const ExpiryClock after = load(path, {"b", 300, kWall + 1'000 + kHour});
  CHECK(after.at(300) == 1'001 + kHour);

  SUBCASE("and only once: the same boot again counts what this boot's clock says") {
    CHECK(load(path, {"b", 400, kWall + 9 * kHour}).at(400) == 1'101 + kHour);
  }
  SUBCASE("a clock that was set back counts as no time") {
    CHECK(load(path, {"c", 70, kWall - 500 * kHour}).at(70) == 1'001 + kHour);
  }
}

TEST_CASE("it never goes back: not over a thousand boots with a wall clock that jumps") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  std::int64_t last = 0;
  for (int boot = 0; boot < 1'000; ++boot) {
    const std::int64_t jump = (boot % 7 - 3) * kHour * boot;
    const MachineTime now{std::to_string(boot / 2), 1'000 + boot, kWall + jump};
    const ExpiryClock clock = load(path, now);
    REQUIRE(clock.at(now.since_boot_ms) >= last);
    last = clock.at(now.since_boot_ms);
  }
}

TEST_CASE("time since boot that went back within one boot counts as no time") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  CHECK(load(path, {"a", 1'000, kWall}).save({"a", 9'000, kWall}));
  CHECK(load(path, {"a", 100, kWall}).at(100) == 8'001);
}

TEST_CASE("a damaged file is an error that says what to do, and is left as it is") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  const std::string whole = R"({"bootId":"a","sinceBootMs":1,"wallMs":2,"shownMs":3})";
  const std::vector<std::string> damaged = {
      "",
      "{",
      "[]",
      std::string(300, '\0'),
      std::string(5'000, ' ') + whole,
      whole.substr(0, whole.size() - 1),
      whole + "x",
      R"({"bootId":"a","sinceBootMs":1,"wallMs":2})",
      R"({"bootId":1,"sinceBootMs":1,"wallMs":2,"shownMs":3})",
      R"({"bootId":"a","sinceBootMs":-1,"wallMs":2,"shownMs":3})",
      R"({"bootId":"a","sinceBootMs":1,"wallMs":2.5,"shownMs":3})",
      R"({"bootId":"a","sinceBootMs":1,"wallMs":2,"shownMs":18446744073709551615})",
      R"({"bootId":"a","sinceBootMs":1,"wallMs":1e30,"shownMs":3})"};
  for (const std::string& text : damaged) {
    kai::put_file(path, text);
    const auto clock = ExpiryClock::load(path, {"a", 5, kWall});
    REQUIRE_FALSE(clock);
    CHECK(clock.error().message().find(path) != std::string::npos);
    CHECK(clock.error().message().find("Put a copy of it") != std::string::npos);
    CHECK(*kai::read_file(path, 1 << 20) == text);
  }
  kai::put_file(path, whole);
  CHECK(ExpiryClock::load(path, {"a", 5, kWall})->at(5) == 7);
}

TEST_CASE("the file is its owner's alone, and what an interrupted save left does not matter") {
  const kai::TempDirectory directory;
  const std::string path = directory / "clock";
  kai::put_file(path + ".new", "half of a");
  const ExpiryClock clock = load(path, {"a", 1, kWall});
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK_FALSE(std::filesystem::exists(path + ".new"));
}

TEST_CASE("a save that cannot be made is an error, and the file before stays") {
  const kai::TempDirectory directory;
  std::filesystem::create_directory(directory / "state");
  const std::string path = directory / "state/clock";
  const ExpiryClock clock = load(path, {"a", 1, kWall});
  std::filesystem::rename(directory / "state", directory / "elsewhere");
  CHECK_FALSE(clock.save({"a", 2, kWall}));
  CHECK(load(directory / "elsewhere/clock", {"a", 3, kWall}).at(3) == 3);
}

TEST_CASE("the machine's own time, from several threads") {
  const kai::TempDirectory directory;
  const auto now = kai::machine_time();
  REQUIRE(now);
  CHECK(now->boot_id.size() == 36);
  const ExpiryClock clock = load(directory / "clock", *now);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&clock] {
      std::int64_t last = 1;
      for (int round = 0; round < 10'000; ++round) {
        const std::int64_t shown = clock.now_ms();
        if (shown < last) std::abort();
        last = shown;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(clock.now_ms() < kHour);
}
