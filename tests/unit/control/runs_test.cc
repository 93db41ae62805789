#include <fcntl.h>
#include <sys/stat.h>

#include <csignal>

#include <doctest/doctest.h>

#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

struct RunFixture : ControlFixture {
  RunFixture() {
    for (Fd& fd : streams) fd.reset(open("/dev/null", O_RDWR | O_CLOEXEC));
    client = std::make_unique<OperatorClient>(loop, socket());
  }
  control::Request request() {
    control::Request asked;
    asked.mutable_run()->add_argv("/bin/true");
    return asked;
  }
  std::vector<int> fds(std::size_t count = 3) {
    std::vector<int> numbers;
    for (std::size_t at = 0; at < count; ++at) numbers.push_back(streams.at(at).get());
    return numbers;
  }
  void until_started() {
    until([&] {
      return std::any_of(client->responses.begin(), client->responses.end(),
                         [](const control::Response& response) { return response.has_run_started(); });
    });
  }
  std::array<Fd, 5> streams;
  std::unique_ptr<OperatorClient> client;
};

TEST_CASE_FIXTURE(RunFixture, "a run is started, ends by itself, and its status comes back") {
  const auto id = client->send(request(), fds());
  until_started();
  CHECK(keeper->host().spec.agent_id().starts_with("run-"));
  CHECK(keeper->host().spec.ephemeral());
  klp::Envelope exit;
  exit.mutable_exit()->set_code(3);
  keeper->host().send(exit);
  loop.defer([this] { keeper->host().exit(3); });
  const auto ended = client->wait(id);
  CHECK(ended.run_exited().code() == 3);
  CHECK_FALSE(ended.run_exited().signaled());
}

TEST_CASE_FIXTURE(RunFixture, "whom a run may reach follows the policies, as an agent's does") {
  const auto reload_to = [this](const std::string& network) {
    keeper->policies = {{"10-web.yaml", "policies:\n- name: web\n  network: " + network + "\n"}};
    control::Request request;
    request.mutable_reload();
    REQUIRE(code(call(request)) == "done");
  };
  reload_to("{allowedDomains: [allowed.example]}");
  auto manifest = manifest_of("web");
  manifest["security"]["networkAccess"] = {{"allowOutbound", true}, {"allowedDomains", {"allowed.example"}}};
  manifest.erase("entry");
  auto asked = request();
  asked.mutable_run()->set_manifest(manifest.dump());
  client->send(asked, fds());
  until_started();
  REQUIRE(keeper->host().spec.has_network());
  const std::string id = keeper->host().spec.agent_id();
  keeper->networks.clear();
  reload_to("{allowedDomains: []}");
  until([this] { return keeper->networks.size() == 1; });
  REQUIRE(keeper->networks[0].second);
  CHECK(keeper->networks[0].second->allowed_size() == 0);
  CHECK(keeper->networks[0].second->agent_id() == id);
}

TEST_CASE_FIXTURE(RunFixture, "signals are passed, and a death by one is told") {
  const auto id = client->send(request(), fds());
  until_started();
  control::Request signal;
  signal.mutable_signal()->set_number(SIGTERM);
  client->send(signal);
  const auto ended = client->wait(id);
  CHECK(ended.run_exited().signaled());
  CHECK(ended.run_exited().code() == SIGTERM);
}

TEST_CASE_FIXTURE(RunFixture, "a signal without a run, and one that does not exist") {
  control::Request signal;
  signal.mutable_signal()->set_number(SIGTERM);
  CHECK(code(client->call(signal)) == "NOT_RUNNING");
  signal.mutable_signal()->set_number(4711);
  CHECK(code(client->call(signal)) == "INVALID");
}

TEST_CASE_FIXTURE(RunFixture, "when the client goes the run is killed") {
  client->send(request(), fds());
  until_started();
  client->hang_up();
  until([&] { return keeper->hosts.empty(); });
  CHECK(keeper->killed.size() == 1);
}

TEST_CASE_FIXTURE(RunFixture, "a program of the host is mounted under /agent and run from there") {
  auto asked = request();
  asked.mutable_run()->set_argv(0, "./build/tool");
  asked.mutable_run()->add_argv("--flag");
  asked.mutable_run()->set_program_is_descriptor(true);
  client->send(asked, fds(4));
  until_started();
  const auto& spec = keeper->host().spec;
  CHECK(spec.argv(0) == "/agent/tool");
  CHECK(spec.argv(1) == "--flag");
  const auto& mount = *spec.mounts().rbegin();
  CHECK(mount.kind() == spec::Mount::DESCRIPTOR);
  CHECK(mount.target() == "/agent/tool");
  CHECK(mount.descriptor() == 0);
  CHECK(keeper->host().descriptors.size() == 4);
}

TEST_CASE_FIXTURE(RunFixture, "what is refused") {
  auto asked = request();
  SUBCASE("--mount without the grant") {
    auto& mount = *asked.mutable_run()->add_mounts();
    mount.set_source_label("/srv/data");
    mount.set_target("/data");
    const auto answer = client->call(asked, fds(4));
    CHECK(code(answer) == "DENIED");
    CHECK(answer.failed().message().find("hostMounts") != std::string::npos);
  }
  SUBCASE("a policy that there is not") {
    asked.mutable_run()->set_policy("lenient");
    CHECK(code(client->call(asked, fds())) == "NOT_FOUND");
  }
  SUBCASE("missing descriptors") {
    CHECK(code(client->call(asked, fds(2))) == "INVALID");
  }
  SUBCASE("no program") {
    asked.mutable_run()->clear_argv();
    CHECK(code(client->call(asked, fds())) == "INVALID");
  }
  SUBCASE("a manifest that is not valid") {
    asked.mutable_run()->set_manifest("{}");
    CHECK(code(client->call(asked, fds())) == "INVALID");
  }
  SUBCASE("a set-up failure names its step") {
    keeper->fail_step = "pivot_root";
    const auto answer = client->call(asked, fds());
    CHECK(code(answer) == "INTERNAL");
    CHECK(answer.failed().message().find("pivot_root") != std::string::npos);
  }
  CHECK(keeper->hosts.empty());
}

TEST_CASE_FIXTURE(RunFixture, "a manifest may be without entry; the run is still an agent of its own") {
  auto manifest = manifest_of("calendarAgent");
  manifest.erase("entry");
  manifest["runtime"] = {{"kind", "exec"}};
  auto asked = request();
  asked.mutable_run()->set_manifest(manifest.dump());
  client->send(asked, fds());
  until_started();
  CHECK(keeper->host().spec.agent_id().starts_with("run-"));
  CHECK(keeper->host().spec.argv_size() == 1);
}

TEST_CASE_FIXTURE(RunFixture, "a program that is not there is 127, one that cannot be run 126") {
  int error = 0, expected = 0;
  SUBCASE("not there") {
    error = ENOENT;
    expected = 127;
  }
  SUBCASE("not executable") {
    error = EACCES;
    expected = 126;
  }
  keeper->on_spawn = [&](FakeHost& host) {
    host.script = [&](const klp::Envelope& envelope) {
      if (!envelope.has_accepted()) return;
      klp::Envelope failed;
      failed.mutable_start_failed()->set_step("exec");
      failed.mutable_start_failed()->set_errno_value(error);
      failed.mutable_start_failed()->set_message("/bin/true");
      host.send(failed);
      loop.defer([&host, expected] { host.exit(expected); });
    };
    host.say_hello();
  };
  const auto answer = client->call(request(), fds());
  CHECK(nlohmann::json::parse(answer.failed().details_json())["exitCode"] == expected);
}

TEST_CASE_FIXTURE(RunFixture, "SIGTERM of kaid ends runs too") {
  const auto id = client->send(request(), fds());
  until_started();
  keeper->stop_control();
  CHECK(client->wait(id).has_run_exited());
  CHECK(keeper->hosts.empty());
}

}  // namespace
}  // namespace kai::test
