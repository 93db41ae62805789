// redis_store against a real redis-server: what every backend does, and what redis loses.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include <doctest/doctest.h>

#include "tests/unit/memory/redis_fixture.h"

namespace kai {
namespace {

using namespace std::chrono_literals;
using Reports = std::vector<RedisReport>;

bool reported(const Reports& reports, const std::string& text) {
  return std::any_of(reports.begin(), reports.end(),
                     [&](const auto& report) { return report.message.find(text) != std::string::npos; });
}

/// Asks until the server is there again: each answer is an event, and so is each attempt.
std::string value_at_last(MemoryClient& memory, const Reports& reports, const std::string& key) {
  memory.loop().run_until([&] { return !reports.empty() && reports.back().good; });
  return memory.value(key);
}

std::string lost_message(const klp::MemoryAnswer& answer) {
  CHECK(code_of(answer) == "UNAVAILABLE");
  CHECK_FALSE(answer.error().retryable());
  return answer.error().message();
}

}  // namespace

TEST_CASE("redis does what every backend does, on a Unix socket") {
  RedisProcess redis;
  Reports reports;
  check_conformance(redis_backend(redis.unix_url(), reports));
  for (const auto& report : reports) MESSAGE(report.message);
  CHECK(reports.empty());
}

TEST_CASE("redis does what every backend does, over TCP, by a host's name, in another database") {
  RedisProcess redis({"--save", "", "--appendonly", "no", "--requirepass", "a secret"});
  Reports reports;
  RedisUrl url = redis.tcp_url("localhost");
  url.database = 3;
  check_conformance(redis_backend(url, reports));
  CHECK(reports.empty());
  CHECK(redis.command({"DBSIZE"}) == "0\n");
}

TEST_CASE("encrypted values in redis: nobody reads them there, and none opens in another place") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryTerms terms{"sealed", 1'000, 0, SealKey{1, 2, 3}};
  MemoryClient memory(backend, terms);
  REQUIRE(code_of(memory.set("k", "\"the secret\"")).empty());
  CHECK(memory.value("k") == "\"the secret\"");
  CHECK(memory.store().usage().bytes == 13);  // as the agent wrote it
  const std::string kept = redis.command({"HGETALL", "kai:{sealed}:values"});
  CHECK(kept.find("secret") == kept.npos);
  REQUIRE(code_of(memory.set("l", "1")).empty());
  std::string record = redis.command({"HGET", "kai:{sealed}:values", "k"});
  record.pop_back();
  redis.command({"HSET", "kai:{sealed}:values", "l", record});
  CHECK(memory.value("l") == "INTERNAL");

  // Switched off: what was sealed is read, and written plainly from then on.
  terms.old_key = std::exchange(terms.key, std::nullopt);
  MemoryClient other(backend, MemoryTerms{"other", 1'000, 0, {}, {}});
  auto store = backend.make(other.loop(), other.clock().get(), terms);
  REQUIRE(other.wait([&](auto done) { store->open(std::move(done)); }));
  klp::MemoryRequest get;
  get.mutable_get()->add_keys("k");
  std::optional<klp::MemoryAnswer> answer;
  store->perform(std::move(get), [&](klp::MemoryAnswer&& got) { answer = std::move(got); });
  other.loop().run_until([&] { return answer.has_value(); });
  REQUIRE(answer->got().entries_size() == 1);
  CHECK(answer->got().entries(0).value() == "\"the secret\"");
}

TEST_CASE("agents' ids that are none do not become names of keys in redis") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend);
  REQUIRE(code_of(memory.set("k", "1")).empty());
  for (const char* id : {"x}:values", "{conformer}", "a:b", "*", "", "conformer\n"}) {
    CAPTURE(id);
    auto store = backend.make(memory.loop(), memory.clock().get(), MemoryTerms{id, 1'000, 0, {}, {}});
    const auto opened = memory.wait([&](auto done) { store->open(std::move(done)); });
    REQUIRE_FALSE(opened);
    CHECK(opened.error().code() == "INVALID");
  }
  // Keys that look like redis' own, or like Lua.
  for (const char* key :
       {"kai:{other}:values", "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "') redis.call('FLUSHALL') --", "+", "-", "("}) {
    CAPTURE(key);
    CHECK(code_of(memory.set(key, "2")).empty());
    CHECK(memory.value(key) == "2");
    CHECK(memory.list(key).listed().keys_size() == 1);
  }
  CHECK(memory.value("k") == "1");
}

TEST_CASE("kill -9 of redis with appendonly: what was acknowledged is there again") {
  RedisProcess redis({"--save", "", "--appendonly", "yes", "--appendfsync", "always"});
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend);
  REQUIRE(code_of(memory.set("k", "1")).empty());
  // Killed while writes are under way.
  std::vector<std::string> acknowledged;
  std::size_t answered = 0;
  for (int i = 0; i < 500; ++i) {
    const std::string key = "w" + std::to_string(i);
    memory.store().perform(set_request(key, "1"), [&, key](klp::MemoryAnswer&& answer) {
      if (answer.has_written()) acknowledged.push_back(key);
      if (answer.has_error()) CHECK(answer.error().code() == "UNAVAILABLE");
      if (++answered == 100) redis.kill();
    });
  }
  memory.loop().run_until([&] { return answered == 500; });
  CHECK(acknowledged.size() >= 100);
  CHECK(acknowledged.size() < 500);
  REQUIRE_FALSE(reports.empty());
  CHECK(reported(reports, "is lost: "));
  const auto down = memory.get("k");
  CHECK(code_of(down) == "UNAVAILABLE");
  CHECK(down.error().retryable());
  const std::size_t told = reports.size();
  redis.start();
  CHECK(value_at_last(memory, reports, "k") == "1");
  CHECK(reports.size() == told + 1);
  CHECK(reports.back().message.ends_with("is back"));
  for (const auto& key : acknowledged) CHECK(memory.value(key) == "1");
}

TEST_CASE("kill -9 of redis without persistence: the loss is detected, told, and healed by clear") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend);
  REQUIRE(code_of(memory.set("k", "1")).empty());
  redis.kill();
  memory.loop().run_until([&] { return !reports.empty(); });
  redis.start();
  memory.loop().run_until([&] { return reports.back().good; });
  CHECK(lost_message(memory.get("k")).find("evicted or lost data of agent conformer: missing is everything") !=
        std::string::npos);
  CHECK(code_of(memory.set("k", "2")) == "UNAVAILABLE");
  CHECK(code_of(memory.list()) == "UNAVAILABLE");
  CHECK(std::count_if(reports.begin(), reports.end(), [](const auto& report) {
          return report.message.find("evicted or lost") != std::string::npos;
        }) == 1);
  REQUIRE(memory.clear());
  CHECK(code_of(memory.set("k", "3")).empty());
  CHECK(memory.value("k") == "3");
}

TEST_CASE("a loss of everything while control was away is refused once, and the next start begins empty") {
  RedisProcess redis;
  Reports reports;
  const TempDirectory directory;
  const std::string file = directory / "conformer.redis";
  const auto backend = redis_backend(redis.unix_url(), reports, file);
  const auto noted = [&file] { return access(file.c_str(), F_OK) == 0; };
  MemoryClient memory(backend);
  // What was never written to is not missed.
  REQUIRE(memory.reopen());
  CHECK_FALSE(noted());
  REQUIRE(code_of(memory.set("k", "1")).empty());
  CHECK(noted());
  REQUIRE(memory.reopen());
  CHECK(memory.value("k") == "1");
  const auto refused_once = [&](const std::string& what) {
    const auto refused = memory.reopen();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "UNAVAILABLE");
    CHECK_FALSE(refused.error().retryable());
    CHECK(refused.error().message().find(what) != std::string::npos);
    REQUIRE(memory.reopen());
    CHECK(memory.value("k") == "(none)");
  };
  redis.command({"FLUSHALL"});
  refused_once("missing is everything");
  CHECK_FALSE(noted());
  REQUIRE(code_of(memory.set("k", "2")).empty());
  redis.command({"HSET", "kai:{conformer}:meta", "generation", "0123456789abcdef0123456789abcdef"});
  refused_once("another content");
  // Emptied by its agent it is there still; purged it is not missed.
  REQUIRE(code_of(memory.set("k", "3")).empty());
  REQUIRE(code_of(memory.remove("k")).empty());
  REQUIRE(memory.reopen());
  REQUIRE(memory.clear());
  CHECK_FALSE(noted());
  REQUIRE(memory.reopen());
  // What redis has and nobody noted is taken as it is: control ended before it answered.
  REQUIRE(code_of(memory.set("k", "4")).empty());
  REQUIRE(unlink(file.c_str()) == 0);
  REQUIRE(memory.reopen());
  CHECK(memory.value("k") == "4");
  CHECK(noted());
}

TEST_CASE("a context that cannot be noted on this machine acknowledges nothing") {
  RedisProcess redis;
  Reports reports;
  const TempDirectory directory;
  const std::string below = directory / "memory";
  const auto backend = redis_backend(redis.unix_url(), reports, below + "/conformer.redis");
  MemoryClient memory(backend);
  const auto refused = memory.set("k", "1");
  CHECK(code_of(refused) == "INTERNAL");
  REQUIRE(mkdir(below.c_str(), 0700) == 0);
  CHECK(memory.value("k") == "1");
  REQUIRE(memory.reopen());
  // Damaged, it says nothing about redis.
  std::ofstream(below + "/conformer.redis") << "garbage";
  const auto damaged = memory.reopen();
  REQUIRE_FALSE(damaged);
  CHECK(damaged.error().code() == "INTERNAL");
}

TEST_CASE("each part of a context that is gone is noticed") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend);
  const std::pair<const char*, const char*> parts[] = {{"values", "missing is values"},
                                                       {"keys", "the order of the keys"},
                                                       {"expiry", "the times of expiry"},
                                                       {"meta", "everything"}};
  for (const auto& [part, what] : parts) {
    CAPTURE(part);
    REQUIRE(memory.clear());
    REQUIRE(code_of(memory.set_for("k", "1", 60'000)).empty());
    redis.command({"DEL", std::string("kai:{conformer}:") + part});
    CHECK(lost_message(memory.get("k")).find(what) != std::string::npos);
    CHECK(code_of(memory.set("l", "1")) == "UNAVAILABLE");
  }
  // Set back to an older state, as by an old file of redis'.
  REQUIRE(memory.clear());
  REQUIRE(code_of(memory.set("k", "1")).empty());
  std::string dumped[3];
  const char* names[] = {"kai:{conformer}:values", "kai:{conformer}:keys", "kai:{conformer}:meta"};
  for (int i = 0; i < 3; ++i) {
    dumped[i] = redis.command({"DUMP", names[i]});
    dumped[i].pop_back();
  }
  REQUIRE(code_of(memory.set("k", "2")).empty());
  for (int i = 0; i < 3; ++i) REQUIRE(redis.command({"RESTORE", names[i], "0", dumped[i], "REPLACE"}) == "OK\n");
  CHECK(lost_message(memory.get("k")).find("the last changes") != std::string::npos);

  // At open it is set aside, and the next one begins empty.
  redis.command({"DEL", "kai:{conformer}:keys"});
  const auto refused = memory.reopen();
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == "UNAVAILABLE");
  CHECK(refused.error().message().find("kai:{conformer}:aside:*") != std::string::npos);
  CHECK(redis.command({"EXISTS", "kai:{conformer}:aside:values"}) == "1\n");
  REQUIRE(memory.reopen());
  CHECK(memory.value("k") == "(none)");
}

TEST_CASE("a server that evicts is told of at once, and what it evicted when it is missed") {
  RedisProcess redis({"--save", "", "--appendonly", "no", "--maxmemory-policy", "allkeys-random"});
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend, MemoryTerms{"evicted", 64 << 20, 0, {}, {}});
  memory.loop().run_until([&] { return !reports.empty(); });
  CHECK(reported(reports, "its maxmemory-policy is allkeys-random; set it to noeviction"));
  REQUIRE(code_of(memory.set("k", "1")).empty());
  redis.command({"CONFIG", "SET", "maxmemory", "1mb"});  // below what it has: everything goes
  redis.command({"SET", "another", "x"});
  CHECK(lost_message(memory.get("k")).find("evicted or lost data of agent evicted") != std::string::npos);
  CHECK(reported(reports, "evicted or lost data of agent evicted"));
}

TEST_CASE("a server without memory left refuses a write, and nothing has changed") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend);
  REQUIRE(code_of(memory.set("k", "1")).empty());
  redis.command({"CONFIG", "SET", "maxmemory", "1mb"});
  const auto full = memory.set("l", "1");
  CHECK(code_of(full) == "UNAVAILABLE");
  CHECK(full.error().message().find("OOM") != std::string::npos);
  CHECK(memory.value("k") == "1");
  CHECK(memory.value("l") == "(none)");
  CHECK(memory.remove("k").deleted().deleted());
}

TEST_CASE("scripts that the server has forgotten are loaded again, and nothing is out of order") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend);
  for (int round = 0; round < 10; ++round) {
    redis.command({"SCRIPT", "FLUSH"});
    std::vector<klp::MemoryRequest> requests;
    for (int i = 0; i < 200; ++i) requests.push_back(set_request("k", std::to_string(i)));
    for (const auto& answer : memory.ask_all(std::move(requests))) CHECK(code_of(answer).empty());
    CHECK(memory.value("k") == "199");
  }
}

TEST_CASE("very many that expired at once are removed in steps") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend, MemoryTerms{"many", 30'000 * 64, 0, {}, {}});
  for (int block = 0; block < 30; ++block) {
    klp::MemoryRequest request;
    for (int i = 0; i < 1'000; ++i) {
      auto& write = add_write(request, std::to_string(100'000 + block * 1'000 + i), "1");
      write.set_has_ttl(true);
      write.set_ttl_ms(600'000);
    }
    REQUIRE(code_of(memory.ask(std::move(request))).empty());
  }
  CHECK(code_of(memory.set("no more", "1")) == "QUOTA_EXCEEDED");
  memory.clock().advance(601s);
  std::string code = code_of(memory.list());
  CHECK((code == "BUSY" || code.empty()));
  // Removed without being asked, until none is left.
  memory.loop().run_until([&] { return memory.store().usage().entries == 0; });
  CHECK(code_of(memory.set("no more", "1")).empty());
  CHECK(memory.store().usage().entries == 1);
  CHECK(redis.command({"HLEN", "kai:{many}:values"}) == "1\n");
}

TEST_CASE("save and restore: values, versions and times come back, and a bad file changes nothing") {
  RedisProcess redis;
  Reports reports;
  const auto backend = redis_backend(redis.unix_url(), reports);
  MemoryClient memory(backend, MemoryTerms{"saved", 8 << 20, 0, {}, {}});
  klp::MemoryRequest request;
  for (int i = 0; i < 900; ++i) add_write(request, "k" + std::to_string(i), std::to_string(i));
  add_write(request, "bytes", std::string("\0\xff", 2)).set_binary(true);
  REQUIRE(code_of(memory.ask(request)).empty());
  for (int i = 0; i < 5; ++i)
    REQUIRE(code_of(memory.set("large" + std::to_string(i), '"' + std::string(700'000, 'x') + '"')).empty());
  REQUIRE(code_of(memory.set_for("short", "1", 10'000)).empty());
  const auto usage = memory.store().usage();
  const auto version = memory.get("k7").got().entries(0).version();

  const Fd file(memfd_create("saved", MFD_CLOEXEC));
  REQUIRE(memory.wait(
      [&](auto done) { memory.store().save(Fd(dup(file.get())), "2026-05-04T13:00:00.000Z", std::move(done)); }));
  REQUIRE(code_of(memory.set("k7", "\"changed\"")).empty());
  REQUIRE(code_of(memory.set("new", "1")).empty());
  const auto after = memory.get("new").got().entries(0).version();
  const auto restore = [&](MemoryClient& into, int fd) {
    return into.wait([&](auto done) {
      REQUIRE(lseek(fd, 0, SEEK_SET) == 0);
      into.store().restore(Fd(dup(fd)), std::move(done));
    });
  };
  memory.clock().advance(5s);
  REQUIRE(restore(memory, file.get()));
  CHECK(memory.value("k7") == "7");
  CHECK(memory.get("k7").got().entries(0).version() == version);
  CHECK(memory.value("new") == "(none)");
  CHECK(memory.get("bytes").got().entries(0).binary());
  CHECK(memory.store().usage().bytes == usage.bytes);
  CHECK(memory.store().usage().entries == usage.entries);
  CHECK(memory.set("new", "2").written().versions(0) > after);
  memory.clock().advance(6s);
  CHECK(memory.value("short") == "1");  // what was left of its time begins at the restore
  memory.clock().advance(5s);
  CHECK(memory.value("short") == "(none)");

  const Fd cut(memfd_create("cut", MFD_CLOEXEC));
  REQUIRE(ftruncate(cut.get(), 100) == 0);
  const auto bad = restore(memory, cut.get());
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code() == "INVALID");
  CHECK(memory.value("new") == "2");
  // Into less room than it needs.
  MemoryClient small(backend, MemoryTerms{"small", 1 << 20, 0, {}, {}});
  REQUIRE(code_of(small.set("k", "1")).empty());
  const auto full = restore(small, file.get());
  REQUIRE_FALSE(full);
  CHECK(full.error().code() == "QUOTA_EXCEEDED");
  CHECK(small.value("k") == "1");
  CHECK(redis.command({"EXISTS", "kai:{small}:new:values"}) == "0\n");
  // It heals what was lost.
  redis.command({"FLUSHALL"});
  CHECK(code_of(memory.get("k7")) == "UNAVAILABLE");
  REQUIRE(restore(memory, file.get()));
  CHECK(memory.value("k7") == "7");
}

TEST_CASE("the server is down at open: refused, and retryable") {
  TempDirectory directory;
  RedisUrl url;
  url.path = directory / "nothing";
  Reports reports;
  EventLoop loop;
  TestClock clock;
  auto store = redis_backend(url, reports).make(loop, clock.get(), MemoryTerms{"agent", 1'000, 0, {}, {}});
  std::optional<MemoryOutcome<>> opened;
  store->open([&](MemoryOutcome<>&& outcome) { opened = std::move(outcome); });
  loop.run_until([&] { return opened.has_value(); });
  REQUIRE_FALSE(*opened);
  CHECK(opened->error().code() == "UNAVAILABLE");
  CHECK(opened->error().retryable());
  CHECK(opened->error().message().find("No such file or directory") != std::string::npos);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].message.find("cannot be reached") != std::string::npos);
}

}  // namespace kai
