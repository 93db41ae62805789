// When a limit is said to have been reached, and when not again.
#include "supervisor/keeper/limit_watch.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"

namespace {

using kai::keeper::LimitWatch;
using std::chrono::milliseconds;

kai::spec::SandboxSpec spec() {
  kai::spec::SandboxSpec made;
  made.mutable_cgroup()->set_memory_bytes(1000);
  made.mutable_cgroup()->set_pids(20);
  made.mutable_disk()->set_size_bytes(1 << 20);
  made.mutable_disk()->set_inodes(100);
  auto* limit = made.add_rlimits();
  limit->set_resource(RLIMIT_NOFILE);
  limit->set_soft(40);
  limit->set_hard(40);
  return made;
}

}  // namespace

TEST_CASE("counted limits: told when they go up, once a second, and at the end") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  auto now = LimitWatch::Clock::now();
  watch.look_at_pids(0, false, now, hits);
  CHECK(hits.empty());
  watch.look_at_pids(3, false, now, hits);
  REQUIRE(hits.size() == 1);
  CHECK(hits[0].instance() == 7);
  CHECK(hits[0].limit() == "pids");
  CHECK(hits[0].value() == 20);
  CHECK(hits[0].count() == 3);
  watch.look_at_pids(900, false, now + milliseconds(500), hits);
  CHECK(hits.size() == 1);
  watch.look_at_pids(900, false, now + milliseconds(1000), hits);
  REQUIRE(hits.size() == 2);
  CHECK(hits[1].count() == 900);
  watch.look_at_pids(900, false, now + milliseconds(5000), hits);
  CHECK(hits.size() == 2);
  watch.look_at_memory(1, now + milliseconds(5001), hits);
  watch.look_at_pids(901, true, now + milliseconds(5001), hits);
  REQUIRE(hits.size() == 4);
  CHECK(hits[2].limit() == "memory");
  CHECK(hits[3].count() == 901);
}

TEST_CASE("full disks: told once until there is room again") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  const auto start = LimitWatch::Clock::now();
  const auto at = [&](std::uint64_t free_bytes, std::uint64_t free_inodes, int second) {
    hits.clear();
    watch.look_at_space({4 << 20, free_bytes, 100, free_inodes}, start + std::chrono::seconds(second), hits);
    std::string said;
    for (const auto& hit : hits) said += hit.limit() + " ";
    return said;
  };
  CHECK(at(4 << 20, 100, 0) == "");
  CHECK(at(70 << 10, 1, 1) == "");
  CHECK(at(8 << 10, 0, 2) == "disk inodes ");
  CHECK(at(0, 0, 4) == "");
  CHECK(at(70 << 10, 1, 5) == "");  // a little less full
  CHECK(at(0, 0, 6) == "");
  CHECK(at(2 << 20, 50, 7) == "");
  CHECK(at(0, 0, 8) == "disk inodes ");
}

TEST_CASE("a directory over its limit has to end") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  const auto now = LimitWatch::Clock::now();
  CHECK_FALSE(watch.look_at_directory({1 << 20, 100}, false, now, hits));
  CHECK(hits.empty());
  CHECK(watch.look_at_directory({(1 << 20) + 1, 5}, false, now, hits));
  CHECK(watch.look_at_directory({0, 101}, false, now, hits));
  CHECK(watch.look_at_directory({0, 1}, true, now, hits));
  REQUIRE(hits.size() == 2);
  CHECK(hits[0].limit() == "disk");
  CHECK(hits[1].limit() == "inodes");
}

TEST_CASE("descriptors: which process has as many as it may") {
  LimitWatch watch(7, spec());
  LimitWatch::Hits hits;
  const auto now = LimitWatch::Clock::now();
  watch.look_at_open_files(39, {"node", 3}, now, hits);
  CHECK(hits.empty());
  watch.look_at_open_files(40, {"node", 3}, now, hits);
  REQUIRE(hits.size() == 1);
  CHECK(hits[0].limit() == "nofile");
  CHECK(hits[0].process() == "node");
  CHECK(hits[0].pid() == 3);
}

TEST_CASE("processes are counted and named as /proc shows them") {
  const auto before = kai::keeper::count_open_files(getpid(), 1 << 20);
  REQUIRE(before);
  const auto pipe = kai::make_pipe();
  REQUIRE(pipe);
  CHECK(*kai::keeper::count_open_files(getpid(), 1 << 20) == *before + 2);
  const auto self = kai::keeper::name_process(getpid(), getpid());
  REQUIRE(self);
  CHECK(self->comm == "unit_keeper");
  CHECK(self->inner_pid > 0);
  CHECK_FALSE(kai::keeper::name_process(0, getpid()));
  CHECK_FALSE(kai::keeper::name_process(getpid(), 0x7fffffff));
  CHECK_FALSE(kai::keeper::count_open_files(0x7fffffff, 10));
}
