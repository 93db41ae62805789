#include <fcntl.h>
#include <linux/openat2.h>
#include <sodium.h>
#include <sys/stat.h>

#include <algorithm>
#include <deque>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/packages.h"
#include "supervisor/control/packages_reader.h"
#include "supervisor/control/packages_tree.h"

namespace kai {
namespace {

constexpr std::size_t kMaxPackageJson = 1 << 20;
constexpr int kMaxSymlinks = 40;  // as the kernel (path_resolution(7))

std::string hex(const std::array<unsigned char, 32>& bytes) {
  std::array<char, 2 * 32 + 1> text;
  sodium_bin2hex(text.data(), text.size(), bytes.data(), bytes.size());
  return text.data();
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
  if (!real || !has_file(*real)) return std::nullopt;
  const auto file = open_at(root_.get(), *real, O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
  if (!file) return tl::unexpected(file.error());
  auto bytes = read_all(file->get(), limit);
  if (bytes) return std::move(*bytes);
  if (bytes.error().error_number != EFBIG) return tl::unexpected(bytes.error());
  return refused(path, "is larger than " + std::to_string(limit >> 10) + " KB");
}

bool StagedPackage::has_module(std::string_view name) const {
  const auto real = resolve("node_modules/" + std::string(name) + "/package.json");
  return real && has_file(*real);
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

bool StagedPackage::has_file(std::string_view path) const {
  const auto found = entries_.find(path);
  return found != entries_.end() && found->second.type == PackageEntry::Type::kFile;
}

/// A line for each entry, sorted by path; NUL ends what may hold any other byte, so that no two trees give the same
/// text.
std::string StagedPackage::content_name() const {
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  for (const auto& [path, entry] : entries_) {
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

}  // namespace kai
