#include "supervisor/egress/dial.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "supervisor/egress/names.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

bool same(const Address& one, const Address& other) {
  return one.bits == other.bits && one.bytes == other.bytes;
}

}  // namespace

NetworkDecision decide_destination(const egress::Rules& rules, const Destination& destination) {
  const auto refuse = [](std::string reason) { return NetworkDecision{false, std::move(reason), "builtin"}; };
  if (is_loopback(destination.address)) {
    return refuse("it is the agent's own loopback, and nothing of the agent's listens there");
  }
  if (!destination.name.empty()) return decide_connection(rules, destination.name, destination.port);
  if (SyntheticNames::is_synthetic(destination.address)) {
    return refuse("the address stands for no name, or not any more: look the name up again");
  }
  return decide_literal(rules, destination.address, destination.port);
}

std::vector<Address> mapped_addresses(const egress::Rules& rules, const std::string& name) {
  std::vector<Address> found;
  for (const StaticHost& host : rules.hosts()) {
    if (host.name() != name) continue;
    if (const auto address = address_of(host.address())) found.push_back(*address);
  }
  return found;
}

namespace {

/// One of each family in turn, the first family first, and each once; last to first, as the last is the next to be
/// tried.
std::vector<Address> interleaved(const std::vector<Address>& addresses) {
  std::vector<Address> first, second, made;
  for (const Address& address : addresses) {
    auto& family = address.bits == addresses.front().bits ? first : second;
    const bool repeated =
        std::any_of(family.begin(), family.end(), [&](const Address& other) { return same(address, other); });
    if (!repeated) family.push_back(address);
  }
  for (std::size_t at = 0; at < std::max(first.size(), second.size()); ++at) {
    if (at < first.size()) made.push_back(first[at]);
    if (at < second.size()) made.push_back(second[at]);
  }
  std::reverse(made.begin(), made.end());
  return made;
}

int connect_error(int socket) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
  return error;
}

}  // namespace

Dial::Dial(Reactor& reactor, Resolver& resolver, const egress::Rules& rules, const Destination& destination, Done done)
    : reactor_(reactor),
      resolver_(resolver),
      rules_(rules),
      destination_(destination),
      done_(std::move(done)),
      next_(reactor, [this] { try_next(); }),
      deadline_(reactor, [this] {
        if (looking_up_) failed_ = "DNS did not answer in time";
        if (tried_.empty() && attempts_.size() == 1) failed_ = "no answer from " + address_text(attempts_[0].address);
        for (const Attempt& attempt : std::exchange(attempts_, {})) note(attempt.address, "no answer");
        fail();
      }) {}

void Dial::start() {
  deadline_.arm_in(std::chrono::milliseconds(rules_.limits().dial_ms()));
  if (destination_.name.empty()) {
    left_ = {destination_.address};
    return try_next();
  }
  left_ = mapped_addresses(rules_, destination_.name);
  if (!left_.empty()) {
    mapped_ = true;
    left_ = interleaved(left_);
    return try_next();
  }
  looking_up_ = true;
  lookup_ = resolver_.lookup(destination_.name, [this](const Resolved& resolved) { on_resolved(resolved); });
}

void Dial::on_resolved(const Resolved& resolved) {
  looking_up_ = false;
  switch (resolved.status) {
    case Resolved::Status::kNoName:
      failed_ = "there is no such name (DNS says NXDOMAIN)";
      return fail();
    case Resolved::Status::kNoAddress:
      failed_ = "the name has no address";
      return fail();
    case Resolved::Status::kFailed:
      failed_ = "DNS failed: " + resolved.detail;
      return fail();
    case Resolved::Status::kFound:
      left_ = interleaved(resolved.addresses);
      return try_next();
  }
}

void Dial::try_next() {
  while (!left_.empty()) {
    if (attempts_.size() >= kMaxAttempts && !make_room()) return;
    const Address address = left_.back();
    left_.pop_back();
    if (!attempt(address)) continue;
    if (!left_.empty()) next_.arm_in(kNextAfter);
    return;
  }
  if (attempts_.empty()) fail();
}

bool Dial::make_room() {
  const auto when = attempts_.front().began + kGivenUpAfter;
  if (reactor_.now() < when) {
    next_.arm(when);
    return false;
  }
  note(attempts_.front().address, "no answer");
  attempts_.erase(attempts_.begin());
  return true;
}

bool Dial::allowed(const Address& address, bool& own) {
  NetworkDecision decision = decide_dialled(rules_, address, destination_.port);
  if (decision.allowed) {
    const auto is_own = is_own_address(address);
    if (!is_own) {
      note(address, is_own.error().message());
      return false;
    }
    own = *is_own;
    if (own) decision = decide_own_address(rules_, address);
  }
  if (decision.allowed) return true;
  note(address, "refused, " + decision.reason);
  if (!denied_.denied) denied_ = {true, address_text(address), decision.reason, decision.rule};
  return false;
}

bool Dial::attempt(const Address& address) {
  Attempt made{.id = ++last_id_, .began = reactor_.now(), .address = address};
  if (!allowed(address, made.own)) return false;
  const auto failed = [&](const Error& error) {
    note(address, error.error_number != 0 ? std::strerror(error.error_number) : error.message());
    return false;
  };
  auto socket = make_socket(address, SOCK_STREAM);
  if (!socket) return failed(socket.error());
  reset_on_close(socket->get());
  bound_buffers(socket->get(), server_buffer(rules_.limits().connections()));
  made.socket = std::move(*socket);
  // Connecting comes first: a socket that has not begun to connect would report EPOLLHUP.
  if (auto done = connect_to(made.socket.get(), address, destination_.port); !done) return failed(done.error());
  auto watch = reactor_.watch(made.socket.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI,
                              [this, id = made.id](std::uint32_t events) { on_answer(id, events); });
  if (!watch) return failed(watch.error());
  made.watch = std::move(*watch);
  dialled_ = true;
  attempts_.push_back(std::move(made));
  return true;
}

void Dial::on_answer(std::uint64_t id, std::uint32_t events) {
  const auto found =
      std::find_if(attempts_.begin(), attempts_.end(), [&](const Attempt& attempt) { return attempt.id == id; });
  if (found == attempts_.end()) return;
  Attempt attempt = std::move(*found);
  attempts_.erase(found);
  if (const int error = connect_error(attempt.socket.get()); error != 0) {
    note(attempt.address, std::strerror(error));
    return try_next();
  }
  finish(Connected{std::move(attempt.socket), std::move(attempt.watch), events, attempt.address, attempt.own, mapped_});
}

void Dial::note(const Address& address, const std::string& what) {
  if (!tried_.empty()) tried_ += ", ";
  last_ = address_text(address);
  tried_ += last_ + ": " + what;
}

void Dial::fail() {
  if (!dialled_ && denied_.denied) return finish(tl::unexpected(std::move(denied_)));
  finish(tl::unexpected(Failed{.address = last_, .reason = failed_.empty() ? "tried " + tried_ : failed_}));
}

void Dial::cancel() {
  finished_ = true;
  if (looking_up_) lookup_.reset();
  attempts_.clear();
  left_.clear();
  next_.stop();
  deadline_.stop();
}

void Dial::finish(tl::expected<Connected, Failed>&& outcome) {
  if (finished_) return;
  cancel();
  done_(std::move(outcome));
}

}  // namespace kai::egress
