#include "supervisor/keeper/service_manager.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "base/unix.h"

namespace kai::keeper {
namespace {

constexpr int kBarrierMs = 5'000;
constexpr int kFirstStored = 3;  // SD_LISTEN_FDS_START
constexpr int kMostStored = 1 << 20;
constexpr const char* kProbe = "probe";

std::optional<int> number(const char* text) {
  int value = 0;
  if (text == nullptr) return std::nullopt;
  const char* const end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, value);
  return error == std::errc() && rest == end ? std::optional(value) : std::nullopt;
}

/// Whether every copy of its other end is closed.
bool hung_up(const Fd& end, int patience_ms) {
  pollfd wanted{.fd = end.get(), .events = 0, .revents = 0};
  return poll(&wanted, 1, patience_ms) == 1;
}

}  // namespace

ServiceManager::ServiceManager() {
  if (const char* path = std::getenv("NOTIFY_SOCKET")) socket_path_ = path;
  unsetenv("NOTIFY_SOCKET");
  connect();
}

void ServiceManager::connect() {
  sockaddr_un address{};
  if (socket_path_.empty() || socket_path_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_path_.data(), socket_path_.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // an abstract socket
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_path_.size());
  Fd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) < 0) return;
  socket_ = std::move(fd);
}

Result<> ServiceManager::send(std::string_view state, int fd, int flags) const {
  if (!socket_) return failure("there is no service manager");
  // Not send_packet: that one sends to peers of the project's own, and this waits or not as it is told.
  iovec text{.iov_base = const_cast<char*>(state.data()), .iov_len = state.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  if (sendmsg(socket_.get(), &message, flags | MSG_NOSIGNAL) < 0) return errno_failure("sendmsg", socket_path_);
  return {};
}

void ServiceManager::notify(std::string_view state) const {
  (void)send(state, -1, 0);
}

Result<> ServiceManager::store(const std::string& name, const Fd& fd) const {
  // Without FDPOLL=0 it drops what has hung up: the pidfd of an agent that ended meanwhile.
  return send("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, fd.get(), MSG_DONTWAIT);
}

Result<> ServiceManager::unstore(const std::string& name) const {
  return send("FDSTOREREMOVE=1\nFDNAME=" + name, -1, MSG_DONTWAIT);
}

/// What it does not keep it closes, and it says when it has read everything (BARRIER=1).
bool ServiceManager::keeps_descriptors() const {
  auto kept = make_pipe();
  auto barrier = make_pipe();
  if (!socket_ || !kept || !barrier) return false;
  if (!store(kProbe, kept->second) || !send("BARRIER=1", barrier->second.get(), 0)) return false;
  kept->second.reset();
  barrier->second.reset();
  const bool read = hung_up(barrier->first, kBarrierMs);
  const bool keeps = read && !hung_up(kept->first, 0);
  (void)unstore(kProbe);
  return keeps;
}

std::multimap<std::string, Fd> take_stored() {
  std::multimap<std::string, Fd> stored;
  const auto meant_for = number(std::getenv("LISTEN_PID"));
  const auto count = number(std::getenv("LISTEN_FDS"));
  const char* const names = std::getenv("LISTEN_FDNAMES");
  if (meant_for == getpid() && count && *count > 0 && *count <= kMostStored) {
    std::string_view left = names != nullptr ? names : "";
    for (int fd = kFirstStored; fd < kFirstStored + *count; ++fd) {
      const auto end = left.find(':');
      const std::string name(left.substr(0, end));
      left = end == std::string_view::npos ? "" : left.substr(end + 1);
      if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) stored.emplace(name, Fd(fd));
    }
  }
  for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) (void)unsetenv(variable);
  return stored;
}

}  // namespace kai::keeper
