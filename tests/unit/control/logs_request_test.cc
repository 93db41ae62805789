#include <doctest/doctest.h>

#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

control::Request logs_of(const std::string& id) {
  control::Request request;
  request.mutable_logs()->set_id(id);
  return request;
}

std::vector<nlohmann::json> records(const OperatorClient& client) {
  std::vector<nlohmann::json> all;
  for (const auto& response : client.responses) {
    if (response.has_record()) all.push_back(nlohmann::json::parse(response.record()));
  }
  return all;
}

TEST_CASE("what was logged, all of it and in order, however much") {
  ControlFixture f;
  for (int at = 0; at < 3000; ++at) f.log->write(LogLevel::kInfo, "a1", "test", "line " + std::to_string(at));
  OperatorClient client(f.loop, f.socket());
  CHECK(client.call(logs_of("a1")).has_done());
  const auto all = records(client);
  REQUIRE(all.size() == 3000);
  for (std::size_t at = 0; at < all.size(); ++at) CHECK(all[at]["message"] == "line " + std::to_string(at));
}

TEST_CASE("the last N, and since") {
  ControlFixture f;
  for (int at = 0; at < 20; ++at) f.log->write(LogLevel::kInfo, "a1", "test", std::to_string(at));
  OperatorClient client(f.loop, f.socket());
  auto request = logs_of("a1");
  request.mutable_logs()->set_has_lines(true);
  request.mutable_logs()->set_lines(3);
  CHECK(client.call(request).has_done());
  auto all = records(client);
  REQUIRE(all.size() == 3);
  CHECK(all.front()["message"] == "17");

  request = logs_of("a1");
  request.mutable_logs()->set_since_unix_ms(4'000'000'000'000);
  client.responses.clear();
  CHECK(client.call(request).has_done());
  CHECK(records(client).empty());
}

TEST_CASE("an id that nobody knows is NOT_FOUND, not silence") {
  ControlFixture f;
  CHECK(code(f.call(logs_of("nobody"))) == "NOT_FOUND");
  REQUIRE(f.add(manifest_of("a1")).has_done());
  CHECK(f.call(logs_of("a1")).has_done());
}

TEST_CASE("follow gives what comes, of its agent only, without a gap or a repetition") {
  ControlFixture f;
  for (int at = 0; at < 1000; ++at) f.log->write(LogLevel::kInfo, "a1", "test", std::to_string(at));
  OperatorClient client(f.loop, f.socket());
  auto request = logs_of("a1");
  request.mutable_logs()->set_follow(true);
  client.send(request);
  f.until([&] { return !client.responses.empty(); });
  for (int at = 1000; at < 2000; ++at) {
    f.log->write(LogLevel::kInfo, "a1", "test", std::to_string(at));
    f.log->write(LogLevel::kInfo, "a2", "test", "another's");
  }
  f.until([&] { return client.responses.size() >= 2000; });
  f.log->write(LogLevel::kInfo, "a1", "test", "2000");
  f.until([&] { return client.responses.size() >= 2001; });
  const auto all = records(client);
  REQUIRE(all.size() == 2001);
  for (std::size_t at = 0; at < all.size(); ++at) CHECK(all[at]["message"] == std::to_string(at));
  client.hang_up();
  // Nobody listens any more: writing goes on.
  f.loop.run_until([] { return true; });
  f.log->write(LogLevel::kInfo, "a1", "test", "after");
}

}  // namespace
}  // namespace kai::test
