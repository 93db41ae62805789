#include "supervisor/memory/redis_generation.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/fd.h"
#include "base/unix.h"

namespace kai {
namespace {

constexpr std::size_t kDigits = 32;

bool is_generation(const std::string& text) {
  return text.size() == kDigits &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<> sync_directory_of(const std::string& path) {
  const Fd directory(open(path.substr(0, path.rfind('/') + 1).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) < 0) return errno_failure("fsync the directory of", path);
  return {};
}

}  // namespace

Result<std::optional<std::string>> load_redis_generation(const std::string& path) {
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file && errno == ENOENT) return std::optional<std::string>{};
  if (!file) return errno_failure("open", path);
  auto text = read_all(file.get(), kDigits + 1);
  if (!text) return tl::unexpected(text.error());
  if (!is_generation(*text)) {
    return failure("it is damaged, so that what redis lost cannot be told; remove it to go on with what redis has:",
                   path);
  }
  return std::optional(std::move(*text));
}

Result<> save_redis_generation(const std::string& path, const std::string& generation) {
  if (!is_generation(generation)) return failure("redis has a generation that is none of kaid's");
  const std::string fresh = path + ".new";
  if (unlink(fresh.c_str()) < 0 && errno != ENOENT) return errno_failure("unlink", fresh);
  const Fd file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return errno_failure("open", fresh);
  if (auto written = write_all(file.get(), generation); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  if (rename(fresh.c_str(), path.c_str()) < 0) return errno_failure("rename", path);
  return sync_directory_of(path);
}

Result<> remove_redis_generation(const std::string& path) {
  if (unlink(path.c_str()) < 0) {
    if (errno == ENOENT) return {};
    return errno_failure("unlink", path);
  }
  return sync_directory_of(path);
}

}  // namespace kai
