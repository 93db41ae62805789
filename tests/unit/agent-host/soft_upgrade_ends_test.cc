// How a soft upgrade ends that does not go its way: COMMIT, which cannot be taken back, a control that dies at any
// step, a stop. Whatever comes, the Resume names the version that serves.
#include <signal.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/agent-host/soft_upgrade.h"

namespace kai::test {

TEST_CASE("COMMIT cannot be taken back") {
  Host host(serving("commit=held"));
  start(host);
  make_ready(host);
  const std::uint64_t commit = host.call(Hook::COMMIT);
  CHECK(heard(host)[0] == "commit");
  CHECK(host.hook(Hook::DISCARD).error().code() == "INVALID");
  CHECK(host.hook(Hook::SAVE_STATE).error().code() == "BUSY");
  go_on(host);
  CHECK_FALSE(host.done(commit).has_error());
  check_serving(host);
  check_version(host.resumed(), "1.1.0", 1);
}

TEST_CASE("a runner that refuses to commit is ended: nobody knows which version it serves") {
  SUBCASE("while control waits") {
    Host host(serving("commit=throw"));
    start(host);
    make_ready(host);
    CHECK(host.hook(Hook::COMMIT).error().message() == "no commit");
    CHECK(host.receive().has_log());
    CHECK(host.receive().exit().code() == SIGKILL);
  }
  SUBCASE("when control has died") {
    Host host(runner(std::string(kServing) + R"(
def late(m): signal.sigwait([signal.SIGUSR1]); throw(m)
serve(message=echo, commit=late)
)"));
    start(host);
    make_ready(host);
    host.call(Hook::COMMIT);
    CHECK(heard(host)[0] == "commit");
    check_version(host.resumed(), "1.1.0", 1);
    go_on(host);
    CHECK(host.receive().log().message() ==
          "the runner refused to commit the version that it had loaded (no commit); it is killed");
    CHECK(host.receive().exit().code() == SIGKILL);
  }
}

TEST_CASE("control is lost: up to COMMIT the version before serves, and what was loaded is discarded") {
  SUBCASE("loading") {
    Host host(serving("load=held"));
    start(host);
    host.call(load());
    CHECK(heard(host)[0] == "load");
    check_version(host.resumed(), "1.0.3", 0);
    go_on(host);
    CHECK(heard(host)[0] == "discard");
    check_serving(host);
    go_on(host);
    CHECK_FALSE(host.hook(load("1.2.0")).has_error());
    check_version(host.resumed(), "1.0.3", 0);
  }
  SUBCASE("loaded, and it is seen before the next control comes") {
    Host host(serving());
    start(host);
    CHECK_FALSE(host.hook(load()).has_error());
    host.hang_up();
    CHECK(heard(host)[0] == "load");
    CHECK(heard(host)[0] == "discard");
    check_version(host.resumed(), "1.0.3", 0);
    check_serving(host);  // and it was discarded once
  }
  SUBCASE("while state is saved") {
    Host host(serving("saveState=held"));
    start(host);
    CHECK_FALSE(host.hook(load()).has_error());
    host.call(Hook::SAVE_STATE);
    check_version(host.resumed(), "1.0.3", 0);
    go_on(host);
    for (const char* method : {"load", "saveState", "discard"}) CHECK(heard(host)[0] == method);
    check_serving(host);  // and no state for the new control
  }
  SUBCASE("in a hook of the loaded version") {
    Host host(runner(std::string(kServing) + R"(
def init(m): held(m) if m["params"].get("next") else answer(m, {})
serve(message=echo, init=init)
)"));
    start(host);
    CHECK_FALSE(host.hook(load()).has_error());
    host.call(Hook::INIT);
    check_version(host.resumed(), "1.0.3", 0);
    CHECK(host.hook(Hook::START).error().code() == "INVALID");
    go_on(host);
    for (const char* method : {"load", "init", "discard"}) CHECK(heard(host)[0] == method);
    check_serving(host);
  }
  SUBCASE("ready") {
    Host host(serving());
    start(host);
    make_ready(host);
    check_version(host.resumed(), "1.0.3", 0);
    CHECK(heard(host)[0] == "discard");
    check_serving(host);
    make_ready(host);  // whatever was ready before is not
  }
  SUBCASE("discarding") {
    Host host(serving("discard=held"));
    start(host);
    CHECK_FALSE(host.hook(load()).has_error());
    host.call(Hook::DISCARD);
    check_version(host.resumed(), "1.0.3", 0);
    go_on(host);
    for (const char* method : {"load", "discard"}) CHECK(heard(host)[0] == method);
    check_serving(host);
  }
}

TEST_CASE("control is lost: from COMMIT on the loaded version serves, whether or not the runner has answered") {
  SUBCASE("the runner has not even read it") {
    Host host(serving("commit=held"));
    start(host);
    make_ready(host);
    host.call(Hook::COMMIT);
    const klp::Resume resume = host.resumed();
    CHECK(resume.phase() == klp::Resume::SERVING);
    check_version(resume, "1.1.0", 1);
    go_on(host);
    CHECK(heard(host)[0] == "commit");
    check_serving(host);  // the answer to commit reaches nobody, and nothing is discarded
  }
  SUBCASE("and a stop comes before the answer") {
    Host host(serving("commit=held, shutdown=lambda m: sys.exit(5)"));
    start(host);
    make_ready(host);
    const std::uint64_t commit = host.call(Hook::COMMIT);
    CHECK(heard(host)[0] == "commit");
    host.stop(20'000);
    SUBCASE("of the control that asked") {
      go_on(host);
      CHECK_FALSE(host.done(commit).has_error());
      CHECK(heard(host)[0] == "shutdown");
      CHECK(host.receive().exit().code() == 5);
    }
    SUBCASE("of one that died") {
      const klp::Resume resume = host.resumed();
      CHECK(resume.phase() == klp::Resume::STOPPING);
      check_version(resume, "1.1.0", 1);
      go_on(host);
      CHECK(host.receive().exit().code() == 5);
    }
  }
}

TEST_CASE("stop: what was loaded is discarded before onShutdown") {
  SUBCASE("loaded") {
    Host host(serving("shutdown=lambda m: sys.exit(5)"));
    start(host);
    make_ready(host);
    host.stop(20'000);
    CHECK(heard(host)[0] == "discard");
    CHECK(heard(host)[0] == "shutdown");
    CHECK(host.receive().exit().code() == 5);
  }
  SUBCASE("while a hook of it runs") {
    Host host(runner(std::string(kServing) + R"(
def init(m): None if m["params"].get("next") else answer(m, {})
serve(init=init, shutdown=lambda m: sys.exit(5))
)"));
    start(host);
    CHECK_FALSE(host.hook(load()).has_error());
    const std::uint64_t init = host.call(Hook::INIT);
    CHECK(heard(host)[0] == "load");
    CHECK(heard(host)[0] == "init");
    host.stop(20'000);
    CHECK(host.done(init).error().code() == "CONFLICT");
    CHECK(heard(host)[0] == "discard");
    CHECK(heard(host)[0] == "shutdown");
    CHECK(host.receive().exit().code() == 5);
  }
  SUBCASE("while state is saved: that is still answered") {
    Host host(serving("saveState=held, shutdown=lambda m: sys.exit(5)"));
    start(host);
    const std::uint64_t save = host.call(Hook::SAVE_STATE);
    CHECK(heard(host)[0] == "saveState");
    host.stop(20'000);
    go_on(host);
    CHECK(host.done(save).state() == "null");
    CHECK(host.receive().exit().code() == 5);
  }
  SUBCASE("a runner that hangs in a hook of it: SIGTERM") {
    Host host(runner(
        "hello(); answer(hear(), {}); answer(hear(), {}); answer(hear(), {})\nhear()\nwhile True: signal.pause()"));
    host.start();
    CHECK_FALSE(host.hook(load()).has_error());
    host.call(Hook::INIT);
    host.stop(500);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGTERM);
  }
}

TEST_CASE("a runner that ends in a hook of the loaded version") {
  Host host(runner("start()\nanswer(hear(), {})\nhear()\nos._exit(9)"));
  host.start();
  CHECK_FALSE(host.hook(load()).has_error());
  host.call(Hook::INIT);
  CHECK(host.receive().exit().code() == 9);
}

TEST_CASE("a hook call before the agent is accepted, or before resumed, has no place in the protocol") {
  Host host(serving());
  host.receive();
  SUBCASE("accepted") {}
  SUBCASE("resumed") {
    start(host);
    host.resume();
  }
  host.call(Hook::SAVE_STATE);
  CHECK(host.wait() == 1);
}

}  // namespace kai::test
