#include "supervisor/control/packages.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/packages_reader.h"
#include "supervisor/control/packages_tree.h"

namespace kai {
namespace {

constexpr std::string_view kStaging = ".staging-";
constexpr std::string_view kManifest = "manifest.json";
constexpr std::size_t kMaxPackageJson = 1 << 20;
constexpr int kMaxSymlinks = 40;  // as the kernel (path_resolution(7))
constexpr std::size_t kNameLength = 64;

bool is_package_name(std::string_view name) {
  return name.size() == kNameLength && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string hex(const std::array<unsigned char, 32>& bytes) {
  std::array<char, kNameLength + 1> text;
  sodium_bin2hex(text.data(), text.size(), bytes.data(), bytes.size());
  return text.data();
}

/// A line for each entry, sorted by path; NUL ends what may hold any other byte, so that no two trees give the same
/// text.
std::string content_name(const PackageEntries& entries) {
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  for (const auto& [path, entry] : entries) {
    std::string line;
    switch (entry.type) {
      case PackageEntry::Type::kDirectory:
        line = "directory ";
        break;
      case PackageEntry::Type::kFile:
        line = (entry.executable ? "program " : "file ") + hex(entry.sha256) + " ";
        break;
      case PackageEntry::Type::kSymlink:
        line = "symlink " + entry.target + '\0';
        break;
    }
    line += path + '\0';
    crypto_hash_sha256_update(&state, reinterpret_cast<const unsigned char*>(line.data()), line.size());
  }
  std::array<unsigned char, 32> hash;
  crypto_hash_sha256_final(&state, hash.data());
  return hex(hash);
}

bool is_file(const PackageEntries& entries, std::string_view path) {
  const auto found = entries.find(path);
  return found != entries.end() && found->second.type == PackageEntry::Type::kFile;
}

/// `tar czf x.tgz directory` gives a tar with one directory at its top, which is the package then. "": the tar's root
/// is.
Result<std::string> find_top(const PackageEntries& entries) {
  if (entries.contains(kManifest)) return "";
  std::set<std::string> tops;
  for (const auto& [path, entry] : entries) tops.insert(path.substr(0, path.find('/')));
  if (tops.size() == 1 && entries.contains(*tops.begin() + "/" + std::string(kManifest))) return *tops.begin();
  return failure("the package is refused: there is no manifest.json at its root");
}

PackageEntries below(PackageEntries entries, const std::string& top) {
  if (top.empty()) return entries;
  PackageEntries inside;
  for (auto& [path, entry] : entries) {
    if (path.size() > top.size()) inside.emplace(path.substr(top.size() + 1), std::move(entry));
  }
  return inside;
}

Result<> check_symlinks(const PackageEntries& entries) {
  for (const auto& [path, entry] : entries) {
    if (entry.type != PackageEntry::Type::kSymlink) continue;
    if (auto checked = check_symlink(path, entry.target); !checked) return checked;
  }
  return {};
}

}  // namespace

StagedPackage& StagedPackage::operator=(StagedPackage&& other) noexcept {
  if (this == &other) return *this;
  discard();
  store_ = std::move(other.store_);
  name_ = std::exchange(other.name_, {});
  top_ = std::move(other.top_);
  root_ = std::move(other.root_);
  manifest_ = std::move(other.manifest_);
  entries_ = std::move(other.entries_);
  return *this;
}

StagedPackage::StagedPackage(StagedPackage&& other) noexcept {
  *this = std::move(other);
}

StagedPackage::~StagedPackage() {
  discard();
}

/// What this cannot remove, the next PackageStore::open does.
void StagedPackage::discard() {
  if (!name_.empty() && store_) static_cast<void>(remove_tree(store_.get(), name_));
  name_.clear();
}

Result<> StagedPackage::add_file(const std::string& path, std::string_view bytes) {
  const auto checked = member_path(path, PackageLimits().depth);
  if (!checked) return tl::unexpected(checked.error());
  if (checked->empty() || entries_.contains(*checked))
    return failure("add to the package", path + ": is there already");
  for (std::size_t slash = checked->find('/'); slash != std::string::npos; slash = checked->find('/', slash + 1)) {
    const std::string above = checked->substr(0, slash);
    if (entries_.contains(above)) continue;
    const auto parent = open_directory(root_.get(), split_path(above).first);
    if (!parent) return tl::unexpected(parent.error());
    if (auto made = make_directory(parent->get(), split_path(above).second); !made) return made;
    entries_.emplace(above, PackageEntry{});
  }
  const auto parent = open_directory(root_.get(), split_path(*checked).first);
  if (!parent) return tl::unexpected(parent.error());
  const auto file = make_file(parent->get(), split_path(*checked).second);
  if (!file) return tl::unexpected(file.error());
  PackageEntry entry;
  entry.type = PackageEntry::Type::kFile;
  crypto_hash_sha256(entry.sha256.data(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  entries_.emplace(*checked, entry);
  if (auto written = write_all(file->get(), bytes); !written) return written;
  if (fchmod(file->get(), 0444) < 0) return errno_failure("chmod", path);
  return {};
}

std::optional<std::string> StagedPackage::resolve(std::string_view path) const {
  std::deque<std::string> ahead;  // components still to go
  const auto prepend = [&ahead](std::string_view text) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find('/', begin), text.size());
      if (end > begin) parts.emplace_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    ahead.insert(ahead.begin(), parts.begin(), parts.end());
  };
  prepend(path);
  std::string at;
  int symlinks = 0;
  while (!ahead.empty()) {
    const std::string part = std::move(ahead.front());
    ahead.pop_front();
    if (part == ".") continue;
    if (part == "..") {
      if (at.empty()) return std::nullopt;
      at = split_path(at).first;
      continue;
    }
    std::string next = at;
    if (!next.empty()) next += '/';
    next += part;
    const auto found = entries_.find(next);
    if (found == entries_.end()) return std::nullopt;
    if (found->second.type == PackageEntry::Type::kSymlink) {
      if (++symlinks > kMaxSymlinks) return std::nullopt;
      prepend(found->second.target);
    } else {
      at = std::move(next);
    }
  }
  return at;
}

Result<std::optional<std::string>> StagedPackage::read(std::string_view path, std::size_t limit) const {
  const auto real = resolve(path);
  if (!real || !is_file(entries_, *real)) return std::nullopt;
  const auto file = open_at(root_.get(), *real, O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
  if (!file) return tl::unexpected(file.error());
  auto bytes = read_all(file->get(), limit);
  if (bytes) return std::move(*bytes);
  if (bytes.error().error_number != EFBIG) return tl::unexpected(bytes.error());
  return refused(path, "is larger than " + std::to_string(limit >> 10) + " KB");
}

bool StagedPackage::has_module(std::string_view name) const {
  const auto real = resolve("node_modules/" + std::string(name) + "/package.json");
  return real && is_file(entries_, *real);
}

Result<std::optional<std::string>> StagedPackage::module_version(std::string_view name) const {
  const std::string path = "node_modules/" + std::string(name) + "/package.json";
  const auto text = read(path, kMaxPackageJson);
  if (!text) return tl::unexpected(text.error());
  if (!*text) return std::nullopt;
  // Only the version at the top is kept, and nothing below it is built, however deep it is nested.
  const auto top_only = [](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) return parsed == "version";
    return depth == 0 || (depth == 1 && event == nlohmann::json::parse_event_t::value);
  };
  const auto json = nlohmann::json::parse(**text, top_only, false);
  if (!json.is_object() || !json.contains("version") || !json["version"].is_string()) {
    return refused(path, "is not a JSON object with a version");
  }
  return json["version"].get<std::string>();
}

Result<PackageStore> PackageStore::open(const std::string& directory) {
  if (sodium_init() < 0) return failure("sodium_init");
  if (mkdir(directory.c_str(), 0755) == 0) {
    if (chmod(directory.c_str(), 0755) < 0) return errno_failure("chmod", directory);
  } else if (errno != EEXIST) {
    return errno_failure("make the package store", directory);
  }
  Fd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return errno_failure("open the package store", directory);
  const auto names = list_directory(opened.get());
  if (!names) return tl::unexpected(names.error());
  for (const std::string& name : *names) {
    if (!name.starts_with(kStaging)) continue;
    if (auto removed = remove_tree(opened.get(), name); !removed) return tl::unexpected(removed.error());
  }
  return PackageStore(std::move(opened));
}

Result<StagedPackage> PackageStore::stage(int tar, const PackageLimits& limits) const {
  struct stat status {};
  if (fstat(tar, &status) < 0) return errno_failure("stat", "the package");
  if (!S_ISREG(status.st_mode)) return failure("the package is refused: its tar is not a regular file");
  if (lseek(tar, 0, SEEK_SET) < 0) return errno_failure("lseek", "the package");

  StagedPackage package;
  package.store_ = Fd(fcntl(directory_.get(), F_DUPFD_CLOEXEC, 0));
  if (!package.store_) return errno_failure("dup");
  const std::string name = std::string(kStaging) + new_uuid();
  if (auto made = make_directory(directory_.get(), name); !made) return tl::unexpected(made.error());
  package.name_ = name;
  auto root = open_directory(directory_.get(), name);
  if (!root) return tl::unexpected(root.error());

  auto entries = PackageReader(root->get(), limits).read(tar);
  if (!entries) return tl::unexpected(entries.error());
  auto top = find_top(*entries);
  if (!top) return tl::unexpected(top.error());
  package.entries_ = below(std::move(*entries), *top);
  package.top_ = std::move(*top);
  auto inside = open_directory(root->get(), package.top_);
  if (!inside) return tl::unexpected(inside.error());
  package.root_ = std::move(*inside);

  if (auto checked = check_symlinks(package.entries_); !checked) return tl::unexpected(checked.error());
  if (!is_file(package.entries_, kManifest)) return refused(kManifest, "is not a regular file");
  auto manifest = package.read(kManifest, kMaxManifestBytes);
  if (!manifest) return tl::unexpected(manifest.error());
  package.manifest_ = std::move(**manifest);
  return package;
}

Result<std::string> PackageStore::seal(StagedPackage package) const {
  const std::string name = content_name(package.entries_);
  // One call for up to 100,000 files: an fsync each would take minutes.
  if (syncfs(package.root_.get()) < 0) return errno_failure("syncfs", "the package store");
  const std::string from = package.top_.empty() ? package.name_ : package.name_ + "/" + package.top_;
  // Onto a directory that is not empty it fails: the same content is there already.
  if (renameat(directory_.get(), from.c_str(), directory_.get(), name.c_str()) < 0) {
    if (errno != EEXIST && errno != ENOTEMPTY) return errno_failure("rename", name);
  }
  if (fsync(directory_.get()) < 0) return errno_failure("fsync", "the package store");
  return name;
}

Result<std::vector<std::string>> PackageStore::list() const {
  auto names = list_directory(directory_.get());
  if (!names) return names;
  std::erase_if(*names, [](const std::string& name) { return !is_package_name(name); });
  std::sort(names->begin(), names->end());
  return names;
}

Result<> PackageStore::remove(const std::string& name) const {
  if (!is_package_name(name)) return failure("remove a package", escape_for_terminal(name) + ": is no package's name");
  // Under its own name a package is whole or not there at all, whenever the machine stops.
  const std::string aside = std::string(kStaging) + new_uuid();
  if (renameat(directory_.get(), name.c_str(), directory_.get(), aside.c_str()) < 0) {
    if (errno == ENOENT) return {};
    return errno_failure("rename", name);
  }
  return remove_tree(directory_.get(), aside);
}

Result<> PackageStore::remove_unreferenced(const std::set<std::string>& keep) const {
  const auto names = list();
  if (!names) return tl::unexpected(names.error());
  for (const std::string& name : *names) {
    if (keep.contains(name)) continue;
    if (auto removed = remove(name); !removed) return removed;
  }
  return {};
}

}  // namespace kai
