#include "supervisor/keeper/resolv_conf.h"

#include <fcntl.h>

#include "base/unix.h"

namespace kai::keeper {
namespace {

bool same(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino && one.st_size == other.st_size &&
         one.st_mtim.tv_sec == other.st_mtim.tv_sec && one.st_mtim.tv_nsec == other.st_mtim.tv_nsec;
}

/// At most `most` bytes of a regular file.
std::string first_bytes(const Fd& file, std::size_t most) {
  std::string text(most, '\0');
  std::size_t length = 0;
  while (length < most) {
    const ssize_t got = read(file.get(), text.data() + length, most - length);
    if (got <= 0) break;
    length += static_cast<std::size_t>(got);
  }
  text.resize(length);
  return text;
}

}  // namespace

bool ResolvConf::changed() const {
  struct stat now {};
  if (stat(path_.c_str(), &now) < 0) now = {};
  return !same(now, seen_);
}

Result<Fd> ResolvConf::read() {
  // O_NONBLOCK: a pipe of that name does not hold kaid.
  const Fd file(open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  seen_ = {};
  const bool readable = file && fstat(file.get(), &seen_) == 0 && S_ISREG(seen_.st_mode);
  return sealed_memfd("resolv.conf", readable ? first_bytes(file, kMaxBytes) : "");
}

}  // namespace kai::keeper
