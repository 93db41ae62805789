// docs/schema: the examples of contracts.md and what kaictl really prints hold to it, and what is wrong does not.
#include <filesystem>
#include <sstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "base/unix.h"
#include "tests/unit/kaictl/fake_daemon.h"
#include "tests/unit/kaictl/program.h"

namespace kai::test {
namespace {

using nlohmann::json;

json schema(const std::string& name) {
  return json::parse(*read_file(std::string(KAI_SCHEMA_DIRECTORY) + "/" + name + ".schema.json"));
}

bool holds(const std::string& name, const json& document) {
  const json text = schema(name);
  valijson::Schema parsed;
  valijson::SchemaParser parser;
  parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(text), parsed);
  valijson::Validator validator;
  return validator.validate(parsed, valijson::adapters::NlohmannJsonAdapter(document), nullptr);
}

TEST_CASE("every schema names its dialect") {
  int found = 0;
  for (const auto& file : std::filesystem::directory_iterator(KAI_SCHEMA_DIRECTORY)) {
    const json text = json::parse(*read_file(file.path().string()));
    CHECK(text["$schema"] == "https://json-schema.org/draft/2020-12/schema");
    ++found;
  }
  CHECK(found >= 28);
}

TEST_CASE("list") {
  json document = json::parse(
      R"({"agents":[{"id":"calendarAgent","name":"Cal","version":"1.0.3","state":"running","status":"active",
          "desired":"running","uptime":5120,"restarts":0,"policy":"calendar","later":"ignored"}]})");
  CHECK(holds("list", document));
  document["agents"][0]["state"] = "asleep";
  CHECK_FALSE(holds("list", document));
  CHECK_FALSE(holds("list", json::array()));
}

TEST_CASE("status") {
  json document = json::parse(
      R"({"id":"a","status":"active","state":"running","desired":"running","version":"1.0.3","uptime":5120,"pid":812,
          "health":{"status":"healthy","uptime":5100,"memoryUsage":31.2,"cpuUsage":0.4,
                    "lastActivity":"2026-05-04T13:00:00.000Z","errors":[]},
          "crashes":{"count":0,"window":600000},
          "lastEnd":{"cause":"oom","exitCode":0,"signal":"SIGKILL","message":"over 512 MB"},
          "policy":"calendar","degraded":[],"grants":[],"denials":0,"exposure":{"score":1.2,"items":[]},
          "quarantine":{"agentId":"a","quarantinedAt":"2026-05-04T13:00:00.000Z",
            "reason":{"type":"crash","description":"d","timestamp":"2026-05-04T13:00:00.000Z","severity":"medium"},
            "retryCount":0,"maxRetries":3}})");
  CHECK(holds("status", document));
  document["upgrade"] = {{"phase", "probation"},
                         {"type", "soft"},
                         {"from", "1.0.3"},
                         {"to", "1.1.0"},
                         {"until", "2026-05-04T13:00:30.000Z"}};
  document["softSwaps"] = 1;
  CHECK(holds("status", document));
  document["upgrade"].erase("until");
  document["upgrade"]["phase"] = "leaving";
  CHECK(holds("status", document));
  for (const auto& [name, wrong] : {std::pair{"phase", "over"}, {"until", "soon"}, {"type", "gentle"}}) {
    json odd = document;
    odd["upgrade"][name] = wrong;
    CHECK_FALSE(holds("status", odd));
  }
  CHECK(holds("status", json{{"id", "x"}, {"status", "not_found"}}));
  CHECK_FALSE(holds("status", json{{"id", "x"}, {"status", "active"}}));
  document["lastEnd"]["cause"] = "unknown";
  CHECK_FALSE(holds("status", document));
}

TEST_CASE("messages, records of the log, states") {
  const json message = json::parse(
      R"({"protocol":"klp/1.0","id":"u","from":"echo","to":"operator","type":"response","correlationId":"v",
          "timestamp":"2026-05-04T13:00:00.000Z","payload":[1],"metadata":{"priority":"normal"}})");
  CHECK(holds("message", message));
  json both = message;
  both["payloadBase64"] = "AAEC";
  CHECK_FALSE(holds("message", both));
  json record = json::parse(
      R"({"time":"2026-05-04T13:00:00.000Z","level":"info","agent":"a","event":"stdout","message":"m","n":1})");
  CHECK(holds("log-record", record));
  record["time"] = "yesterday";
  CHECK_FALSE(holds("log-record", record));
  CHECK(holds("state", json{{"id", "a"}, {"state", "stopped"}, {"status", "terminated"}}));
  CHECK(holds("register", json{{"id", "a"}, {"version", "1.0.0"}, {"warnings", {"no network"}}}));
}

TEST_CASE("upgrades: the result, the plan, the archive, snapshots") {
  json result = json::parse(
      R"({"success":true,"type":"soft","rollbackAvailable":true,"from":"1.0.3","to":"1.1.0","targetVersion":"1.1.0",
          "how":"soft","steps":[{"step":"load","ms":12.4}],"messagesHeld":14,"pauseMs":3.2,"forced":false,
          "backup":"/var/lib/kai/backups/a/1","probationMs":30000,"id":"a","warnings":[]})");
  CHECK(holds("upgrade", result));
  result["type"] = "gentle";
  CHECK_FALSE(holds("upgrade", result));
  result["type"] = "rollback";
  result["success"] = false;
  result["error"] = "onUpgrade threw";
  CHECK(holds("upgrade", result));
  json unknown = result;
  unknown.erase("to");
  CHECK(holds("upgrade", unknown));
  unknown["success"] = true;
  CHECK_FALSE(holds("upgrade", unknown));
  result["how"] = "replace";
  CHECK_FALSE(holds("upgrade", result));
  result["how"] = "replaced";
  CHECK(holds("upgrade", result));
  result["steps"] = {"load"};
  CHECK_FALSE(holds("upgrade", result));

  json plan = json::parse(
      R"({"id":"a","from":"1.0.3","to":"1.1.0","type":"hard","why":"its environment differs","allowed":false,
          "findings":[{"kind":"widened","weight":"needs_force","pointer":"/memory/maxSize","message":"m","rule":"builtin"},
                      {"kind":"bad","weight":"refused","message":"m"},
                      {"kind":"soft","weight":"refused","message":"m"}],"steps":["backup","load"],"warnings":[]})");
  CHECK(holds("upgrade-plan", plan));
  plan["findings"][1]["weight"] = "heavy";
  CHECK_FALSE(holds("upgrade-plan", plan));

  json versions = json::parse(
      R"({"id":"a","versions":[{"version":"1.0.3","package":"9f86","registeredAt":"2026-05-04T13:00:00.000Z",
          "active":true,"previous":false,"bytes":1434,"signer":"RWQ","bad":"it crashed"}]})");
  CHECK(holds("versions", versions));
  versions["versions"][0]["registeredAt"] = 1;
  CHECK_FALSE(holds("versions", versions));
  CHECK(holds("prune", json{{"id", "a"}, {"removed", {"1.0.1"}}, {"freedBytes", 1434}}));
  CHECK_FALSE(holds("prune", json{{"id", "a"}}));
  CHECK(holds("snapshot", json{{"id", "a"},
                               {"version", "1.0.3"},
                               {"bytes", 1434},
                               {"memoryEntries", 12},
                               {"state", true},
                               {"file", "a.kai"}}));
  CHECK(holds("restore", json{{"id", "a"}, {"version", "1.0.3"}, {"memoryEntries", 12}, {"warnings", json::array()}}));
}

TEST_CASE("events and records of the audit") {
  json event = json::parse(
      R"({"seq":41,"time":"2026-05-04T13:00:00.000Z","agentId":"a","event":"started","state":"running","metadata":{}})");
  CHECK(holds("events", event));
  event["event"] = "kai.policy_loaded";
  event["agentId"] = "kaid";
  event.erase("state");
  CHECK(holds("events", event));
  event["event"] = "kai.invented";
  CHECK_FALSE(holds("events", event));
  event["event"] = "started";
  event["seq"] = 0;
  CHECK_FALSE(holds("events", event));

  json record = json::parse(
      R"({"seq":41,"agentSeq":7,"id":"0190a0c0-0000-7000-8000-000000000000","agentId":"a","event":"started",
          "timestamp":"2026-05-04T13:00:00.000Z","metadata":{},"signature":"AAEC"})");
  CHECK(holds("audit-record", record));
  const json whole = {{"agentId", "a"},
                      {"exportedAt", "2026-05-04T13:00:00.000Z"},
                      {"records", json::array({record})},
                      {"checksum", std::string(64, 'a')},
                      {"checkpoint", "kai\n1\nAA==\n"}};
  CHECK(holds("audit-export", whole));
  record.erase("signature");
  CHECK_FALSE(holds("audit-record", record));
  json torn = whole;
  torn["records"] = json::array({record});
  CHECK_FALSE(holds("audit-export", torn));
}

TEST_CASE("what a look at the audit says") {
  json report =
      json::parse(R"({"valid":true,"records":41,"checkpoints":3,"findings":[],"checkpoint":"kai\n41\nAA==\n"})");
  CHECK(holds("audit-verify", report));
  report["valid"] = false;
  report["findings"] = {{{"seq", 17}, {"agentId", "a"}, {"event", "started"}, {"problem", "it was edited"}}};
  report["findingsOmitted"] = 5;
  CHECK(holds("audit-verify", report));
  report["findings"][0].erase("problem");
  CHECK_FALSE(holds("audit-verify", report));
  CHECK_FALSE(holds("audit-verify", json::object()));
  CHECK(holds("audit-proof",
              json{{"type", "inclusion"}, {"seq", 1}, {"record", "{}"}, {"leafHash", "AA=="}, {"proof", "p"}}));
  json proof = {{"type", "consistency"}, {"oldSize", 1}, {"size", 2}, {"path", {"AA=="}}, {"checkpoint", "n"}};
  CHECK(holds("audit-proof", proof));
  proof["type"] = "inclusion";
  CHECK_FALSE(holds("audit-proof", proof));
  CHECK(holds("audit-key", json{{"publicKey", "kai/a+00000000+AQ=="}}));
  CHECK(holds("audit-checkpoint", json{{"checkpoint", "n"}}));
}

TEST_CASE("quarantine") {
  json shown = json::parse(
      R"({"id":"a","status":"quarantined","quarantine":{"agentId":"a","quarantinedAt":"2026-05-04T13:00:00.000Z",
          "reason":{"type":"crash","description":"d","timestamp":"2026-05-04T13:00:00.000Z","severity":"medium"},
          "retryCount":0,"maxRetries":3}})");
  CHECK(holds("quarantine", shown));
  shown["evidence"] = json::parse(
      R"({"agentId":"a","takenAt":"2026-05-04T13:00:00.000Z","quarantine":{},"log":[{"level":"info"}],"denials":[],
          "messages":[{"id":"u"}],"lastEnd":{"cause":"signal","message":"m"},"processes":"pid 7"})");
  CHECK(holds("quarantine", shown));
  shown["quarantine"]["reason"]["severity"] = "extreme";
  CHECK_FALSE(holds("quarantine", shown));
  CHECK(holds("recover", json{{"id", "a"}, {"state", "running"}, {"status", "active"}}));
  CHECK_FALSE(holds("recover", json{{"state", "running"}}));
}

TEST_CASE("memory") {
  json stats = json::parse(
      R"({"totalAllocated":1.5,"activeContexts":1,"contexts":[{"id":"a","type":"persistent","backend":"sqlite","size":1.5,
          "entryCount":12,"lastAccessed":"2026-05-04T13:00:00.000Z"}]})");
  CHECK(holds("memory-stats", stats));
  stats["contexts"][0].update(json{{"limit", 50}, {"encrypted", true}, {"fault", "its file is damaged"}});
  CHECK(holds("memory-stats", stats));
  stats["contexts"][0]["backend"] = "paper";
  CHECK_FALSE(holds("memory-stats", stats));
  CHECK_FALSE(holds("memory-stats", json{{"contexts", json::array()}}));

  CHECK(holds("memory-get", json{{"key", "k"}, {"value", nullptr}, {"version", 1}}));
  CHECK(holds("memory-get", json{{"key", "k"}, {"valueBase64", "AAE="}, {"version", 1}}));
  CHECK_FALSE(holds("memory-get", json{{"key", "k"}, {"valueBase64", "AAE"}, {"version", 1}}));
  CHECK_FALSE(holds("memory-get", json{{"key", "k"}, {"value", 1}, {"valueBase64", ""}, {"version", 1}}));
  CHECK_FALSE(holds("memory-get", json{{"key", "k"}, {"version", 1}}));
  CHECK(holds("memory-list", json{{"keys", {"a", "b"}}, {"cursor", "b"}}));
  CHECK(holds("memory-list", json{{"keys", json::array()}}));
  CHECK_FALSE(holds("memory-list", json{{"keys", {""}}}));
  CHECK(holds("memory-transfer", json{{"id", "a"}, {"entries", 0}, {"bytes", 200}}));
  CHECK_FALSE(holds("memory-transfer", json{{"id", "a"}, {"entries", -1}, {"bytes", 200}}));
}

TEST_CASE("packages") {
  const std::string key = "RWQNF6fsJcM0SKL6xgdpmyMnRlUcKXIF39rwp+xPJR6fEjH1yqR5tY38";
  const json names = {{"id", "a"}, {"version", "1.0.0"}, {"files", 2}};
  json build = names;
  build.update(json{{"archive", "a-1.0.0.tar.gz"}, {"bytes", 900}, {"signed", false}, {"warnings", json::array()}});
  CHECK(holds("package-build", build));
  build["files"] = 0;
  CHECK_FALSE(holds("package-build", build));
  json sign = names;
  sign.update(json{{"path", "a"}, {"publicKey", key}, {"trustedComment", "timestamp:1\tfile:SHA256SUMS\thashed"}});
  CHECK(holds("package-sign", sign));
  sign["publicKey"] = key.substr(1);
  CHECK_FALSE(holds("package-sign", sign));
  json verify = names;
  verify.update(json{{"valid", true}, {"publicKey", key}, {"trustedComment", ""}, {"hashed", false}});
  CHECK(holds("package-verify", verify));
  verify["valid"] = false;
  CHECK_FALSE(holds("package-verify", verify));
}

TEST_CASE("network") {
  json net = json::parse(
      R"({"id":"a","state":"running","network":false,"reason":"the manifest does not ask for it","policy":"default",
          "connections":[],"names":[],"denials":[]})");
  CHECK(holds("net", net));
  net.update(json::parse(
      R"({"network":true,"limits":{"maxConnections":64,"bandwidthLimit":10240,"protocols":["tls","http"],"ports":[443]},
          "open":1,"total":2,"sent":0,"received":5,"lookups":1,"refused":3,"failed":0,
          "connections":[{"name":"a.example","address":"93.184.216.34","port":443,"protocol":"tls","age":5,"sent":0,
            "received":5,"sentPerSecond":0,"receivedPerSecond":5,"state":"open"}],
          "names":[{"name":"a.example","address4":"198.18.0.5","address6":"fd00::5","connections":1}],
          "denials":[{"name":"b.example","reason":"r","rule":"10-a.yaml:3","count":3}]})"));
  CHECK(holds("net", net));
  json wrong = net;
  wrong["connections"][0]["protocol"] = "quic";
  CHECK_FALSE(holds("net", wrong));
  wrong = net;
  wrong["denials"][0]["port"] = 0;
  CHECK_FALSE(holds("net", wrong));
  wrong = net;
  wrong.erase("policy");
  CHECK_FALSE(holds("net", wrong));
}

/// The corpus of the fuzz target has whole exports: what the reader takes, the schema takes, line by line.
TEST_CASE("the lines of exported memory") {
  int seen = 0;
  for (const char* const name : {"empty_memory", "entries", "indexed_db", "escapes", "spaces"}) {
    std::istringstream lines(*read_file(std::string(KAI_MEMORY_CORPUS) + "/" + name));
    for (std::string line; std::getline(lines, line); ++seen) {
      // "spaces" says neither when it was made nor of which backend, which only the reader does not look at.
      const json document = json::parse(line);
      if (document.value("exportedAt", "-").empty()) continue;
      CHECK_MESSAGE(holds("memory-export-line", document), line);
    }
  }
  CHECK(seen > 20);
  for (const char* const line :
       {R"({"key":"k","value":1})", R"({"key":"k","value":1,"valueBase64":"","version":1})",
        R"({"key":"k","value":1,"version":1,"extra":1})", R"({"record":{"key":"AA==","value":""}})",
        R"({"record":{"key":"AA==","value":"","indexKeys":[["AA=="]]}})", R"({"database":{"version":1}})",
        R"({"entries":1,"checksum":"AB"})", R"({"format":"kai-memory/2","agentId":"a"})", "{}", "[]"}) {
    CHECK_FALSE_MESSAGE(holds("memory-export-line", json::parse(line)), std::string(line));
  }
}

TEST_CASE("what kaictl itself says") {
  const ScratchDirectory nobody;
  const std::string socket = nobody / "kaid.sock";
  CHECK(holds("error", json::parse(kaictl({"--socket", socket, "-o", "json", "list"}).err)));
  CHECK(holds("error", json::parse(kaictl({"-o", "json", "frobnicate"}).err)));
  CHECK_FALSE(holds("error", json{{"error", {{"code", "OOPS"}}}}));
  CHECK(holds("version", json::parse(kaictl({"--socket", socket, "-o", "json", "version"}).out)));
  CHECK(holds("doctor", json::parse(kaictl({"--socket", socket, "-o", "json", "doctor"}).out)));
}

}  // namespace
}  // namespace kai::test
