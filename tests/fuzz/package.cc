// The package store against hostile tars. Whatever is accepted must stand in the store as a tree that leads nowhere
// else: every entry where the list says, of the listed type, and every symlink's target inside.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/unix.h"
#include "supervisor/control/packages.h"
#include "supervisor/control/packages_signature.h"

namespace {

namespace fs = std::filesystem;

/// In memory where there is such a place: a run makes and removes trees by the thousand.
struct Store {
  Store() : path(fs::is_directory("/dev/shm") ? "/dev/shm/kai-fuzz-XXXXXX" : "/tmp/kai-fuzz-XXXXXX") {
    if (mkdtemp(path.data()) == nullptr) std::abort();
    packages = path + "/packages";
  }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store() { fs::remove_all(path); }
  std::string path;
  std::string packages;
};

/// Every block that looks like a header gets the checksum that it should have, or mutations would never come further.
std::string with_checksums(std::string tar) {
  constexpr std::size_t kBlock = 512;
  constexpr std::size_t kChecksum = 148;
  for (std::size_t at = 0; at + kBlock <= tar.size(); at += kBlock) {
    if (std::string_view(tar).substr(at + 257, 5) != "ustar") continue;
    tar.replace(at + kChecksum, 8, "        ");
    unsigned sum = 0;
    for (std::size_t byte = at; byte < at + kBlock; ++byte) sum += static_cast<unsigned char>(tar[byte]);
    for (std::size_t digit = 6; digit-- > 0; sum >>= 3)
      tar[at + kChecksum + digit] = static_cast<char>('0' + (sum & 7));
    tar[at + kChecksum + 6] = '\0';
  }
  return tar;
}

void check(const std::string& root, const std::string& path, const kai::PackageEntry& entry) {
  using Type = kai::PackageEntry::Type;
  struct stat status {};
  const std::string place = root + "/" + path;
  if (lstat(place.c_str(), &status) < 0) __builtin_trap();
  const bool as_listed = entry.type == Type::kDirectory ? S_ISDIR(status.st_mode)
                         : entry.type == Type::kFile    ? S_ISREG(status.st_mode)
                                                        : S_ISLNK(status.st_mode);
  if (!as_listed || (!S_ISLNK(status.st_mode) && (status.st_mode & 07022) != 0)) __builtin_trap();
  if (entry.type != Type::kSymlink) return;
  const fs::path real = fs::weakly_canonical(fs::path(place).parent_path() / entry.target);
  if (!(real.string() + "/").starts_with(fs::canonical(root).string() + "/")) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Store place;
  static const auto store = kai::PackageStore::open(place.packages);
  if (!store) std::abort();
  static const kai::Policy policy = [] {
    kai::Policy trusting = kai::builtin_policy(true);
    trusting.trusted_keys = {"RWQizFSiia2FFimDHTG13tvVaiCKknHDRPbj27vAMLW1NvdyWzsSavBB"};
    return trusting;
  }();
  const auto tar = kai::sealed_memfd("tar", with_checksums(std::string(reinterpret_cast<const char*>(data), size)));
  if (!tar) std::abort();
  kai::PackageLimits limits;
  limits.total_bytes = 1 << 20;
  limits.file_bytes = 1 << 19;
  limits.entries = 100;
  limits.path_bytes = 1 << 16;
  auto package = store->stage(tar->get(), limits);
  if (package) {
    const kai::PackageEntries entries = package->entries();
    for (const auto& [path, entry] : entries) static_cast<void>(package->read(path, 1 << 20));
    static_cast<void>(package->module_version("a"));
    static_cast<void>(kai::find_signer(*package, policy));
    const auto name = store->seal(std::move(*package), "fuzzed");
    if (!name) std::abort();
    for (const auto& [path, entry] : entries) check(place.packages + "/fuzzed/" + *name, path, entry);
    if (!store->remove("fuzzed", *name) || !store->remove_unreferenced({})) std::abort();
  }
  if (!fs::is_empty(place.packages)) __builtin_trap();
  return 0;
}
