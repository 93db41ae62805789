#include "supervisor/keeper/egress_link.h"

#include <linux/sockios.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/child.h"
#include "supervisor/keeper/say.h"

namespace kai::keeper {
namespace {

constexpr auto kPatience = std::chrono::seconds(5);  // with one that does not read
constexpr auto kResolvConfLook = std::chrono::seconds(3);
constexpr auto kTryAgain = std::chrono::milliseconds(5);  // it reads hundreds of packets in that time
constexpr auto kEndPatience = std::chrono::seconds(2);
// So many ends within the window, and the next starts wait: something is broken that a start does not mend.
constexpr std::size_t kMostEnds = 5;
constexpr auto kEndWindow = std::chrono::seconds(10);
constexpr auto kWait = std::chrono::seconds(1);

}  // namespace

void EgressLink::add(std::uint64_t instance, AgentNetwork network) {
  networks_[instance] = std::move(network);
  due_.insert(instance);
  wanted_ = true;
}

bool EgressLink::set_rules(std::uint64_t instance, std::string rules, std::uint64_t request) {
  const auto found = networks_.find(instance);
  if (found == networks_.end()) return false;
  found->second.rules = std::move(rules);
  due_.insert(instance);
  if (request == 0) return true;
  if (process_.pidfd) {
    waiting_.emplace(instance, request);
  } else {
    answered_.push_back(request);  // nothing is open, and the next one begins with these
  }
  return true;
}

void EgressLink::remove(std::uint64_t instance) {
  if (networks_.erase(instance) == 0) return;
  due_.erase(instance);
  if (known_.erase(instance) > 0) removed_.push_back(instance);
  for (auto [at, end] = waiting_.equal_range(instance); at != end; at = waiting_.erase(at)) {
    answered_.push_back(at->second);
  }
}

void EgressLink::use_upstream(const std::vector<std::string>& servers) {
  servers_ = servers;
  upstream_due_ = true;
}

void EgressLink::join_control() {
  if (!process_.channel) return;  // start() does it
  auto pair = socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK);
  if (!pair) return say("egress cannot be joined to control: " + pair.error().message());
  // No descriptors pass here, either way.
  refuse_descriptors(pair->first);
  refuse_descriptors(pair->second);
  control_due_ = std::move(pair->second);
  control_end_ = ControlEnd{std::move(pair->first), false};
}

const AgentNetwork* EgressLink::find(std::uint64_t instance) const {
  const auto found = networks_.find(instance);
  return found != networks_.end() ? &found->second : nullptr;
}

std::size_t EgressLink::descriptors() const {
  std::size_t count = 0;
  for (const auto& [instance, network] : networks_) count += network.descriptors.size();
  return count;
}

// ── its life ──

void EgressLink::serve(const Fd& epoll, Clock::time_point now) {
  siginfo_t end{};
  if (process_.pidfd &&
      waitid(P_PIDFD, static_cast<id_t>(process_.pidfd.get()), &end, WEXITED | WNOHANG | __WALL) == 0 &&
      end.si_pid != 0)
    on_end(end, epoll, now);
  if (!process_.pidfd && wanted_ && (!start_at_ || now >= *start_at_)) start(epoll, now);
  if (!process_.pidfd) return;
  look_at_resolv_conf(now);
  const Sent sent = tell_all();
  if (sent != Sent::kNoRoom) full_since_.reset();
  if (sent == Sent::kNoRoom && !full_since_) full_since_ = now;
  const bool stuck = is_stuck(now);
  if (sent != Sent::kBroken && !stuck) return;
  if (stuck) say("egress does not read what it is told; ending it, and starting another");
  (void)signal_pidfd(process_.pidfd.get(), SIGKILL);
  full_since_ = now;  // the kernel may hold it for a moment
  told_at_.reset();
}

/// It reads nothing: its socket is full for some time, or the last command is still in it.
bool EgressLink::is_stuck(Clock::time_point now) {
  if (full_since_ && now - *full_since_ >= kPatience) return true;
  if (!told_at_ || now - *told_at_ < kPatience) return false;
  told_at_.reset();
  int unread = 0;
  return ioctl(process_.channel.get(), SIOCOUTQ, &unread) == 0 && unread > 0;
}

void EgressLink::start(const Fd& epoll, Clock::time_point now) {
  start_at_.reset();
  auto started = start_egress(identity_, programs_);
  const auto ready = [&]() -> Result<> {
    if (!started) return tl::unexpected(started.error());
    epoll_event event{.events = EPOLLIN, .data = {.fd = started->pidfd.get()}};
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, started->pidfd.get(), &event) < 0) return errno_failure("epoll_ctl");
    return set_nonblocking(started->channel.get());
  }();
  if (!ready) {
    say("cannot start egress: " + ready.error().message() + "; agents reach nobody until it can be; trying again");
    start_at_ = now + kWait;
    return;
  }
  process_ = std::move(*started);
  upstream_due_ = true;
  for (const auto& [instance, network] : networks_) due_.insert(instance);
  join_control();
  if (control_end_) control_end_->again = started_before_;
  started_before_ = true;
}

void EgressLink::on_end(const siginfo_t& end, const Fd& epoll, Clock::time_point now) {
  (void)epoll_ctl(epoll.get(), EPOLL_CTL_DEL, process_.pidfd.get(), nullptr);
  forget_process();
  ends_.push_back(now);
  while (now - ends_.front() > kEndWindow) ends_.pop_front();
  const std::string agents = std::to_string(networks_.size()) + " agents and their listeners stay";
  if (ends_.size() < kMostEnds) {
    const std::string how = (end.si_code == CLD_EXITED ? "exit status " : "signal ") + std::to_string(end.si_status);
    say("egress ended unexpectedly (" + how + "); starting another, its connections are gone, " + agents);
  } else {
    start_at_ = now + kWait;
    if (ends_.size() == kMostEnds) say("egress ends again and again; starting it once a second, " + agents);
  }
}

/// Nothing is open any more, whatever the rules are: who waits for that has it.
void EgressLink::forget_process() {
  process_ = {};
  full_since_.reset();
  told_at_.reset();
  control_due_.reset();
  control_end_.reset();
  removed_.clear();
  known_.clear();
  for (const auto& [instance, request] : std::exchange(waiting_, {})) answered_.push_back(request);
}

Fd EgressLink::end() {
  if (!process_.pidfd) return {};
  (void)signal_pidfd(process_.pidfd.get(), SIGKILL);
  Fd left;
  if (!reap_within(process_.pidfd, kEndPatience)) left = std::move(process_.pidfd);
  forget_process();
  wanted_ = !networks_.empty();
  return left;
}

void EgressLink::look_at_resolv_conf(Clock::time_point now) {
  if (!servers_.empty() || now < next_look_) return;
  next_look_ = now + kResolvConfLook;
  if (resolv_conf_.changed()) upstream_due_ = true;
}

std::optional<std::chrono::milliseconds> EgressLink::wake_in(Clock::time_point now) const {
  std::optional<Clock::time_point> next;
  const auto at = [&](Clock::time_point time) { next = next ? std::min(*next, time) : time; };
  if (start_at_) at(*start_at_);
  if (process_.pidfd && servers_.empty()) at(next_look_);
  if (full_since_) at(now + kTryAgain);
  if (told_at_) at(*told_at_ + kPatience);
  if (!next) return std::nullopt;
  return std::max(std::chrono::ceil<std::chrono::milliseconds>(*next - now), std::chrono::milliseconds(0));
}

// ── what it is told ──

/// An end comes before a beginning, and where to ask before who does.
EgressLink::Sent EgressLink::tell_all() {
  if (upstream_due_) {
    if (const Sent sent = tell_upstream(); sent != Sent::kYes) return sent;
  }
  if (control_due_) {
    if (const Sent sent = tell_control(); sent != Sent::kYes) return sent;
  }
  while (!removed_.empty()) {
    egress::Command command;
    command.mutable_remove()->set_instance(removed_.front());
    if (const Sent sent = send(command, {}); sent != Sent::kYes) return sent;
    removed_.pop_front();
  }
  while (!due_.empty()) {
    if (const Sent sent = tell_agent(*due_.begin()); sent != Sent::kYes) return sent;
    due_.erase(due_.begin());
  }
  return Sent::kYes;
}

EgressLink::Sent EgressLink::tell_upstream() {
  egress::Command command;
  auto* upstream = command.mutable_upstream();
  for (const std::string& server : servers_) upstream->add_servers(server);
  Fd text;
  if (servers_.empty()) {
    auto read = resolv_conf_.read();
    if (!read) return Sent::kNoRoom;  // no memory: again in a moment
    text = std::move(*read);
  }
  const int beside = text.get();
  const Sent sent = send(command, std::span(&beside, text ? 1U : 0U));
  if (sent == Sent::kYes) upstream_due_ = false;
  return sent;
}

EgressLink::Sent EgressLink::tell_control() {
  egress::Command command;
  command.mutable_control();
  const int beside = control_due_.get();
  const Sent sent = send(command, std::span(&beside, 1));
  if (sent == Sent::kYes) control_due_.reset();
  return sent;
}

EgressLink::Sent EgressLink::tell_agent(std::uint64_t instance) {
  const AgentNetwork& network = networks_.at(instance);
  const auto rules = sealed_memfd("rules", network.rules);
  if (!rules) return Sent::kNoRoom;  // no memory: again in a moment
  egress::Command command;
  std::vector<int> beside = {rules->get()};
  if (known_.contains(instance)) {
    command.mutable_set_rules()->set_instance(instance);
  } else {
    command.mutable_add()->set_instance(instance);
    for (const Fd& fd : network.descriptors) beside.push_back(fd.get());
  }
  const Sent sent = send(command, beside);
  if (sent != Sent::kYes) return sent;
  known_.insert(instance);
  for (auto [at, end] = waiting_.equal_range(instance); at != end; at = waiting_.erase(at)) {
    answered_.push_back(at->second);
  }
  return Sent::kYes;
}

EgressLink::Sent EgressLink::send(const egress::Command& command, std::span<const int> beside) {
  const auto sent = send_packet(process_.channel.get(), command.SerializeAsString(), beside);
  if (sent) told_at_ = Clock::now();
  if (sent) return Sent::kYes;
  // ETOOMANYREFS: more descriptors are on their way than a user may have there (unix(7)), until it reads some.
  const int why = sent.error().error_number;
  return why == EAGAIN || why == ETOOMANYREFS ? Sent::kNoRoom : Sent::kBroken;
}

}  // namespace kai::keeper
