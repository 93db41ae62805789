#include "tests/unit/memory/conformance.h"

#include <algorithm>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/memory/dump_text.h"

namespace kai {
namespace {

using Keys = std::vector<std::string>;
using namespace std::chrono_literals;

Keys keys_of(const klp::MemoryAnswer& answer) {
  CHECK_MESSAGE(answer.has_listed(), answer.error().message());
  return {answer.listed().keys().begin(), answer.listed().keys().end()};
}

std::uint64_t version_of(const klp::MemoryAnswer& answer) {
  REQUIRE_MESSAGE(answer.has_written(), answer.error().message());
  REQUIRE(answer.written().versions_size() == 1);
  return answer.written().versions(0);
}

// A JSON string that takes so many bytes with its quotes.
std::string json_of(std::size_t bytes) {
  return '"' + std::string(bytes - 2, 'x') + '"';
}

klp::MemoryRequest conditional(const std::string& key, const std::string& json, bool absent, std::uint64_t version) {
  klp::MemoryRequest request;
  klp::MemoryWrite& write = add_write(request, key, json);
  write.set_if_absent(absent);
  write.set_has_if_version(!absent);
  write.set_if_version(version);
  return request;
}

void check_conflict(const klp::MemoryAnswer& answer, const std::string& key, std::uint64_t version) {
  REQUIRE(code_of(answer) == "CONFLICT");
  const auto details = nlohmann::json::parse(answer.error().details_json());
  CHECK(details == nlohmann::json{{"key", key}, {"version", version}});
  CHECK_FALSE(answer.error().retryable());
}

void round_trips(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  CHECK(memory.value("nothing") == "(none)");
  // As the agent wrote it: not parsed and written anew.
  const std::string json = "{ \"b\" : 1.50, \"a\":[ null ], \"b\":\"\\u00e4\" }";
  CHECK(memory.set("k", json).has_written());
  CHECK(memory.value("k") == json);

  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  klp::MemoryRequest request;
  add_write(request, "bytes", bytes).set_binary(true);
  add_write(request, "nothing in it", "").set_binary(true);
  add_write(request, "\xc3\xa4\xf0\x9f\x97\x93", "true");
  CHECK(memory.ask(request).written().versions_size() == 3);

  klp::MemoryRequest get;
  for (const char* key : {"\xc3\xa4\xf0\x9f\x97\x93", "bytes", "not there", "k", "nothing in it"}) {
    get.mutable_get()->add_keys(key);
  }
  const klp::MemoryAnswer answer = memory.ask(get);
  REQUIRE(answer.got().entries_size() == 4);
  CHECK(answer.got().entries(0).value() == "true");
  CHECK(answer.got().entries(1).key() == "bytes");
  CHECK(answer.got().entries(1).value() == bytes);
  CHECK(answer.got().entries(1).binary());
  CHECK_FALSE(answer.got().entries(2).binary());
  CHECK(answer.got().entries(3).value().empty());
  CHECK(answer.got().entries(3).binary());
}

void versions_and_conditions(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  const std::uint64_t first = version_of(memory.ask(conditional("lock", "1", true, 0)));
  CHECK(first > 0);
  check_conflict(memory.ask(conditional("lock", "2", true, 0)), "lock", first);
  const std::uint64_t second = version_of(memory.ask(conditional("lock", "3", false, first)));
  CHECK(second > first);
  CHECK(memory.get("lock").got().entries(0).version() == second);
  check_conflict(memory.ask(conditional("lock", "4", false, first)), "lock", second);
  CHECK(memory.value("lock") == "3");

  CHECK(memory.remove("lock").deleted().deleted());
  CHECK_FALSE(memory.remove("lock").deleted().deleted());
  check_conflict(memory.ask(conditional("lock", "5", false, second)), "lock", 0);
  check_conflict(memory.ask(conditional("lock", "5", false, 0)), "lock", 0);  // no key has version 0
  // A key that was deleted does not come back under a version that somebody may remember.
  CHECK(version_of(memory.set("lock", "6")) > second);
}

void all_or_none(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  const std::uint64_t version = version_of(memory.set("b", "1"));
  klp::MemoryRequest request;
  add_write(request, "a", "2");
  add_write(request, "b", "3").set_if_absent(true);
  add_write(request, "c", "4");
  check_conflict(memory.ask(request), "b", version);
  CHECK(keys_of(memory.list()) == Keys{"b"});
  CHECK(memory.value("b") == "1");
  CHECK(memory.store().usage().bytes == 2);
  CHECK(memory.store().usage().entries == 1);

  request.mutable_set()->mutable_writes(1)->set_if_absent(false);
  const klp::MemoryAnswer written = memory.ask(request);
  REQUIRE(written.written().versions_size() == 3);
  CHECK(memory.get("c").got().entries(0).version() == written.written().versions(2));
  CHECK(memory.value("b") == "3");
}

void lists(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  const Keys sorted = {"A", "a", "a/", "a/1", "a/10", "a/2", "b%", "b_", "\xc3\xa4", "\xf0\x9f\x97\x93"};
  Keys shuffled = sorted;
  std::reverse(shuffled.begin(), shuffled.end());
  klp::MemoryRequest request;
  for (const std::string& key : shuffled) add_write(request, key, "1");
  CHECK(memory.ask(request).has_written());

  CHECK(keys_of(memory.list()) == sorted);
  CHECK_FALSE(memory.list().listed().more());
  CHECK(keys_of(memory.list("a/")) == Keys{"a/", "a/1", "a/10", "a/2"});
  CHECK(keys_of(memory.list("b%")) == Keys{"b%"});
  CHECK(keys_of(memory.list("\xf0\x9f\x97\x93")) == Keys{"\xf0\x9f\x97\x93"});
  CHECK(keys_of(memory.list("none")).empty());

  const klp::MemoryAnswer page = memory.list("a", 2);
  CHECK(keys_of(page) == Keys{"a", "a/"});
  CHECK(page.listed().more());
  CHECK(keys_of(memory.list("a", 3, "a/")) == Keys{"a/1", "a/10", "a/2"});
  CHECK_FALSE(memory.list("a", 3, "a/").listed().more());
  // A cursor before the prefix and one behind it; one that is no key.
  CHECK(keys_of(memory.list("a/1", 0, "A")) == Keys{"a/1", "a/10"});
  CHECK(keys_of(memory.list("a/1", 0, "b")).empty());
  CHECK(keys_of(memory.list("", 1, "a/11")) == Keys{"a/2"});
}

void long_lists(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  for (int block = 0; block < 3; ++block) {
    klp::MemoryRequest request;
    for (int i = 0; i < 500; ++i) add_write(request, "k" + std::to_string(10'000 + block * 500 + i), "0");
    REQUIRE(memory.ask(request).has_written());
  }
  const klp::MemoryAnswer first = memory.list("k", 5'000);
  REQUIRE(first.listed().keys_size() == 1'000);
  CHECK(first.listed().more());
  const klp::MemoryAnswer second = memory.list("k", 0, first.listed().keys(999));
  REQUIRE(second.listed().keys_size() == 500);
  CHECK(second.listed().keys(499) == "k11499");
  CHECK_FALSE(second.listed().more());
}

void bad_keys(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  const Keys bad = {"", std::string(513, 'k'), std::string("a\0b", 3), "\xff", "\xc0\x80", "\xed\xa0\x80"};
  for (const std::string& key : bad) {
    CAPTURE(key);
    CHECK(code_of(memory.set(key, "1")) == "INVALID");
    CHECK(code_of(memory.get(key)) == "INVALID");
    CHECK(code_of(memory.remove(key)) == "INVALID");
    if (key.empty()) continue;
    CHECK(code_of(memory.list(key)) == "INVALID");
    CHECK(code_of(memory.list("", 0, key)) == "INVALID");
  }
  CHECK(code_of(memory.ask({})) == "INVALID");
  CHECK(code_of(memory.set(std::string(512, 'k'), "1")).empty());
  CHECK(memory.value(std::string(512, 'k')) == "1");

  klp::MemoryRequest twice;
  add_write(twice, "a", "1");
  add_write(twice, "a", "2");
  CHECK(code_of(memory.ask(twice)) == "INVALID");
  klp::MemoryRequest both = conditional("a", "1", true, 0);
  both.mutable_set()->mutable_writes(0)->set_has_if_version(true);
  CHECK(code_of(memory.ask(both)) == "INVALID");
  klp::MemoryRequest many;
  for (int i = 0; i < 1'001; ++i) add_write(many, "m" + std::to_string(i), "1");
  CHECK(code_of(memory.ask(many)) == "TOO_LARGE");
  CHECK(memory.store().usage().entries == 1);
}

void bad_values(const MemoryBackend& backend) {
  MemoryClient memory(backend, 8 << 20);
  for (const char* text : {"", "1 2", "{", "nul", "{\"a\":1}}", "\"\xff\""}) {
    CAPTURE(text);
    CHECK(code_of(memory.set("k", text)) == "INVALID");
  }
  CHECK(code_of(memory.set("k", json_of((1 << 20) + 1))) == "TOO_LARGE");
  CHECK(code_of(memory.set("k", json_of(1 << 20))).empty());
  CHECK(memory.value("k") == json_of(1 << 20));
  // Each fits into an answer, both together do not.
  CHECK(code_of(memory.set("l", "1")).empty());
  klp::MemoryRequest get;
  get.mutable_get()->add_keys("k");
  get.mutable_get()->add_keys("l");
  CHECK(code_of(memory.ask(get)) == "TOO_LARGE");
}

void expiry(const MemoryBackend& backend) {
  MemoryClient memory(backend, 1 << 20, 60'000);
  const std::uint64_t version = version_of(memory.set("default", "1"));
  memory.set_for("short", "2", 1'000);
  memory.set_for("never", "3", 0);
  memory.set_for("no clock reaches it", "4", ~std::uint64_t{0});
  CHECK(memory.get("default").got().entries(0).expires_ms() > 0);
  CHECK(memory.get("short").got().entries(0).expires_ms() > 0);
  CHECK(memory.get("never").got().entries(0).expires_ms() == 0);
  memory.clock().advance(999ms - 500ms);
  CHECK(memory.value("short") == "2");
  memory.clock().advance(1s);
  CHECK(memory.value("short") == "(none)");
  CHECK(keys_of(memory.list()) == Keys{"default", "never", "no clock reaches it"});
  CHECK_FALSE(memory.remove("short").deleted().deleted());
  memory.clock().advance(60s);
  CHECK(keys_of(memory.list()) == Keys{"never", "no clock reaches it"});
  // For conditions too it is not there; its version is not used again.
  check_conflict(memory.ask(conditional("default", "5", false, version)), "default", 0);
  CHECK(version_of(memory.ask(conditional("default", "6", true, 0))) > version);
  // Written again: its time begins anew, or ends.
  memory.set_for("short", "7", 1'000);
  memory.set_for("short", "8", 0);
  memory.clock().advance(2s);
  CHECK(memory.value("short") == "8");
}

void expiry_and_quota(const MemoryBackend& backend) {
  MemoryClient memory(backend, 1'000);
  CHECK(code_of(memory.set_for("old", json_of(600), 1'000)).empty());
  CHECK(code_of(memory.set("new", json_of(600))) == "QUOTA_EXCEEDED");
  memory.clock().advance(2s);
  CHECK(code_of(memory.set("new", json_of(600))).empty());
  CHECK(memory.store().usage().bytes == 603);
  CHECK(memory.store().usage().entries == 1);
}

void quota(const MemoryBackend& backend) {
  MemoryClient memory(backend, 1'000);
  CHECK(code_of(memory.set("aa", json_of(498))).empty());
  CHECK(code_of(memory.set("bb", json_of(498))).empty());
  CHECK(memory.store().usage().bytes == 1'000);
  const klp::MemoryAnswer full = memory.set("c", "1");
  REQUIRE(code_of(full) == "QUOTA_EXCEEDED");
  CHECK(full.error().message().find("1000 of 1000 bytes") != std::string::npos);
  CHECK(nlohmann::json::parse(full.error().details_json()) ==
        nlohmann::json{{"used", 1'000}, {"limit", 1'000}, {"needed", 2}});
  CHECK(memory.value("c") == "(none)");

  // One byte more of what is there, the same size, one less; what is deleted can be used again.
  CHECK(code_of(memory.set("bb", json_of(499))) == "QUOTA_EXCEEDED");
  CHECK(memory.value("bb") == json_of(498));
  CHECK(code_of(memory.set("bb", json_of(498))).empty());
  CHECK(code_of(memory.set("bb", json_of(496))).empty());
  CHECK(code_of(memory.set("c", "1")).empty());
  CHECK(memory.store().usage().bytes == 1'000);
  CHECK(memory.remove("aa").deleted().deleted());
  CHECK(memory.store().usage().bytes == 500);
  // A set is counted as a whole: what it makes less pays for what it makes more.
  klp::MemoryRequest both;
  add_write(both, "d", json_of(990));
  add_write(both, "bb", "12345");
  CHECK(code_of(memory.ask(both)).empty());
  CHECK(memory.store().usage().bytes == 1'000);
  CHECK(memory.store().usage().entries == 3);
}

void quota_of_many_writers(const MemoryBackend& backend) {
  MemoryClient memory(backend, 64 * 1'000);
  // 16 writers, each with 100 values of 1,000 bytes with their keys, all at the same time: 64 of them fit.
  std::vector<klp::MemoryRequest> requests;
  for (int i = 0; i < 100; ++i) {
    for (int writer = 0; writer < 16; ++writer) {
      if (requests.size() == 1'000) break;
      requests.push_back(set_request(std::to_string(10 + writer) + "/" + std::to_string(100 + i), json_of(994)));
    }
  }
  int taken = 0;
  for (const klp::MemoryAnswer& answer : memory.ask_all(std::move(requests))) {
    if (answer.has_written()) ++taken;
    if (answer.has_error()) CHECK(answer.error().code() == "QUOTA_EXCEEDED");
  }
  CHECK(taken == 64);
  CHECK(keys_of(memory.list()).size() == 64);
  CHECK(memory.store().usage().bytes == 64 * 1'000);
}

void counter_of_many_writers(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  std::uint64_t version = version_of(memory.set("counter", "0"));
  for (int round = 1; round <= 20; ++round) {
    std::vector<klp::MemoryRequest> requests(16, conditional("counter", std::to_string(round), false, version));
    int won = 0;
    for (const klp::MemoryAnswer& answer : memory.ask_all(std::move(requests))) {
      if (!answer.has_written()) continue;
      ++won;
      version = answer.written().versions(0);
    }
    CHECK(won == 1);
  }
  CHECK(memory.value("counter") == "20");
}

void many_tiny_keys(const MemoryBackend& backend) {
  // 100 entries are the most, far below the bytes.
  MemoryClient memory(backend, 100 * kQuotaBytesPerEntry);
  int taken = 0;
  std::string refusal;
  for (int i = 0; i < 150; ++i) {
    const klp::MemoryAnswer answer = memory.set("k" + std::to_string(i), "1");
    taken += answer.has_written() ? 1 : 0;
    if (answer.has_error()) refusal = answer.error().code() + " " + answer.error().message();
  }
  CHECK(taken == 100);
  CHECK(refusal.starts_with("QUOTA_EXCEEDED memory has too many keys: 100 of 100"));
  CHECK(memory.store().usage().entries == 100);
  CHECK(code_of(memory.set("k1", "22")).empty());
  CHECK(memory.remove("k1").deleted().deleted());
  CHECK(code_of(memory.set("another", "1")).empty());
}

void clear_and_reopen(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  const std::uint64_t version = version_of(memory.set("k", "1"));
  memory.set_for("short", "2", 5'000);
  if (backend.outlives_store) {
    REQUIRE(memory.reopen());
    CHECK(memory.value("k") == "1");
    CHECK(memory.get("k").got().entries(0).version() == version);
    CHECK(memory.store().usage().entries == 2);
    CHECK(memory.store().usage().bytes == 8);
    memory.clock().advance(6s);
    CHECK(memory.value("short") == "(none)");
    CHECK(version_of(memory.set("l", "1")) > version);
  }
  REQUIRE(memory.clear());
  CHECK(keys_of(memory.list()).empty());
  CHECK(memory.store().usage().bytes == 0);
  CHECK(memory.store().usage().entries == 0);
  CHECK(version_of(memory.set("k", "1")) > version);
  REQUIRE(memory.clear());
  if (backend.outlives_store) REQUIRE(memory.reopen());
  CHECK(keys_of(memory.list()).empty());
}

void two_agents(const MemoryBackend& backend) {
  MemoryClient one(backend, MemoryTerms{"agent", 1'000, 0, {}});
  MemoryClient other(backend, MemoryTerms{"agent.2", 1'000, 0, {}});
  CHECK(code_of(one.set("k", "1")).empty());
  CHECK(other.value("k") == "(none)");
  CHECK(code_of(other.set("k", "2")).empty());
  CHECK(one.value("k") == "1");
  REQUIRE(one.clear());
  CHECK(other.value("k") == "2");
  CHECK(keys_of(other.list()) == Keys{"k"});
}

void indexed_db_elsewhere(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  klp::MemoryRequest request;
  request.mutable_indexed_db()->mutable_databases();
  const klp::MemoryAnswer answer = memory.ask(request);
  const bool refused = code_of(answer) == "INVALID";
  CHECK((refused || answer.has_indexed_db()));
}

void imported_versions(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  constexpr std::uint64_t kLast = (std::uint64_t{1} << 53U) - 1;
  const auto restore = [&](std::uint64_t version) {
    const auto text = dump_text({"conformer", "2026-05-04T13:00:00.000Z", "sqlite"},
                                {DumpEntry{"imported", "1", false, version, {}}});
    REQUIRE(text);
    Fd file(memfd_create("import", MFD_CLOEXEC));
    REQUIRE(write_all(file.get(), *text));
    REQUIRE(lseek(file.get(), 0, SEEK_SET) == 0);
    return memory.wait([&](auto done) { memory.store().restore(std::move(file), done); });
  };
  REQUIRE(memory.set("mine", "1").has_written());
  for (const std::uint64_t version : {std::uint64_t{0}, kLast + 1, ~std::uint64_t{0}}) {
    CAPTURE(version);
    const auto refused = restore(version);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "INVALID");
    CHECK(memory.value("mine") == "1");
  }
  REQUIRE(restore(kLast - 9));
  CHECK(memory.get("imported").got().entries(0).version() == kLast - 9);
  CHECK(memory.value("mine") == "(none)");
}

void ends(const MemoryBackend& backend) {
  MemoryClient memory(backend);
  // More than may wait: each is answered, with BUSY at the worst; nothing is lost at the store's end.
  std::size_t answered = 0;
  std::size_t busy = 0;
  for (int i = 0; i < 3'000; ++i) {
    memory.store().perform(set_request("k" + std::to_string(i), "1"), [&](klp::MemoryAnswer&& answer) {
      ++answered;
      if (code_of(answer) != "BUSY") return;
      CHECK(answer.error().retryable());
      ++busy;
    });
  }
  memory.loop().run_until([&] { return answered >= 1'500; });
  CHECK(busy > 0);
  REQUIRE(memory.reopen());
  CHECK(answered == 3'000);
}

}  // namespace

void check_conformance(const MemoryBackend& backend) {
  SUBCASE("values come back as they were written, JSON and bytes") {
    round_trips(backend);
  }
  SUBCASE("versions grow, and conditions hold them") {
    versions_and_conditions(backend);
  }
  SUBCASE("a set is all or none") {
    all_or_none(backend);
  }
  SUBCASE("lists are in the order of the keys' bytes, by prefix and page") {
    lists(backend);
  }
  SUBCASE("a list has 1,000 keys at most, and says that there are more") {
    long_lists(backend);
  }
  SUBCASE("keys that are none are refused") {
    bad_keys(backend);
  }
  SUBCASE("values that are none, or too large, are refused") {
    bad_values(backend);
  }
  SUBCASE("keys expire by the clock") {
    expiry(backend);
  }
  SUBCASE("what has expired is not in the quota") {
    expiry_and_quota(backend);
  }
  SUBCASE("the quota is exact") {
    quota(backend);
  }
  SUBCASE("the quota is exact under 16 writers at once") {
    quota_of_many_writers(backend);
  }
  SUBCASE("of writers that expect one version one wins") {
    counter_of_many_writers(backend);
  }
  SUBCASE("entries are bounded, however small they are") {
    many_tiny_keys(backend);
  }
  SUBCASE("clear empties it, and its end does not") {
    clear_and_reopen(backend);
  }
  SUBCASE("agents do not see each other's") {
    two_agents(backend);
  }
  SUBCASE("IndexedDB is the backend indexeddb's alone") {
    indexed_db_elsewhere(backend);
  }
  SUBCASE("an import's versions are from 1 to 2^53 - 1") {
    imported_versions(backend);
  }
  SUBCASE("what waits is bounded, and answered at the end") {
    ends(backend);
  }
}

}  // namespace kai
