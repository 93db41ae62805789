// System calls that glibc 2.36 lacks or makes error-prone, as Results. No policy here, and no logging.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai {

/// openat2(2). `resolve` is a set of RESOLVE_* flags from <linux/openat2.h>.
Result<Fd> open_at(int dir, const std::string& path, int flags, std::uint64_t resolve = 0, mode_t mode = 0);

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount that `fd` (O_PATH is enough) stands on.
Result<Fd> clone_mount(int fd, bool recursive);

/// mount_setattr(2) on a mount descriptor: adds MOUNT_ATTR_* flags.
Result<> restrict_mount(int mount_fd, std::uint64_t attributes, bool recursive);

/// pidfd_open(2).
Result<Fd> open_pidfd(pid_t pid);
/// pidfd_send_signal(2). ESRCH (already ended) is success: there is nothing left to signal.
Result<> signal_pidfd(int pidfd, int signal);

/// A pair of connected AF_UNIX sockets, close-on-exec. `type` is SOCK_STREAM or SOCK_SEQPACKET, or-ed with
/// SOCK_NONBLOCK.
Result<std::pair<Fd, Fd>> socket_pair(int type);
/// pipe2(2) with O_CLOEXEC: first is read from, second written to.
Result<std::pair<Fd, Fd>> make_pipe(int flags = 0);

/// Sends one packet with descriptors (at most kMaxPacketFds). EAGAIN comes back as an Error with that errno.
Result<> send_packet(int socket, std::string_view bytes, std::span<const int> fds = {});

struct Packet {
  std::string bytes;    ///< empty at end of stream
  std::vector<Fd> fds;  ///< close-on-exec
};
/// Receives one packet of at most `limit` bytes; a longer one (MSG_TRUNC) or lost descriptors (MSG_CTRUNC) are an
/// error.
Result<Packet> receive_packet(int socket, std::size_t limit, int flags = 0);
inline constexpr std::size_t kMaxPacketFds = 64;

/// Reads until end of file, at most `limit` bytes: more is an error (EFBIG).
Result<std::string> read_all(int fd, std::size_t limit);
Result<> write_all(int fd, std::string_view bytes);
/// A whole small file, by path.
Result<std::string> read_file(const std::string& path, std::size_t limit = 1 << 20);
/// One write(2) to an existing file, as procfs and cgroupfs want it.
Result<> write_file(const std::string& path, std::string_view bytes);
Result<> write_file_at(int dir, const std::string& name, std::string_view bytes);

/// A sealed (unchangeable) memfd that holds `bytes`, positioned at 0.
Result<Fd> sealed_memfd(const char* name, std::string_view bytes);

Result<> set_nonblocking(int fd);

/// The directory of the running program, with symlinks resolved (/proc/self/exe).
Result<std::string> program_directory();

}  // namespace kai
