#include "agent-host/reconnect.h"

#include <linux/close_range.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/unix.h"
#include "proto/reserved_call.h"
#include "proto/starter.pb.h"

namespace kai {
namespace {

constexpr std::size_t kMaxReconnectBytes = 1 << 10;  // empty today; what a later keeper may add is skipped

int socket_option(const Fd& fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return getsockopt(fd.get(), SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

bool is_klp_socket(const Fd& fd) {
  return socket_option(fd, SO_DOMAIN) == AF_UNIX && socket_option(fd, SO_TYPE) == SOCK_STREAM;
}

}  // namespace

std::optional<Fd> KeeperLink::receive(bool hung_up) {
  auto packet = receive_packet(socket_.get(), kMaxReconnectBytes, MSG_DONTWAIT);
  // Reconnect has no fields, so that its packet may have no bytes: only without a descriptor too is it the end.
  const bool nothing = !packet || (packet->bytes.empty() && packet->fds.empty());
  if (nothing && hung_up) socket_.reset();
  if (nothing || packet->fds.size() != 1 || !starter::Reconnect().ParseFromString(packet->bytes)) return std::nullopt;
  if (!is_klp_socket(packet->fds.front())) return std::nullopt;
  return std::move(packet->fds.front());
}

void answer_lost_calls() {
  // It is reaped like every process of the sandbox. An agent that has filled its own limit of processes gets none, and
  // its lost calls stay lost.
  if (fork() != 0) return;
  syscall(SYS_close_range, 0U, ~0U, 0U);
  syscall(SYS_seccomp, kReservedOperation, 0, nullptr);
  _exit(0);
}

}  // namespace kai
