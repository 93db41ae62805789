// `kaictl run`: an agent that is registered nowhere, in the foreground of one connection. Its streams are the client's
// own descriptors; it goes when the client goes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/control/connection.h"
#include "supervisor/control/connection_log.h"
#include "supervisor/control/environment.h"
#include "supervisor/control/instance.h"

namespace kai {

class Runs {
 public:
  explicit Runs(Environment& environment) : environment_(environment) {}

  void start(const control::Run& request, std::vector<Fd> descriptors, const Responder& responder);
  /// To the run that the same connection started; answered at once.
  void signal(int number, const Responder& responder);
  /// Ends all; `done` is called when none is left.
  void shut_down(std::function<void()> done);

  /// The operator's policies were read anew: whom runs may reach follows at once.
  void policies_changed();

  [[nodiscard]] std::size_t size() const { return runs_.size(); }

 private:
  struct Run {
    Run(Environment& environment, std::string run_id, Responder client, std::uint32_t slot)
        : id(std::move(run_id)),
          responder(std::move(client)),
          uid_slot(slot),
          denials(environment.loop, environment.log, environment.audit, id),
          connections(environment.loop, environment.log, id) {}
    std::string id;
    Responder responder;
    std::uint32_t uid_slot;
    DenialLog denials;
    ConnectionLog connections;
    std::unique_ptr<Instance> instance;
    std::string manifest, policy;  // as the client gave them; either may be empty
    bool started = false;
  };

  Outcome<PreparedSandbox> prepare(const std::string& id, const control::Run& request, std::size_t descriptors);
  Instance::Handlers handlers(Run& run);
  void on_ended(Run& run, const End& end);

  Environment& environment_;
  std::map<std::string, std::unique_ptr<Run>> runs_;  // by id
  std::function<void()> all_ended_;
};

}  // namespace kai
