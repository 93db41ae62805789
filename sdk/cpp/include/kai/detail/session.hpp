// The host's requests, each carried out by a hook of the agent. The host decides the order; only `init` must be first.
#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
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
  Session(int fd, MakeAgent make) : channel_(fd, [this](const Json& request) { serve(request); }), make_(make) {}

  /// Returns the exit status: after shutdown, or when the host closes the channel.
  int run() {
    try {
      for (;;) {
        const Json request = channel_.next_request();
        serve(request);
        if (request["method"] == "shutdown" && request.contains("id")) return 0;
      }
    } catch (const ChannelClosed&) {
      return 0;
    }
  }

 private:
  void serve(const Json& request) {
    const Json id = request.value("id", Json());
    const std::string method = request["method"];
    try {
      if (id.is_null() && method != "message") return;
      const Json result = call(method, request["params"]);
      if (!id.is_null()) channel_.answer(id, result);
    } catch (const RpcFault& fault) {
      refuse(id, fault.body);
    } catch (const std::exception& error) {
      refuse(id, agent_error(error, demangled(typeid(error))));
    } catch (const ChannelClosed&) {
      throw;
    } catch (...) {
      refuse(id, agent_error(UnknownException(), "unknown"));
    }
  }

  /// An event has no answer: its error goes to the log.
  void refuse(const Json& id, const Json& body) {
    if (!id.is_null()) return channel_.answer_error(id, body);
    channel_.log("error", "an event was not handled: " + body["message"].get<std::string>(), nullptr);
  }

  Json call(const std::string& method, const Json& params) {
    if (method == "init") return init(params);
    if (!agent_) throw RpcFault(kInvalidRequest, method + " before init was answered", "NOT_RUNNING");
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

  Channel channel_;
  MakeAgent make_;
  Health health_;
  std::unique_ptr<Agent> agent_;
};

inline int serve(int fd, MakeAgent make) {
  return Session(fd, make).run();
}

}  // namespace kai::detail
