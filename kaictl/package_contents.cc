#include "kaictl/package_contents.h"

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "base/text.h"
#include "kaictl/json_text.h"
#include "kaictl/package_tar_reader.h"
#include "package/minisign.h"
#include "package/path.h"

namespace kai {
namespace {

constexpr std::string_view kManifest = "manifest.json";
constexpr std::size_t kMaxManifest = 1 << 20;  // as kaid has it
constexpr std::size_t kMaxVersion = 64;

/// How much of a file is kept as text; 0: only its check sum is.
std::size_t kept_bytes(std::string_view name) {
  if (name == kManifest) return kMaxManifest;
  if (name == package::kSumsFile) return package::kMaxSumsBytes;
  if (name == package::kSignatureFile) return package::kMaxSignatureBytes;
  return 0;
}

class ContentsReader {
 public:
  explicit ContentsReader(PackageTarReader reader) : reader_(std::move(reader)) {}

  Outcome<PackageContents> read();

 private:
  Outcome<> take(const PackageMember& member);
  Outcome<> take_file(const PackageMember& member);
  [[nodiscard]] std::string below(const std::string& path) const;
  [[nodiscard]] std::size_t kept_bytes_of(const std::string& path) const;
  Outcome<> find_top();
  Outcome<> check_links() const;
  Outcome<> read_manifest();

  PackageTarReader reader_;
  PackageContents contents_;
  std::map<std::string, package::Sha256> files_;  // by path in the tar, of all
  std::map<std::string, std::string> texts_;      // of what is kept, by path in the tar
  std::map<std::string, std::string> links_;
  std::set<std::string> directories_;
  std::string first_top_;
  bool one_top_ = true;
};

Outcome<PackageContents> ContentsReader::read() {
  for (;;) {
    const auto member = reader_.next();
    if (!member) return tl::unexpected(member.error());
    if (!*member) break;
    if (auto taken = take(**member); !taken) return tl::unexpected(taken.error());
  }
  contents_.unpacked = reader_.unpacked();
  if (auto found = find_top(); !found) return tl::unexpected(found.error());
  if (auto checked = check_links(); !checked) return tl::unexpected(checked.error());
  for (const auto& [path, sum] : files_) {
    const std::string name = below(path);
    if (name != package::kSumsFile && name != package::kSignatureFile) contents_.entries.files.emplace(name, sum);
  }
  for (const auto& [path, target] : links_) contents_.entries.symlinks.emplace(below(path), target);
  for (auto& [path, text] : texts_) {
    const std::string name = below(path);
    if (name == package::kSumsFile) contents_.sums = std::move(text);
    if (name == package::kSignatureFile) contents_.signature = std::move(text);
  }
  if (auto manifest = read_manifest(); !manifest) return tl::unexpected(manifest.error());
  return std::move(contents_);
}

Outcome<> ContentsReader::take(const PackageMember& member) {
  const std::string top = member.path.substr(0, member.path.find('/'));
  if (first_top_.empty()) first_top_ = top;
  one_top_ = one_top_ && top == first_top_;
  switch (member.type) {
    case PackageMember::Type::kDirectory:
      directories_.insert(member.path);
      return {};
    case PackageMember::Type::kSymlink:
      links_.emplace(member.path, member.target);
      return {};
    case PackageMember::Type::kFile:
      return take_file(member);
  }
  return {};
}

/// Where the root is shows at the end: what may stand there is kept for both places that it may have.
std::size_t ContentsReader::kept_bytes_of(const std::string& path) const {
  const std::size_t slash = path.find('/');
  if (slash == std::string::npos) return kept_bytes(path);
  return path.substr(0, slash) == first_top_ ? kept_bytes(path.substr(slash + 1)) : 0;
}

Outcome<> ContentsReader::take_file(const PackageMember& member) {
  const std::size_t kept = kept_bytes_of(member.path);
  if (kept != 0 && member.size > kept) {
    return reader_.refuse(member.path, "is larger than " + std::to_string(kept >> 10) + " KB");
  }
  std::string text;
  package::Sha256Hash hash;
  const auto read = reader_.read([&](std::string_view bytes) -> Outcome<> {
    hash.update(bytes);
    if (kept != 0) text += bytes;
    return {};
  });
  if (!read) return read;
  files_.emplace(member.path, hash.finish());
  if (kept != 0) texts_.emplace(member.path, std::move(text));
  return {};
}

/// A path in the tar as one below the package's root.
std::string ContentsReader::below(const std::string& path) const {
  return contents_.top.empty() ? path : path.substr(contents_.top.size() + 1);
}

/// `tar czf x.tgz directory` gives a tar with one directory at its top, which is the package then.
Outcome<> ContentsReader::find_top() {
  const auto is_there = [this](const std::string& path) {
    return files_.contains(path) || links_.contains(path) || directories_.contains(path);
  };
  if (!is_there(std::string(kManifest))) {
    if (!one_top_ || !is_there(first_top_ + "/" + std::string(kManifest))) {
      return reader_.refuse(Error{"there is no manifest.json at the package's root", 0, ""});
    }
    contents_.top = first_top_;
  }
  for (const std::string_view name : {kManifest, package::kSumsFile, package::kSignatureFile}) {
    const std::string path = (contents_.top.empty() ? "" : contents_.top + "/") + std::string(name);
    if (is_there(path) && !files_.contains(path)) return reader_.refuse(path, "is not a regular file");
  }
  return {};
}

Outcome<> ContentsReader::check_links() const {
  for (const auto& [path, target] : links_) {
    if (auto checked = package::check_symlink(below(path), target); !checked) return reader_.refuse(checked.error());
  }
  return {};
}

/// Only what names the package: kaictl policy check, and kaid, look at the rest.
Outcome<> ContentsReader::read_manifest() {
  const std::string path = (contents_.top.empty() ? "" : contents_.top + "/") + std::string(kManifest);
  const Json manifest = parse_document(texts_[path]);
  const Json id = member(manifest, "id");
  const Json version = member(manifest, "version");
  if (!id.is_string() || !is_agent_id(id.get<std::string>())) {
    return reader_.refuse(kManifest, "is not a JSON object with an agent's id");
  }
  contents_.id = id.get<std::string>();
  if (version.is_string()) contents_.version = version.get<std::string>();
  const auto is_safe = [](char letter) {
    return (letter >= '0' && letter <= '9') || (letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z') ||
           letter == '.' || letter == '-' || letter == '+';
  };
  const std::string& text = contents_.version;
  if (text.empty() || text.size() > kMaxVersion || !std::all_of(text.begin(), text.end(), is_safe)) {
    return reader_.refuse(kManifest, "has no version like 1.0.3");
  }
  return {};
}

}  // namespace

Outcome<PackageContents> read_contents(int tar, const std::string& shown_as) {
  auto reader = PackageTarReader::open(tar, shown_as);
  if (!reader) return tl::unexpected(reader.error());
  return ContentsReader(std::move(*reader)).read();
}

}  // namespace kai
