#include "agent-host/indexed_db_json.h"

#include <algorithm>
#include <array>
#include <utility>

#include "agent-host/json_text.h"
#include "agent-host/limits.h"
#include "agent-host/members.h"
#include "base/base64.h"

namespace kai {
namespace {

constexpr std::string_view kMethod = "memory.indexedDb";
constexpr auto kMembers = std::to_array<std::string_view>(
    {"op",        "transaction", "name",          "database",    "mode",       "version", "scope",     "store",
     "index",     "keyPath",     "autoIncrement", "unique",      "multiEntry", "key",     "value",     "primaryKey",
     "keys",      "indexKeys",   "nextKey",       "noOverwrite", "lower",      "upper",   "lowerOpen", "upperOpen",
     "direction", "inclusive",   "skip",          "limit",       "keysOnly"});
constexpr std::array<std::string_view, 3> kModes = {"readonly", "readwrite", "versionchange"};  // by klp::IdbMode
constexpr std::array<std::string_view, 4> kDirections = {"next", "nextunique", "prev", "prevunique"};
constexpr std::array<std::string_view, 2> kIndexKeyMembers = {"index", "key"};

/// The place of the member's text among `words`; 0 where it is not there.
template <std::size_t N>
int word(Members& members, std::string_view name, const std::array<std::string_view, N>& words, const char* rule) {
  const auto text = members.optional_text(name);
  if (!text) return 0;
  const auto found = std::find(words.begin(), words.end(), *text);
  if (found != words.end()) return static_cast<int>(found - words.begin());
  members.fail(name, rule);
  return 0;
}

std::string key_path(const Members& members) {
  const auto given = members.given_or_null("keyPath");
  return given ? std::string(given->text()) : "null";
}

void take_name(Members& members, klp::IdbName& name) {
  name.set_name(members.text("name"));
}

void take_begin(Members& members, klp::IdbBegin& begin) {
  begin.set_database(members.text("database"));
  begin.set_mode(static_cast<klp::IdbMode>(word(members, "mode", kModes, "readonly, readwrite or versionchange")));
  begin.set_version(members.optional_integer("version").value_or(0));
  const auto scope = members.given("scope");
  if (!scope) return;
  if (!scope->is_array()) return members.fail("scope", "an array of the ids of stores");
  for (JsonView::Items items(*scope); items.next();) {
    const auto id = items.value().unsigned_integer();
    if (!id || *id > UINT32_MAX) return members.fail("scope", "an array of the ids of stores");
    begin.add_scope(static_cast<std::uint32_t>(*id));
  }
}

void take_store(Members& members, klp::IdbStore& store) {
  store.set_name(members.text("name"));
  store.set_key_path_json(key_path(members));
  store.set_auto_increment(members.flag("autoIncrement"));
}

void take_target(Members& members, klp::IdbTarget& target, bool index) {
  target.set_store(members.id("store"));
  if (index) target.set_index(members.id("index"));
}

void take_rename(Members& members, klp::IdbRename& rename, bool index) {
  rename.set_store(members.id("store"));
  if (index) rename.set_index(members.id("index"));
  rename.set_name(members.text("name"));
}

void take_create_index(Members& members, klp::IdbCreateIndex& create) {
  create.set_store(members.id("store"));
  create.mutable_index()->set_name(members.text("name"));
  create.mutable_index()->set_key_path_json(key_path(members));
  create.mutable_index()->set_unique(members.flag("unique"));
  create.mutable_index()->set_multi_entry(members.flag("multiEntry"));
}

void take_index_record(Members& members, klp::IdbIndexRecord& record) {
  record.set_store(members.id("store"));
  record.set_index(members.id("index"));
  record.set_primary_key(members.bytes("primaryKey"));
  const auto keys = members.given("keys");
  if (!keys || !keys->is_array()) return members.fail("keys", "an array of keys in base64");
  for (JsonView::Items items(*keys); items.next();) {
    const auto text = items.value().string();
    auto key = text ? decode_base64(*text) : std::nullopt;
    if (!key) return members.fail("keys", "an array of keys in base64");
    record.add_keys(std::move(*key));
  }
}

void take_index_keys(Members& members, klp::IdbPut& put) {
  constexpr const char* kRule = "an array of {index, key}, the key in base64";
  const auto given = members.given("indexKeys");
  if (!given) return;
  if (!given->is_array()) return members.fail("indexKeys", kRule);
  for (JsonView::Items items(*given); items.next();) {
    if (!items.value().is_object()) return members.fail("indexKeys", kRule);
    Members pair(items.value(), kIndexKeyMembers, kMethod);
    klp::IdbIndexKey& key = *put.add_index_keys();
    key.set_index(pair.id("index"));
    key.set_key(pair.bytes("key"));
    if (pair.fault()) return members.fail("indexKeys", kRule);
  }
}

void take_put(Members& members, klp::IdbPut& put) {
  put.set_store(members.id("store"));
  put.set_key(members.bytes("key"));
  put.set_value(members.bytes("value"));
  put.set_no_overwrite(members.flag("noOverwrite"));
  put.set_next_key(members.optional_integer("nextKey").value_or(0));
  take_index_keys(members, put);
}

void take_span(Members& members, klp::IdbSpan& span) {
  span.set_store(members.id("store"));
  span.set_index(members.optional_id("index").value_or(0));
  klp::IdbRange& range = *span.mutable_range();
  range.set_lower(members.optional_bytes("lower").value_or(""));
  range.set_upper(members.optional_bytes("upper").value_or(""));
  range.set_lower_open(members.flag("lowerOpen"));
  range.set_upper_open(members.flag("upperOpen"));
}

void take_read(Members& members, klp::IdbRead& read) {
  take_span(members, *read.mutable_span());
  const int direction = word(members, "direction", kDirections, "next, nextunique, prev or prevunique");
  read.set_direction(static_cast<klp::IdbDirection>(direction));
  if (auto key = members.optional_bytes("key")) {
    read.set_has_position(true);
    read.set_key(std::move(*key));
  }
  read.set_primary_key(members.optional_bytes("primaryKey").value_or(""));
  read.set_inclusive(members.flag("inclusive"));
  read.set_skip(members.optional_id("skip").value_or(0));
  read.set_limit(members.optional_id("limit").value_or(0));
  read.set_keys_only(members.flag("keysOnly"));
}

struct Operation {
  std::string_view name;
  bool in_transaction;
  void (*take)(Members& members, klp::IdbRequest& request);
};

using R = klp::IdbRequest;
constexpr std::array<Operation, 18> kOperations = {{
    {"databases", false, [](Members&, R& request) { (void)request.mutable_databases(); }},
    {"describe", false, [](Members& members, R& request) { take_name(members, *request.mutable_describe()); }},
    {"deleteDatabase", false,
     [](Members& members, R& request) { take_name(members, *request.mutable_delete_database()); }},
    {"begin", false, [](Members& members, R& request) { take_begin(members, *request.mutable_begin()); }},
    {"commit", true, [](Members&, R& request) { (void)request.mutable_commit(); }},
    {"abort", true, [](Members&, R& request) { (void)request.mutable_abort(); }},
    {"createStore", true, [](Members& members, R& request) { take_store(members, *request.mutable_create_store()); }},
    {"deleteStore", true,
     [](Members& members, R& request) { take_target(members, *request.mutable_delete_store(), false); }},
    {"renameStore", true,
     [](Members& members, R& request) { take_rename(members, *request.mutable_rename_store(), false); }},
    {"createIndex", true,
     [](Members& members, R& request) { take_create_index(members, *request.mutable_create_index()); }},
    {"deleteIndex", true,
     [](Members& members, R& request) { take_target(members, *request.mutable_delete_index(), true); }},
    {"renameIndex", true,
     [](Members& members, R& request) { take_rename(members, *request.mutable_rename_index(), true); }},
    {"indexRecord", true,
     [](Members& members, R& request) { take_index_record(members, *request.mutable_index_record()); }},
    {"put", true, [](Members& members, R& request) { take_put(members, *request.mutable_put()); }},
    {"read", true, [](Members& members, R& request) { take_read(members, *request.mutable_read()); }},
    {"count", true, [](Members& members, R& request) { take_span(members, *request.mutable_count()); }},
    {"remove", true, [](Members& members, R& request) { take_span(members, *request.mutable_remove()); }},
    {"clear", true, [](Members& members, R& request) { take_target(members, *request.mutable_clear(), false); }},
}};

tl::unexpected<KlpError> internal(const char* what) {
  return tl::unexpected(KlpError{"INTERNAL", std::string("kaid's answer ") + what, {}, false});
}

void append_flag(std::string& out, std::string_view name, bool value) {
  append_name(out, name);
  out += value ? "true" : "false";
}

void append_integer(std::string& out, std::string_view name, std::uint64_t value) {
  append_name(out, name);
  append_decimal(out, value);
}

void append_text(std::string& out, std::string_view name, std::string_view value) {
  append_name(out, name);
  append_json_string(out, value);
}

void append_bytes(std::string& out, std::string_view name, std::string_view value) {
  append_name(out, name);
  out += '"';
  append_base64(out, value);
  out += '"';
}

/// False: it is not JSON.
bool append_key_path(std::string& out, std::string_view json) {
  const auto path = JsonView::parse(json);
  if (!path) return false;
  append_name(out, "keyPath");
  append_json_on_one_line(out, path->text());
  return true;
}

bool append_index(std::string& out, const klp::IdbIndex& index) {
  out += '{';
  append_integer(out, "id", index.id());
  append_text(out, "name", index.name());
  if (!append_key_path(out, index.key_path_json())) return false;
  append_flag(out, "unique", index.unique());
  append_flag(out, "multiEntry", index.multi_entry());
  out += '}';
  return true;
}

bool append_store(std::string& out, const klp::IdbStore& store) {
  out += '{';
  append_integer(out, "id", store.id());
  append_text(out, "name", store.name());
  if (!append_key_path(out, store.key_path_json())) return false;
  append_flag(out, "autoIncrement", store.auto_increment());
  append_integer(out, "nextKey", store.next_key());
  append_name(out, "indexes");
  out += '[';
  for (const klp::IdbIndex& index : store.indexes()) {
    if (out.back() != '[') out += ',';
    if (!append_index(out, index)) return false;
  }
  out += "]}";
  return true;
}

bool append_database(std::string& out, const klp::IdbDatabase& database) {
  append_name(out, "database");
  out += '{';
  append_text(out, "name", database.name());
  append_integer(out, "version", database.version());
  append_name(out, "stores");
  out += '[';
  for (const klp::IdbStore& store : database.stores()) {
    if (out.back() != '[') out += ',';
    if (!append_store(out, store)) return false;
  }
  out += "]}";
  return true;
}

void append_names(std::string& out, const klp::IdbNames& names) {
  append_name(out, "databases");
  out += '[';
  for (const klp::IdbDatabase& database : names.databases()) {
    if (out.back() != '[') out += ',';
    out += '{';
    append_text(out, "name", database.name());
    append_integer(out, "version", database.version());
    out += '}';
  }
  out += ']';
}

/// More than the record has as JSON.
std::size_t json_size(const klp::IdbRecord& record) {
  constexpr std::size_t kNames = 64;
  return kNames + (record.key().size() + record.primary_key().size() + record.value().size() + 9) / 3 * 4;
}

/// False: not even the first fits.
bool append_records(std::string& out, const klp::IdbRecords& records) {
  constexpr std::size_t kRest = 32;  // more than what follows the last record
  append_name(out, "records");
  out += '[';
  bool more = records.more();
  for (const klp::IdbRecord& record : records.records()) {
    const bool first = out.back() == '[';
    if (out.size() + json_size(record) + kRest > kMaxResultBytes) {
      if (first) return false;
      more = true;
      break;
    }
    if (!first) out += ',';
    out += '{';
    append_bytes(out, "key", record.key());
    if (!record.primary_key().empty()) append_bytes(out, "primaryKey", record.primary_key());
    if (!record.value().empty()) append_bytes(out, "value", record.value());
    out += '}';
  }
  out += ']';
  append_flag(out, "more", more);
  return true;
}

}  // namespace

tl::expected<klp::IdbRequest, KlpError> indexed_db_request(const JsonView& params) {
  Members members(params, kMembers, kMethod);
  klp::IdbRequest request;
  const std::string name = members.text("op");
  const auto known = [&](const Operation& operation) { return operation.name == name; };
  const auto operation = std::find_if(kOperations.begin(), kOperations.end(), known);
  if (operation == kOperations.end()) {
    members.fail("op", "an operation of the runner protocol");
    return tl::unexpected(*members.fault());
  }
  if (operation->in_transaction && !members.given("transaction")) members.fail("transaction", "there, of `begin`");
  request.set_transaction(members.optional_integer("transaction").value_or(0));
  operation->take(members, request);
  if (members.fault()) return tl::unexpected(*members.fault());
  return request;
}

tl::expected<std::string, KlpError> indexed_db_result(const klp::IdbAnswer& answer) {
  std::string result = "{";
  bool whole = true;
  switch (answer.result_case()) {
    case klp::IdbAnswer::kDone:
      break;
    case klp::IdbAnswer::kNames:
      append_names(result, answer.names());
      break;
    case klp::IdbAnswer::kDatabase:
      whole = append_database(result, answer.database());
      break;
    case klp::IdbAnswer::kBegun:
      append_integer(result, "transaction", answer.begun().transaction());
      whole = append_database(result, answer.begun().database());
      break;
    case klp::IdbAnswer::kId:
      append_integer(result, "id", answer.id().id());
      break;
    case klp::IdbAnswer::kRecords:
      if (!append_records(result, answer.records())) {
        return tl::unexpected(KlpError{"TOO_LARGE", "the record is too large for the runner protocol", {}, false});
      }
      break;
    case klp::IdbAnswer::kCount:
      append_integer(result, "count", answer.count().count());
      break;
    default:
      return internal("is not one to memory.indexedDb");
  }
  if (!whole) return internal("has a key path that is not JSON");
  result += '}';
  return result;
}

}  // namespace kai
