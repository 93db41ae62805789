#include "supervisor/memory/seal.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/fd.h"
#include "base/unix.h"

namespace kai {
namespace {

constexpr std::size_t kNonceBytes = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr std::size_t kTagBytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
static_assert(kNonceBytes + kTagBytes == kSealOverheadBytes);
static_assert(std::tuple_size_v<SealKey> == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);

/// Without it neither random bytes nor the ciphers may be used: there is no going on.
void ensure_sodium() {
  static const bool ready = sodium_init() >= 0;
  if (!ready) std::abort();
}

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

/// On the stack for a moment, and not left there.
struct Wiped {
  SealKey key{};
  Wiped() = default;
  Wiped(const Wiped&) = delete;
  Wiped& operator=(const Wiped&) = delete;
  ~Wiped() { sodium_memzero(key.data(), key.size()); }
};

tl::unexpected<Error> refused(const std::string& path, const std::string& why) {
  return failure("open the key that agents' memory is encrypted with", path + ": " + why);
}

std::string marker_of(const std::string& path) {
  return path + ".made";
}

Result<> sync_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd directory(open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) < 0) return errno_failure("fsync the directory of", path);
  return {};
}

/// Before the key is used: from then on there may be something that only it opens.
Result<> mark_made(const std::string& path) {
  const std::string marker = marker_of(path);
  struct stat status {};
  if (lstat(marker.c_str(), &status) == 0) return {};
  const Fd file(open(marker.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return errno_failure("make", marker);
  constexpr std::string_view kText =
      "Agents' memory is encrypted with the key beside this file. While this file is here, kaid makes no other key.\n";
  if (auto written = write_all(file.get(), kText); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", marker);
  return sync_directory_of(marker);
}

/// Beside its place and linked there when it is whole: a file of that name is never a part of a key, and never replaces
/// one.
Result<> make_node_key(const std::string& path) {
  ensure_sodium();
  const std::string fresh = path + ".new";
  unlink(fresh.c_str());
  const Fd file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file || fchmod(file.get(), 0600) < 0) return errno_failure("make", fresh);
  Wiped made;
  randombytes_buf(made.key.data(), made.key.size());
  const std::string_view bytes(reinterpret_cast<const char*>(made.key.data()), made.key.size());
  if (auto written = write_all(file.get(), bytes); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  if (link(fresh.c_str(), path.c_str()) < 0) return errno_failure("link", path);
  if (unlink(fresh.c_str()) < 0) return errno_failure("unlink", fresh);
  return sync_directory_of(path);
}

Result<Fd> open_node_key(const std::string& path) {
  // O_NONBLOCK: a named pipe in its place must not hold kaid up.
  Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return errno_failure("open", path);
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return errno_failure("fstat", path);
  if (!S_ISREG(status.st_mode)) return refused(path, "it is no regular file: put a copy of the key in its place");
  if ((status.st_mode & 077) != 0) {
    return refused(path,
                   "others than its owner may read or write it: run chmod 600 on it; if others may have read it, "
                   "what was encrypted with it is no secret to them");
  }
  if (status.st_uid != geteuid()) {
    return refused(path, "it belongs to uid " + std::to_string(status.st_uid) + ", and kaid runs as uid " +
                             std::to_string(geteuid()) + ": run chown on it");
  }
  if (status.st_size != static_cast<off_t>(std::tuple_size_v<SealKey>)) {
    return refused(path, "it has " + std::to_string(status.st_size) + " bytes in the place of 32, so it is damaged: " +
                             "put a copy of the key in its place; without it what was encrypted cannot be read");
  }
  return file;
}

}  // namespace

bool node_key_was_made(const std::string& path) {
  struct stat status {};
  const auto may_be_there = [&](const std::string& name) {
    return lstat(name.c_str(), &status) == 0 || errno != ENOENT;
  };
  return may_be_there(marker_of(path)) || may_be_there(path);
}

Result<SealKey> load_node_key(const std::string& path, bool make) {
  struct stat status {};
  if (lstat(path.c_str(), &status) < 0) {
    if (errno != ENOENT) return errno_failure("lstat", path);
    if (!make || node_key_was_made(path)) {
      return refused(path,
                     "it is not there, and memory was encrypted with it: put a copy of the key in its place; "
                     "without it what was encrypted cannot be read. Only if no copy is left: move " +
                         marker_of(path) + " and the encrypted memory away, and a new key is made");
    }
    if (auto made = make_node_key(path); !made) return tl::unexpected(made.error());
  }
  const auto file = open_node_key(path);
  if (!file) return tl::unexpected(file.error());
  Wiped key;
  std::size_t have = 0;
  while (have < key.key.size()) {
    const ssize_t count = read(file->get(), key.key.data() + have, key.key.size() - have);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure("read", path);
    if (count == 0) return refused(path, "it became shorter while it was read: try again");
    have += static_cast<std::size_t>(count);
  }
  if (auto marked = mark_made(path); !marked) return tl::unexpected(marked.error());
  return key.key;
}

SealKey agent_key(const SealKey& node_key, std::string_view agent_id) {
  ensure_sodium();
  SealKey key;
  crypto_generichash(key.data(), key.size(), bytes_of(agent_id), agent_id.size(), node_key.data(), node_key.size());
  return key;
}

std::string seal(const SealKey& key, std::string_view value, std::string_view place) {
  ensure_sodium();
  std::string sealed(kNonceBytes + value.size() + kTagBytes, '\0');
  auto* const nonce = reinterpret_cast<unsigned char*>(sealed.data());
  randombytes_buf(nonce, kNonceBytes);
  crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + kNonceBytes, nullptr, bytes_of(value), value.size(),
                                             bytes_of(place), place.size(), nullptr, nonce, key.data());
  return sealed;
}

std::optional<std::string> unseal(const SealKey& key, std::string_view sealed, std::string_view place) {
  ensure_sodium();
  if (sealed.size() < kSealOverheadBytes) return std::nullopt;
  std::string value(sealed.size() - kSealOverheadBytes, '\0');
  const auto* const nonce = bytes_of(sealed);
  const int opened = crypto_aead_xchacha20poly1305_ietf_decrypt(
      reinterpret_cast<unsigned char*>(value.data()), nullptr, nullptr, nonce + kNonceBytes,
      sealed.size() - kNonceBytes, bytes_of(place), place.size(), nonce, key.data());
  if (opened != 0) return std::nullopt;
  return value;
}

}  // namespace kai
