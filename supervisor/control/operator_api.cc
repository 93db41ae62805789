#include "supervisor/control/operator_api.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::size_t kMaxConnections = 256;
constexpr int kAcceptsPerRound = 64;
constexpr std::uint32_t kRefusalLinesPerSecond = 10;

struct Peer {
  ucred credentials{};
  bool known = false;
};

Peer peer_of(int socket) {
  Peer peer;
  socklen_t size = sizeof peer.credentials;
  peer.known = getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer.credentials, &size) == 0;
  return peer;
}

// Supplementary groups, as they were when the peer connected. More than the kernel's own limit cannot be.
bool in_group(int socket, gid_t group) {
  std::array<gid_t, 65536> groups;
  socklen_t size = sizeof groups;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) < 0) return false;
  const auto end = groups.begin() + static_cast<std::ptrdiff_t>(size / sizeof(gid_t));
  return std::find(groups.begin(), end, group) != end;
}

bool allowed(const OperatorRule& rule, int socket, const ucred& peer) {
  return peer.uid == 0 || peer.uid == rule.own_uid || peer.uid == rule.operator_uid || peer.gid == rule.group ||
         in_group(socket, rule.group);
}

}  // namespace

OperatorApi::OperatorApi(EventLoop& loop, Log& log, const OperatorRule& rule, Handle handle)
    : loop_(loop),
      log_(log),
      rule_(rule),
      handle_(std::move(handle)),
      refusals_(kRefusalLinesPerSecond, monotonic_ms()) {}

OperatorApi::~OperatorApi() {
  stop_listening();
}

Result<> OperatorApi::listen(const std::string& path) {
  const std::string temporary = path + ".new";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (temporary.size() >= sizeof address.sun_path) {
    return failure("the socket's path is too long for the kernel (107 bytes); choose a shorter runtime directory",
                   path);
  }
  std::memcpy(address.sun_path, temporary.c_str(), temporary.size());
  listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_) return errno_failure("socket");
  spare_.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  // What an earlier kaid left: the keeper holds the lock, so that nobody else serves here.
  unlink(temporary.c_str());
  const mode_t mask = umask(0177);
  const int bound = bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  umask(mask);
  if (bound < 0) return errno_failure("bind", temporary);
  if (chown(temporary.c_str(), static_cast<uid_t>(-1), rule_.group) < 0) return errno_failure("chown", temporary);
  if (chmod(temporary.c_str(), 0660) < 0) return errno_failure("chmod", temporary);
  if (::listen(listener_.get(), SOMAXCONN) < 0) return errno_failure("listen", temporary);
  if (rename(temporary.c_str(), path.c_str()) < 0) return errno_failure("rename", path);
  path_ = path;
  poll_ = std::make_unique<Poll>(loop_, listener_.get(), [this](int) { accept_some(); });
  poll_->watch(UV_READABLE);
  return {};
}

void OperatorApi::stop_listening() {
  poll_.reset();
  listener_.reset();
  if (!path_.empty()) unlink(path_.c_str());
  path_.clear();
}

void OperatorApi::accept_some() {
  for (int accepted = 0; accepted < kAcceptsPerRound && listener_ && accept_one(); ++accepted) {
  }
}

bool OperatorApi::accept_one() {
  Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket) {
    admit(std::move(socket));
    return true;
  }
  if (errno != EMFILE && errno != ENFILE) return errno == EINTR || errno == ECONNABORTED;
  // A connection that cannot be taken stays in the queue and would wake the loop for ever.
  log_.write(LogLevel::kError, "", "error", "no descriptors left: a connection to kaid.sock was dropped");
  spare_.reset();
  socket.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  socket.reset();
  spare_.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return false;
}

void OperatorApi::admit(Fd socket) {
  const Peer peer = peer_of(socket.get());
  if (!peer.known || !allowed(rule_, socket.get(), peer.credentials)) {
    if (refusals_.take(monotonic_ms())) {
      log_.write(LogLevel::kWarn, "", "kai.denied", "a connection to kaid.sock was refused: not an operator",
                 {{"uid", peer.credentials.uid}, {"gid", peer.credentials.gid}, {"pid", peer.credentials.pid}});
    }
    return refuse(std::move(socket),
                  {"DENIED",
                   "user id " + std::to_string(peer.credentials.uid) + " is no operator of this kaid",
                   "Operators are root, the user who runs kaid, and members of its group",
                   {},
                   false});
  }
  if (connections_.size() >= kMaxConnections && !make_room()) {
    return refuse(std::move(socket), {"BUSY",
                                      "kaid serves " + std::to_string(kMaxConnections) + " connections already",
                                      "Try again in a moment",
                                      {},
                                      true});
  }
  const std::uint64_t key = ++last_key_;
  connections_.emplace(key, std::make_shared<Connection>(
                                loop_, std::move(socket), peer.credentials.uid,
                                Connection::Handlers{.request = handle_, .closed = [this, key](const std::string&) {
                                                       connections_.erase(key);
                                                     }}));
}

// The connection that has been without a request for longest gives way. false: all are at work.
bool OperatorApi::make_room() {
  std::shared_ptr<Connection> oldest;
  for (const auto& [key, connection] : connections_) {
    if (connection->idle() && (!oldest || connection->last_used() < oldest->last_used())) oldest = connection;
  }
  if (!oldest) return false;
  oldest->evict("made room for another connection");
  return true;
}

// One frame into an empty socket buffer: it fits, and nobody is waited for.
void OperatorApi::refuse(Fd socket, const Failure& failure) {
  control::Response response;
  fill_in(failure, *response.mutable_failed());
  std::string frame;
  append_frame(frame, response.SerializeAsString());
  static_cast<void>(send(socket.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

}  // namespace kai
