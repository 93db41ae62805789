#include "supervisor/memory/schedule.h"

#include <doctest/doctest.h>

namespace kai {
namespace {

using Tickets = std::vector<Schedule::Ticket>;

constexpr auto kReads = klp::READONLY;
constexpr auto kWrites = klp::READWRITE;
constexpr auto kChanges = klp::VERSIONCHANGE;

TEST_CASE("readers run together, a writer alone") {
  Schedule schedule;
  for (const auto mode : {kReads, kReads, kWrites, kChanges, kReads, kReads, kWrites}) {
    static Schedule::Ticket next = 0;
    REQUIRE(schedule.ask(++next, mode, 0));
  }
  CHECK(schedule.start(0) == Tickets{1, 2});
  CHECK(schedule.start(0).empty());
  schedule.end(2);
  CHECK(schedule.start(0).empty());
  schedule.end(1);
  CHECK(schedule.start(0) == Tickets{3});
  CHECK(schedule.runs(3));
  CHECK(!schedule.runs(4));
  schedule.end(3);
  CHECK(schedule.start(0) == Tickets{4});
  schedule.end(4);
  CHECK(schedule.start(0) == Tickets{5, 6});
  schedule.end(5);
  schedule.end(6);
  CHECK(schedule.start(0) == Tickets{7});
  CHECK(!schedule.idle());
  schedule.end(7);
  CHECK(schedule.idle());
}

TEST_CASE("every pair: who may come beside whom") {
  for (const auto first : {kReads, kWrites, kChanges}) {
    for (const auto second : {kReads, kWrites, kChanges}) {
      Schedule schedule;
      REQUIRE(schedule.ask(1, first, 0));
      REQUIRE(schedule.ask(2, second, 0));
      const bool together = first == kReads && second == kReads;
      CHECK(schedule.start(0) == (together ? Tickets{1, 2} : Tickets{1}));
      schedule.end(1);
      CHECK(schedule.start(0) == (together ? Tickets{} : Tickets{2}));
    }
  }
}

TEST_CASE("a reader that came after a waiting writer waits") {
  Schedule schedule;
  schedule.ask(1, kReads, 0);
  CHECK(schedule.start(0) == Tickets{1});
  schedule.ask(2, kWrites, 0);
  schedule.ask(3, kReads, 0);
  CHECK(schedule.start(0).empty());
  schedule.end(2);  // the writer gave up: nothing is in the reader's way
  CHECK(schedule.start(0) == Tickets{3});
}

TEST_CASE("who is idle for too long is overdue only while another waits, and no sooner than that has waited") {
  Schedule schedule;
  schedule.ask(1, kWrites, 0);
  CHECK(schedule.start(0) == Tickets{1});
  CHECK(!schedule.deadline());
  CHECK(schedule.overdue(10 * kIdbIdleMs).empty());

  schedule.ask(2, kReads, 10 * kIdbIdleMs);
  CHECK(schedule.deadline() == 11 * kIdbIdleMs);
  CHECK(schedule.overdue(11 * kIdbIdleMs - 1).empty());
  CHECK(schedule.overdue(11 * kIdbIdleMs) == Tickets{1});

  schedule.touch(1, 11 * kIdbIdleMs);
  CHECK(schedule.overdue(11 * kIdbIdleMs).empty());
  CHECK(schedule.deadline() == 12 * kIdbIdleMs);
  CHECK(schedule.overdue(12 * kIdbIdleMs) == Tickets{1});
  schedule.end(1);
  CHECK(!schedule.deadline());
  CHECK(schedule.start(12 * kIdbIdleMs) == Tickets{2});
}

TEST_CASE("who keeps itself busy is overdue when another has waited for as long as it may") {
  Schedule schedule;
  schedule.ask(1, kWrites, 0);
  schedule.start(0);
  schedule.ask(2, kReads, 1000);
  for (std::int64_t now = 1000; now < 1000 + kIdbBusyMs; now += kIdbIdleMs / 2) {
    schedule.touch(1, now);
    CHECK(schedule.overdue(now).empty());
  }
  schedule.touch(1, 999 + kIdbBusyMs);
  CHECK(schedule.overdue(999 + kIdbBusyMs).empty());
  CHECK(schedule.deadline() == 1000 + kIdbBusyMs);
  CHECK(schedule.overdue(1000 + kIdbBusyMs) == Tickets{1});
}

TEST_CASE("of several readers those alone are overdue that are idle") {
  Schedule schedule;
  schedule.ask(1, kReads, 0);
  schedule.ask(2, kReads, 0);
  schedule.start(0);
  schedule.ask(3, kWrites, 0);
  schedule.touch(2, 100);
  schedule.touch(99, 100);  // unknown: nothing
  CHECK(schedule.deadline() == kIdbIdleMs);
  CHECK(schedule.overdue(kIdbIdleMs) == Tickets{1});
  CHECK(schedule.overdue(kIdbIdleMs + 100) == Tickets{1, 2});
}

TEST_CASE("so many and no more") {
  Schedule schedule;
  for (Schedule::Ticket ticket = 1; ticket <= kMaxIdbTransactions; ++ticket) {
    REQUIRE(schedule.ask(ticket, ticket % 2 == 0 ? kReads : kWrites, 0));
  }
  schedule.start(0);
  CHECK(!schedule.ask(1000, kReads, 0));
  schedule.end(1);
  CHECK(schedule.ask(1000, kReads, 0));
  schedule.clear();
  CHECK(schedule.idle());
  CHECK(schedule.start(0).empty());
  CHECK(schedule.ask(1001, kWrites, 0));
  CHECK(schedule.start(0) == Tickets{1001});
}

}  // namespace
}  // namespace kai
