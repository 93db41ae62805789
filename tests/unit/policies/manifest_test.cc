// What manifest_cases.cc does not say: the values that come out, the wording and order of errors, hostile text.
#include "policies/manifest.h"

#include <string>

#include <doctest/doctest.h>

#include "base/text.h"
#include "tests/unit/policies/manifests.h"

namespace kai {
namespace {

using testing::errors;
using testing::example;
using testing::Json;
using testing::kExample;
using testing::pointers;
using testing::with;

Manifest good(const std::string& text, bool entry_required = true) {
  ManifestResult result = parse_manifest(text, entry_required);
  for (const ManifestError& error : result.errors) INFO(error.pointer << ": " << error.message);
  REQUIRE_MESSAGE(result.manifest, errors(text));
  CHECK(result.errors.empty());
  return *result.manifest;
}

std::string nested(std::size_t depth) {
  return R"({"x":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
}

bool mentions(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the specification's example is read whole") {
  const Manifest manifest = good(kExample);
  CHECK(manifest.id == "calendarAgent");
  CHECK(manifest.name == "Personal Calendar Assistant");
  CHECK(manifest.version == "1.0.3");
  CHECK(manifest.entry == "main.ts");
  CHECK(manifest.persona == Persona::kAssistant);
  CHECK(manifest.capabilities == std::vector<std::string>{"scheduleEvent", "cancelEvent", "queryAvailability"});
  CHECK(manifest.memory == MemoryConfig{MemoryType::kPersistent, MemoryBackend::kIndexedDb, 86400, 50, true, false});
  CHECK(manifest.security.sandbox);
  CHECK(manifest.security.permissions == std::vector<Permission>{{"calendar", {"read", "write"}, ""}});
  CHECK(manifest.security.crypto == Crypto::kEd25519);
  CHECK(manifest.security.network.allow_outbound);
  CHECK(manifest.security.network.allowed_domains ==
        std::vector<std::string>{"calendar.google.com", "outlook.office.com"});
  CHECK(!manifest.security.network.max_connections);
  CHECK(manifest.security.files == FileAccessPolicy{{"/tmp/calendar-cache"}, false, true});
  CHECK(manifest.dependencies == std::vector<Dependency>{{"date-fns", "^2.29.0", DependencyType::kModule, true}});
  CHECK(manifest.metadata.tags.size() == 3);
  CHECK(manifest.metadata.updated == "2024-03-20T14:30:00Z");
  CHECK(manifest.runtime == Runtime{RuntimeKind::kNode, Protocol::kRunner, {}, {}});
}

TEST_CASE("json is the compact document again, and reads as the same manifest") {
  CHECK(good(kExample).json == example().dump());
  for (const testing::Case& each : testing::common_cases()) {
    if (!each.good) continue;
    const Manifest manifest = good(with(each.pointer, each.value));
    CHECK(good(manifest.json) == manifest);
  }
  CHECK(mentions(good(with("/security/networkAccess/maxConnections", 64.0)).json, R"("maxConnections":64})"));
  CHECK(mentions(good(with("/memory/ttl", 0.5)).json, R"("ttl":0.5)"));
}

TEST_CASE("kind follows from entry, protocol from kind") {
  const auto runtime = [](const char* entry, const Json& asked) {
    Json document = example();
    document["entry"] = entry;
    if (!asked.is_null()) document["runtime"] = asked;
    return good(document.dump()).runtime;
  };
  for (const char* entry : {"a.ts", "a.mts", "a.js", "a.mjs"})
    CHECK(runtime(entry, nullptr).kind == RuntimeKind::kNode);
  CHECK(runtime("a.py", nullptr) == Runtime{RuntimeKind::kPython, Protocol::kRunner, {}, {}});
  CHECK(runtime("a.so", nullptr) == Runtime{RuntimeKind::kNative, Protocol::kRunner, {}, {}});
  for (const char* entry : {"a", "a.sh", "a.cjs", "ts", "a.PY"}) {
    CHECK(runtime(entry, nullptr) == Runtime{RuntimeKind::kExec, Protocol::kNone, {}, {}});
  }
  CHECK(runtime("a", {{"kind", "python"}}) == Runtime{RuntimeKind::kPython, Protocol::kRunner, {}, {}});
  CHECK(runtime("a", {{"protocol", "runner"}}) == Runtime{RuntimeKind::kExec, Protocol::kRunner, {}, {}});
  CHECK(runtime("a.py", {{"kind", "exec"}}) == Runtime{RuntimeKind::kExec, Protocol::kNone, {}, {}});
  CHECK(runtime("a.py", {{"protocol", "none"}, {"args", {"-v"}}, {"env", {{"B", "2"}, {"A", "1"}}}}) ==
        Runtime{RuntimeKind::kPython, Protocol::kNone, {"-v"}, {"B=2", "A=1"}});
  CHECK(runtime("a", {{"env", {"X=a=b"}}}).env == std::vector<std::string>{"X=a=b"});
}

TEST_CASE("entry: ./ is taken off; absent only for run --manifest") {
  CHECK(good(with("/entry", "./src/main.ts")).entry == "src/main.ts");
  const std::string text = testing::without("/entry");
  CHECK(errors(text) == "/entry: is missing\n");
  const Manifest manifest = good(text, false);
  CHECK(manifest.entry.empty());
  CHECK(manifest.runtime.kind == RuntimeKind::kExec);
  const ManifestResult again = parse_manifest(manifest.json, false);
  REQUIRE(again.manifest);
  CHECK(*again.manifest == manifest);
}

TEST_CASE("all errors at once, in the document's order, missing fields last") {
  Json document = example();
  document["version"] = "one";
  document["memory"]["ttl"] = -1;
  document["memory"]["backend"] = "indexedb";
  document["security"]["networkAccess"]["allowedDomains"] = {"ok.example", "1.2.3", "*"};
  document["metadata"].erase("author");
  document["metadata"]["created"] = "now";
  document.erase("id");
  document.erase("persona");
  document["extra"] = 1;
  const std::vector<std::string> expected = {"/version",
                                             "/memory/backend",
                                             "/memory/ttl",
                                             "/security/networkAccess/allowedDomains/1",
                                             "/security/networkAccess/allowedDomains/2",
                                             "/metadata/created",
                                             "/metadata/author",
                                             "/extra",
                                             "/id",
                                             "/persona"};
  CHECK(pointers(document.dump()) == expected);
  CHECK(pointers(document.dump()) == pointers(document.dump(2)));
}

TEST_CASE("messages say what is wrong and what would be right") {
  CHECK(errors(with("/persona", "asistant")) ==
        "/persona: must be one of assistant, specialist, guardian, orchestrator, utility, companion, not \"asistant\": "
        "did "
        "you mean \"assistant\"?\n");
  CHECK(errors(with("/memory/ttl", "60")) == "/memory/ttl: must be a number, not a string\n");
  CHECK(errors(with("/memory/ttl", -1)) == "/memory/ttl: must be a number from 0 to 1000000000000, not -1\n");
  CHECK(!errors(with("/memory/ttl", 1e20)).empty());
  CHECK(errors(with("/name", nullptr)) == "/name: must be a string, not null\n");
  CHECK(errors(with("/memory", 3)) == "/memory: must be an object, not the number 3\n");
  CHECK(errors(with("/capabilities/1", "scheduleEvent")) == "/capabilities/1: is there twice: \"scheduleEvent\"\n");
  CHECK(errors(with("/memory/persistent", false)) ==
        "/memory/persistent: must be true, as memory.type is persistent (persistent = type is not volatile)\n");
  CHECK(errors(with("/runtime", {{"kind", "mcp"}})) ==
        "/runtime/kind: mcp is not in this version: use node, python, native or exec\n");
  CHECK(errors(with("/id", "kaid")) == "/id: is reserved: \"kaid\"\n");
}

TEST_CASE("an unknown field gets a suggestion where one letter is off") {
  const auto suggested = [](const char* field) { return errors(with(field, 1)); };
  CHECK(suggested("/capabilites") == "/capabilites: unknown field \"capabilites\": did you mean \"capabilities\"?\n");
  CHECK(mentions(suggested("/capabilitties"), "mean \"capabilities\""));  // one too many
  CHECK(mentions(suggested("/memorz"), "mean \"memory\""));               // another one
  CHECK(mentions(suggested("/memroy"), "mean \"memory\""));               // two swapped
  CHECK(mentions(suggested("/memory/maxsize"), "mean \"maxSize\""));
  CHECK(mentions(suggested("/Version2"), "unknown field \"Version2\"\n"));  // two off
  CHECK(suggested("/a~1b~0c") == "/a~1b~0c: unknown field \"a/b~c\"\n");    // RFC 6901 escapes
}

TEST_CASE("a key that comes twice is an error at the key, at every level") {
  std::string text = kExample;
  text.replace(text.find(R"("persona")"), 0, R"("version": "9.9.9", )");
  CHECK(errors(text) == "/version: comes twice: \"version\"\n");
  text = kExample;
  text.replace(text.find(R"("ttl")"), 0, R"("backend": {"a": 1, "a": {"b": 1, "b": [2]}}, )");
  CHECK(pointers(text) == std::vector<std::string>{"/memory/backend", "/memory/backend/a", "/memory/backend/a/b"});
}

TEST_CASE("text that is no document: one clear error for the whole") {
  const auto only = [](const std::string& text) {
    const ManifestResult result = parse_manifest(text);
    REQUIRE(result.errors.size() == 1);
    CHECK(result.errors[0].pointer.empty());
    CHECK(result.errors[0].message.size() < 400);
    return result.errors[0].message;
  };
  CHECK(only("") == "is empty");
  CHECK(only(" \n\t") == "is empty");
  CHECK(mentions(only("{"), "line 1, column 2"));
  CHECK(mentions(only("{\n \"id\": tru }"), "is not valid JSON at line 2, column "));
  CHECK(only("{} x").find("is not valid JSON") == 0);
  CHECK(only(R"({"a": 1e999})").find("a number is too large") != std::string::npos);
  CHECK(mentions(only("{\"a\": \"" + std::string(900'000, 'x')), "is not valid JSON"));
  CHECK(only("{\"a\": \"\xff\"}") == "is not UTF-8: see byte 7");
  CHECK(only("{\"a\": \"\xed\xa0\x80\"}") == "is not UTF-8: see byte 7");
  CHECK(mentions(only(R"({"a": "\ud800"})"), "is not valid JSON"));
  CHECK(mentions(only(std::string("{\"a\0\": 1}", 9)), "is not valid JSON"));
  CHECK(only(std::string(kMaxManifestBytes + 1, ' ')) == "has 1048577 bytes, at most 1048576 are allowed");
  CHECK(mentions(only("[1, 2]"), "must be an object, not an array"));
  CHECK(mentions(only("just text"), "must be an object, not a string"));
}

TEST_CASE("a byte order mark and blanks before { are still JSON") {
  CHECK(good(std::string("\xEF\xBB\xBF") + kExample).id == "calendarAgent");
  CHECK(good(std::string(" \r\n\t") + kExample).id == "calendarAgent");
}

TEST_CASE("depth is bounded, whatever the text") {
  CHECK(mentions(errors(nested(31)), "/x: unknown field"));
  CHECK(mentions(errors(nested(32)), "nested deeper than 32 levels"));
  CHECK(parse_manifest(std::string(1 << 20, '[')).errors.size() == 1);
  CHECK(parse_manifest(R"({"a":)" + std::string((1 << 20) - 8, '[')).errors.size() == 1);
  std::string objects;
  for (int at = 0; at < 100'000; ++at) objects += R"({"a":)";
  CHECK(mentions(errors(objects), "nested deeper than 32 levels"));
}

TEST_CASE("long and many: the field is named, the text is not repeated") {
  const std::string megabyte(1'000'000, 'x');
  CHECK(errors(with("/name", megabyte)) == "/name: has 1000000 characters, at most 256 are allowed\n");
  CHECK(errors(with("/persona", megabyte)) == "/persona: has 1000000 characters, at most 64 are allowed\n");
  CHECK(errors(with("/metadata/tags/0", megabyte)) ==
        "/metadata/tags/0: has 1000000 characters, at most 64 are allowed\n");
  CHECK(errors(with(("/" + megabyte).c_str(), 1)).size() < 300);
  Json many = Json::array();
  for (int at = 0; at < 100'000; ++at) many.push_back(at);
  CHECK(errors(with("/capabilities", many)) == "/capabilities: has 100000 elements, at most 256 are allowed\n");
  std::string fields = "{";
  for (int at = 0; at < 50'000; ++at) fields += "\"f" + std::to_string(at) + "\":0,";
  CHECK(mentions(errors(fields + "\"z\":0}"), "one field more than the 256 that an object may have"));
  std::string duplicates = "{\"a\":0";
  for (int at = 0; at < 50'000; ++at) duplicates += ",\"a\":0";
  const ManifestResult result = parse_manifest(duplicates + "}");
  CHECK(result.errors.size() == 201);
  CHECK(mentions(result.errors.back().message, "more errors"));
}

TEST_CASE("nothing in a message drives a terminal") {
  for (const char* text : {"\x1b[2J", "a\nb", "\xE2\x80\xAE", "\xC2\x9B", "\x7f"}) {
    for (const char* pointer : {"/id", "/name", "/version", "/entry", "/persona", "/metadata/created", "/runtime"}) {
      for (const ManifestError& error : parse_manifest(with(pointer, text)).errors) {
        CHECK(escape_for_terminal(error.message) == error.message);
      }
    }
    const std::string key = std::string("/") + text;
    for (const ManifestError& error : parse_manifest(with(key.c_str(), 1)).errors) {
      CHECK(escape_for_terminal(error.message) == error.message);
      CHECK(error.pointer.empty());  // the parent's
    }
  }
}

TEST_CASE("YAML is accepted and means what the JSON means") {
  const std::string yaml = R"(# a comment
id: calendarAgent
name: Personal Calendar Assistant
version: 1.0.3
entry: main.ts
persona: assistant
capabilities: [scheduleEvent, cancelEvent, queryAvailability]
memory:
  type: persistent
  backend: indexeddb
  ttl: 86400
  maxSize: 50
  persistent: true
security:
  sandbox: true
  permissions:
  - resource: calendar
    actions: [read, write]
  crypto: ed25519
  networkAccess:
    allowOutbound: true
    allowedDomains: [calendar.google.com, "outlook.office.com"]
  fileAccess: {allowedPaths: [/tmp/calendar-cache], readOnly: false, tempFileAccess: true}
dependencies:
- {name: date-fns, version: ^2.29.0, type: module, required: true}
metadata:
  author: kOS Team
  description: 'Manages calendar events and scheduling'
  license: MIT
  tags: [productivity, calendar, scheduling]
  created: 2024-01-15T10:00:00Z
  updated: 2024-03-20T14:30:00Z
)";
  CHECK(good(yaml) == good(kExample));
  CHECK(good("---\n" + yaml + "...\n") == good(kExample));
  std::string twice = yaml + "id: other\n";
  CHECK(errors(twice) == "/id: comes twice: \"id\"\n");
  std::string number = yaml;
  number.replace(number.find("1.0.3"), 5, "1.0");
  CHECK(errors(number) == "/version: must be a string, not the number 1.0\n");
  std::string quoted = yaml;
  quoted.replace(quoted.find("86400"), 5, "\"86400\"");
  CHECK(errors(quoted) == "/memory/ttl: must be a number, not a string\n");
}

TEST_CASE("YAML beyond JSON is refused, and hostile YAML bounded") {
  const auto first = [](const std::string& text) { return parse_manifest(text).errors.at(0).message; };
  CHECK(mentions(first("a: &x 1\n"), "anchors are not accepted"));
  CHECK(mentions(first("a: &x [1]\nb: *x\n"), "anchors are not accepted"));
  CHECK(mentions(first("a: *x\n"), "is not valid YAML"));
  CHECK(mentions(first("a: !!python/object 1\n"), "tags are not accepted"));
  CHECK(mentions(first("!local {a: 1}\n"), "tags are not accepted"));
  CHECK(mentions(first("? [a, b]\n: 1\n"), "a key must be text"));
  CHECK(mentions(first("? {a: 1}\n: 1\n"), "a key must be text"));
  CHECK(mentions(first("~: 1\n"), "a key must be text"));
  CHECK(mentions(first("id: a\n---\nid: b\n"), "more than one YAML document"));
  CHECK(mentions(first("id: [a\n"), "is not valid YAML at line"));
  CHECK(mentions(first("\"\\xff\\ud800\": 1"), "YAML"));
  CHECK(mentions(first("- " + std::string(100, '[') + std::string(100, ']')), "nested deeper than 32 levels"));
  CHECK(mentions(first("a: " + std::string(70'000, 'x')), "bytes of YAML"));
  std::string deep;
  for (std::size_t at = 0; at < 40; ++at) deep += std::string(at, ' ') + "a:\n";
  CHECK(mentions(first(deep), "nested deeper than 32 levels"));
  CHECK(parse_manifest(std::string(60'000, '[')).errors.size() == 1);
  CHECK(parse_manifest(std::string(60'000, '-')).errors.size() == 1);
}

}  // namespace kai
