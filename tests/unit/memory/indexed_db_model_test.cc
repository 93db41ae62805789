// The engine against a model that is as simple as can be: maps, searched from one end to the other. Thousands of
// operations from a seed; what both answer has to be the same, after every one of them.
#include <map>
#include <random>
#include <set>

#include "tests/unit/memory/indexed_db_fixture.h"

namespace kai::test {
namespace {

struct ModelRecord {
  std::string value;
  std::set<std::pair<std::uint32_t, std::string>> index_keys;
};

struct ModelIndex {
  bool unique = false, multi_entry = false;
};

using Rows = std::vector<std::array<std::string, 3>>;  // key, primary key, value

struct ModelStore {
  std::map<std::string, ModelRecord> records;
  std::map<std::uint32_t, ModelIndex> indexes;
  std::uint64_t next_key = 1;

  [[nodiscard]] bool is_taken(std::uint32_t index, const std::string& key, const std::string& primary) const {
    for (const auto& [of, record] : records) {
      if (of != primary && record.index_keys.contains({index, key})) return true;
    }
    return false;
  }

  [[nodiscard]] Rows rows(std::uint32_t index, klp::IdbDirection direction) const {
    Rows rows;
    for (const auto& [primary, record] : records) {
      if (index == 0) rows.push_back({primary, "", record.value});
      for (const auto& [of, key] : record.index_keys) {
        if (of == index) rows.push_back({key, primary, record.value});
      }
    }
    std::sort(rows.begin(), rows.end());
    if (direction == klp::NEXT_UNIQUE || direction == klp::PREV_UNIQUE) {
      rows.erase(std::unique(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a[0] == b[0]; }),
                 rows.end());
    }
    if (direction == klp::PREV || direction == klp::PREV_UNIQUE) std::reverse(rows.begin(), rows.end());
    return rows;
  }
};

bool is_in(const klp::IdbRange& range, const std::string& key) {
  if (!range.lower().empty() && (range.lower_open() ? key <= range.lower() : key < range.lower())) return false;
  return range.upper().empty() || (range.upper_open() ? key < range.upper() : key <= range.upper());
}

bool is_beyond(const klp::IdbRead& read, const std::array<std::string, 3>& row) {
  if (!read.has_position()) return true;
  const bool forward = read.direction() == klp::NEXT || read.direction() == klp::NEXT_UNIQUE;
  int order = row[0].compare(read.key());
  if (order == 0 && !read.primary_key().empty()) order = row[1].compare(read.primary_key());
  if (order == 0) return read.inclusive();
  return forward == (order > 0);
}

Rows read_model(const ModelStore& store, const klp::IdbRead& read) {
  Rows found;
  std::uint32_t skip = read.skip();
  for (const auto& row : store.rows(read.span().index(), read.direction())) {
    if (!is_in(read.span().range(), row[0]) || !is_beyond(read, row)) continue;
    if (skip > 0) {
      --skip;
      continue;
    }
    if (read.limit() != 0 && found.size() == read.limit()) break;
    found.push_back(row);
  }
  return found;
}

class Walk {
 public:
  explicit Walk(std::uint32_t seed, bool sealed) : random_(seed), idb_(64 << 20, sealed) {
    const auto transaction = idb_.upgrade(1);
    for (int i = 0; i < 3; ++i) {
      const auto store = idb_.create_store(transaction, "s" + std::to_string(i), true);
      ModelStore& model = stores_[store];
      for (int kind = 0; kind < 4; ++kind) {
        const bool unique = (kind & 1) != 0, multi_entry = (kind & 2) != 0;
        const auto index = idb_.create_index(transaction, store, std::to_string(kind), unique, multi_entry);
        model.indexes[index] = {unique, multi_entry};
      }
    }
    idb_.commit(transaction);
  }

  void run(int transactions) {
    for (int i = 0; i < transactions; ++i) {
      const std::map<std::uint32_t, ModelStore> before = stores_;
      transaction_ = idb_.begin(klp::READWRITE);
      for (int operations = number(1, 40); operations > 0; --operations) step();
      idb_.check_usage();
      if (number(0, 3) == 0) {
        idb_.abort(transaction_);
        stores_ = before;
      } else {
        idb_.commit(transaction_);
      }
      if (number(0, 19) == 0) idb_.reopen();
      idb_.check_usage();
      const auto described = idb_.describe();
      for (const auto& shape : described.stores()) CHECK(shape.next_key() == stores_.at(shape.id()).next_key);
    }
  }

 private:
  int number(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }

  // Few and alike, so that they meet; with the bytes that are hard to order.
  std::string key() {
    static constexpr char kBytes[] = {'\0', 'a', 'b', '\x7f', '\xff'};
    std::string bytes;
    for (int size = number(1, 3); size > 0; --size) bytes += kBytes[number(0, 4)];
    return bytes;
  }

  klp::IdbRange range() {
    klp::IdbRange range;
    if (number(0, 2) != 0) range.set_lower(key());
    if (number(0, 2) != 0) range.set_upper(key());
    range.set_lower_open(number(0, 1) == 0);
    range.set_upper_open(number(0, 1) == 0);
    return range;
  }

  void step() {
    auto at = stores_.begin();
    std::advance(at, number(0, 2));
    switch (number(0, 9)) {
      case 0:
        remove(at->first, at->second);
        break;
      case 1:
        count(at->first, at->second);
        break;
      case 2:
      case 3:
      case 4:
      case 5:
        read(at->first, at->second);
        break;
      default:
        put(at->first, at->second);
    }
  }

  void put(std::uint32_t id, ModelStore& model) {
    klp::IdbRequest request =
        put_request(transaction_, id, key(), std::string(static_cast<std::size_t>(number(0, 50)), 'v'));
    klp::IdbPut& put = *request.mutable_put();
    put.set_no_overwrite(number(0, 2) == 0);
    if (number(0, 3) == 0) put.set_next_key(static_cast<std::uint64_t>(number(1, 1000)));
    ModelRecord record{put.value(), {}};
    bool conflict = put.no_overwrite() && model.records.contains(put.key());
    for (const auto& [index, kind] : model.indexes) {
      for (int keys = number(0, kind.multi_entry ? 4 : 1); keys > 0; --keys) {
        const std::string index_key = key();
        if (!record.index_keys.emplace(index, index_key).second) continue;
        conflict = conflict || (kind.unique && model.is_taken(index, index_key, put.key()));
        klp::IdbIndexKey& one = *put.add_index_keys();
        one.set_index(index);
        one.set_key(index_key);
      }
    }
    CHECK(idb_.refused(request) == (conflict ? "CONFLICT" : "done"));
    if (conflict) return;
    model.records[put.key()] = record;
    if (put.next_key() != 0) model.next_key = put.next_key();
  }

  void remove(std::uint32_t id, ModelStore& model) {
    klp::IdbRequest request = within(transaction_);
    if (number(0, 9) == 0) {
      request.mutable_clear()->set_store(id);
      model.records.clear();
    } else {
      klp::IdbSpan& span = *request.mutable_remove();
      span.set_store(id);
      *span.mutable_range() = range();
      if (number(0, 1) == 0) {
        span.mutable_range()->set_lower(key());
        span.mutable_range()->set_upper(span.range().lower());
        span.mutable_range()->set_lower_open(false);
        span.mutable_range()->set_upper_open(false);
      }
      std::erase_if(model.records, [&](const auto& record) { return is_in(span.range(), record.first); });
    }
    idb_.ok(request);
  }

  void aim(klp::IdbSpan& span, std::uint32_t id, const ModelStore& model) {
    span.set_store(id);
    const int which = number(0, 4);
    if (which < 4) span.set_index(std::next(model.indexes.begin(), which)->first);
    *span.mutable_range() = range();
  }

  void count(std::uint32_t id, const ModelStore& model) {
    klp::IdbRequest request = within(transaction_);
    aim(*request.mutable_count(), id, model);
    const auto rows = model.rows(request.count().index(), klp::NEXT);
    const auto expected = std::count_if(rows.begin(), rows.end(),
                                        [&](const auto& row) { return is_in(request.count().range(), row[0]); });
    CHECK(idb_.ok(request).count().count() == static_cast<std::uint64_t>(expected));
  }

  void read(std::uint32_t id, const ModelStore& model) {
    klp::IdbRequest request = within(transaction_);
    klp::IdbRead& read = *request.mutable_read();
    aim(*read.mutable_span(), id, model);
    read.set_direction(static_cast<klp::IdbDirection>(number(0, 3)));
    if (number(0, 1) == 0) {
      read.set_has_position(true);
      read.set_key(key());
      if (read.span().index() != 0 && number(0, 1) == 0) read.set_primary_key(key());
      read.set_inclusive(number(0, 1) == 0);
    }
    if (number(0, 2) == 0) read.set_skip(static_cast<std::uint32_t>(number(0, 5)));
    if (number(0, 1) == 0) read.set_limit(static_cast<std::uint32_t>(number(1, 5)));
    read.set_keys_only(number(0, 3) == 0);

    const auto answer = idb_.ok(request).records();
    Rows got;
    for (const klp::IdbRecord& record : answer.records())
      got.push_back({record.key(), record.primary_key(), record.value()});
    Rows expected = read_model(model, read);
    klp::IdbRead unlimited = read;
    unlimited.clear_limit();
    CHECK(answer.more() == (read_model(model, unlimited).size() > expected.size()));
    if (read.keys_only()) {
      for (auto& row : expected) row[2].clear();
    }
    CHECK_MESSAGE(got == expected, request.ShortDebugString());
  }

  std::mt19937 random_;
  Idb idb_;
  std::map<std::uint32_t, ModelStore> stores_;
  std::uint64_t transaction_ = 0;
};

TEST_CASE("the engine answers as a model does") {
  for (const std::uint32_t seed : {1U, 2U, 3U}) {
    CAPTURE(seed);
    Walk(seed, false).run(100);
  }
}

TEST_CASE("the engine answers as a model does, encrypted") {
  Walk(4, true).run(60);
}

}  // namespace
}  // namespace kai::test
