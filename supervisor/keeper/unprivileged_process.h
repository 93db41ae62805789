// Starts a program of kAI's own without privilege: as root an own uid and gid, no capabilities, and a mount namespace
// that holds only what it is given; always its own session, no_new_privs, death with the keeper, and no descriptor but
// its channel, null input, and the keeper's output.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::keeper {

/// Where the program has its end of the channel.
inline constexpr int kChannelFd = 3;

struct UnprivilegedProgram {
  std::string directory;  ///< where kAI's programs stand
  std::string name;       ///< kai-control
  uid_t uid = 0;          ///< as root
  gid_t gid = 0;
  spec::SandboxSpec view;  ///< as root: its mounts are all that it sees of the host
  bool only_told = false;  ///< what it sends is refused by the kernel, and its environment is empty
};

struct UnprivilegedProcess {
  pid_t pid = 0;
  Fd pidfd;
  Fd channel;  ///< SOCK_SEQPACKET
};

/// Adds a path of the host at the same place; one that is there already, or below a system directory that is, not
/// again.
void add_to_view(spec::SandboxSpec& view, spec::Mount::Kind kind, const std::string& path);
/// What every program needs to be run: /usr, the directories beside it that belong to it, and `directory`.
spec::SandboxSpec programs_view(const std::string& directory);

/// Nobody can send descriptors to this end of a Unix socket. Who never reads some would be the last to have them, and
/// close(2) of one, as of a TCP connection with SO_LINGER, may take as long as its maker likes. Linux 6.16 and newer
/// refuse them; an older kernel does not know how.
void refuse_descriptors(const Fd& socket);

Result<UnprivilegedProcess> start_unprivileged(const UnprivilegedProgram& program, bool root);

}  // namespace kai::keeper
