// Whom agents reach: what their starters made goes to egress with the rules that control made and check_network.h held
// against the policies.
#include <utility>

#include "policies/network_rules.h"
#include "sandbox/network.h"
#include "supervisor/keeper/check_network.h"
#include "supervisor/keeper/keeper.h"

namespace kai::keeper {
namespace {

constexpr std::uint16_t kDnsPort = 53;  // every agent's network has it already (sandbox/network.h)
// After new policies control sends each agent's new rules at once. Cut sooner, connections that those allow would end.
constexpr auto kNewRulesPatience = std::chrono::seconds(2);

/// They allow nothing.
egress::Rules no_rules(const std::string& agent_id) {
  egress::Rules rules;
  rules.set_agent_id(agent_id);
  return rules;
}

}  // namespace

bool Keeper::has_descriptors(std::size_t more) const {
  return agents_.size() * kDescriptorsPerAgent + egress_.descriptors() + more <= max_descriptors_;
}

void Keeper::prepare_network(Agent& agent, const spec::SandboxSpec& spec, starter::Job& job) {
  if (!spec.has_network()) return;
  agent.rules = spec.network().SerializeAsString();
  job.set_network(true);
  for (const std::uint16_t port : network_ports(spec.network())) {
    if (port != kDnsPort) job.add_network_ports(port);
  }
  agent.network_size = sandbox::kFirstListener + static_cast<std::size_t>(job.network_ports_size());
  egress_.prepare();
}

void Keeper::on_network(Agent& agent, std::vector<Fd> descriptors) {
  if (agent.rules.empty() || descriptors.size() != agent.network_size) {
    return set_up_failed(agent, "network", Error{"another number of descriptors than asked for", 0, ""});
  }
  egress_.add(agent.instance, {.descriptors = std::move(descriptors), .rules = std::exchange(agent.rules, {})});
  serve_egress();
}

/// Without rules, and with some that are refused, nothing is allowed any more: also for an egress that comes later.
void Keeper::on_set_network(std::uint64_t id, std::uint64_t instance, const std::vector<Fd>& fds) {
  const auto found = agents_.find(instance);
  if (found == agents_.end() || found->second.failure) return fail(id, "request", Error{"no such instance", 0, ""});
  Agent& agent = found->second;
  Result<egress::Rules> rules = no_rules(agent.id);
  if (!fds.empty()) rules = read_rules(fds[0], agent.id, policies_.parsed);
  if (!use_rules(agent, rules ? *rules : no_rules(agent.id), rules ? id : 0)) {
    return fail(id, "request", Error{"it began without a network; restart it", 0, ""});
  }
  serve_egress();
  if (!rules) fail(id, "request", rules.error());
}

/// Answers `request`, or nobody where it is 0, when egress knows. False: the agent has no network.
bool Keeper::use_rules(Agent& agent, const egress::Rules& rules, std::uint64_t request) {
  if (!agent.rules.empty()) {  // its starter makes the network, which egress is told of with these
    agent.rules = rules.SerializeAsString();
    if (request != 0) done(request);
  } else if (!egress_.set_rules(agent.instance, rules.SerializeAsString(), request)) {
    return false;
  }
  agent.check_rules_at.reset();
  store_soon();
  return true;
}

/// There are other policies, and what egress was told before may be beyond them.
void Keeper::expect_new_rules() {
  for (auto& [instance, agent] : agents_) {
    if (!agent.check_rules_at) agent.check_rules_at = Clock::now() + kNewRulesPatience;
  }
}

/// Control has not sent others: what the policies of now do not allow is nothing.
void Keeper::look_at_rules(Agent& agent) {
  agent.check_rules_at.reset();
  const AgentNetwork* const network = egress_.find(agent.instance);
  const std::string& bytes = network != nullptr ? network->rules : agent.rules;
  if (bytes.empty() || bytes == no_rules(agent.id).SerializeAsString()) return;
  egress::Rules rules;
  Result<> allowed = failure("its network rules are not in their known form");
  if (rules.ParseFromString(bytes)) allowed = check_rules(rules, agent.id, policies_.parsed);
  if (allowed) return;
  say(agent.id + " reaches nobody until control sends it rules that the policies allow, as at kaictl reload: " +
      allowed.error().message());
  (void)use_rules(agent, no_rules(agent.id), 0);
}

void Keeper::serve_egress() {
  egress_.serve(epoll_, Clock::now());
  for (const std::uint64_t request : egress_.answered()) done(request);
  auto end = egress_.control_end();
  if (!end) return;
  Reply message;
  message.mutable_egress()->set_again(end->again);
  std::vector<Fd> beside;
  beside.push_back(std::move(end->socket));
  reply(message, std::move(beside));
}

}  // namespace kai::keeper
