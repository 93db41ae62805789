#include "kaictl/socket_path.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace kai {

std::string default_socket_path(uid_t uid, const char* xdg_runtime_dir) {
  if (uid == 0) return "/run/kai/kaid.sock";
  // The XDG base directory specification: a path that is not absolute counts as unset.
  if (xdg_runtime_dir != nullptr && xdg_runtime_dir[0] == '/') {
    return std::string(xdg_runtime_dir) + "/kai/kaid.sock";
  }
  return "/tmp/kai-" + std::to_string(uid) + "/kaid.sock";
}

Result<> check_private_directory(const std::string& directory, uid_t uid) {
  struct stat info {};
  if (lstat(directory.c_str(), &info) < 0) return errno_failure("lstat", directory);
  if (!S_ISDIR(info.st_mode)) return failure("not a directory", directory);
  if (info.st_uid != uid) return failure("owned by user " + std::to_string(info.st_uid) + ", not by you", directory);
  if ((info.st_mode & 0077) != 0) return failure("open to other users", directory);
  return {};
}

Outcome<std::string> choose_socket_path(const std::string& option) {
  if (!option.empty()) return option;
  const char* const named = std::getenv("KAI_SOCKET");
  if (named != nullptr && named[0] != '\0') return std::string(named);
  const uid_t uid = geteuid();
  const std::string path = default_socket_path(uid, std::getenv("XDG_RUNTIME_DIR"));
  if (path.starts_with("/tmp/")) {
    const std::string directory = path.substr(0, path.rfind('/'));
    const auto checked = check_private_directory(directory, uid);
    // That it does not exist is told by connect, with the same words as for every other socket.
    if (!checked && checked.error().error_number != ENOENT) {
      Failure failure;
      failure.exit_code = kExitUnreachable;
      failure.code = "UNAVAILABLE";
      failure.message = "the socket's directory is not trusted: " + checked.error().message();
      failure.hint = "Remove it, or name kaid's socket with --socket or KAI_SOCKET";
      return tl::unexpected(std::move(failure));
    }
  }
  return path;
}

}  // namespace kai
