// redis_store against servers that answer garbage, too much, too little, or not at all: each is told of, every request
// is answered, and nothing else of the process is touched.
#include <chrono>

#include <doctest/doctest.h>

#include "tests/unit/memory/redis_fixture.h"

namespace kai {
namespace {

using Clock = std::chrono::steady_clock;

/// A store on such a server, opened: nothing more than that is asked of it.
struct Attempt {
  MemoryOutcome<> outcome;
  std::vector<RedisReport> reports;
  std::chrono::milliseconds took{};
};

Attempt open_at(const RedisUrl& url) {
  Attempt attempt;
  EventLoop loop;
  TestClock clock;
  const auto begun = Clock::now();
  auto store = redis_backend(url, attempt.reports).make(loop, clock.get(), MemoryTerms{"agent", 1'000, 0, {}, {}});
  std::optional<MemoryOutcome<>> opened;
  store->open([&](MemoryOutcome<>&& outcome) { opened = std::move(outcome); });
  // Deferred by one round where an answer that is none is answered before it is told of.
  loop.run_until([&] { return opened.has_value() && (!attempt.reports.empty() || opened->has_value()); });
  attempt.outcome = *opened;
  attempt.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun);
  return attempt;
}

void check_lost(const Attempt& attempt, const std::string& why) {
  REQUIRE_FALSE(attempt.outcome);
  CHECK(attempt.outcome.error().code() == "UNAVAILABLE");
  CHECK(attempt.outcome.error().retryable());
  REQUIRE(attempt.reports.size() == 1);
  CHECK_FALSE(attempt.reports[0].good);
  CHECK_MESSAGE(attempt.reports[0].message.find(why) != std::string::npos, attempt.reports[0].message);
}

}  // namespace

TEST_CASE("a redis that answers garbage: the connection is dropped, and the requests are answered") {
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += "*1\r\n";
  const std::pair<std::string, std::string> cases[] = {
      {"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak redis' protocol"},
      {std::string(64, '\0'), "does not speak redis' protocol"},
      {"*2147483647\r\n", "does not speak redis' protocol"},
      {"*-7\r\n", "does not speak redis' protocol"},
      {deep, "does not speak redis' protocol"},
      {"$99999999999\r\n" + std::string(5 << 20, 'x'), "a reply has more than"},
      {"+OK\r\n", "answers what no script"},
      {"*0\r\n", "answers what no script"},
      {"*7\r\n$2\r\nOK\r\n:-1\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n", "answers what no script"},
      {"*7\r\n*0\r\n*0\r\n*0\r\n*0\r\n*0\r\n*0\r\n*0\r\n", "answers what no script"},
      {"$-1\r\n", "answers what no script"},
  };
  for (const auto& [answer, why] : cases) {
    CAPTURE(answer.substr(0, 40));
    FakeRedis fake(greeting_then([&answer] { return answer; }));
    check_lost(open_at(fake.url()), why);
  }
}

TEST_CASE("a redis that says more than it was asked") {
  FakeRedis fake([](const FakeRedis::Command& command) -> std::optional<std::string> {
    return command[0] == "SCRIPT" ? "$3\r\nabc\r\n+OK\r\n+OK\r\n+OK\r\n" : "+OK\r\n";
  });
  check_lost(open_at(fake.url()), "SCRIPT LOAD was not answered by a SHA-1");
  FakeRedis eager(
      greeting_then([] { return "*7\r\n$2\r\nOK\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n+more\r\n+more\r\n"; }));
  const auto attempt = open_at(eager.url());
  CHECK(attempt.outcome);
}

TEST_CASE("a redis that closes the connection, before and after it was asked") {
  FakeRedis at_once([](const FakeRedis::Command&) { return std::nullopt; });
  check_lost(open_at(at_once.url()), "closed the connection");
  FakeRedis later(greeting_then([] { return std::nullopt; }));
  check_lost(open_at(later.url()), "closed the connection");
}

TEST_CASE("a redis that stalls is given up after its deadline, with half a reply too") {
  for (const char* half : {"", "*7\r\n$2\r\nO"}) {
    CAPTURE(half);
    FakeRedis fake(greeting_then([half] { return half; }));
    const auto attempt = open_at(fake.url());
    check_lost(attempt, "did not answer within 2 s");
    CHECK(attempt.took >= std::chrono::milliseconds(1'950));
    CHECK(attempt.took < std::chrono::milliseconds(20'000));
  }
  FakeRedis silent([](const FakeRedis::Command&) { return ""; });
  CHECK(open_at(silent.url()).took < std::chrono::milliseconds(20'000));
}

TEST_CASE("a redis that never has the script") {
  FakeRedis fake(greeting_then([] { return "-NOSCRIPT No matching script\r\n"; }));
  check_lost(open_at(fake.url()), "forgets its scripts");
}

TEST_CASE("a password that redis does not take is told as such") {
  RedisProcess redis({"--save", "", "--appendonly", "no", "--requirepass", "right"});
  for (const char* password : {"", "wrong"}) {
    RedisUrl url = redis.unix_url();
    url.password = password;
    const auto attempt = open_at(url);
    check_lost(attempt, "refuses this kaid: ");
    CHECK(attempt.reports[0].message.find("correct the user and password") != std::string::npos);
    CHECK(attempt.reports[0].message.find("wrong:") == std::string::npos);
  }
  CHECK(open_at(redis.unix_url()).outcome);
}

TEST_CASE("a server that refuses CONFIG is asked by INFO, and what is not known is told") {
  const std::string empty = "*8\r\n$2\r\nOK\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n$0\r\n\r\n";
  for (const auto& [info, told] : std::initializer_list<std::pair<std::string, std::string>>{
           {"$36\r\nx:1\r\nmaxmemory_policy:allkeys-lru\r\ny\r\n", "maxmemory-policy is allkeys-lru"},
           {"-NOPERM no\r\n", "is not known"}}) {
    std::vector<RedisReport> reports;
    FakeRedis fake([&, text = info](const FakeRedis::Command& command) -> std::optional<std::string> {
      if (command[0] == "CONFIG") return "-NOPERM no\r\n";
      if (command[0] == "INFO") return text;
      if (command[0] == "SCRIPT") return "$40\r\n" + std::string(40, 'a') + "\r\n";
      return empty;
    });
    EventLoop loop;
    TestClock clock;
    auto store = redis_backend(fake.url(), reports).make(loop, clock.get(), MemoryTerms{"agent", 1'000, 0, {}, {}});
    store->open([](MemoryOutcome<>&&) {});
    loop.run_until([&] { return !reports.empty(); });
    CHECK_MESSAGE(reports[0].message.find(told) != std::string::npos, reports[0].message);
  }
}

TEST_CASE("redis.url") {
  const auto tcp = parse_redis_url("redis://user:p%40ss@db.example:6380/2");
  REQUIRE(tcp);
  CHECK(tcp->user == "user");
  CHECK(tcp->password == "p@ss");
  CHECK(tcp->host == "db.example");
  CHECK(tcp->port == 6380);
  CHECK(tcp->database == 2);
  CHECK(parse_redis_url("redis://:secret@[::1]")->host == "::1");
  CHECK(parse_redis_url("redis://localhost/")->port == 6379);
  CHECK(parse_redis_url("unix:/run/redis.sock?db=3")->database == 3);
  CHECK(parse_redis_url("unix:///run/redis.sock")->path == "/run/redis.sock");
  for (const char* bad : {"", "redis", "redis://", "http://x", "rediss://x", "redis://x:0", "redis://x:65536",
                          "redis://x:y", "redis://x/a", "redis://secret@x", "redis://u:secret%zz@x", "redis://[::1",
                          "unix:relative", "unix://host/path", "unix:/a?x=1", "unix:/a?db=-1", "redis://a b"}) {
    CAPTURE(bad);
    const auto url = parse_redis_url(bad);
    REQUIRE_FALSE(url);
    CHECK(url.error().message().find("secret") == std::string::npos);
  }
}

}  // namespace kai
