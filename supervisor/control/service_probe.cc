#include "supervisor/control/service_probe.h"

#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>

#include <cstring>
#include <optional>

#include "base/fd.h"

namespace kai {
namespace {

struct Target {
  sockaddr_storage address{};
  socklen_t size = 0;
};

/// Waits for the resolver: on a worker thread.
Result<Target> tcp_target(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return failure("it is not tcp:host:port");
  std::string host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), text.substr(colon + 1).c_str(), &hints, &found);
  if (error != 0) return failure("its name cannot be resolved", gai_strerror(error));
  Target target;
  target.size = found->ai_addrlen;
  std::memcpy(&target.address, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return target;
}

Result<Target> target_of(const std::string& address) {
  if (address.starts_with("tcp:")) return tcp_target(address.substr(4));
  return failure("its address is neither unix:/path nor tcp:host:port");
}

}  // namespace

struct ServiceProbe::Attempt : std::enable_shared_from_this<Attempt> {
  Attempt(EventLoop& on, std::string where, Done then)
      : loop(on), address(std::move(where)), done(std::move(then)), timer(on) {}

  void start(KeeperClient& keeper) {
    timer.start(kDeadline, [this] { finish(failure("no answer within 2 s", address)); });
    if (address.starts_with("unix:")) return ask(keeper);
    loop.work([self = shared_from_this()] { self->target = target_of(self->address); },
              [self = shared_from_this()] { self->connect(); });
  }

  void ask(KeeperClient& keeper) {
    keeper::Request request;
    request.mutable_probe_service()->set_address(address);
    keeper.request(std::move(request), {}, [self = shared_from_this()](const keeper::Reply& reply, const auto&) {
      if (!self->done) return;
      if (reply.has_done()) return self->finish({});
      self->finish(tl::unexpected(Error{reply.failed().detail(), reply.failed().errno_value(), ""}));
    });
  }

  void connect() {
    if (!done) return;
    if (!target) return finish(failure(target.error().message(), address));
    socket = Fd(::socket(target->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return finish(errno_failure("socket", address));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&target->address), target->size) == 0) {
      return finish({});
    }
    if (errno != EINPROGRESS) return finish(errno_failure("connect", address));
    poll = std::make_unique<Poll>(loop, socket.get(), [this](int) { on_ready(); });
    poll->watch(UV_WRITABLE);
  }

  void on_ready() {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) < 0) error = errno;
    finish(error == 0 ? Result<>() : tl::unexpected(Error{"connect", error, address}));
  }

  void finish(const Result<>& result) {
    loop.defer([self = shared_from_this(), result] {
      self->stop();
      if (const Done then = std::exchange(self->done, nullptr)) then(result);
    });
    timer.stop();
    if (poll) poll->watch(0);
  }

  void stop() {
    timer.stop();
    poll.reset();
    socket.reset();
  }

  EventLoop& loop;
  std::string address;
  Done done;
  Result<Target> target;
  Timer timer;
  Fd socket;
  std::unique_ptr<Poll> poll;  // it stops before the socket closes
};

ServiceProbe::ServiceProbe(EventLoop& loop, KeeperClient& keeper, std::string address, Done done)
    : attempt_(std::make_shared<Attempt>(loop, std::move(address), std::move(done))) {
  attempt_->start(keeper);
}

ServiceProbe::~ServiceProbe() {
  attempt_->done = nullptr;
  attempt_->stop();
}

}  // namespace kai
