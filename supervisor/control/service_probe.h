// Whether a service answers: somebody takes a connection at its address. An agent that depends on it (type service)
// starts only then.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "supervisor/control/keeper_client.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class ServiceProbe {
 public:
  using Done = std::function<void(const Result<>&)>;
  static constexpr std::chrono::milliseconds kDeadline{2'000};

  /// `address` is of the operator's policy: unix:/path, which the keeper tries, since control does not see the host's
  /// paths; or tcp:host:port, where host is an address or a name. `done` is called once, never from within: it
  /// answered, or what was tried and why it did not. A probe that is destroyed before calls nobody.
  ServiceProbe(EventLoop& loop, KeeperClient& keeper, std::string address, Done done);
  ~ServiceProbe();
  ServiceProbe(const ServiceProbe&) = delete;
  ServiceProbe& operator=(const ServiceProbe&) = delete;

 private:
  struct Attempt;
  std::shared_ptr<Attempt> attempt_;  // kept by libuv too, until it is through
};

}  // namespace kai
