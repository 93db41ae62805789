// Write kAI agents in C++ (17 or later): one class that derives from kai::Agent, and KAI_AGENT(Class) at the end.
//
//   class Echo : public kai::Agent {
//     kai::Json on_message(const kai::Message& msg) override { return msg.payload; }
//   };
//   KAI_AGENT(Echo)
//
//   g++ -std=c++17 -O2 -shared -fPIC -fvisibility=hidden -fno-gnu-unique -I SDK/cpp/include echo.cc -o libecho.so
//
// Header-only, with nlohmann/json (Debian: nlohmann-json3-dev). All of the protocol is compiled into the agent's own
// library; kai-native-runner calls one C function of it, so no C++ ABI crosses the border between the two.
#pragma once

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kai/detail/channel.hpp"
#include "kai/detail/health.hpp"
#include "kai/detail/payload.hpp"
#include "kai/message.hpp"

namespace kai {

namespace detail {
class Session;
}

/// The whole response to `msg`, for an on_message that says more than a payload: set its "metadata".
inline Json reply(const Message& msg, const Json& payload) {
  Json message = {{"protocol", "klp/1.0"},
                  {"id", detail::new_id()},
                  {"from", msg.to},
                  {"to", msg.from},
                  {"type", "response"},
                  {"correlationId", msg.id},
                  {"timestamp", detail::iso_now()}};
  message["payload"] = payload;
  return message;
}

struct SetOptions {
  std::optional<double> ttl;               ///< seconds, also parts of one; 0 is never; nullopt: the manifest's
  bool if_absent = false;                  ///< CONFLICT where the key exists
  std::optional<std::int64_t> if_version;  ///< CONFLICT where the key has another version
};

/// What a write leaves: the key's new version.
struct Written {
  std::int64_t version = 0;
};

struct MemoryEntry {
  std::string key;
  Json value;
  SetOptions options;
};

/// What is kept under a key.
struct StoredValue {
  Json value;
  std::int64_t version = 0;  ///< for SetOptions::if_version
};

struct ListOptions {
  std::string prefix;
  std::optional<std::int64_t> limit;
  std::string cursor;  ///< of the answer before
  std::string agent;   ///< reads the shared memory of another agent
};

struct KeyList {
  std::vector<std::string> keys;
  std::string cursor;  ///< empty: that was all
};

/// The agent's memory. Values are JSON, or bytes (Json::binary). Every call waits for its answer and throws AgentError:
/// CONFLICT where a condition does not hold, QUOTA_EXCEEDED, TOO_LARGE, INVALID, DENIED (another agent's memory without
/// a grant). One that is `retryable` (UNAVAILABLE, BUSY, TIMEOUT) may be tried again; of a write that was under way
/// nobody knows then whether it was done.
class Memory {
 public:
  /// `agent` reads the shared memory of another agent. nullopt: there is no such key.
  std::optional<Json> get(const std::string& key, const std::string& agent = {}) {
    auto entry = get_entry(key, agent);
    if (!entry) return std::nullopt;
    return std::move(entry->value);
  }

  /// The value with its version.
  std::optional<StoredValue> get_entry(const std::string& key, const std::string& agent = {}) {
    Json params = {{"key", key}};
    if (!agent.empty()) params["agent"] = agent;
    const Json result = channel_->call("memory.get", params);
    if (!result.value("found", false)) return std::nullopt;
    return StoredValue{detail::decode_body(result, "value"), result.at("version").get<std::int64_t>()};
  }

  Written set(const std::string& key, const Json& value, const SetOptions& options = {}) {
    return {channel_->call("memory.set", encode({key, value, options})).at("version").get<std::int64_t>()};
  }

  /// Those of the keys (at most 1,000) that are there.
  std::map<std::string, Json> get_many(const std::vector<std::string>& keys, const std::string& agent = {}) {
    std::map<std::string, Json> found;
    Json params = {{"keys", keys}};
    if (!agent.empty()) params["agent"] = agent;
    const Json result = channel_->call("memory.getMany", params);
    for (const Json& entry : result.at("entries")) {
      found.emplace(entry.at("key").get<std::string>(), detail::decode_body(entry, "value"));
    }
    return found;
  }

  /// All or none, at most 1,000; the versions are in the order of the entries.
  std::vector<Written> set_many(const std::vector<MemoryEntry>& entries) {
    Json encoded = Json::array();
    for (const MemoryEntry& entry : entries) encoded.push_back(encode(entry));
    const Json result = channel_->call("memory.setMany", {{"entries", encoded}});
    std::vector<Written> written;
    for (const Json& version : result.at("versions")) written.push_back({version.get<std::int64_t>()});
    return written;
  }

  /// Whether there was such a key. (`delete` is a C++ keyword.)
  bool remove(const std::string& key) {
    return channel_->call("memory.delete", {{"key", key}}).at("deleted").get<bool>();
  }

  /// Keys in the order of their UTF-8 bytes, at most 1,000 at once.
  KeyList list(const ListOptions& options = {}) {
    Json params = Json::object();
    if (!options.prefix.empty()) params["prefix"] = options.prefix;
    if (options.limit) params["limit"] = *options.limit;
    if (!options.cursor.empty()) params["cursor"] = options.cursor;
    if (!options.agent.empty()) params["agent"] = options.agent;
    const Json result = channel_->call("memory.list", params);
    return {result.at("keys").get<std::vector<std::string>>(), result.value("cursor", "")};
  }

 private:
  friend class detail::Session;

  static Json encode(const MemoryEntry& entry) {
    Json params = detail::encode_body(entry.value, "value");
    params.erase("contentType");
    params["key"] = entry.key;
    if (entry.options.ttl) params["ttl"] = *entry.options.ttl;
    if (entry.options.if_absent) params["ifAbsent"] = true;
    if (entry.options.if_version) params["ifVersion"] = *entry.options.if_version;
    return params;
  }

  detail::Channel* channel_ = nullptr;
};

/// Records in the supervisor's log, under this agent's id. `fields` is an object.
class Log {
 public:
  void debug(const std::string& message, const Json& fields = nullptr) { channel_->log("debug", message, fields); }
  void info(const std::string& message, const Json& fields = nullptr) { channel_->log("info", message, fields); }
  void warn(const std::string& message, const Json& fields = nullptr) { channel_->log("warn", message, fields); }
  void error(const std::string& message, const Json& fields = nullptr) { channel_->log("error", message, fields); }

 private:
  friend class detail::Session;
  detail::Channel* channel_ = nullptr;
};

/// Hooks run one after the other on one thread; while a hook works nothing else is served, health neither; while it
/// waits for send, emit or memory, on_health_check alone is. An exception that a hook throws answers the request with
/// AGENT_ERROR and is given to on_error; the agent lives on. The context (memory, log, send, emit, manifest) is there
/// from on_init on, not yet in the constructor, and is for the thread of the hooks only.
///
/// A soft upgrade loads another version's library into this process. Its static data and its classes are its own, also
/// where they have the same names. The object of the version before is not destroyed, and its threads go on: what they
/// have to give up they give up in save_state, and take back when a hook is called again. Calls of its context fail
/// with NOT_RUNNING, and its log records are dropped. A library that a package brings along, and a file of which
/// threads may still run, is loaded in a process of its own: such a version gets hard upgrades.
class Agent {
 public:
  Agent() = default;
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  virtual ~Agent() = default;

  /// A start calls on_init and on_start; an upgrade on_init, restore_state, on_upgrade, on_start.
  virtual void on_init() {}
  virtual void on_start() {}
  /// The value is the payload of the response (Json::binary goes as bytes), or the whole message that reply() makes.
  /// Events of topics that the agent may read come here too (msg.type is "event"); their value is ignored.
  virtual Json on_message(const Message& msg) = 0;
  /// This version takes the place of old_version, and has its state.
  virtual void on_upgrade(const std::string& old_version) { static_cast<void>(old_version); }
  /// The process ends after it. Not called when another version takes over inside the process.
  virtual void on_shutdown() {}
  virtual void on_error(const std::exception& error) { static_cast<void>(error); }
  /// Begin with what this one returns, and change what the agent knows better.
  virtual HealthStatus on_health_check() { return health_->status(); }
  /// What the next version is to know and the memory does not: JSON of at most 1 MiB, which its restore_state gets. All
  /// messages have been answered before, and none comes after it, but when the upgrade fails: then they go on here.
  virtual Json save_state() { return nullptr; }
  /// What save_state of the version before returned, after on_init; null where it has no such hook.
  virtual void restore_state(const Json& state) { static_cast<void>(state); }

 protected:
  Memory memory;
  Log log;

  /// The manifest, as an object.
  const Json& manifest() const { return init_.at("manifest"); }
  /// What the operator granted, which may be less than the manifest asked for: array of {resource, scope, actions}.
  const Json& permissions() const { return init_.at("permissions"); }
  /// messageMs, inFlight, frameBytes.
  const Json& limits() const { return init_.at("limits"); }

  /// Asks another agent and waits for the payload of its response. Throws AgentError; one that is `retryable`
  /// (UNAVAILABLE while kaid restarts, BUSY, TIMEOUT …) may be tried again. To `topic:NAME` it publishes: the
  /// capability is left out of account, and it returns null once it is sent.
  Json send(const std::string& to, const std::string& capability, const Json& payload, const SendOptions& options) {
    Json params = detail::encode_body(payload, "payload");
    params["to"] = to;
    params["capability"] = capability;
    if (options.timeout_ms > 0) params["timeoutMs"] = options.timeout_ms;
    detail::add_metadata(params, options.metadata);
    return detail::decode_body(channel_->call("klp.send", params), "payload");
  }
  Json send(const std::string& to, const std::string& capability, const Json& payload = Json::object(),
            std::int64_t timeout_ms = 0) {
    return send(to, capability, payload, SendOptions{timeout_ms, {}});
  }

  /// Publishes to `topic:AGENT.NAME`; returns once it is sent, and a refusal (DENIED) is a line of the log. Throws
  /// AgentError.
  void emit(const std::string& name, const Json& data = nullptr, const Metadata& metadata = {}) {
    Json params = detail::encode_data(data);
    params["name"] = name;
    detail::add_metadata(params, metadata);
    channel_->call("klp.emit", params);
  }

 private:
  friend class detail::Session;
  detail::Channel* channel_ = nullptr;
  detail::Health* health_ = nullptr;
  Json init_;
};

}  // namespace kai

#include "kai/detail/session.hpp"

/// Makes Class the agent of this library. Once, in one source file, outside of any namespace.
#define KAI_AGENT(Class)                                                                                              \
  const unsigned kai_agent_abi = KAI_AGENT_ABI;                                                                       \
  int kai_agent_main(int fd) {                                                                                        \
    return kai::detail::Border<Class>::serve_alone(fd);                                                               \
  }                                                                                                                   \
  const kai_library kai_agent_library = {                                                                             \
      &kai::detail::Border<Class>::refusal,   &kai::detail::Border<Class>::begin, &kai::detail::Border<Class>::serve, \
      &kai::detail::Border<Class>::serve_one, &kai::detail::Border<Class>::drop,  &kai::detail::Border<Class>::end,   \
  };                                                                                                                  \
  static_assert(true, "takes the semicolon after KAI_AGENT(Class)")
