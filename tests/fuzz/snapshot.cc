// A snapshot's file from somebody hostile: never a crash, never unbounded, nothing left behind, and what is taken is
// held by its own SHA256SUMS. Mutated tars fail at their headers' checksums and at SHA256SUMS, so the target mends
// both.
#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/unix.h"
#include "package/sums.h"
#include "supervisor/control/snapshot_file.h"

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBlock = 512;

struct Scratch {
  Scratch() : path(fs::is_directory("/dev/shm") ? "/dev/shm/kai-fuzz-XXXXXX" : "/tmp/kai-fuzz-XXXXXX") {
    if (mkdtemp(path.data()) == nullptr) std::abort();
    directory = kai::Fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) std::abort();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { fs::remove_all(path); }
  std::string path;
  kai::Fd directory;
};

void put_checksum(std::string& tar, std::size_t at) {
  constexpr std::size_t kChecksum = 148;
  tar.replace(at + kChecksum, 8, "        ");
  unsigned sum = 0;
  for (std::size_t byte = at; byte < at + kBlock; ++byte) sum += static_cast<unsigned char>(tar[byte]);
  for (std::size_t digit = 6; digit-- > 0; sum >>= 3) tar[at + kChecksum + digit] = static_cast<char>('0' + (sum & 7));
  tar[at + kChecksum + 6] = '\0';
}

/// The sums of members as their headers stand, in the place of SHA256SUMS's content where it has the room.
std::string mended(std::string tar) {
  kai::package::Sums sums;
  for (std::size_t at = 0; at + kBlock <= tar.size(); at += kBlock) {
    if (std::string_view(tar).substr(at + 257, 5) != "ustar") continue;
    put_checksum(tar, at);
    const std::string name = tar.substr(at, std::min<std::size_t>(100, std::string_view(tar).substr(at).find('\0')));
    const auto size = static_cast<std::size_t>(std::strtoull(tar.substr(at + 124, 11).c_str(), nullptr, 8));
    if (size > tar.size() - at - kBlock) continue;
    if (name == kai::package::kSumsFile) {
      const std::string text = kai::package::format_sums(sums);
      if (text.size() == size) tar.replace(at + kBlock, size, text);
    } else if (tar[at + 156] == '0' || tar[at + 156] == '\0') {
      kai::package::Sha256 sum;
      crypto_hash_sha256(sum.data(), reinterpret_cast<const unsigned char*>(tar.data() + at + kBlock), size);
      sums.files[name] = sum;
    }
  }
  return tar;
}

void read(const std::string& bytes) {
  static const Scratch scratch;
  kai::SnapshotLimits limits;
  limits.package.total_bytes = 1 << 20;
  limits.package.file_bytes = 1 << 19;
  limits.package.entries = 100;
  limits.package.path_bytes = 1 << 16;
  limits.memory_bytes = 1 << 20;
  const auto file = kai::sealed_memfd("snapshot", bytes);
  if (!file) std::abort();
  {
    const auto parts = kai::read_snapshot_file(file->get(), scratch.directory.get(), limits);
    if (parts) {
      if (!parts->memory || !parts->package_tar || parts->header.has_state == parts->state.empty()) __builtin_trap();
      const auto again = kai::parse_snapshot_header(kai::to_json(parts->header));
      if (!again || kai::to_json(*again) != kai::to_json(parts->header)) __builtin_trap();
    } else if (parts.error().error_number != 0) {
      __builtin_trap();  // nothing in a file is the machine's fault
    }
  }
  if (!fs::is_empty(scratch.path)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  read(bytes);
  read(mended(bytes));
  return 0;
}
