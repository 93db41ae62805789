// One version of the agent in this process, and the host's requests, each carried out by a hook of the agent. The host
// decides the order; only `load` and `init` may be first.
#pragma once

#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>

#include "kai/abi.h"
#include "kai/agent.hpp"

namespace kai::detail {

using MakeAgent = std::unique_ptr<Agent> (*)();

/// What a hook threw that is not a std::exception.
struct UnknownException : std::runtime_error {
  UnknownException() : std::runtime_error("an exception that is not a std::exception") {}
};

class Session {
 public:
  Session(kai_runner& runner, MakeAgent make)
      : runner_(runner),
        channel_([this](const Json& request) { serve(request); }),
        make_(make),
        health_(runner.started) {}

  /// Returns the exit status: after shutdown, or when the host closes the channel. KAI_COMMITTED: another version goes
  /// on with the channel.
  int run(kai_channel& state) {
    channel_.take(state, false);
    try {
      for (;;) {
        const Json request = channel_.next_request();
        if (is_of_next(request) && lend(request)) continue;
        serve(request);
        if (request["method"] == "shutdown" && request.contains("id")) return 0;
        if (!is_committed_) continue;
        channel_.give(state);
        return KAI_COMMITTED;
      }
    } catch (const ChannelClosed&) {
      return 0;
    }
  }

  /// As the version beside the serving one. Whether the agent is constructed.
  bool serve_one(kai_channel& state) {
    channel_.take(state, true);
    try {
      serve(channel_.next_request());
    } catch (const ChannelClosed&) {  // the serving session sees it too
    }
    channel_.give(state);
    return agent_ != nullptr;
  }

  void drop() { channel_.close(); }

 private:
  /// The loaded version serves this request. False: there is none, or the request is not one of those.
  bool lend(const Json& request) {
    const std::string method = request["method"];
    if (method != "init" && method != "restoreState" && method != "upgrade" && method != "start" &&
        method != "health") {
      return false;
    }
    kai_channel state;
    channel_.put_back(request);
    channel_.give(state);
    const int runs = next_root_.empty() ? KAI_NOT_LOADED : runner_.serve_next(&runner_, &state);
    if (runs == KAI_NOT_LOADED) {
      static_cast<void>(channel_.next_request());
      refuse(request.value("id", Json()), not_running(method + " of the next version: none is loaded").body);
      return true;
    }
    next_runs_ = runs == 1;
    channel_.take(state, false);
    return true;
  }

  void serve(const Json& request) {
    const Json id = request.value("id", Json());
    const std::string method = request["method"];
    try {
      if (id.is_null() && method != "message") return;
      const Json result = call(method, request["params"]);
      if (!id.is_null()) channel_.answer(id, method, result);
    } catch (const RpcFault& fault) {
      refuse(id, fault.body);
    } catch (const std::exception& error) {
      refuse(id, agent_error(error, demangled(typeid(error))));
    } catch (const ChannelClosed&) {
      throw;
    } catch (const Discarded&) {
      refuse(id, not_running("this version of the agent was discarded").body);
    } catch (...) {
      refuse(id, agent_error(UnknownException(), "unknown"));
    }
  }

  static RpcFault not_running(const std::string& message) { return {kInvalidRequest, message, "NOT_RUNNING"}; }

  /// An event has no answer: its error goes to the log.
  void refuse(const Json& id, const Json& body) {
    if (!id.is_null()) return channel_.answer_error(id, body);
    channel_.log("error", "an event was not handled: " + body["message"].get<std::string>(), nullptr);
  }

  Json call(const std::string& method, const Json& params) {
    if (method == "init") return init(params);
    if (method == "load") return load(params);
    if (method == "commit") return commit();
    if (method == "discard") return discard();
    if (!agent_) throw not_running(method + " before init was answered");
    if (method == "message") return message(params);
    if (method == "health") return health();
    if (method == "saveState") return {{"state", agent_->save_state()}};
    if (method == "error") {
      on_error(AgentError(params.value("message", "")), params.value("name", "Error"));
    } else if (method == "start") {
      agent_->on_start();
    } else if (method == "upgrade") {
      agent_->on_upgrade(params.value("oldVersion", ""));
    } else if (method == "shutdown") {
      agent_->on_shutdown();
    } else if (method == "restoreState") {
      agent_->restore_state(params.value("state", Json()));
    } else {
      throw RpcFault(kMethodNotFound, "no method " + method);
    }
    return Json::object();
  }

  Json init(const Json& params) {
    if (agent_) throw RpcFault(kInvalidRequest, "init comes once");
    if (params.value("protocol", Json()) != 1) throw RpcFault(kInvalidParams, "this SDK speaks runner protocol 1");
    agent_ = make_();
    agent_->init_ = params;
    agent_->channel_ = agent_->memory.channel_ = agent_->log.channel_ = &channel_;
    agent_->health_ = &health_;
    agent_->on_init();
    return Json::object();
  }

  /// This library's own code is there already.
  Json load(const Json& params) {
    if (!params.contains("root") && !params.contains("entry")) {
      if (agent_) throw RpcFault(kInvalidRequest, "load: the code is loaded, and init was answered");
      return Json::object();
    }
    const Json root = params.value("root", Json());
    const Json entry = params.value("entry", Json());
    if (!root.is_string() || !entry.is_string()) {
      throw RpcFault(kInvalidParams, "load: root and entry are not both strings");
    }
    if (!agent_) throw not_running("load of another version before init was answered");
    if (runner_.load == nullptr) throw RpcFault(kMethodNotFound, "this runner loads one version only: upgrade hard");
    if (!next_root_.empty()) {
      throw RpcFault(kInvalidRequest, "load: another version is loaded; commit or discard it first", "CONFLICT");
    }
    const std::string path = root.get<std::string>() + "/" + entry.get<std::string>();
    if (const char* why = runner_.load(&runner_, path.c_str()); why != nullptr) {
      throw RpcFault(kServerError, why, "AGENT_ERROR");
    }
    next_root_ = root;
    return Json::object();
  }

  Json commit() {
    if (!next_runs_) throw not_running("commit: no version is loaded whose init was answered");
    if (chdir(next_root_.c_str()) != 0) {
      throw RpcFault(kInvalidRequest, "commit: " + next_root_ + ": " + std::strerror(errno), "INTERNAL");
    }
    is_committed_ = true;
    return Json::object();
  }

  Json discard() {
    if (!next_root_.empty()) runner_.discard(&runner_);
    next_root_.clear();
    next_runs_ = false;
    return Json::object();
  }

  Json message(const Json& params) {
    const auto fields = params.find("message");
    if (fields == params.end() || !fields->is_object()) {
      throw RpcFault(kInvalidParams, "message: params.message is not an object");
    }
    health_.active();
    return encode_answer(agent_->on_message(decode_message(*fields)));
  }

  Json health() {
    const HealthStatus status = agent_->on_health_check();
    Json errors = Json::array();
    for (const ErrorSummary& error : status.errors) {
      errors.push_back({{"type", error.type},
                        {"count", error.count},
                        {"lastOccurrence", error.last_occurrence},
                        {"message", error.message}});
    }
    return {{"status", status.status},
            {"uptime", status.uptime},
            {"memoryUsage", status.memory_usage},
            {"cpuUsage", status.cpu_usage},
            {"lastActivity", status.last_activity},
            {"errors", errors}};
  }

  /// C++ exceptions carry no stack; the name is the exception's type.
  Json agent_error(const std::exception& error, const std::string& name) {
    on_error(error, name);
    Json data = {{"code", "AGENT_ERROR"}, {"name", clip(name)}};
    if (const auto* said = dynamic_cast<const AgentError*>(&error)) {
      if (said->details.is_object()) data["details"] = said->details;
      if (said->retryable) data["retryable"] = true;
    }
    return {{"code", kServerError}, {"message", clip(error.what())}, {"data", data}};
  }

  /// An exception that on_error throws is logged and goes no further.
  void on_error(const std::exception& error, const std::string& name) {
    health_.failed(name, error.what());
    if (!agent_) return;
    try {
      agent_->on_error(error);
    } catch (const ChannelClosed&) {
      throw;
    } catch (const Discarded&) {  // and so is what it would have said
    } catch (const std::exception& thrown) {
      channel_.log("error", std::string("on_error threw: ") + thrown.what(), nullptr);
    } catch (...) {
      channel_.log("error", "on_error threw what is not a std::exception", nullptr);
    }
  }

  static std::string demangled(const std::type_info& type) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(type.name(), nullptr, nullptr, &status),
                                                      std::free);
    return status == 0 ? name.get() : type.name();
  }

  kai_runner& runner_;
  Channel channel_;
  MakeAgent make_;
  Health health_;
  std::unique_ptr<Agent> agent_;
  std::string next_root_;  // of the version that is loaded; empty: none
  bool next_runs_ = false;
  bool is_committed_ = false;
};

/// One in the process where versions share it: then they share the static data of the agent's own inline functions too.
struct Canary {
  static inline bool used = false;
};

/// What KAI_AGENT(Class) puts at the border.
template <typename Class>
struct Border {
  static std::unique_ptr<Agent> make() { return std::make_unique<Class>(); }

  static const char* refusal() {
    if (!Canary::used) return nullptr;
    return "it and the version that serves were built without -fvisibility=hidden, so that they would share their "
           "static "
           "data: build it with the command in kai/agent.hpp, or upgrade hard";
  }
  static void* begin(kai_runner* runner) {
    Canary::used = true;
    return new Session(*runner, &make);
  }
  static int serve(void* session, kai_channel* channel) { return static_cast<Session*>(session)->run(*channel); }
  static int serve_one(void* session, kai_channel* channel) {
    return static_cast<Session*>(session)->serve_one(*channel) ? 1 : 0;
  }
  static void drop(void* session) { static_cast<Session*>(session)->drop(); }
  static void end(void* session) { delete static_cast<Session*>(session); }

  /// For runners that know one version only.
  static int serve_alone(int fd) {
    kai_runner runner{std::chrono::steady_clock::now().time_since_epoch().count(), nullptr, nullptr, nullptr};
    kai_channel channel{fd, "", 0, 0, 1};
    return Session(runner, &make).run(channel);
  }
};

}  // namespace kai::detail
