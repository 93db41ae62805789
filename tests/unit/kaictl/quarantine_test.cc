// quarantine, quarantine show, recover.
#include <doctest/doctest.h>

#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

TEST_CASE("quarantine carries reason, type and severity, and says what to do next") {
  const Asked asked =
      ask({"quarantine", "a", "--reason", "mines coins", "--type", "resource_abuse", "--severity", "high"},
          R"({"id":"a","state":"quarantined"})");
  CHECK(asked.request.quarantine().id() == "a");
  CHECK(asked.request.quarantine().reason() == "mines coins");
  CHECK(asked.request.quarantine().type() == "resource_abuse");
  CHECK(asked.request.quarantine().severity() == "high");
  CHECK(asked.result.exit_code == 0);
  CHECK(asked.result.out ==
        "a: quarantined; look at it with: kaictl quarantine show a, let it out with: kaictl recover a\n");
  const Asked plain = ask({"-o", "json", "quarantine", "--reason", "x", "a"}, R"({"id":"a","state":"quarantined"})");
  CHECK(plain.request.quarantine().type().empty());
  CHECK(plain.request.quarantine().severity().empty());
  CHECK(plain.result.out == "{\"id\":\"a\",\"state\":\"quarantined\"}\n");
  CHECK(ask_refused({"quarantine", "x", "--reason", "y"}, "NOT_FOUND", "there is no agent x").result.exit_code == 4);
}

TEST_CASE("an agent that is called show is reached behind --") {
  CHECK(ask({"quarantine", "--reason", "x", "--", "show"}, "{}").request.quarantine().id() == "show");
  CHECK(ask({"quarantine", "show", "show"}, "{}").request.quarantine_show().id() == "show");
}

constexpr const char* kShown =
    R"({"id":"a","status":"quarantined","quarantine":{"agentId":"a","quarantinedAt":"2026-05-04T13:00:00.000Z",)"
    R"("reason":{"type":"security_violation","description":"100 denials in 1m","timestamp":"2026-05-04T12:59:59.000Z",)"
    R"("severity":"high"},"retryCount":1,"maxRetries":1,"evidence":"a.json"},)"
    R"("evidence":{"agentId":"a","takenAt":"2026-05-04T13:00:00.100Z",)"
    R"("lastEnd":{"cause":"signal","signal":"SIGSEGV","message":"it was ended by SIGSEGV"},)"
    R"("log":[{"time":"2026-05-04T12:59:58.000Z","level":"warn","agent":"a","event":"stdout","message":"x\u001b[2Jy"}],)"
    R"("denials":[{"call":"ptrace","errno":"EPERM"}],"messages":[],)"
    R"("processes":"memory.peak 1048576\npid 7 (node)\n  stack: do_wait\n"}})";

TEST_CASE("quarantine show: the document, or each part of it in words") {
  CHECK(ask({"-o", "json", "quarantine", "show", "a"}, kShown).result.out == std::string(kShown) + "\n");
  const Asked asked = ask({"quarantine", "show", "a"}, kShown);
  CHECK(asked.request.quarantine_show().id() == "a");
  CHECK(asked.result.out ==
        "a: in quarantine since 2026-05-04T13:00:00.000Z\n"
        "  reason      security_violation, severity high: 100 denials in 1m\n"
        "  found       2026-05-04T12:59:59.000Z\n"
        "  recoveries  1 of 1 failed, 0 left\n"
        "  last end    signal (SIGSEGV): it was ended by SIGSEGV\n"
        "  next        no recovery is left; when the cause is gone: kaictl recover a --force, which the audit records\n"
        "\n"
        "evidence, taken 2026-05-04T13:00:00.100Z\n"
        "  last log lines (1)\n"
        "    2026-05-04T12:59:58.000Z warn  a              stdout           x\\e[2Jy\n"
        "  what it was refused (1)\n"
        "    call=ptrace errno=EPERM\n"
        "  control groups and processes\n"
        "    memory.peak 1048576\n"
        "    pid 7 (node)\n"
        "      stack: do_wait\n"
        "  last messages, headers only (0)\n"
        "    none\n");
}

TEST_CASE("quarantine show: evidence that is not there, or only in part") {
  CHECK(ask({"quarantine", "show", "a"}, R"({"quarantine":{"retryCount":0,"maxRetries":3}})")
            .result.out.find("no evidence was kept\n") != std::string::npos);
  CHECK(
      ask({"quarantine", "show", "a"}, R"({"quarantine":{},"evidence":{"log":[],"processesMissing":"kaid could not"}})")
          .result.out.find("  control groups and processes\n    missing: kaid could not\n") != std::string::npos);
  CHECK(ask({"quarantine", "show", "a"}, "[]").result.exit_code == 0);
}

TEST_CASE("recover: asks for it, beyond the limit only with --force, and names the way out") {
  Asked asked = ask({"recover", "a", "--timeout", "2"}, R"({"id":"a","state":"running"})");
  CHECK(asked.request.recover().id() == "a");
  CHECK_FALSE(asked.request.recover().force());
  CHECK(asked.request.recover().timeout_ms() == 2000);
  CHECK(asked.result.out == "a: running\n");
  CHECK(ask({"recover", "a", "--force"}, "{}").request.recover().force());
  asked = ask_refused({"recover", "a"}, "QUARANTINED", "max_retries_exceeded: 3 of 3 recoveries failed");
  CHECK(asked.result.exit_code == 6);
  CHECK(asked.result.out.empty());
  CHECK(asked.result.err.find("kaictl recover a --force") != std::string::npos);
  // kaid's own words stand.
  asked = ask_refused({"recover", "a"}, "QUARANTINED", "it did not start", "See its log");
  CHECK(asked.result.err == "kaictl: it did not start (QUARANTINED). See its log\n");
  CHECK(ask_refused({"recover", "a"}, "CONFLICT", "a is not in quarantine").result.exit_code == 1);
}

}  // namespace
}  // namespace kai::test
