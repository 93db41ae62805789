#include "tests/escape/verdict.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace kai::escape {

Verdict escaped(std::string detail) {
  return {true, {}, std::move(detail)};
}

Verdict refused(std::string detail) {
  const char* name = strerrorname_np(errno);
  return {false, name != nullptr ? name : std::to_string(errno), std::move(detail)};
}

Verdict refused_as(std::string how, std::string detail) {
  return {false, std::move(how), std::move(detail)};
}

Verdict by_result(long result, std::string detail) {
  return result >= 0 ? escaped(std::move(detail)) : refused(std::move(detail));
}

std::string setting(const char* name) {
  const char* value = std::getenv((std::string("ESCAPE_") + name).c_str());
  if (value != nullptr) return value;
  // The parent reports an attempt without a verdict as broken.
  (void)dprintf(STDERR_FILENO, "probe: no ESCAPE_%s in the environment; tests/escape/run.py sets it\n", name);
  _exit(2);
}

int setting_number(const char* name) {
  return std::atoi(setting(name).c_str());
}

std::string contents(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char piece[4096];
  for (ssize_t got = 0; (got = read(fd, piece, sizeof piece)) > 0;) text.append(piece, static_cast<std::size_t>(got));
  (void)close(fd);
  return text;
}

Verdict open_path(const std::string& path, int flags) {
  return by_result(open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), path);
}

Verdict connect_unix(const std::string& path, bool abstract) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t offset = abstract ? 1 : 0;
  if (path.size() + offset >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return refused(path);
  }
  std::memcpy(address.sun_path + offset, path.data(), path.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + offset + path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return refused("socket");
  return by_result(connect(fd, reinterpret_cast<sockaddr*>(&address), length), path);
}

}  // namespace kai::escape
