// Agents outlive control: the keeper has what the next one needs of each, and tells each where the next one is.
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <utility>

#include "base/unix.h"
#include "proto/starter.pb.h"
#include "supervisor/keeper/keeper.h"

namespace kai::keeper {
namespace {

// A control that took a packet in acts on it, and writes down what it did, within its round of the loop.
constexpr auto kRememberFor = std::chrono::seconds(5);
constexpr std::size_t kMaxEnded = 200;  // agents that ended one after another in that time

Fd duplicate(const Fd& fd) {
  return Fd(fd ? fcntl(fd.get(), F_DUPFD_CLOEXEC, 0) : -1);
}

}  // namespace

/// What only the control that is gone knew of ends with it: starts that are under way, and ephemeral agents.
void Keeper::part_from_control() {
  evidence_waiting_.clear();
  egress_.forget_requests();
  for (auto& [request, look] : evidence_) {
    if (auto text = look.take(); text && text->child) ending_children_.push_back(std::move(text->child));
  }
  evidence_.clear();
  for (auto& [address, probing] : probing_) ending_children_.push_back(probing.probe.end());
  probing_.clear();
  if (redis_) ending_children_.push_back(redis_->probe.end());
  redis_.reset();
  for (auto next = agents_.begin(); next != agents_.end();) {
    Agent& agent = (next++)->second;  // set_up_failed may release it
    end_freezing(agent);
    const bool wanted = agent.adoptable();
    if (std::exchange(agent.request, 0) != 0) {
      set_up_failed(agent, "request", Error{"control ended", 0, ""});
    } else if (!wanted) {
      agent.untold = true;
      kill(agent);
    }
  }
}

void Keeper::remember(const Agent& agent, const AgentExited& exited, std::array<Fd, 2> output) {
  Ended ended{.told = description(agent), .output = std::move(output), .when = Clock::now()};
  *ended.told.mutable_exited() = exited;
  ended_.push_back(std::move(ended));
  if (ended_.size() > kMaxEnded) ended_.pop_front();
}

/// Whose end a control has certainly heard of: it has read everything, and some time ago.
void Keeper::forget_ended() {
  if (ended_.empty() || !control_.channel || !replies_.empty()) return;
  int unread = 0;
  if (ioctl(control_.channel.get(), SIOCOUTQ, &unread) < 0 || unread > 0) return;
  const auto now = Clock::now();
  while (!ended_.empty() && now - ended_.front().when > kRememberFor) ended_.pop_front();
}

void Keeper::offer_ended() {
  for (const Ended& ended : ended_) {
    Reply message;
    *message.mutable_adoptable() = ended.told;
    std::vector<Fd> beside;
    for (const Fd& end : ended.output) beside.push_back(duplicate(end));
    reply(message, std::move(beside));
  }
}

/// The control's end of a KLP socket whose other end its agent-host has been sent. One that cannot take that, as it
/// reads nothing or has closed its channel, is out of reach, and ended: the socket is at its end then.
Fd Keeper::reconnect(Agent& agent) {
  auto klp = socket_pair(SOCK_STREAM);
  if (!klp) {
    say(agent.id + " cannot be reached any more (" + klp.error().message() + "); ending it");
    kill(agent);
    return {};
  }
  starter::Reconnect word;
  word.set_control(controls_);
  const int end = klp->second.get();
  if (auto sent = send_packet(agent.channel.get(), word.SerializeAsString(), {&end, 1}); !sent) {
    say(agent.id + " does not take its new connection to control (" + sent.error().message() + "); ending it");
    kill(agent);
  }
  return std::move(klp->first);
}

Adoptable Keeper::description(const Agent& agent) {
  Adoptable told;
  told.set_instance(agent.instance);
  told.set_agent_id(agent.id);
  told.set_pid(agent.pid);
  told.set_uid_slot(agent.uid_slot);
  for (const auto& layer : agent.degraded) told.add_degraded(layer);
  told.set_setup_us(agent.setup_us);
  told.set_spawned_ms(agent.verified_ms);
  told.set_frozen(agent.frozen);
  told.set_listener(agent.listener.valid());
  return told;
}

void Keeper::offer(Agent& agent) {
  Reply message;
  *message.mutable_adoptable() = description(agent);
  std::vector<Fd> beside;
  beside.push_back(reconnect(agent));
  for (const Fd* kept : {&agent.output[0], &agent.output[1], &agent.listener}) {
    if (*kept) beside.push_back(duplicate(*kept));
  }
  reply(message, std::move(beside));
}

}  // namespace kai::keeper
