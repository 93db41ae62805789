// Which kaid a command talks to.
#pragma once

#include <sys/types.h>

#include <string>

#include "kaictl/failure.h"

namespace kai {

/// The socket of this user's kaid when neither --socket nor KAI_SOCKET names one: root /run/kai/kaid.sock, else
/// $XDG_RUNTIME_DIR/kai/kaid.sock, else /tmp/kai-UID/kaid.sock. `xdg_runtime_dir` may be null.
std::string default_socket_path(uid_t uid, const char* xdg_runtime_dir);

/// --socket, else KAI_SOCKET, else the default. A default below /tmp, where anybody may make directories, is taken
/// only if its directory is the user's own and closed to others.
Outcome<std::string> choose_socket_path(const std::string& option);

/// Whether `directory` is a real directory of `uid` that nobody else may enter.
Result<> check_private_directory(const std::string& directory, uid_t uid);

}  // namespace kai
