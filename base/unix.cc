#include "base/unix.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <climits>
#include <cstring>

namespace kai {
namespace {

// <linux/mount.h> and <sys/mount.h> clash in glibc 2.36; these are of <linux/mount.h> and <linux/fcntl.h>.
constexpr unsigned kAtRecursive = 0x8000;

}  // namespace

Result<Fd> open_at(int dir, const std::string& path, int flags, std::uint64_t resolve, mode_t mode) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = resolve;
  // EAGAIN: a rename raced with RESOLVE_BENEATH, and the kernel asks to try again (openat2(2)).
  for (int attempt = 0;; ++attempt) {
    const long fd = syscall(SYS_openat2, dir, path.c_str(), &how, sizeof how);
    if (fd >= 0) return Fd(static_cast<int>(fd));
    if (errno != EINTR && (errno != EAGAIN || attempt >= 16)) return errno_failure("openat2", path);
  }
}

Result<Fd> clone_mount(int fd, bool recursive) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? kAtRecursive : 0U);
  const long tree = syscall(SYS_open_tree, fd, "", flags);
  if (tree < 0) return errno_failure("open_tree");
  return Fd(static_cast<int>(tree));
}

Result<> restrict_mount(int mount_fd, std::uint64_t attributes, bool recursive) {
  mount_attr attr{};
  attr.attr_set = attributes;
  const unsigned flags = AT_EMPTY_PATH | (recursive ? kAtRecursive : 0U);
  if (syscall(SYS_mount_setattr, mount_fd, "", flags, &attr, sizeof attr) < 0) return errno_failure("mount_setattr");
  return {};
}

Result<Fd> open_pidfd(pid_t pid) {
  const long fd = syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) return errno_failure("pidfd_open");
  return Fd(static_cast<int>(fd));
}

Result<> signal_pidfd(int pidfd, int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) < 0 && errno != ESRCH) {
    return errno_failure("pidfd_send_signal");
  }
  return {};
}

Result<std::pair<Fd, Fd>> socket_pair(int type) {
  std::array<int, 2> fds{};
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) < 0) return errno_failure("socketpair");
  return std::pair(Fd(fds[0]), Fd(fds[1]));
}

Result<std::pair<Fd, Fd>> make_pipe(int flags) {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), flags | O_CLOEXEC) < 0) return errno_failure("pipe2");
  return std::pair(Fd(fds[0]), Fd(fds[1]));
}

Result<> send_packet(int socket, std::string_view bytes, std::span<const int> fds) {
  if (fds.size() > kMaxPacketFds) return failure("send_packet", "too many descriptors");
  iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxPacketFds)> control{};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return errno_failure("sendmsg");
  }
  return {};
}

Result<Packet> receive_packet(int socket, std::size_t limit, int flags) {
  Packet packet;
  packet.bytes.resize(limit);
  iovec iov{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxPacketFds)> control{};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t count = 0;
  while ((count = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC)) < 0) {
    if (errno != EINTR) return errno_failure("recvmsg");
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t bytes = header->cmsg_len - CMSG_LEN(0);
    for (std::size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
      packet.fds.emplace_back(fd);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return failure("recvmsg", "packet over its limit");
  packet.bytes.resize(static_cast<std::size_t>(count));
  return packet;
}

Result<std::string> read_all(int fd, std::size_t limit) {
  std::string bytes;
  std::array<char, 16384> buffer;
  for (;;) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure("read");
    if (count == 0) return bytes;
    bytes.append(buffer.data(), static_cast<std::size_t>(count));
    if (bytes.size() > limit) {
      errno = EFBIG;
      return errno_failure("read");
    }
  }
}

Result<> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure("write");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno_failure("open", path);
  return read_all(fd.get(), limit);
}

Result<> write_file(const std::string& path, std::string_view bytes) {
  return write_file_at(AT_FDCWD, path, bytes);
}

Result<> write_file_at(int dir, const std::string& name, std::string_view bytes) {
  const Fd fd(openat(dir, name.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return errno_failure("open", name);
  if (write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    return errno_failure("write", name);
  }
  return {};
}

Result<Fd> sealed_memfd(const char* name, std::string_view bytes) {
  Fd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return errno_failure("memfd_create", name);
  if (auto written = write_all(fd.get(), bytes); !written) return tl::unexpected(written.error());
  if (lseek(fd.get(), 0, SEEK_SET) < 0) return errno_failure("lseek", name);
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
    return errno_failure("fcntl F_ADD_SEALS", name);
  }
  return fd;
}

Result<> set_nonblocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return errno_failure("fcntl O_NONBLOCK");
  return {};
}

Result<std::string> program_directory() {
  std::array<char, PATH_MAX> path;
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
  if (length < 0) return errno_failure("readlink", "/proc/self/exe");
  const std::string_view whole(path.data(), static_cast<std::size_t>(length));
  return std::string(whole.substr(0, whole.rfind('/')));
}

}  // namespace kai
