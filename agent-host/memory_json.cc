#include "agent-host/memory_json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "agent-host/indexed_db_json.h"
#include "agent-host/json_text.h"
#include "agent-host/limits.h"
#include "agent-host/members.h"
#include "base/base64.h"
#include "base/text.h"

namespace kai {
namespace {

constexpr std::array<std::pair<std::string_view, MemoryCall>, 7> kMethods = {{
    {"memory.get", MemoryCall::kGet},
    {"memory.getMany", MemoryCall::kGetMany},
    {"memory.set", MemoryCall::kSet},
    {"memory.setMany", MemoryCall::kSetMany},
    {"memory.delete", MemoryCall::kDelete},
    {"memory.list", MemoryCall::kList},
    {"memory.indexedDb", MemoryCall::kIndexedDb},
}};
constexpr std::array<std::string_view, 8> kEntryMembers = {"key",      "value",     "valueBase64", "ttl",
                                                           "ifAbsent", "ifVersion", "agent",       "entries"};
constexpr std::array<std::string_view, 6> kReadMembers = {"key", "keys", "agent", "prefix", "limit", "cursor"};

/// Of one getMany or setMany, and answered by one list; the store holds it too. Counted here before anything is copied.
constexpr std::size_t kMostKeys = 1'000;
constexpr double kMaxTtlSeconds = 1e12;  // 30,000 years: as milliseconds far from the end of an int64

tl::unexpected<KlpError> internal(const char* what) {
  return tl::unexpected(KlpError{"INTERNAL", std::string("kaid's answer ") + what, {}, false});
}

tl::unexpected<KlpError> too_many(std::string_view method) {
  return tl::unexpected(
      KlpError{"TOO_LARGE", std::string(method) + " takes at most 1000 keys: ask in parts", {}, false});
}

std::string_view method_of(MemoryCall call) {
  return kMethods[static_cast<std::size_t>(call)].first;
}

void take_agent(Members& members, klp::MemoryRequest& request) {
  auto agent = members.optional_text("agent");
  if (!agent) return;
  if (!is_agent_id(*agent)) return members.fail("agent", "an agent's id");
  request.set_agent(std::move(*agent));
}

void take_ttl(Members& members, klp::MemoryWrite& write) {
  const auto given = members.given("ttl");
  if (!given) return;
  const auto seconds = given->number();
  if (!seconds || !(*seconds >= 0 && *seconds <= kMaxTtlSeconds)) {
    return members.fail("ttl", "a number of seconds from 0, which is never, to 1e12");
  }
  write.set_has_ttl(true);
  // Rounded up: a part of a millisecond is not never.
  write.set_ttl_ms(static_cast<std::uint64_t>(std::ceil(*seconds * 1000)));
}

void take_value(Members& members, klp::MemoryWrite& write) {
  const auto json = members.given_or_null("value");
  auto bytes = members.optional_bytes("valueBase64");
  if (json && bytes) return members.fail("value", "there without `valueBase64`, or that one alone");
  if (bytes) {
    write.set_value(std::move(*bytes));
    write.set_binary(true);
  } else if (json) {
    write.set_value(std::string(json->text()));
  } else {
    members.fail("value", "there, any JSON, or `valueBase64`");
  }
}

std::optional<KlpError> take_write(const JsonView& object, std::string_view where, klp::MemoryWrite& write) {
  Members members(object, kEntryMembers, where);
  write.set_key(members.text("key"));
  take_value(members, write);
  take_ttl(members, write);
  write.set_if_absent(members.flag("ifAbsent"));
  if (const auto version = members.optional_integer("ifVersion")) {
    write.set_has_if_version(true);
    write.set_if_version(*version);
  }
  if (members.given("agent")) members.fail("agent", "left out: what another agent has shared can be read alone");
  return members.fault();
}

std::optional<KlpError> take_writes(Members& members, klp::MemorySet& set) {
  const auto entries = members.given("entries");
  if (!entries || !entries->is_array()) {
    members.fail("entries", "an array of objects");
    return members.fault();
  }
  const std::string where = "memory.setMany: entries";
  std::size_t count = 0;
  for (JsonView::Items items(*entries); items.next(); ++count) {
    if (count == kMostKeys) return too_many("memory.setMany").value();
    const std::string place = where + "[" + std::to_string(count) + "]";
    if (!items.value().is_object()) return KlpError{"INVALID", place + " has to be an object", {}, false};
    if (auto fault = take_write(items.value(), place, *set.add_writes())) return fault;
  }
  return std::nullopt;
}

std::optional<KlpError> take_keys(Members& members, klp::MemoryGet& get) {
  const auto keys = members.given("keys");
  if (!keys || !keys->is_array()) {
    members.fail("keys", "an array of strings");
    return members.fault();
  }
  for (JsonView::Items items(*keys); items.next();) {
    if (static_cast<std::size_t>(get.keys_size()) == kMostKeys) return too_many("memory.getMany").value();
    auto key = items.value().string();
    if (!key) {
      members.fail("keys", "an array of strings");
      return members.fault();
    }
    get.add_keys(std::move(*key));
  }
  return members.fault();
}

void take_list(Members& members, klp::MemoryList& list) {
  list.set_prefix(members.optional_text("prefix").value_or(""));
  if (const auto limit = members.optional_integer("limit")) {
    if (*limit == 0) members.fail("limit", "at least 1");
    list.set_limit(static_cast<std::uint32_t>(std::min<std::uint64_t>(*limit, kMostKeys)));
  }
  list.set_after(members.optional_text("cursor").value_or(""));
}

std::optional<KlpError> take_read(MemoryCall call, const JsonView& params, klp::MemoryRequest& request) {
  Members members(params, kReadMembers, method_of(call));
  if (call == MemoryCall::kDelete) {
    request.mutable_delete_()->set_key(members.text("key"));
    if (members.given("agent")) members.fail("agent", "left out: what another agent has shared can be read alone");
    return members.fault();
  }
  take_agent(members, request);
  if (call == MemoryCall::kGet) request.mutable_get()->add_keys(members.text("key"));
  if (call == MemoryCall::kList) take_list(members, *request.mutable_list());
  if (call == MemoryCall::kGetMany) return take_keys(members, *request.mutable_get());
  return members.fault();
}

std::optional<KlpError> take(MemoryCall call, const JsonView& params, klp::MemoryRequest& request) {
  switch (call) {
    case MemoryCall::kSet:
      return take_write(params, method_of(call), *request.mutable_set()->add_writes());
    case MemoryCall::kSetMany: {
      Members members(params, kEntryMembers, method_of(call));
      return take_writes(members, *request.mutable_set());
    }
    case MemoryCall::kIndexedDb: {
      auto asked = indexed_db_request(params);
      if (!asked) return asked.error();
      *request.mutable_indexed_db() = std::move(*asked);
      return std::nullopt;
    }
    default:
      return take_read(call, params, request);
  }
}

KlpError error_of(const klp::MemoryError& error) {
  const auto details = JsonView::parse(error.details_json());
  return {error.code().empty() ? "INTERNAL" : error.code(), error.message(),
          details && details->is_object() ? std::string(details->text()) : std::string(), error.retryable()};
}

/// `,"value":…,"version":…`; false: what is said to be JSON is not.
bool append_entry(std::string& out, const klp::MemoryEntry& entry) {
  if (entry.binary()) {
    append_name(out, "valueBase64");
    out += '"';
    append_base64(out, entry.value());
    out += '"';
  } else {
    if (!JsonView::parse(entry.value())) return false;
    append_name(out, "value");
    append_json_on_one_line(out, entry.value());
  }
  append_name(out, "version");
  append_decimal(out, entry.version());
  return true;
}

tl::expected<std::string, KlpError> got_result(const klp::MemoryGot& got) {
  if (got.entries_size() == 0) return R"({"found":false})";
  std::string result = R"({"found":true)";
  if (!append_entry(result, got.entries(0))) return internal("has a value that is not JSON");
  result += '}';
  return result;
}

tl::expected<std::string, KlpError> got_many_result(const klp::MemoryGot& got) {
  std::string result = R"({"entries":[)";
  for (const klp::MemoryEntry& entry : got.entries()) {
    if (result.back() != '[') result += ',';
    result += '{';
    append_name(result, "key");
    append_json_string(result, entry.key());
    if (!append_entry(result, entry)) return internal("has a value that is not JSON");
    result += '}';
  }
  result += "]}";
  return result;
}

tl::expected<std::string, KlpError> written_result(MemoryCall call, const klp::MemoryWritten& written) {
  std::string result = "{";
  if (call == MemoryCall::kSet) {
    if (written.versions_size() != 1) return internal("has not the one version of the one write");
    append_name(result, "version");
    append_decimal(result, written.versions(0));
  } else {
    append_name(result, "versions");
    result += '[';
    for (const std::uint64_t version : written.versions()) {
      if (result.back() != '[') result += ',';
      append_decimal(result, version);
    }
    result += ']';
  }
  result += '}';
  return result;
}

std::string listed_result(const klp::MemoryListed& listed) {
  // A key's bytes may be six times as many as JSON; what does not fit is left to the next page.
  const std::size_t limit = kMaxResultBytes - 64;
  std::string result = R"({"keys":[)";
  std::string last;
  bool more = listed.more();
  for (const std::string& key : listed.keys()) {
    std::string quoted;
    append_json_string(quoted, key);
    if (result.size() + 2 * quoted.size() > limit) {  // it may have to stand as the cursor too
      more = true;
      break;
    }
    if (result.back() != '[') result += ',';
    result += quoted;
    last = std::move(quoted);
  }
  result += ']';
  if (more && !last.empty()) {
    append_name(result, "cursor");
    result += last;
  }
  result += '}';
  return result;
}

tl::expected<std::string, KlpError> result_of(MemoryCall call, const klp::MemoryAnswer& answer) {
  using A = klp::MemoryAnswer;
  const A::ResultCase kind = answer.result_case();
  if (call == MemoryCall::kGet && kind == A::kGot) return got_result(answer.got());
  if (call == MemoryCall::kGetMany && kind == A::kGot) return got_many_result(answer.got());
  if (call == MemoryCall::kDelete && kind == A::kDeleted) {
    return answer.deleted().deleted() ? R"({"deleted":true})" : R"({"deleted":false})";
  }
  if (call == MemoryCall::kList && kind == A::kListed) return listed_result(answer.listed());
  if (call == MemoryCall::kIndexedDb && kind == A::kIndexedDb) return indexed_db_result(answer.indexed_db());
  const bool set = call == MemoryCall::kSet || call == MemoryCall::kSetMany;
  if (set && kind == A::kWritten) return written_result(call, answer.written());
  return internal("is not one to this request");
}

}  // namespace

std::optional<MemoryCall> memory_call(std::string_view method) {
  for (const auto& [name, call] : kMethods) {
    if (name == method) return call;
  }
  return std::nullopt;
}

tl::expected<klp::MemoryRequest, KlpError> memory_request(MemoryCall call, const JsonView& params) {
  klp::MemoryRequest request;
  if (auto fault = take(call, params, request)) return tl::unexpected(std::move(*fault));
  return request;
}

tl::expected<std::string, KlpError> memory_result(MemoryCall call, const klp::MemoryAnswer& answer) {
  if (answer.has_error()) return tl::unexpected(error_of(answer.error()));
  auto result = result_of(call, answer);
  if (result && result->size() > kMaxResultBytes) {
    return tl::unexpected(
        KlpError{"TOO_LARGE", "the answer is too large for the runner protocol: ask for less at once", {}, false});
  }
  return result;
}

}  // namespace kai
