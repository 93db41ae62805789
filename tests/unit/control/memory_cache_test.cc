// The volatile half of a hybrid memory never says what the store would not.
#include "supervisor/control/memory_cache.h"

#include <doctest/doctest.h>

namespace kai::test {
namespace {

klp::MemoryGet get(std::initializer_list<std::string> keys) {
  klp::MemoryGet get;
  for (const std::string& key : keys) get.add_keys(key);
  return get;
}

klp::MemoryRequest set(const std::string& key, const std::string& value) {
  klp::MemoryRequest request;
  klp::MemoryWrite& write = *request.mutable_set()->add_writes();
  write.set_key(key);
  write.set_value(value);
  return request;
}

klp::MemoryAnswer written(std::uint64_t version) {
  klp::MemoryAnswer answer;
  answer.mutable_written()->add_versions(version);
  return answer;
}

klp::MemoryAnswer refused() {
  klp::MemoryAnswer answer;
  answer.mutable_error()->set_code("QUOTA_EXCEEDED");
  return answer;
}

std::int64_t never(const klp::MemoryWrite&) {
  return 0;
}

void write(MemoryCache& cache, const std::string& key, const std::string& value, std::uint64_t version) {
  cache.begin(set(key, value));
  cache.finish(set(key, value), written(version), never);
}

}  // namespace

TEST_CASE("what was written is there, with its version; all keys or none") {
  MemoryCache cache(1 << 20);
  CHECK(!cache.find(get({"a"}), 1));
  write(cache, "a", "1", 7);
  const auto found = cache.find(get({"a"}), 1);
  REQUIRE(found);
  CHECK(found->entries(0).value() == "1");
  CHECK(found->entries(0).version() == 7);
  CHECK(!cache.find(get({"a", "b"}), 1));
  cache.clear();
  CHECK(!cache.find(get({"a"}), 1));
  CHECK(cache.bytes() == 0);
}

TEST_CASE("while a write is on its way nothing is said of its key, and a refused one leaves nothing") {
  MemoryCache cache(1 << 20);
  write(cache, "a", "1", 1);
  cache.begin(set("a", "2"));
  CHECK(!cache.find(get({"a"}), 1));
  klp::MemoryGot old;
  old.add_entries()->set_key("a");
  cache.learn(old);  // what a get that was asked before the write brought
  CHECK(!cache.find(get({"a"}), 1));
  SUBCASE("refused") {
    cache.finish(set("a", "2"), refused(), never);
    CHECK(!cache.find(get({"a"}), 1));
  }
  SUBCASE("two on their way: the last one counts") {
    cache.begin(set("a", "3"));
    cache.finish(set("a", "2"), written(2), never);
    CHECK(!cache.find(get({"a"}), 1));
    cache.finish(set("a", "3"), written(3), never);
    REQUIRE(cache.find(get({"a"}), 1));
    CHECK(cache.find(get({"a"}), 1)->entries(0).value() == "3");
  }
  SUBCASE("deleted meanwhile") {
    klp::MemoryRequest remove;
    remove.mutable_delete_()->set_key("a");
    cache.begin(remove);
    cache.finish(set("a", "2"), written(2), never);
    klp::MemoryAnswer gone;
    gone.mutable_deleted()->set_deleted(true);
    cache.finish(remove, gone, never);
    CHECK(!cache.find(get({"a"}), 1));
  }
}

TEST_CASE("expired is not there") {
  MemoryCache cache(1 << 20);
  cache.begin(set("a", "1"));
  cache.finish(set("a", "1"), written(1), [](const klp::MemoryWrite&) { return std::int64_t{100}; });
  CHECK(cache.find(get({"a"}), 99));
  CHECK(!cache.find(get({"a"}), 100));
}

TEST_CASE("bounded: the least used goes first") {
  MemoryCache cache(4096);
  for (int each = 0; each < 100; ++each) {
    write(cache, "k" + std::to_string(each), std::string(256, 'x'), 1);
    CHECK(cache.bytes() <= 4096);
    CHECK((each == 0 || cache.find(get({"k0"}), 1)));
  }
  CHECK(cache.find(get({"k99"}), 1));
  CHECK(!cache.find(get({"k1"}), 1));
  write(cache, "big", std::string(8192, 'x'), 1);
  CHECK(!cache.find(get({"big"}), 1));
  CHECK(cache.bytes() <= 4096);
}

}  // namespace kai::test
