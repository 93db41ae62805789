// What every part of control is given: made once in main, passed by reference.
#pragma once

#include "proto/keeper.pb.h"
#include "supervisor/control/keeper_client.h"
#include "supervisor/control/log.h"
#include "supervisor/control/packages.h"
#include "supervisor/control/policies.h"
#include "supervisor/control/registry.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class AuditLog;
class EgressClient;
class MemoryManager;
class Router;

struct Environment {
  EventLoop& loop;
  KeeperClient& keeper;
  Log& log;
  Registry& registry;
  const PackageStore& packages;
  const keeper::Hello& hello;
  Policies& policies;
  AuditLog& audit;
  MemoryManager& memory;
  Router* router = nullptr;  ///< control's own, before anything is started
  EgressClient* egress = nullptr;  ///< the same
};

}  // namespace kai
