// kai-doctor: it finds what is taken away, and leaves nothing behind.
#include <sched.h>
#include <sys/capability.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/unix.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"
#include "tests/unit/kaictl/fake_daemon.h"
#include "tests/unit/kaictl/program.h"

namespace kai::test {
namespace {

using doctor::Check;
using doctor::Checks;
using doctor::Status;

Status status_of(const Checks& checks, const std::string& name) {
  const auto found = std::find_if(checks.begin(), checks.end(), [&](const Check& check) { return check.name == name; });
  REQUIRE(found != checks.end());
  return found->status;
}

TEST_CASE("a probe's answer, its death and its steps") {
  CHECK(doctor::ask_child([] { return doctor::Answer(); }).ok());
  const auto refused = doctor::ask_child([] { return doctor::Answer{EPERM, "mount proc"}; });
  CHECK(refused.text() == "mount proc: Operation not permitted");
  CHECK_FALSE(doctor::ask_child([]() -> doctor::Answer { _exit(0); }).ok());
  CHECK_FALSE(doctor::ask_child([] { return doctor::Answer(); },
                                [](pid_t) {
                                  return doctor::Answer{EACCES, "beside"};
                                })
                  .ok());
}

TEST_CASE("the first line of a program") {
  CHECK(*doctor::first_line_of("/bin/echo", "v20.1.0") == "v20.1.0");
  CHECK_FALSE(doctor::first_line_of("/bin/false", ""));
  CHECK_FALSE(doctor::first_line_of("/nonexistent", "--version"));
}

TEST_CASE("namespaces that the host gives no more of are missing, with the sysctl as remedy") {
  // In a user namespace of our own, whose limits are ours to set: the machine's stay as they are.
  const auto answer = doctor::ask_child([]() -> doctor::Answer {
    const std::string uids = "0 " + std::to_string(geteuid()) + " 1\n";
    const std::string gids = "0 " + std::to_string(getegid()) + " 1\n";
    if (unshare(CLONE_NEWUSER) < 0) return doctor::failed("unshare");
    if (!write_file("/proc/self/setgroups", "deny")) return doctor::failed("write setgroups");
    if (!write_file("/proc/self/uid_map", uids)) return doctor::failed("write uid_map");
    if (!write_file("/proc/self/gid_map", gids)) return doctor::failed("write gid_map");
    if (!write_file("/proc/sys/user/max_net_namespaces", "0")) return doctor::failed("write the sysctl");
    Checks checks;
    doctor::check_namespaces(checks);
    for (const Check& check : checks) {
      if (check.name == "namespace uts" && check.status != Status::kOk) return {EINVAL, "uts is there"};
      if (check.name != "namespace net") continue;
      if (check.status != Status::kMissing) return {EINVAL, "net is not missing"};
      if (check.remedy != "sysctl -w user.max_net_namespaces=10000") return {EINVAL, "another remedy"};
    }
    return {};
  });
  CHECK_MESSAGE(answer.ok(), answer.text());
}

TEST_CASE("egress is looked for by making an agent's network") {
  Checks checks;
  doctor::check_network(checks);
  REQUIRE(checks.size() == 2);
  CHECK(status_of(checks, "egress") == Status::kOk);
  CHECK(checks[0].detail.find("IPv4") != std::string::npos);

  // Without network namespaces none can be made.
  const auto answer = doctor::ask_child([]() -> doctor::Answer {
    const std::string uids = "0 " + std::to_string(geteuid()) + " 1\n";
    if (unshare(CLONE_NEWUSER) < 0) return doctor::failed("unshare");
    if (!write_file("/proc/self/uid_map", uids)) return doctor::failed("write uid_map");
    if (!write_file("/proc/sys/user/max_net_namespaces", "0")) return doctor::failed("write the sysctl");
    Checks found;
    doctor::check_network(found);
    return status_of(found, "egress") == Status::kDegraded ? doctor::Answer() : doctor::Answer{EINVAL, "not degraded"};
  });
  CHECK_MESSAGE(answer.ok(), answer.text());
}

TEST_CASE("the capabilities that kaid.service takes away are none that egress needs") {
  const auto unit = read_file(KAI_UNIT);
  REQUIRE(unit);
  const std::string key = "\nCapabilityBoundingSet=~";
  const std::size_t at = unit->find(key);
  REQUIRE(at != std::string::npos);
  std::istringstream names(unit->substr(at + key.size(), unit->find('\n', at + 1) - at - key.size()));
  std::vector<cap_value_t> taken;
  for (std::string name; names >> name;) {
    cap_value_t capability = -1;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    REQUIRE_MESSAGE(cap_from_name(name.c_str(), &capability) == 0, name);
    taken.push_back(capability);
  }
  CHECK(taken.size() > 10);
  // An ordinary user has no capabilities to lose, and gets those of its own user namespace.
  const auto answer = doctor::ask_child([&]() -> doctor::Answer {
    for (const cap_value_t capability : taken) {
      if (cap_drop_bound(capability) < 0 && geteuid() == 0) return doctor::failed("cap_drop_bound");
    }
    const auto report = nlohmann::json::parse(kaictl({"-o", "json", "doctor"}).out);
    for (const auto& check : report["checks"]) {
      if (check["name"] == "egress") return {check["status"] == "ok" ? 0 : EPERM, check["detail"]};
    }
    return {EINVAL, "no such check"};
  });
  CHECK_MESSAGE(answer.ok(), answer.text());
}

TEST_CASE("limits that are too low are told, not fatal") {
  const auto answer = doctor::ask_child([]() -> doctor::Answer {
    const rlimit few{64, 64};
    setrlimit(RLIMIT_NOFILE, &few);
    Checks checks;
    doctor::check_limits(checks);
    return doctor::result_of(checks) == Status::kDegraded ? doctor::Answer() : doctor::Answer{EINVAL, "not degraded"};
  });
  CHECK_MESSAGE(answer.ok(), answer.text());
}

TEST_CASE("a daemon is told of, running or not") {
  Checks checks;
  const FakeDaemon daemon([](Connection&) {});
  doctor::check_daemon(checks, daemon.socket());
  doctor::check_daemon(checks, "/nonexistent/kaid.sock");
  doctor::check_daemon(checks, "");
  REQUIRE(checks.size() == 2);
  CHECK(checks[0].detail.starts_with("kaid is running"));
  CHECK(checks[1].detail.starts_with("kaid is not running"));
  CHECK(doctor::result_of(checks) == Status::kOk);
}

TEST_CASE("the report, for people and for programs") {
  const Checks checks = {{"kernel", Status::kOk, "Linux", ""}, {"cgroups", Status::kDegraded, "none\x1b", "mount it"}};
  CHECK(doctor::as_text(checks) ==
        "ok        kernel   Linux\n"
        "degraded  cgroups  none\\e\n"
        "                   remedy: mount it\n"
        "result: degraded, agents can run here, with what is named above missing\n");
  CHECK(nlohmann::json::parse(doctor::as_json(checks)) ==
        nlohmann::json{
            {"result", "degraded"},
            {"checks",
             {{{"name", "kernel"}, {"status", "ok"}, {"detail", "Linux"}},
              {{"name", "cgroups"}, {"status", "degraded"}, {"detail", "none\x1b"}, {"remedy", "mount it"}}}}});
}

TEST_CASE("kaictl doctor runs it without a daemon, and its exit code is its result") {
  const Result text = kaictl({"doctor"});
  CHECK(text.err.empty());
  CHECK(text.out.find("\nresult: ") != std::string::npos);
  const Result as_json = kaictl({"-o", "json", "doctor"});
  const auto report = nlohmann::json::parse(as_json.out);
  CHECK(as_json.exit_code == (report["result"] == "missing" ? 1 : 0));
  Checks kernel;
  doctor::check_kernel(kernel);
  CHECK(status_of(kernel, "kernel") == Status::kOk);
}

}  // namespace
}  // namespace kai::test
