// Each step of the apply table left out in turn: what is left must not become an agent. Prints what noticed it.
#include <unistd.h>

#include <cstdio>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "sandbox/apply.h"
#include "tests/sandbox/launch.h"

namespace {

using kai::test::probe_spec;
using kai::test::run_confined;

}  // namespace

namespace {

// fs.suid_dumpable: what setresuid(2) sets. It is 0 here and 2 where a crash handler is installed (apport); only there
// the step "dumpable" is the one that matters.
class CrashHandlerHost {
 public:
  CrashHandlerHost() : before_(kai::read_file(kPath).value()) {
    // An ordinary user's ids do not change in setresuid(2), so that it matters there on every host.
    if (geteuid() == 0) REQUIRE(kai::write_file(kPath, "2"));
  }
  CrashHandlerHost(const CrashHandlerHost&) = delete;
  CrashHandlerHost& operator=(const CrashHandlerHost&) = delete;
  ~CrashHandlerHost() {
    if (geteuid() == 0) (void)kai::write_file(kPath, before_);
  }

 private:
  static constexpr const char* kPath = "/proc/sys/fs/suid_dumpable";
  std::string before_;
};

}  // namespace

TEST_CASE("a sandbox without any one of its steps does not start") {
  const CrashHandlerHost host;
  std::printf("%-14s  %s\n", "step left out", "what noticed it");
  for (const auto& step : kai::sandbox::steps()) {
    if (step.which == kai::sandbox::For::kUnsandboxed) continue;
    const std::string name = step.name;
    CAPTURE(name);
    if (name == "verify") continue;  // below
    const auto outcome = run_confined(probe_spec({"/bin/true"}), {.without = name});
    if (name == "ids" && geteuid() != 0) {
      CHECK(outcome.failed_step.empty());
      std::printf("%-14s  nothing: an ordinary user's map has one id, which the process has already\n", step.name);
      continue;
    }
    if (name == "counts") {
      // What it bounds cannot be asked for inside; so it is used up.
      CHECK(run_confined(probe_spec({"probe", "inotify"})).output == "16\n");
      const auto unbounded = run_confined(probe_spec({"probe", "inotify"}), {.without = name});
      CHECK(unbounded.output == "32\n");
      std::printf("%-14s  this test: 32 inotify instances instead of 16\n", step.name);
      continue;
    }
    CHECK(!outcome.failed_step.empty());
    std::printf("%-14s  %s: %s\n", step.name, outcome.failed_step.c_str(), outcome.detail.c_str());
    // Without verify as well the program runs: it is verify that stopped it above, and no accident.
    if (outcome.failed_step != "verify") continue;
    const auto unverified = run_confined(probe_spec({"/bin/true"}), {.without = name + ",verify"});
    CAPTURE(unverified.failed_step);
    CAPTURE(unverified.detail);
    CHECK(unverified.failed_step.empty());
  }
  std::printf("%-14s  %s\n", "verify", "this test: the other rows need it");
}
