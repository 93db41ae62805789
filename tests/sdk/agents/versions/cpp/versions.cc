// An agent of which a test makes several versions. main.mjs and main.py are the same.
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include <kai/agent.hpp>

using kai::Json;

struct Counters {
  static inline int of_class = 0;
};

inline int count_in_function() {
  static int counted = 0;
  return ++counted;
}

static int of_file = 0;

class Versions : public kai::Agent {
  void on_init() override {
    if (manifest().contains("connect")) connect_to(manifest()["connect"]);
    called("onInit");
  }
  void on_start() override { called("onStart"); }
  void on_upgrade(const std::string& old_version) override { called("onUpgrade", " " + old_version); }
  void on_shutdown() override { called("onShutdown"); }
  kai::HealthStatus on_health_check() override {
    called("onHealthCheck");
    auto health = kai::Agent::on_health_check();
    health.status = manifest().value("status", "healthy");
    return health;
  }
  Json save_state() override { return state_; }
  void restore_state(const Json& state) override {
    called("restoreState");
    state_ = state;
  }
  void on_error(const std::exception& error) override { calls_.push_back(std::string("onError ") + error.what()); }

  Json on_message(const kai::Message& msg) override {
    const std::string& what = msg.capability;
    if (what == "version") return manifest()["version"];
    if (what == "calls") return calls_;
    if (what == "count") return Json::array({++of_file, ++Counters::of_class, count_in_function()});
    if (what == "where") return where();
    if (what == "directory") return directory();
    if (what == "set") return state_ = msg.payload, nullptr;
    if (what == "set-long") return state_ = std::string(msg.payload.get<std::size_t>(), 'x'), nullptr;
    if (what == "event") return log.info(msg.type + " of " + manifest()["version"].get<std::string>()), nullptr;
    if (what == "throw") throw std::runtime_error(msg.payload.get<std::string>());
    if (what == "connect") return connect_to(msg.payload), nullptr;
    throw std::invalid_argument("unknown capability " + what);
  }

  static Json where() {
    Dl_info info{};
    dladdr(&of_file, &info);
    return Json::array({info.dli_fname});
  }

  static Json directory() {
    std::array<char, 4096> path{};
    return getcwd(path.data(), path.size());
  }

  /// On the connection each byte is a question: what does the context do? It is asked when this version is dropped:
  /// before, the context is for the thread of the hooks only.
  void connect_to(const std::string& path) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      throw std::runtime_error(std::strerror(errno));
    }
    std::thread([this, fd] { answer(fd); }).detach();
  }

  void answer(int fd) {
    for (char question = 0; recv(fd, &question, 1, 0) == 1;) {
      log.info("log of " + manifest()["version"].get<std::string>());
      const std::string codes = code_of([this] { memory.get("k"); }) + " " +
                                code_of([this] { send("other", "ask", 1); }) + " " +
                                code_of([this] { emit("done", 1); }) + "\n";
      if (::send(fd, codes.data(), codes.size(), MSG_NOSIGNAL) < 0) return;
    }
  }

  template <typename Ask>
  static std::string code_of(const Ask& ask) {
    try {
      ask();
      return "none";
    } catch (const kai::AgentError& error) {
      return error.code;
    }
  }

  void called(const std::string& hook, const std::string& detail = "") {
    calls_.push_back(hook + detail);
    if (manifest().value("throwIn", "") == hook) throw std::runtime_error("thrown in " + hook);
    if (manifest().value("askIn", "") == hook) send("other", "ask", hook);
  }

  Json calls_ = Json::array({"constructor"});
  Json state_;
};

KAI_AGENT(Versions);
