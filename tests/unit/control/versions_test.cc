// kaictl versions and prune, against a whole control.
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

struct VersionsFixture : ControlFixture {
  void add_versions(const std::vector<std::string>& numbers) {
    for (const std::string& number : numbers) {
      auto manifest = manifest_of("a1");
      manifest["version"] = number;
      REQUIRE(add(manifest).has_done());
    }
  }
  control::Response versions(const std::string& id = "a1") {
    control::Request request;
    request.mutable_versions()->set_id(id);
    return call(request);
  }
  control::Response prune(std::uint32_t keep, const std::string& id = "a1") {
    control::Request request;
    request.mutable_prune()->set_id(id);
    request.mutable_prune()->set_keep(keep);
    return call(request);
  }
  std::vector<std::string> archived() {
    std::vector<std::string> numbers;
    const auto answered = document(versions());
    for (const auto& each : answered["versions"]) numbers.push_back(each["version"]);
    return numbers;
  }
};

using Names = std::vector<std::string>;

TEST_CASE_FIXTURE(VersionsFixture, "versions: all of the archive, oldest first") {
  add_versions({"1.0.0", "1.1.0", "1.2.0"});
  REQUIRE(registry->mark_bad("a1", "1.0.0", "it crashed"));
  const nlohmann::json list = document(versions())["versions"];
  REQUIRE(list.size() == 3);
  CHECK(list[0]["version"] == "1.0.0");
  CHECK(list[0]["bad"] == "it crashed");
  CHECK(list[0]["active"] == false);
  CHECK(list[0]["previous"] == false);
  CHECK(list[1]["previous"] == true);
  CHECK_FALSE(list[1].contains("bad"));
  CHECK(list[2]["active"] == true);
  CHECK_FALSE(list[2].contains("signer"));
  CHECK(list[2]["package"] == registry->get("a1").value()->active.package);
  CHECK(list[2]["bytes"].get<std::size_t>() > 100);
  CHECK(list[2]["registeredAt"].get<std::string>().ends_with("Z"));
  CHECK(code(versions("nobody")) == "NOT_FOUND");
}

TEST_CASE_FIXTURE(VersionsFixture, "prune keeps the active one, the one before it and the newest that are asked for") {
  add_versions({"1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"});
  const std::string active = registry->get("a1").value()->active.package;
  const auto size = document(versions())["versions"][0]["bytes"].get<std::size_t>();
  const auto first = document(prune(2));
  CHECK(first["removed"] == Names{"1.0.0"});
  CHECK(first["freedBytes"].get<std::size_t>() == size);
  CHECK(archived() == Names{"1.1.0", "1.2.0", "1.3.0", "1.4.0"});
  CHECK(packages->list()->size() == 4);
  CHECK(document(prune(0))["removed"] == Names{"1.1.0", "1.2.0"});
  CHECK(archived() == Names{"1.3.0", "1.4.0"});
  CHECK(packages->list()->size() == 2);
  CHECK(packages->has("a1", active));
  const auto nothing = document(prune(0));
  CHECK(nothing["removed"].empty());
  CHECK(nothing["freedBytes"] == 0);
  CHECK(code(prune(0, "nobody")) == "NOT_FOUND");
  CHECK(log_text().find("kai.purged") != std::string::npos);
  // Nothing of it is forgotten by a restart.
  end();
  start();
  CHECK(archived() == Names{"1.3.0", "1.4.0"});
}

TEST_CASE_FIXTURE(VersionsFixture, "prune leaves the bytes of what is just being registered again") {
  add_versions({"1.0.0", "1.1.0", "1.2.0"});
  const std::string oldest = registry->versions("a1")->at(0).package;
  const auto hold = packages->hold("a1", oldest);
  CHECK(document(prune(0))["removed"] == Names{"1.0.0"});
  CHECK(packages->has("a1", oldest));
}

}  // namespace
}  // namespace kai::test
