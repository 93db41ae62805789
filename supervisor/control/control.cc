#include "supervisor/control/control.h"

#include <unistd.h>

#include <array>

#include "supervisor/control/audit_log.h"

namespace kai {
namespace {

std::string joined(const google::protobuf::RepeatedPtrField<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

}  // namespace

Control::Control(const Environment& environment, const std::string& log_directory,
                 std::vector<KeeperClient::Adoption> adoptions)
    : environment_(environment),
      adoptions_(std::move(adoptions)),
      agents_(environment_),
      router_(environment_.loop, environment_.log, agents_),
      egress_(environment_.loop, environment_.keeper, environment_.log, environment_.audit),
      runs_(environment_),
      operations_{environment_, agents_, runs_, log_directory},
      api_(environment.loop, environment.log,
           {geteuid(), environment.hello.operator_uid(), environment.hello.socket_gid()},
           [this](const control::Request& request, std::vector<Fd> descriptors, const Responder& responder) {
             handle_request(operations_, request, std::move(descriptors), responder);
           }) {
  environment_.router = &router_;
  environment_.egress = &egress_;
  environment_.loop.before_deferred([&audit = environment_.audit] { audit.flush(); });
}

Control::~Control() {
  // Jobs on the thread pool use what is about to go.
  environment_.loop.finish_work();
}

Result<> Control::start() {
  environment_.keeper.set_events(
      {.stopping = [this] { stop(); },
       .reload = [this](const keeper::Reload& reload,
                        const Fd& policies) { take_policies(operations_, reload, policies); },
       .egress = [this](Fd socket, bool again) { egress_.use(std::move(socket), again); },
       .lost = [this](const std::string& reason) { lost_keeper(reason); }});
  if (auto loaded = agents_.load(); !loaded) return loaded;
  // Packages that a refused or interrupted registration left; before anybody can register another.
  const auto in_use = environment_.registry.packages_in_use();
  if (!in_use) return tl::unexpected(in_use.error());
  if (auto removed = environment_.packages.remove_unreferenced(*in_use); !removed) return removed;
  const std::string path = environment_.hello.runtime_dir() + "/kaid.sock";
  if (auto listening = api_.listen(path); !listening) return listening;
  announce(path);
  keeper::Request ready;
  ready.mutable_ready();
  environment_.keeper.request(std::move(ready), {}, nullptr);
  agents_.adopt(std::exchange(adoptions_, {}));
  agents_.start_desired(environment_.hello.again());
  return {};
}

void Control::announce(const std::string& path) {
  const keeper::Hello& hello = environment_.hello;
  environment_.log.write(LogLevel::kInfo, "", "started", "kaid serves",
                         {{"version", KAI_VERSION},
                          {"mode", hello.root() ? "root" : "user"},
                          {"cgroups", hello.cgroup_backend()},
                          {"agents", agents_.all().size()},
                          {"policies", environment_.policies.all().policies.size()},
                          {"socket", path}});
  if (hello.again()) {
    environment_.log.write(LogLevel::kWarn, "", "kai.restarted",
                           "kaid's control had ended and was started again; agents went on meanwhile",
                           {{"adopted", adoptions_.size()}});
    environment_.audit.append("", "error", R"({"message":"kaid's control had ended and was started again"})");
  }
  const std::array loaded = {LogField("policies", environment_.policies.all().policies.size())};
  environment_.audit.append("", "kai.policy_loaded", fields_json({}, loaded));
  for (const std::string& warning : environment_.policies.all().warnings) {
    environment_.log.write(LogLevel::kWarn, "", "kai.policy_loaded", warning);
  }
  if (hello.missing_size() == 0) return;
  environment_.log.write(LogLevel::kWarn, "", "kai.degraded",
                         "this machine does not give every layer of the sandbox; see 'kaictl doctor'",
                         {{"missing", joined(hello.missing())}});
  const std::string missing = joined(hello.missing());
  const std::array fields = {LogField("missing", missing)};
  environment_.audit.append("", "kai.degraded", fields_json({}, fields));
}

void Control::stop() {
  if (operations_.stopping) return;
  operations_.stopping = true;
  environment_.log.write(LogLevel::kInfo, "", "kai.stopping", "kaid stops its agents and ends");
  api_.stop_listening();
  const auto left = std::make_shared<int>(2);
  const auto one_less = [this, left] {
    if (--*left > 0) return;
    environment_.log.write(LogLevel::kInfo, "", "kai.stopped", "kaid ends");
    // What was answered last goes out before the loop ends.
    environment_.loop.defer([this] { environment_.loop.stop(); });
  };
  runs_.shut_down(one_less);
  agents_.shut_down(one_less);
}

void Control::lost_keeper(const std::string& reason) {
  environment_.log.write(LogLevel::kError, "", "error", reason);
  exit_status_ = 1;
  environment_.loop.stop();
}

}  // namespace kai
