#include "supervisor/control/ending.h"

#include <csignal>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace kai {
namespace {

EndFacts ended(bool signaled, int code) {
  EndFacts facts;
  facts.memory_limit_mb = 512;
  facts.process_limit = 128;
  facts.runner.emplace();
  facts.runner->set_signaled(signaled);
  facts.runner->set_code(code);
  return facts;
}

TEST_CASE("each cause from what was seen") {
  SUBCASE("exit") {
    const End end = classify(ended(false, 3));
    CHECK(end.cause == Cause::kExit);
    CHECK(end.exit_code == 3);
    CHECK_FALSE(end.signal);
    CHECK_FALSE(end.clean());
  }
  SUBCASE("exit 0 by itself is no crash") {
    CHECK(classify(ended(false, 0)).clean());
  }
  SUBCASE("signal") {
    const End end = classify(ended(true, SIGSEGV));
    CHECK(end.cause == Cause::kSignal);
    CHECK(end.message == "ended by SIGSEGV");
  }
  SUBCASE("oom") {
    EndFacts facts = ended(true, SIGKILL);
    facts.tree.set_oom_kills(1);
    CHECK(classify(facts).cause == Cause::kOom);
    CHECK(classify(facts).message.find("512 MB") != std::string::npos);
  }
  SUBCASE("a child that ran out of memory does not make a clean end a crash") {
    EndFacts facts = ended(false, 0);
    facts.tree.set_oom_kills(1);
    CHECK(classify(facts).clean());
  }
  SUBCASE("pids") {
    EndFacts facts = ended(false, 1);
    facts.tree.set_pids_refused(7);
    CHECK(classify(facts).cause == Cause::kPids);
  }
  SUBCASE("seccomp") {
    CHECK(classify(ended(true, SIGSYS)).cause == Cause::kSeccomp);
  }
  SUBCASE("stopped") {
    EndFacts facts = ended(true, SIGKILL);
    facts.stop_requested = true;
    CHECK(classify(facts).cause == Cause::kStopped);
  }
  SUBCASE("hung") {
    EndFacts facts = ended(true, SIGKILL);
    facts.hung = "too slow";
    CHECK(classify(facts).cause == Cause::kHung);
  }
  SUBCASE("hello refused, even while stopping") {
    EndFacts facts = ended(true, SIGKILL);
    facts.stop_requested = true;
    facts.refused = "it lied";
    CHECK(classify(facts).cause == Cause::kHelloRefused);
  }
  SUBCASE("hello timeout") {
    EndFacts facts = ended(true, SIGKILL);
    facts.hello_timeout = "no hello";
    CHECK(classify(facts).cause == Cause::kHelloTimeout);
  }
  SUBCASE("setup names its step") {
    EndFacts facts;
    facts.setup.emplace();
    facts.setup->set_step("mount /proc");
    facts.setup->set_errno_value(EPERM);
    const End end = classify(facts);
    CHECK(end.cause == Cause::kSetup);
    CHECK(end.message.find("step mount /proc") != std::string::npos);
    CHECK(end.message.find("Operation not permitted") != std::string::npos);
    CHECK_FALSE(end.exit_code);
  }
  SUBCASE("a program that cannot be run") {
    EndFacts facts = ended(false, 127);
    facts.start_failed.emplace();
    facts.start_failed->set_step("exec");
    facts.start_failed->set_errno_value(ENOENT);
    facts.start_failed->set_message("/usr/bin/nothing");
    CHECK(classify(facts).cause == Cause::kSetup);
  }
  SUBCASE("a hook that threw") {
    EndFacts facts = ended(false, 1);
    facts.start_failed.emplace();
    facts.start_failed->set_step("init");
    facts.start_failed->set_message("no calendar");
    CHECK(classify(facts).cause == Cause::kExit);
    CHECK(classify(facts).message == "onInit failed: no calendar");
  }
  SUBCASE("a broken protocol") {
    EndFacts facts = ended(true, SIGKILL);
    facts.runner.reset();
    facts.tree.set_signaled(true);
    facts.tree.set_code(SIGKILL);
    facts.broken = "garbage";
    CHECK(classify(facts).message.find("garbage") != std::string::npos);
  }
}

TEST_CASE("lastEnd as contracts.md has it") {
  End end;
  end.cause = Cause::kOom;
  end.signal = SIGKILL;
  end.message = "a \"quoted\"\nline";
  const auto json = nlohmann::json::parse(to_json(end));
  CHECK(json == nlohmann::json{{"cause", "oom"}, {"signal", "SIGKILL"}, {"message", "a \"quoted\"\nline"}});
  CHECK(signal_name(60) == "signal 60");
}

}  // namespace
}  // namespace kai
