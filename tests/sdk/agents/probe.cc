// Every hook, and a capability for each thing that the tests ask of an agent. probe.mjs and probe.py are the same.
#include <cstdio>
#include <set>
#include <stdexcept>
#include <string>

#include <kai/agent.hpp>

namespace {

using kai::Json;

class Probe : public kai::Agent {
  void on_init() override { called("onInit"); }
  void on_start() override { called("onStart"); }
  void on_upgrade(const std::string& old_version) override { called("onUpgrade " + old_version); }
  void on_shutdown() override {
    called("onShutdown");
    log.info("bye");
  }
  void on_error(const std::exception& error) override {
    const std::string what = error.what();
    called("onError " + what);
    if (what == "twice") throw std::runtime_error("and again");
  }
  kai::HealthStatus on_health_check() override {
    called("onHealthCheck");
    auto health = kai::Agent::on_health_check();
    if (warn_) health.status = "warning";
    return health;
  }
  Json save_state() override {
    called("saveState");
    return state_;
  }
  void restore_state(const Json& state) override {
    called("restoreState");
    state_ = state;
  }

  Json on_message(const kai::Message& msg) override {
    const std::string& what = msg.capability;
    const Json& payload = msg.payload;
    if (what == "calls") return calls_;
    if (what == "echo") return payload;
    if (what == "fields") return fields(msg);
    if (what == "whole") {
      kai::Json answer = kai::reply(msg, payload);
      answer["metadata"] = {{"priority", "high"}};
      return answer;
    }
    if (what == "context") return {{"agent", manifest()["id"]}, {"permissions", permissions()}, {"limits", limits()}};
    if (what == "bytes") {
      return {{"length", payload.get_binary().size()}, {"isBytes", payload.is_binary()}, {"type", msg.content_type}};
    }
    if (what == "make-bytes") return make_bytes(payload.get<std::size_t>());
    if (what == "make-text") return std::string(payload.get<std::size_t>(), 'x');
    if (what == "not-json") return "\xff";
    if (what == "throw") throw std::invalid_argument(payload.get<std::string>());
    if (what == "throw-details") throw kai::AgentError("no room", "AGENT_ERROR", {{"left", 3}}, true);
    if (what == "throw-int") throw 7;
    if (what == "throw-in") return throw_in_.insert(payload.get<std::string>()), nullptr;
    if (what == "state") return state_ = payload, nullptr;
    if (what == "warn") return warn_ = true, nullptr;
    if (what == "event") return log.info("event " + payload.dump() + " " + msg.type), "ignored";
    if (what == "log") return log.warn("said", {{"why", payload}}), nullptr;
    if (what == "print") return std::printf("%s\n", payload.get<std::string>().c_str()), nullptr;
    if (what == "memory") return use_memory();
    if (what == "memory-do") return memory_do(payload);
    if (what == "memory-count") return count(payload.get<int>()), nullptr;
    if (what == "send") return send("other", "ask", payload, 500);
    if (what == "send-with") return send("other", "ask", "null", {payload["timeoutMs"], metadata_of(payload)});
    if (what == "emit-with") return emit("done", Json::binary({0, 255}), metadata_of(payload)), nullptr;
    if (what == "got") return got(msg), nullptr;
    if (what == "emit") return emit("done", payload), "emitted";
    if (what == "try-send") return try_send(payload);
    throw std::invalid_argument("unknown capability " + what);
  }

  static Json fields(const kai::Message& msg) {
    return {{"id", msg.id},
            {"from", msg.from},
            {"to", msg.to},
            {"type", msg.type},
            {"capability", msg.capability},
            {"timestamp", msg.timestamp},
            {"metadata", msg.metadata}};
  }

  static kai::Metadata metadata_of(const Json& payload) {
    return {payload["priority"], payload["ttl"].get<std::uint32_t>(), payload["traceparent"]};
  }

  void got(const kai::Message& msg) {
    log.info("got " + msg.type + " " + std::to_string(msg.payload.get_binary().size()) + " " + msg.content_type);
  }

  static Json make_bytes(std::size_t count) {
    std::vector<std::uint8_t> bytes(count);
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(i % 256);
    return Json::binary(bytes);
  }

  Json try_send(const Json& payload) {
    try {
      return send("other", "ask", payload);
    } catch (const kai::AgentError& error) {
      return {{"isAgentError", true}, {"code", error.code}, {"retryable", error.retryable}};
    }
  }

  Json use_memory() {
    kai::SetOptions options;
    options.ttl = 5;
    options.if_absent = true;
    Json result;
    result["set"] = memory.set("k", {{"a", 1}}, options).version;
    result["get"] = memory.get("k").value();
    result["missing"] = memory.get("missing").value_or("none");
    result["bytes"] = memory.get("bytes").value().get_binary().size();
    result["many"] = memory.get_many({"k", "missing"});
    for (const kai::Written& written : memory.set_many({{"m", 1, {}}, {"n", 2, {}}})) {
      result["setMany"].push_back(written.version);
    }
    result["deleted"] = memory.remove("k");
    kai::ListOptions list;
    list.prefix = "m";
    result["list"] = memory.list(list).keys;
    return result;
  }

  static Json given(const Json& value) {
    if (!value.is_object() || !value.contains("bytes")) return value;
    return Json::binary(value["bytes"].get<std::vector<std::uint8_t>>());
  }
  static Json shown(const Json& value) {
    if (!value.is_binary()) return value;
    return {{"bytes", std::vector<std::uint8_t>(value.get_binary())}};
  }
  static kai::SetOptions set_options(const Json& entry) {
    kai::SetOptions options;
    if (entry.contains("ttl")) options.ttl = entry["ttl"].get<double>();
    options.if_absent = entry.value("ifAbsent", false);
    if (entry.contains("ifVersion")) options.if_version = entry["ifVersion"].get<std::int64_t>();
    return options;
  }

  /// One call, as the test says it; bytes are {"bytes": [...]} in JSON.
  Json memory_do(const Json& asked) {
    try {
      Json answer;
      answer["result"] = memory_call(asked["call"], asked, asked.value("options", Json::object()));
      return answer;
    } catch (const kai::AgentError& error) {
      return {{"code", error.code}, {"details", error.details}, {"retryable", error.retryable}};
    }
  }

  Json memory_call(const std::string& call, const Json& asked, const Json& options) {
    const std::string key = asked.value("key", "");
    const std::string agent = options.value("agent", "");
    if (call == "get") return shown(memory.get(key, agent).value_or(nullptr));
    if (call == "getEntry") {
      const auto entry = memory.get_entry(key, agent);
      return entry ? Json({{"value", shown(entry->value)}, {"version", entry->version}}) : Json();
    }
    if (call == "set") {
      return {{"version", memory.set(key, given(asked["entries"][0]["value"]), set_options(options)).version}};
    }
    if (call == "getMany") {
      Json found = Json::object();
      for (const auto& [name, value] : memory.get_many(asked["keys"], agent)) found[name] = shown(value);
      return found;
    }
    if (call == "setMany") return set_many(asked["entries"]);
    if (call == "delete") return memory.remove(key);
    return list(options);
  }

  Json set_many(const Json& given_entries) {
    std::vector<kai::MemoryEntry> entries;
    for (const Json& entry : given_entries)
      entries.push_back({entry["key"], given(entry["value"]), set_options(entry)});
    Json versions = Json::array();
    for (const kai::Written& written : memory.set_many(entries)) versions.push_back({{"version", written.version}});
    return versions;
  }

  Json list(const Json& options) {
    kai::ListOptions asked;
    asked.prefix = options.value("prefix", "");
    if (options.contains("limit")) asked.limit = options["limit"].get<std::int64_t>();
    asked.cursor = options.value("cursor", "");
    asked.agent = options.value("agent", "");
    const kai::KeyList listed = memory.list(asked);
    Json result = {{"keys", listed.keys}};
    if (!listed.cursor.empty()) result["cursor"] = listed.cursor;
    return result;
  }

  /// Counts up so many times, against others that count too.
  void count(int times) {
    while (times > 0) {
      const auto entry = memory.get_entry("count");
      kai::SetOptions options;
      options.if_absent = !entry;
      if (entry) options.if_version = entry->version;
      try {
        memory.set("count", entry ? entry->value.get<int>() + 1 : 1, options);
        --times;
      } catch (const kai::AgentError& error) {
        if (error.code != "CONFLICT") throw;
      }
    }
  }

  void called(const std::string& hook) {
    calls_.push_back(hook);
    if (throw_in_.count(hook) != 0) throw std::runtime_error("thrown in " + hook);
  }

  std::vector<std::string> calls_ = {"constructor"};
  Json state_;
  std::set<std::string> throw_in_;
  bool warn_ = false;
};

}  // namespace

KAI_AGENT(Probe);
