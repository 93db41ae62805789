// The agent of upgrade_agents.py in C++.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>

#include <kai/agent.hpp>

namespace {

using kai::Json;

constexpr const char* kGate = "/tmp/gate/gate";

// Instances that this library's code has made: a version that is loaded beside another one has its own.
int loaded = 0;

/// Connected to the gate, where `name` was said.
int say(const std::string& name) {
  const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, kGate, sizeof address.sun_path - 1);
  const std::string line = name + "\n";
  if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      write(connection, line.data(), line.size()) < 0) {
    close(connection);
    throw std::runtime_error(std::string("cannot reach the gate: ") + std::strerror(errno));
  }
  return connection;
}

void wait_at_gate(const std::string& name) {
  const int connection = say(name);
  char answer = 0;
  if (read(connection, &answer, 1) < 0) std::perror("read");
  close(connection);
}

class Counter : public kai::Agent {
  void on_init() override {
    ++loaded;
    version_ = manifest()["version"].get<std::string>();
    for (const Json& tag : manifest()["metadata"]["tags"]) {
      const auto text = tag.get<std::string>();
      acts_[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
    }
    if (acts_.count("health") > 0) health_ = acts_["health"];
    act("onInit");
  }
  void on_start() override { act("onStart"); }
  void on_upgrade(const std::string& old_version) override { act("onUpgrade", old_version); }
  void on_shutdown() override { act("onShutdown"); }

  Json save_state() override {
    act("saveState");
    return {{"seen", seen_}};
  }
  void restore_state(const Json& state) override {
    if (!state.is_null()) seen_ = state["seen"].get<std::map<std::string, int>>();
    act("restoreState", state.is_null() ? "nothing" : "");
  }
  kai::HealthStatus on_health_check() override {
    auto health = kai::Agent::on_health_check();
    health.status = health_;
    return health;
  }

  void act(const std::string& hook, const std::string& about = {}) {
    hooks_.push_back(about.empty() ? hook : hook + " " + about);
    log.info(hook + " of " + version_);
    const std::string what = acts_.count(hook) > 0 ? acts_[hook] : "";
    if (what == "throw") throw std::runtime_error(hook + " of " + version_ + " is bad");
    if (what == "exit") _exit(3);
    if (what == "gate") wait_at_gate(hook + " " + version_);
    while (what == "hang" || what == "block") pause();
  }

  Json on_message(const kai::Message& msg) override {
    const std::string& asked = msg.capability;
    if (asked == "count") return count(msg.payload["number"]);
    if (asked == "wait") return wait_at_gate(msg.payload["name"].get<std::string>()), Json{{"version", version_}};
    if (asked == "report") return report();
    if (asked == "connect") return say("kept"), Json::object();  // open for as long as the process is there
    if (asked == "sick") return health_ = "critical", Json::object();
    if (asked == "exit") _exit(msg.payload["code"].get<int>());
    throw std::invalid_argument("unknown capability " + asked);
  }

  Json count(const Json& number) {
    return {{"number", number}, {"version", version_}, {"times", ++seen_[number.dump()]}};
  }

  Json report() const {
    Json doubled = Json::array();
    for (const auto& [number, times] : seen_) {
      if (times > 1) doubled.push_back(std::stoi(number));
    }
    return {
        {"version", version_}, {"hooks", hooks_}, {"counted", seen_.size()}, {"doubled", doubled}, {"loaded", loaded}};
  }

  std::string version_;
  std::string health_ = "healthy";
  std::map<std::string, std::string> acts_;
  std::map<std::string, int> seen_;
  std::vector<std::string> hooks_;
};

}  // namespace

KAI_AGENT(Counter);
