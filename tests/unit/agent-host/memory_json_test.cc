// memory.*, between JSON and proto/memory.proto: every shape, and what is none.
#include "agent-host/memory_json.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"

namespace kai {
namespace {

using Json = nlohmann::json;

klp::MemoryRequest request(MemoryCall call, const std::string& params) {
  const auto view = JsonView::parse(params);
  REQUIRE(view);
  auto made = memory_request(call, *view);
  REQUIRE_MESSAGE(made, made.error().message);
  return *made;
}

KlpError refused(MemoryCall call, const std::string& params) {
  const auto view = JsonView::parse(params);
  REQUIRE_MESSAGE(view, params);
  const auto made = memory_request(call, *view);
  REQUIRE_MESSAGE(!made, params);
  return made.error();
}

Json result(MemoryCall call, const klp::MemoryAnswer& answer) {
  const auto made = memory_result(call, answer);
  REQUIRE_MESSAGE(made, made.error().message);
  CHECK(made->find('\n') == std::string::npos);
  return Json::parse(*made);
}

void add_entry(klp::MemoryGot& got, const std::string& key, const std::string& value, bool binary) {
  klp::MemoryEntry& entry = *got.add_entries();
  entry.set_key(key);
  entry.set_value(value);
  entry.set_binary(binary);
  entry.set_version(9'007'199'254'740'991);
}

}  // namespace

TEST_CASE("memory methods by name") {
  CHECK(memory_call("memory.get") == MemoryCall::kGet);
  CHECK(memory_call("memory.getMany") == MemoryCall::kGetMany);
  CHECK(memory_call("memory.set") == MemoryCall::kSet);
  CHECK(memory_call("memory.setMany") == MemoryCall::kSetMany);
  CHECK(memory_call("memory.delete") == MemoryCall::kDelete);
  CHECK(memory_call("memory.list") == MemoryCall::kList);
  CHECK(memory_call("memory.indexedDb") == MemoryCall::kIndexedDb);
  for (const char* name : {"memory", "memory.", "memory.Get", "memory.get ", "klp.send"}) {
    CHECK_FALSE(memory_call(name).has_value());
  }
}

TEST_CASE("memory.get, getMany, delete and list as requests") {
  const auto get = request(MemoryCall::kGet, R"({"key":"a\u0000ž","agent":"other"})");
  CHECK(get.agent() == "other");
  REQUIRE(get.get().keys_size() == 1);
  CHECK(get.get().keys(0) == std::string("a\0ž", 4));
  const auto many = request(MemoryCall::kGetMany, R"({"keys":["a","b","a"],"agent":null})");
  CHECK(many.agent().empty());
  CHECK(many.get().keys_size() == 3);
  CHECK(request(MemoryCall::kGetMany, R"({"keys":[]})").has_get());
  CHECK(request(MemoryCall::kDelete, R"({"key":""})").has_delete_());
  const auto all = request(MemoryCall::kList, "{}");
  CHECK(all.has_list());
  CHECK(all.list().limit() == 0);
  const auto page =
      request(MemoryCall::kList, R"({"prefix":"event/","limit":5000000000,"cursor":"event/9","agent":"o"})");
  CHECK(page.agent() == "o");
  CHECK(page.list().prefix() == "event/");
  CHECK(page.list().after() == "event/9");
  CHECK(page.list().limit() == 1000);
}

TEST_CASE("memory.set and setMany as requests: the value byte for byte") {
  const std::string value = R"({"z": 1.50, "a":[1e2,"\u00e9"] , "z":2})";
  const auto set = request(MemoryCall::kSet, R"({"key":"k","value":)" + value + R"(,"ttl":1.0001,"ifVersion":7})");
  REQUIRE(set.set().writes_size() == 1);
  const klp::MemoryWrite& write = set.set().writes(0);
  CHECK(write.key() == "k");
  CHECK(write.value() == value);
  CHECK_FALSE(write.binary());
  CHECK(write.has_ttl());
  CHECK(write.ttl_ms() == 1001);
  CHECK_FALSE(write.if_absent());
  CHECK(write.has_if_version());
  CHECK(write.if_version() == 7);
  const auto many = request(MemoryCall::kSetMany, R"({"entries":[{"key":"a","value":null},
    {"key":"b","valueBase64":"AP8=","ttl":0,"ifAbsent":true},{"key":"c","valueBase64":"","ttl":1e-9,"ifVersion":0}]})");
  REQUIRE(many.set().writes_size() == 3);
  CHECK(many.set().writes(0).value() == "null");
  CHECK_FALSE(many.set().writes(0).has_ttl());
  CHECK_FALSE(many.set().writes(0).has_if_version());
  const klp::MemoryWrite& bytes = many.set().writes(1);
  CHECK(bytes.value() == std::string("\0\xFF", 2));
  CHECK(bytes.binary());
  CHECK(bytes.has_ttl());
  CHECK(bytes.ttl_ms() == 0);
  CHECK(bytes.if_absent());
  const klp::MemoryWrite& last = many.set().writes(2);
  CHECK(last.binary());
  CHECK(last.ttl_ms() == 1);  // a part of a millisecond is not never
  CHECK(last.has_if_version());
  CHECK(request(MemoryCall::kSet, R"({"key":"k","value":1,"valueBase64":null,"ttl":null})").set().writes(0).value() ==
        "1");
}

TEST_CASE("params of the wrong shape are INVALID, by the name of the member") {
  struct Case {
    MemoryCall call;
    const char* params;
    const char* member;
  };
  const Case cases[] = {
      {MemoryCall::kGet, "{}", "`key`"},
      {MemoryCall::kGet, R"({"key":null})", "`key`"},
      {MemoryCall::kGet, R"({"key":5})", "`key`"},
      {MemoryCall::kGet, R"({"key":"\ud800"})", "`key`"},
      {MemoryCall::kGet, R"({"key":"k","agent":5})", "`agent`"},
      {MemoryCall::kGet, R"({"key":"k","agent":"a/b"})", "`agent`"},
      {MemoryCall::kGet, R"({"key":"k","agent":""})", "`agent`"},
      {MemoryCall::kGet, R"({"key":"k","agent":"kaid"})", "`agent`"},
      {MemoryCall::kGetMany, "{}", "`keys`"},
      {MemoryCall::kGetMany, R"({"keys":"a"})", "`keys`"},
      {MemoryCall::kGetMany, R"({"keys":{"a":1}})", "`keys`"},
      {MemoryCall::kGetMany, R"({"keys":["a",1]})", "`keys`"},
      {MemoryCall::kDelete, "{}", "`key`"},
      {MemoryCall::kDelete, R"({"key":"k","agent":"other"})", "`agent`"},
      {MemoryCall::kSet, R"({"value":1})", "`key`"},
      {MemoryCall::kSet, R"({"key":"k"})", "`value`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"valueBase64":"AA=="})", "`value`"},
      {MemoryCall::kSet, R"({"key":"k","valueBase64":"A"})", "`valueBase64`"},
      {MemoryCall::kSet, R"({"key":"k","valueBase64":[]})", "`valueBase64`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ttl":-0.001})", "`ttl`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ttl":"5"})", "`ttl`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ttl":1e300})", "`ttl`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ttl":1e13})", "`ttl`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ifAbsent":1})", "`ifAbsent`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ifVersion":-1})", "`ifVersion`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ifVersion":1.5})", "`ifVersion`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ifVersion":"1"})", "`ifVersion`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"ifVersion":18446744073709551616})", "`ifVersion`"},
      {MemoryCall::kSet, R"({"key":"k","value":1,"agent":"other"})", "`agent`"},
      {MemoryCall::kSetMany, "{}", "`entries`"},
      {MemoryCall::kSetMany, R"({"entries":{"key":"k","value":1}})", "`entries`"},
      {MemoryCall::kSetMany, R"({"entries":[[]]})", "entries[0]"},
      {MemoryCall::kSetMany, R"({"entries":[{"key":"k","value":1},{"key":"l"}]})", "entries[1]: `value`"},
      {MemoryCall::kList, R"({"prefix":1})", "`prefix`"},
      {MemoryCall::kList, R"({"limit":0})", "`limit`"},
      {MemoryCall::kList, R"({"limit":-1})", "`limit`"},
      {MemoryCall::kList, R"({"limit":"5"})", "`limit`"},
      {MemoryCall::kList, R"({"cursor":[]})", "`cursor`"}};
  for (const Case& one : cases) {
    const KlpError error = refused(one.call, one.params);
    CHECK_MESSAGE(error.code == "INVALID", one.params);
    CHECK_MESSAGE(error.message.find(one.member) != std::string::npos, one.params << ": " << error.message);
    CHECK_FALSE(error.retryable);
  }
}

TEST_CASE("more than 1,000 keys are refused before they are copied") {
  std::string keys = R"({"keys":[)", entries = R"({"entries":[)";
  for (int at = 0; at < 1000; ++at) {
    keys += R"("k",)";
    entries += R"({"key":"k","value":1},)";
  }
  const auto ended = [](std::string text) { return text.substr(0, text.size() - 1) + "]}"; };
  CHECK(request(MemoryCall::kGetMany, ended(keys)).get().keys_size() == 1000);
  CHECK(request(MemoryCall::kSetMany, ended(entries)).set().writes_size() == 1000);
  CHECK(refused(MemoryCall::kGetMany, ended(keys + R"("k",)")).code == "TOO_LARGE");
  CHECK(refused(MemoryCall::kSetMany, ended(entries + R"({"key":"k","value":1},)")).code == "TOO_LARGE");
}

TEST_CASE("answers as results") {
  klp::MemoryAnswer answer;
  answer.mutable_got();
  CHECK(result(MemoryCall::kGet, answer) == Json::parse(R"({"found":false})"));
  CHECK(result(MemoryCall::kGetMany, answer) == Json::parse(R"({"entries":[]})"));
  add_entry(*answer.mutable_got(), "k\n\"", "{\n\"a\" : 1.50}", false);
  add_entry(*answer.mutable_got(), "b", std::string("\0\xFF", 2), true);
  CHECK(memory_result(MemoryCall::kGet, answer) ==
        R"({"found":true,"value":{ "a" : 1.50},"version":9007199254740991})");
  CHECK(result(MemoryCall::kGetMany, answer) == Json::parse(R"({"entries":[
    {"key":"k\n\"","value":{"a":1.5},"version":9007199254740991},
    {"key":"b","valueBase64":"AP8=","version":9007199254740991}]})"));
  answer.mutable_written()->add_versions(3);
  CHECK(result(MemoryCall::kSet, answer) == Json::parse(R"({"version":3})"));
  answer.mutable_written()->add_versions(18'446'744'073'709'551'615U);
  CHECK(memory_result(MemoryCall::kSetMany, answer) == R"({"versions":[3,18446744073709551615]})");
  answer.mutable_deleted()->set_deleted(true);
  CHECK(result(MemoryCall::kDelete, answer) == Json::parse(R"({"deleted":true})"));
  answer.mutable_deleted()->set_deleted(false);
  CHECK(result(MemoryCall::kDelete, answer) == Json::parse(R"({"deleted":false})"));
  answer.mutable_listed();
  CHECK(result(MemoryCall::kList, answer) == Json::parse(R"({"keys":[]})"));
  answer.mutable_listed()->add_keys("a");
  answer.mutable_listed()->add_keys("b");
  CHECK(result(MemoryCall::kList, answer) == Json::parse(R"({"keys":["a","b"]})"));
  answer.mutable_listed()->set_more(true);
  CHECK(result(MemoryCall::kList, answer) == Json::parse(R"({"keys":["a","b"],"cursor":"b"})"));
}

TEST_CASE("a page ends where the line does") {
  klp::MemoryAnswer answer;
  for (int at = 0; at < 1000; ++at) answer.mutable_listed()->add_keys(std::string(512, '\x01'));
  const auto made = memory_result(MemoryCall::kList, answer);
  REQUIRE(made);
  CHECK(made->size() <= kMaxResultBytes);
  const Json page = Json::parse(*made);
  CHECK(page["keys"].size() > 300);
  CHECK(page["keys"].size() < 1000);
  CHECK(page["cursor"] == page["keys"].back());
}

TEST_CASE("what control answers is not believed either") {
  const auto code = [](MemoryCall call, const klp::MemoryAnswer& answer) {
    const auto made = memory_result(call, answer);
    return made ? "a result: " + *made : made.error().code;
  };
  klp::MemoryAnswer answer;
  for (const MemoryCall call : {MemoryCall::kGet, MemoryCall::kGetMany, MemoryCall::kSet, MemoryCall::kSetMany,
                                MemoryCall::kDelete, MemoryCall::kList, MemoryCall::kIndexedDb}) {
    answer.clear_result();
    CHECK(code(call, answer) == "INTERNAL");
    call == MemoryCall::kList ? answer.mutable_deleted()->Clear() : answer.mutable_listed()->Clear();
    CHECK(code(call, answer) == "INTERNAL");
  }
  for (const char* value : {"", "{", "1,\"version\":2", "\xFF", "1 2"}) {
    answer.mutable_got()->Clear();
    add_entry(*answer.mutable_got(), "k", value, false);
    CHECK(code(MemoryCall::kGet, answer) == "INTERNAL");
    CHECK(code(MemoryCall::kGetMany, answer) == "INTERNAL");
  }
  answer.mutable_written();
  CHECK(code(MemoryCall::kSet, answer) == "INTERNAL");
  answer.mutable_got()->Clear();
  add_entry(*answer.mutable_got(), "k", std::string(kMaxFrameBytes, 'x'), true);
  CHECK(code(MemoryCall::kGet, answer) == "TOO_LARGE");
  // A key that is no UTF-8 cannot break the line.
  answer.mutable_listed()->add_keys("\xFF\n");
  CHECK(result(MemoryCall::kList, answer)["keys"][0].is_string());
}

TEST_CASE("errors go on, their details only as an object") {
  klp::MemoryAnswer answer;
  klp::MemoryError& error = *answer.mutable_error();
  error.set_code("QUOTA_EXCEEDED");
  error.set_message("full");
  error.set_details_json(R"({"used":1,"limit":2})");
  auto made = memory_result(MemoryCall::kSet, answer);
  REQUIRE_FALSE(made);
  CHECK(made.error().code == "QUOTA_EXCEEDED");
  CHECK(made.error().message == "full");
  CHECK(made.error().details_json == R"({"used":1,"limit":2})");
  CHECK_FALSE(made.error().retryable);
  for (const char* details : {"[]", "{", "", "1}"}) {
    error.set_details_json(details);
    CHECK(memory_result(MemoryCall::kSet, answer).error().details_json.empty());
  }
  error.set_code("");
  error.set_retryable(true);
  made = memory_result(MemoryCall::kIndexedDb, answer);
  CHECK(made.error().code == "INTERNAL");
  CHECK(made.error().retryable);
}

}  // namespace kai
