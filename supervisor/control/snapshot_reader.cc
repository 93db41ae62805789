// The reader of a snapshot's file.
#include <archive.h>
#include <archive_entry.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json_check.h"
#include "base/text.h"
#include "base/unix.h"
#include "package/sums.h"
#include "supervisor/control/packages_reader.h"
#include "supervisor/control/snapshot_file.h"

namespace kai {
namespace {

constexpr std::size_t kBlock = 128 << 10;
constexpr std::size_t kMaxHeaderJson = 64 << 10;
constexpr std::string_view kPackage = "package/";
// What the tar's own headers and padding may add: 100,000 members of 1,536 bytes, and their names.
constexpr std::uint64_t kHeaderBytes = 256ULL << 20;

using ArchiveReader = std::unique_ptr<archive, int (*)(archive*)>;
using Take = std::function<Result<>(std::string_view)>;

tl::unexpected<Error> bad(const std::string& why) {
  return failure("the snapshot is refused: " + why + "; nothing was changed");
}

tl::unexpected<Error> bad_member(std::string_view name, std::string_view why) {
  constexpr std::size_t kShown = 200;
  return bad(escape_for_terminal(name.substr(0, kShown)) + " " + std::string(why));
}

/// Names are UTF-8 or the bytes that are there (packages_reader.cc).
std::string_view either(const char* utf8, const char* bytes) {
  if (utf8 != nullptr) return utf8;
  return bytes == nullptr ? std::string_view() : std::string_view(bytes);
}

/// The package alone, as a tar of its own.
class PackageTar {
 public:
  explicit PackageTar(Fd file) : file_(std::move(file)), archive_(archive_write_new(), archive_write_free) {}

  Result<> open() {
    if (!archive_ || archive_write_set_format_gnutar(archive_.get()) != ARCHIVE_OK ||
        archive_write_open_fd(archive_.get(), file_.get()) != ARCHIVE_OK) {
      return failed();
    }
    return {};
  }
  Result<> add(const std::string& path, const PackageEntry& entry, std::uint64_t size) {
    using Type = PackageEntry::Type;
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> member(archive_entry_new(), archive_entry_free);
    archive_entry_copy_pathname(member.get(), path.c_str());
    archive_entry_set_filetype(member.get(), entry.type == Type::kDirectory ? AE_IFDIR
                                             : entry.type == Type::kFile    ? AE_IFREG
                                                                            : AE_IFLNK);
    archive_entry_set_perm(member.get(), entry.executable || entry.type == Type::kDirectory ? 0755 : 0644);
    archive_entry_set_size(member.get(), static_cast<la_int64_t>(size));
    if (entry.type == Type::kSymlink) archive_entry_copy_symlink(member.get(), entry.target.c_str());
    if (archive_write_header(archive_.get(), member.get()) != ARCHIVE_OK) return failed();
    return {};
  }
  Result<> add_bytes(std::string_view bytes) {
    const auto written = archive_write_data(archive_.get(), bytes.data(), bytes.size());
    if (written != static_cast<la_ssize_t>(bytes.size())) return failed();
    return {};
  }
  Result<Fd> finish() {
    if (archive_write_close(archive_.get()) != ARCHIVE_OK) return failed();
    if (lseek(file_.get(), 0, SEEK_SET) < 0) return errno_failure("lseek", "the package");
    return std::move(file_);
  }

 private:
  [[nodiscard]] tl::unexpected<Error> failed() const {
    const char* why = archive_error_string(archive_.get());
    const int number = archive_errno(archive_.get());
    return tl::unexpected(Error{"take the package out of the snapshot", number > 0 ? number : EIO,
                                why == nullptr ? std::string() : escape_for_terminal(why)});
  }

  Fd file_;  // before archive_, which writes to it to its end
  std::unique_ptr<archive, int (*)(archive*)> archive_;
};

class SnapshotReader {
 public:
  SnapshotReader(int scratch, const SnapshotLimits& limits)
      : scratch_(scratch), limits_(limits), reader_(archive_read_new(), archive_read_free) {}

  Result<SnapshotParts> read(int file);

 private:
  Result<> take(archive_entry* member);
  Result<> take_package_member(const std::string& name, archive_entry* member);
  Result<> take_package_file(const std::string& name, archive_entry* member);
  Result<> take_memory(const std::string& name, archive_entry* member);
  Result<> take_sums(const std::string& name, archive_entry* member);
  /// The content of a regular file, once; its sum is one of those found.
  Result<> take_content(const std::string& name, archive_entry* member, std::uint64_t limit, const Take& take);
  Result<> take_text(const std::string& name, archive_entry* member, std::size_t limit, std::string& text);
  Result<> finish();
  [[nodiscard]] tl::unexpected<Error> unreadable() const;

  int scratch_;
  const SnapshotLimits& limits_;
  ArchiveReader reader_;
  SnapshotParts parts_;
  std::set<std::string> members_;  // of the package
  std::optional<PackageTar> package_;
  package::Sums found_;
  std::string sums_;
  std::uint64_t package_bytes_ = 0;
  std::size_t path_bytes_ = 0;
  bool closed_ = false;  // SHA256SUMS was there
};

tl::unexpected<Error> SnapshotReader::unreadable() const {
  const char* why = archive_error_string(reader_.get());
  // What the disk has to say is not the file's fault.
  const int number = archive_errno(reader_.get());
  if (number == EIO) return tl::unexpected(Error{"read the snapshot", number, ""});
  return bad("it cannot be read as a tar to its end (" + escape_for_terminal(why == nullptr ? "no reason given" : why) +
             ")");
}

Result<SnapshotParts> SnapshotReader::read(int file) {
  // Nothing else of libarchive's formats: each is code that a stranger's bytes would reach.
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> member(archive_entry_new(), archive_entry_free);
  if (!reader_ || !member || archive_read_support_format_tar(reader_.get()) != ARCHIVE_OK) {
    return tl::unexpected(Error{"read the snapshot", ENOMEM, "libarchive"});
  }
  auto tar = scratch_file(scratch_);
  if (!tar) return tl::unexpected(tar.error());
  package_.emplace(std::move(*tar));
  if (auto opened = package_->open(); !opened) return tl::unexpected(opened.error());
  if (lseek(file, 0, SEEK_SET) < 0) return errno_failure("lseek", "the snapshot");
  if (archive_read_open_fd(reader_.get(), file, kBlock) != ARCHIVE_OK) return unreadable();
  for (;;) {
    const int code = archive_read_next_header2(reader_.get(), member.get());
    if (code == ARCHIVE_EOF) break;
    // A warning is about a name's encoding, which member_path judges.
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return unreadable();
    if (auto taken = take(member.get()); !taken) return tl::unexpected(taken.error());
    const std::uint64_t most = limits_.package.total_bytes + limits_.memory_bytes + kHeaderBytes;
    if (archive_filter_bytes(reader_.get(), 0) > static_cast<la_int64_t>(most)) return bad("it is too large");
  }
  if (auto finished = finish(); !finished) return tl::unexpected(finished.error());
  return std::move(parts_);
}

Result<> SnapshotReader::take(archive_entry* member) {
  const std::string_view raw = either(archive_entry_pathname_utf8(member), archive_entry_pathname(member));
  const auto name = member_path(raw, limits_.package.depth + 1);
  if (!name) return bad(name.error().message());
  if (closed_) return bad_member(raw, "comes behind SHA256SUMS, which must be the last");
  if (archive_entry_hardlink_utf8(member) != nullptr || archive_entry_hardlink(member) != nullptr) {
    return bad_member(raw, "is a hard link, which no snapshot has");
  }
  const bool first = parts_.header.id.empty();
  if (first != (*name == "snapshot.json")) {
    return bad_member(raw, first ? "is the first in it, where snapshot.json must be: this is no snapshot of kaid's"
                                 : "is in it more than once");
  }
  if (*name == "package" || name->starts_with(kPackage)) return take_package_member(*name, member);
  if (*name == "memory.jsonl") return take_memory(*name, member);
  if (*name == "state.json") return take_text(*name, member, kMaxSnapshotState, parts_.state);
  if (*name == "policy.yaml") return take_text(*name, member, kMaxSnapshotPolicy, parts_.policy);
  if (*name == package::kSumsFile) return take_sums(*name, member);
  if (!first) return bad_member(raw, "is no part of a snapshot");
  std::string json;
  if (auto taken = take_text(*name, member, kMaxHeaderJson, json); !taken) return taken;
  auto header = parse_snapshot_header(json);
  if (!header) return bad(header.error().message());
  parts_.header = std::move(*header);
  return {};
}

Result<> SnapshotReader::take_package_member(const std::string& name, archive_entry* member) {
  const auto type = archive_entry_filetype(member);
  if (name.size() < kPackage.size()) {
    return type == AE_IFDIR ? Result<>{} : Result<>(bad_member(name, "is no directory"));
  }
  const std::string path = name.substr(kPackage.size());
  PackageEntry entry;
  if (type == AE_IFLNK) {
    entry.type = PackageEntry::Type::kSymlink;
    entry.target = either(archive_entry_symlink_utf8(member), archive_entry_symlink(member));
    if (entry.target.empty() || entry.target.size() > kMaxPackagePath) {
      return bad_member(name, "is a symlink to nothing, or with a target over 1024 bytes");
    }
  }
  path_bytes_ += path.size() + entry.target.size();
  if (members_.size() >= limits_.package.entries || path_bytes_ > limits_.package.path_bytes) {
    return bad("its package has too many files, or too long names");
  }
  if (!members_.insert(path).second) return bad_member(name, "is in it more than once");
  if (type == AE_IFREG) return take_package_file(name, member);
  if (type == AE_IFDIR || type == AE_IFLNK) return package_->add(path, entry, 0);
  return bad_member(name, "is a device, fifo or socket, which no snapshot has");
}

Result<> SnapshotReader::take_package_file(const std::string& name, archive_entry* member) {
  PackageEntry entry;
  entry.type = PackageEntry::Type::kFile;
  entry.executable = (archive_entry_perm(member) & S_IXUSR) != 0;
  const la_int64_t size = archive_entry_size(member);
  const std::uint64_t room = std::min(limits_.package.file_bytes, limits_.package.total_bytes - package_bytes_);
  if (size < 0 || static_cast<std::uint64_t>(size) > room) return bad_member(name, "makes its package too large");
  package_bytes_ += static_cast<std::uint64_t>(size);
  if (auto added = package_->add(name.substr(kPackage.size()), entry, static_cast<std::uint64_t>(size)); !added) {
    return added;
  }
  return take_content(name, member, room, [this](std::string_view bytes) { return package_->add_bytes(bytes); });
}

Result<> SnapshotReader::take_memory(const std::string& name, archive_entry* member) {
  if (parts_.memory) return bad_member(name, "is in it more than once");
  auto file = scratch_file(scratch_);
  if (!file) return tl::unexpected(file.error());
  auto taken = take_content(name, member, limits_.memory_bytes,
                            [&](std::string_view bytes) { return write_all(file->get(), bytes); });
  if (!taken) return taken;
  if (lseek(file->get(), 0, SEEK_SET) < 0) return errno_failure("lseek", name);
  parts_.memory = std::move(*file);
  return {};
}

Result<> SnapshotReader::take_sums(const std::string& name, archive_entry* member) {
  closed_ = true;
  auto taken = take_text(name, member, package::kMaxSumsBytes, sums_);
  found_.files.erase(name);
  return taken;
}

Result<> SnapshotReader::take_text(const std::string& name, archive_entry* member, std::size_t limit,
                                   std::string& text) {
  if (found_.files.contains(name)) return bad_member(name, "is in it more than once");
  return take_content(name, member, limit, [&text](std::string_view bytes) -> Result<> {
    text.append(bytes);
    return {};
  });
}

Result<> SnapshotReader::take_content(const std::string& name, archive_entry* member, std::uint64_t limit,
                                      const Take& take) {
  if (archive_entry_filetype(member) != AE_IFREG) return bad_member(name, "is no regular file");
  la_int64_t left = archive_entry_size(member);
  if (left < 0 || static_cast<std::uint64_t>(left) > limit) {
    return bad_member(name, "is larger than " + std::to_string(limit >> 10) + " KB");
  }
  crypto_hash_sha256_state hash;
  crypto_hash_sha256_init(&hash);
  std::vector<char> block(kBlock);
  for (;;) {
    const la_ssize_t count = archive_read_data(reader_.get(), block.data(), block.size());
    // ARCHIVE_RETRY too: it comes back for ever on a sparse file whose blocks are out of order.
    if (count < 0) return unreadable();
    if (count == 0) break;
    if (count > left) return bad_member(name, "has more content than its header says");
    left -= count;
    const std::string_view bytes(block.data(), static_cast<std::size_t>(count));
    crypto_hash_sha256_update(&hash, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    if (auto taken = take(bytes); !taken) return taken;
  }
  if (left != 0) return bad_member(name, "has less content than its header says");
  package::Sha256 sum;
  crypto_hash_sha256_final(&hash, sum.data());
  found_.files.emplace(name, sum);
  return {};
}

Result<> SnapshotReader::finish() {
  if (!closed_) return bad("it ends before its SHA256SUMS: it is cut off, or was not written to its end");
  const auto listed = package::parse_sums(sums_);
  if (!listed) return bad(listed.error().message());
  if (auto checked = package::check_sums(*listed, found_); !checked) return bad(checked.error().message());
  if (!parts_.memory) return bad("it has no memory.jsonl");
  if (parts_.header.has_state != found_.files.contains("state.json")) {
    return bad("snapshot.json and state.json disagree about whether there is a state");
  }
  if (parts_.header.has_state && !is_json(parts_.state)) return bad("state.json is no JSON");
  auto tar = package_->finish();
  if (!tar) return tl::unexpected(tar.error());
  parts_.package_tar = std::move(*tar);
  return {};
}

}  // namespace

Result<SnapshotParts> read_snapshot_file(int file, int scratch, const SnapshotLimits& limits) {
  return SnapshotReader(scratch, limits).read(file);
}

}  // namespace kai
