// kaictl run: the fake daemon plays the program on the descriptors that it was given.
#include "kaictl/run.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/kaictl/fake_daemon.h"
#include "tests/unit/kaictl/program.h"

namespace kai::test {
namespace {

/// The daemon's side of a run.
struct Play {
  Connection& connection;
  control::Request request;
  std::vector<Fd> fds;

  void started() {
    control::Response response;
    response.set_id(request.id());
    response.mutable_run_started()->set_pid(42);
    connection.send(response);
  }
  void exited(bool signaled, int code, const std::string& message = "") {
    control::Response response;
    response.set_id(request.id());
    response.mutable_run_exited()->set_signaled(signaled);
    response.mutable_run_exited()->set_code(code);
    response.mutable_run_exited()->set_message(message);
    connection.send(response);
  }
  void write(std::size_t fd, const std::string& text) { static_cast<void>(write_all(fds[fd].get(), text)); }
};

FakeDaemon::Handler playing(std::function<void(Play&)> play) {
  return [play = std::move(play)](Connection& connection) {
    Play scene{connection, {}, {}};
    if (connection.receive(scene.request, scene.fds)) play(scene);
    scene.fds.clear();
    connection.wait_for_hangup();
  };
}

Result run_with(std::function<void(Play&)> play, std::vector<std::string> arguments = {"--", "program"},
                const std::string& input = "") {
  FakeDaemon daemon(playing(std::move(play)));
  arguments.insert(arguments.begin(), {"--socket", daemon.socket(), "run"});
  return kaictl(arguments, input);
}

TEST_CASE("streams go both ways, and the exit status is the program's") {
  const Result result = run_with(
      [](Play& play) {
        play.started();
        const auto input = read_all(play.fds[0].get(), 100);  // until the end of kaictl's own input
        play.write(1, "out:" + *input + "\x1b[0m");
        play.write(2, "err");
        play.exited(false, 3);
      },
      {"--", "program"}, "typed");
  CHECK(result.exit_code == 3);
  CHECK(result.out == "out:typed\x1b[0m");
  CHECK(result.err == "err");
}

TEST_CASE("a signal is 128 and its number, and why is told") {
  const Result result = run_with([](Play& play) {
    play.started();
    play.exited(true, SIGKILL, "over its memory limit of 512 MB");
  });
  CHECK(result.exit_code == 137);
  CHECK(result.out.empty());
  CHECK(result.err == "kaictl: over its memory limit of 512 MB\n");
}

TEST_CASE("more output than any pipe holds arrives whole") {
  const std::string large(3'000'000, 'x');
  const Result result = run_with([&](Play& play) {
    play.started();
    play.write(1, large);
    play.exited(false, 0);
  });
  CHECK(result.out == large);
}

TEST_CASE("a grandchild that keeps the pipes does not keep kaictl") {
  FakeDaemon daemon([](Connection& connection) {
    Play play{connection, {}, {}};
    REQUIRE(connection.receive(play.request, play.fds));
    play.started();
    play.write(1, "last words");
    play.exited(false, 0);
    connection.wait_for_hangup();  // with all descriptors still open
  });
  const Result result = kaictl({"--socket", daemon.socket(), "run", "--", "program"});
  CHECK(result.exit_code == 0);
  CHECK(result.out == "last words");
}

TEST_CASE("signals are passed to the program") {
  std::vector<int> passed;
  FakeDaemon daemon(playing([&](Play& play) {
    play.started();
    play.write(1, "ready\n");
    for (int count = 0; count < 2; ++count) {
      control::Request request;
      if (!play.connection.receive(request, play.fds)) return;
      passed.push_back(request.signal().number());
      play.write(1, "got it\n");
    }
    play.exited(true, SIGTERM);
  }));
  Program program({"--socket", daemon.socket(), "run", "--", "program"});
  REQUIRE(program.read_until("ready\n"));
  program.signal(SIGUSR1);
  REQUIRE(program.read_until("got it\n"));
  program.signal(SIGTERM);
  CHECK(program.finish().exit_code == 143);
  daemon.join();
  CHECK(passed == std::vector<int>{SIGUSR1, SIGTERM});
}

TEST_CASE("nobody reads kaictl's output: the program's pipe breaks, as it would without kaictl") {
  bool broken = false;
  FakeDaemon daemon(playing([&](Play& play) {
    signal(SIGPIPE, SIG_IGN);
    play.started();
    while (write_all(play.fds[1].get(), "y\n")) {
    }
    broken = true;
    play.exited(true, SIGPIPE);
  }));
  Program program({"--socket", daemon.socket(), "run", "--", "yes"});
  REQUIRE(program.read_until("y\n"));
  program.close_output();
  CHECK(program.finish().exit_code == 128 + SIGPIPE);
  daemon.join();
  CHECK(broken);
}

TEST_CASE("on a terminal what a program writes is escaped but for lines and tabs, whole characters across writes") {
  FakeDaemon daemon(playing([](Play& play) {
    play.started();
    play.write(1, "a\tb\n\x1b[2J\xc3");
    play.write(1, "\xa4\xe2\x80\xae\r\n");
    play.exited(false, 0);
  }));
  Program program({"--socket", daemon.socket(), "run", "--", "program"}, Program::Streams::kTerminal);
  const Result result = program.finish();
  CHECK(result.exit_code == 0);
  CHECK(result.out == "a\tb\n\\e[2J\xc3\xa4\\u{202e}\\r\n");
}

TEST_CASE("kai's own failures are 125, or what kaid says of the program") {
  const auto failing = [](const std::string& details) {
    return run_with([&](Play& play) {
      control::Response response;
      response.set_id(play.request.id());
      response.mutable_failed()->set_code("NOT_FOUND");
      response.mutable_failed()->set_message("no such thing");
      response.mutable_failed()->set_details_json(details);
      play.connection.send(response);
    });
  };
  CHECK(failing("").exit_code == 125);
  CHECK(failing(R"({"exitCode":126})").exit_code == 126);
  CHECK(failing(R"({"exitCode":127})").exit_code == 127);
  CHECK(failing(R"({"exitCode":0})").exit_code == 125);
  SUBCASE("kaid goes away in the middle") {
    FakeDaemon daemon([](Connection& connection) {
      Play play{connection, {}, {}};
      if (connection.receive(play.request, play.fds)) play.started();
    });
    const Result result = kaictl({"--socket", daemon.socket(), "run", "--", "program"});
    CHECK(result.exit_code == 125);
    CHECK(is_one_line(result.err));
  }
}

TEST_CASE("PROGRAM with a slash is opened here, without one it is not") {
  const ScratchDirectory directory;
  const std::string program = directory / "program";
  std::ofstream(program) << "#!/bin/sh\n";
  CHECK(kaictl({"run", "--", directory / "missing"}).exit_code == 127);
  CHECK(kaictl({"run", "--", program + "/x"}).exit_code == 127);
  CHECK(kaictl({"run", "--", program}).exit_code == 126);
  CHECK(kaictl({"run", "--", directory.path()}).exit_code == 126);
  REQUIRE(mkfifo((directory / "fifo").c_str(), 0700) == 0);
  CHECK(kaictl({"run", "--", directory / "fifo"}).exit_code == 126);
  REQUIRE(chmod(program.c_str(), 0755) == 0);
  control::Run asked;
  std::string content;
  run_with(
      [&](Play& play) {
        asked = play.request.run();
        if (play.fds.size() == 4) content = read_all(play.fds[3].get(), 100).value_or("");
        play.exited(false, 0);
      },
      {"--env", "A=[1,2]", "--env", "B=x y", "--policy", "p", "--", program, "-o", "json", "--", "[a,b]"});
  CHECK(asked.program_is_descriptor());
  CHECK(content == "#!/bin/sh\n");
  CHECK(std::vector<std::string>(asked.argv().begin(), asked.argv().end()) ==
        std::vector<std::string>{program, "-o", "json", "--", "[a,b]"});
  CHECK(std::vector<std::string>(asked.env().begin(), asked.env().end()) ==
        std::vector<std::string>{"A=[1,2]", "B=x y"});
  CHECK(asked.policy() == "p");
}

TEST_CASE("mounts and the manifest are opened here") {
  const ScratchDirectory directory;
  const std::string manifest = directory / "manifest.json";
  std::ofstream(manifest) << "{\"id\":\"x\"}";
  control::Run asked;
  std::size_t fds = 0;
  run_with(
      [&](Play& play) {
        asked = play.request.run();
        fds = play.fds.size();
        play.exited(false, 0);
      },
      {"--manifest", manifest, "--mount", directory.path() + ":/data:rw", "--mount", manifest, "--", "sh"});
  CHECK(asked.manifest() == "{\"id\":\"x\"}");
  CHECK(fds == 5);
  REQUIRE(asked.mounts_size() == 2);
  CHECK(asked.mounts(0).target() == "/data");
  CHECK(asked.mounts(0).read_write());
  CHECK(asked.mounts(1).target() == manifest);
  CHECK_FALSE(asked.mounts(1).read_write());
  CHECK(kaictl({"run", "--manifest", directory / "no", "--", "sh"}).exit_code == 125);
  CHECK(kaictl({"run", "--mount", directory / "no", "--", "sh"}).exit_code == 125);
  CHECK(kaictl({"run", "--env", "NOVALUE", "--", "sh"}).exit_code == 125);
}

TEST_CASE("--mount taken apart") {
  const auto option = parse_mount("a/b:/c:rw");
  REQUIRE(option);
  CHECK(option->source == "a/b");
  CHECK(option->target == "/c");
  CHECK(option->read_write);
  CHECK(parse_mount("a:rw")->target.empty());
  CHECK_FALSE(parse_mount(""));
  CHECK_FALSE(parse_mount(":/c"));
  CHECK_FALSE(parse_mount("a:relative"));
  CHECK_FALSE(parse_mount("a:/b:/c"));
  CHECK_FALSE(parse_mount("a:/b:ro"));
}

}  // namespace
}  // namespace kai::test
