#include "supervisor/control/start_plan.h"

#include <algorithm>

#include "policies/versions/npm_range.h"
#include "supervisor/control/dependencies.h"

namespace kai {
namespace {

void warn(Environment& environment, const std::string& id, const std::string& message) {
  environment.log.write(LogLevel::kWarn, id, "kai.dependency", message);
}

}  // namespace

bool StartPlan::needed(const Agent& agent) {
  const auto& dependencies = agent.manifest().dependencies;
  return std::any_of(dependencies.begin(), dependencies.end(),
                     [](const Dependency& each) { return each.type != DependencyType::kModule; });
}

StartPlan::StartPlan(Environment& environment, Agents& agents, std::string id, By by, std::chrono::milliseconds timeout,
                     Agent::Done done)
    : environment_(environment),
      agents_(agents),
      id_(std::move(id)),
      by_(by),
      timeout_(timeout),
      done_(std::move(done)) {}

void StartPlan::run() {
  if (const Agent* agent = agents_.find(id_)) stops_ = agent->stops();
  auto order = start_order(agents_.dependencies(), {id_});
  if (!order) {
    return give_up({"CONFLICT",
                    "agent '" + id_ + "' is not started: its dependencies are a cycle: " + order.error().message(),
                    "Take one of these dependencies out of its manifest, and register it again",
                    {},
                    false});
  }
  order_ = std::move(*order);
  next();
}

Agent* StartPlan::current() {
  return agents_.find(order_[at_]);
}

void StartPlan::next() {
  if (at_ == order_.size()) return std::exchange(done_, nullptr)({});
  const Agent* agent = current();
  if (agent == nullptr) {
    if (!is_required(order_[at_])) {
      warn(environment_, id_, "it would like agent '" + order_[at_] + "', which is not registered");
      ++at_;
      return next();
    }
    return give_up(
        {"UNAVAILABLE",
         "agent '" + id_ + "' is not started: it depends on agent '" + order_[at_] + "', which is not registered",
         "Register it first",
         {},
         true});
  }
  if (const std::string fault = version_fault(*agent); !fault.empty()) {
    if (is_required(order_[at_])) {
      return give_up(
          {"UNAVAILABLE", "agent '" + id_ + "' is not started: " + fault, "Register a version that fits", {}, true});
    }
    warn(environment_, id_, fault);
  }
  if (agent->state() == State::kRunning && order_[at_] != id_) {
    ++at_;
    return next();
  }
  check_services(0);
}

void StartPlan::check_services(std::size_t dependency) {
  const Agent* agent = current();
  if (agent == nullptr) return next();
  const auto& dependencies = agent->manifest().dependencies;
  while (dependency < dependencies.size() && dependencies[dependency].type != DependencyType::kService) ++dependency;
  if (dependency == dependencies.size()) return start();
  const Dependency& service = dependencies[dependency];
  const auto& known = agent->policy().services;
  const auto address = known.find(service.name);
  const auto judge = [self = shared_from_this(), id = order_[at_], name = service.name, required = service.required,
                      dependency](const std::string& fault) {
    if (fault.empty()) return self->check_services(dependency + 1);
    if (!required) {
      warn(self->environment_, id, "it would like service '" + name + "': " + fault);
      return self->check_services(dependency + 1);
    }
    self->give_up({"UNAVAILABLE",
                   "agent '" + id + "' is not started: service '" + name + "' " + fault,
                   "Start the service, or correct its address under services in the operator's policy",
                   {},
                   true});
  };
  if (address == known.end()) return judge("has no address in its policy (services)");
  const auto answered = [judge](const Result<>& answer) {
    judge(answer ? "" : "does not answer: " + answer.error().message());
  };
  probe_ = std::make_unique<ServiceProbe>(environment_.loop, environment_.keeper, address->second, answered);
}

void StartPlan::start() {
  Agent* agent = current();
  const Agent* wanted = agents_.find(id_);
  if (wanted == nullptr || wanted->stops() != stops_) {
    return give_up({"NOT_RUNNING", "agent '" + id_ + "' is not started: it was stopped meanwhile", {}, {}, false});
  }
  if (by_ == By::kBoot) {
    if (order_[at_] != id_ && agent->row().desired == Desired::kStopped) {
      return waited(
          refuse("NOT_RUNNING", "agent '" + order_[at_] + "' was stopped", "Start it: kaictl start " + order_[at_]));
    }
    if (agent->idle()) agent->start_at_boot();
  } else if (const auto taken = agent->start(); !taken) {
    return waited(taken);
  }
  agent->wait(Agent::Goal::kUp, timeout_,
              [self = shared_from_this()](const Outcome<>& outcome) { self->waited(outcome); });
}

void StartPlan::waited(const Outcome<>& outcome) {
  const std::string& id = order_[at_];
  if (!outcome && id == id_) return give_up(outcome.error());
  if (!outcome && is_required(id)) {
    Failure failure = outcome.error();
    failure.message = "agent '" + id_ + "' is not started: it depends on '" + id + "': " + failure.message;
    return give_up(std::move(failure));
  }
  if (!outcome) warn(environment_, id_, "it would like agent '" + id + "': " + outcome.error().message);
  ++at_;
  next();
}

/// Whether `needed` is a version that all who depend on it in this plan can use; the first who cannot is named.
std::string StartPlan::version_fault(const Agent& needed) const {
  const auto version = NpmVersion::parse(needed.row().active.version);
  for (const std::string& id : order_) {
    const Agent* agent = agents_.find(id);
    if (agent == nullptr) continue;
    for (const Dependency& each : agent->manifest().dependencies) {
      if (each.type != DependencyType::kAgent || each.name != needed.row().id) continue;
      const auto range = NpmRange::parse(each.version);
      if (range && version && range->has(*version)) continue;
      return "agent '" + id + "' depends on '" + each.name + "' " + each.version + ", registered is " +
             needed.row().active.version;
    }
  }
  return {};
}

/// By whoever of the plan depends on it.
bool StartPlan::is_required(const std::string& needed) const {
  return std::any_of(order_.begin(), order_.end(), [&](const std::string& id) {
    const Agent* agent = agents_.find(id);
    if (agent == nullptr) return false;
    const auto& dependencies = agent->manifest().dependencies;
    return std::any_of(dependencies.begin(), dependencies.end(), [&](const Dependency& each) {
      return each.type == DependencyType::kAgent && each.required && each.name == needed;
    });
  });
}

void StartPlan::give_up(Failure failure) {
  environment_.log.write(LogLevel::kError, id_, "error", failure.message);
  std::exchange(done_, nullptr)(tl::unexpected(std::move(failure)));
}

}  // namespace kai
