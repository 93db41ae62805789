#include "supervisor/control/packages_reader.h"

#include <archive.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/packages_tree.h"

namespace kai {
namespace {

constexpr std::size_t kBlock = 128 << 10;

// What headers and padding may add to the content, in decompressed bytes: libarchive reads long names and pax headers
// of up to 1 MB for each member, which compress to nothing.
constexpr std::uint64_t kHeaderBytes = 256ULL << 20;

/// libarchive keeps names in several encodings: pax ones are UTF-8, those of ustar and gnu the bytes that are there.
std::string_view either(const char* utf8, const char* bytes) {
  if (utf8 != nullptr) return utf8;
  return bytes == nullptr ? std::string_view() : std::string_view(bytes);
}

tl::unexpected<Error> unreadable(archive* reader) {
  const char* why = archive_error_string(reader);
  return failure("the package cannot be read as a tar (ustar, pax or gnu, maybe gzipped): " +
                 escape_for_terminal(why == nullptr ? "no reason given" : why));
}

std::string megabytes(std::uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MB";
}

}  // namespace

Result<PackageEntries> PackageReader::read(int tar) {
  struct stat status {};
  if (fstat(tar, &status) < 0) return errno_failure("stat", "the package");
  packed_ = static_cast<std::uint64_t>(status.st_size);
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> member(archive_entry_new(), archive_entry_free);
  // Nothing else of libarchive's formats: each is code that a stranger's bytes would reach.
  if (!reader || !member || archive_read_support_format_tar(reader.get()) != ARCHIVE_OK ||
      archive_read_support_filter_gzip(reader.get()) != ARCHIVE_OK) {
    return failure("libarchive cannot read gzipped tars here");
  }
  if (archive_read_open_fd(reader.get(), tar, kBlock) != ARCHIVE_OK) return unreadable(reader.get());
  for (;;) {
    const int code = archive_read_next_header2(reader.get(), member.get());
    if (code == ARCHIVE_EOF) return std::move(entries_);
    // A warning is about a name's encoding, which member_path judges.
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return unreadable(reader.get());
    if (auto taken = take(reader.get(), member.get()); !taken) return tl::unexpected(taken.error());
    const auto unpacked = static_cast<std::uint64_t>(archive_filter_bytes(reader.get(), 0));
    if (unpacked > limits_.total_bytes + kHeaderBytes) {
      return failure("the package is refused: its tar is over " + megabytes(limits_.total_bytes + kHeaderBytes) +
                     " unpacked");
    }
    if (auto checked = check_ratio(unpacked); !checked) return tl::unexpected(checked.error());
  }
}

Result<> PackageReader::check_ratio(std::uint64_t unpacked) const {
  if (unpacked <= limits_.ratio_from || unpacked / limits_.ratio <= packed_) return {};
  return failure("the package is refused: it unpacks to more than " + std::to_string(limits_.ratio) +
                 " times its size, as a bomb does; make the archive without compression if it is none");
}

Result<> PackageReader::take(archive* reader, archive_entry* member) {
  const std::string_view name = either(archive_entry_pathname_utf8(member), archive_entry_pathname(member));
  const auto path = member_path(name, limits_.depth);
  if (!path) return tl::unexpected(path.error());
  if (archive_entry_hardlink_utf8(member) != nullptr || archive_entry_hardlink(member) != nullptr) {
    return refused(name, "is a hard link; make the tar with --hard-dereference");
  }
  const auto type = archive_entry_filetype(member);
  if (path->empty()) {
    if (type == AE_IFDIR) return {};
    return refused(name, "has the name of the package's own directory and is none");
  }
  if (*path == ".kai" || path->starts_with(".kai/")) {
    return refused(name, "the directory .kai is kAI's own; leave it out of the package");
  }
  switch (type) {
    case AE_IFDIR:
      return take_directory(*path);
    case AE_IFLNK:
      return take_symlink(*path, member);
    case AE_IFREG:
      return take_file(*path, reader, member);
    default:
      return refused(name, "is a device, fifo or socket; a package has files, directories and symlinks only");
  }
}

/// Checks that `path` is free and makes the directories above it.
Result<> PackageReader::make_room(const std::string& path) {
  if (entries_.contains(path)) return refused(path, "is in the tar more than once");
  for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string above = path.substr(0, slash);
    const auto found = entries_.find(above);
    if (found == entries_.end()) {
      if (auto made = add(above, {}); !made) return made;
    } else if (found->second.type != PackageEntry::Type::kDirectory) {
      return refused(path, "is below " + escape_for_terminal(above) + ", which is no directory");
    }
  }
  return {};
}

/// Counts the entry; a directory is made on the disk too.
Result<> PackageReader::add(const std::string& path, PackageEntry entry) {
  path_bytes_ += path.size() + entry.target.size();
  if (entries_.size() >= limits_.entries) {
    return refused(path, "the package has more than " + std::to_string(limits_.entries) + " files and directories");
  }
  if (path_bytes_ > limits_.path_bytes) return refused(path, "names add up to over " + megabytes(limits_.path_bytes));
  if (entry.type == PackageEntry::Type::kDirectory) {
    const auto directory = parent(path);
    if (!directory) return tl::unexpected(directory.error());
    if (auto made = make_directory(*directory, split_path(path).second); !made) return made;
  }
  entries_.emplace(path, std::move(entry));
  return {};
}

Result<> PackageReader::take_directory(const std::string& path) {
  // Files may come before the directory that they are in.
  const auto found = entries_.find(path);
  const bool implied = found != entries_.end() && found->second.type == PackageEntry::Type::kDirectory;
  if (!named_.insert(path).second || (found != entries_.end() && !implied)) {
    return refused(path, "is in the tar more than once");
  }
  if (implied) return {};
  if (auto room = make_room(path); !room) return room;
  return add(path, {});
}

Result<> PackageReader::take_symlink(const std::string& path, archive_entry* member) {
  if (auto room = make_room(path); !room) return room;
  PackageEntry entry;
  entry.type = PackageEntry::Type::kSymlink;
  entry.target = either(archive_entry_symlink_utf8(member), archive_entry_symlink(member));
  if (entry.target.empty() || entry.target.size() > kMaxPackagePath) {
    return refused(path, "is a symlink to nothing, or with a target over 1024 bytes");
  }
  const auto directory = parent(path);
  if (!directory) return tl::unexpected(directory.error());
  if (symlinkat(entry.target.c_str(), *directory, split_path(path).second.c_str()) < 0) {
    return errno_failure("make the symlink", path);
  }
  return add(path, std::move(entry));
}

Result<> PackageReader::take_file(const std::string& path, archive* reader, archive_entry* member) {
  const la_int64_t size = archive_entry_size(member);
  if (size < 0) return refused(path, "has a negative size");
  if (static_cast<std::uint64_t>(size) > limits_.file_bytes) {
    return refused(path, "is larger than " + megabytes(limits_.file_bytes));
  }
  if (static_cast<std::uint64_t>(size) > limits_.total_bytes - bytes_) {
    return refused(path, "the package is larger than " + megabytes(limits_.total_bytes) + " unpacked");
  }
  bytes_ += static_cast<std::uint64_t>(size);
  if (auto checked = check_ratio(bytes_); !checked) return checked;
  if (auto room = make_room(path); !room) return room;
  const auto directory = parent(path);
  if (!directory) return tl::unexpected(directory.error());
  const auto file = make_file(*directory, split_path(path).second);
  if (!file) return tl::unexpected(file.error());
  PackageEntry entry;
  entry.type = PackageEntry::Type::kFile;
  // Of the permissions only this survives: no set-user-id, and nobody writes.
  entry.executable = (archive_entry_perm(member) & 0100) != 0;
  if (auto unpacked = unpack(path, reader, member, file->get(), entry); !unpacked) return unpacked;
  if (fchmod(file->get(), entry.executable ? 0555 : 0444) < 0) return errno_failure("chmod", path);
  return add(path, std::move(entry));
}

/// The member's content into `file`; holes of a sparse file come as zeros. libarchive gives exactly the size of the
/// header.
Result<> PackageReader::unpack(const std::string& path, archive* reader, archive_entry* member, int file,
                               PackageEntry& entry) {
  crypto_hash_sha256_state hash;
  crypto_hash_sha256_init(&hash);
  std::vector<char> block(kBlock);
  la_int64_t left = archive_entry_size(member);
  for (;;) {
    const la_ssize_t count = archive_read_data(reader, block.data(), block.size());
    // ARCHIVE_RETRY too: it comes back for ever on a sparse file whose blocks are out of order.
    if (count < 0) return unreadable(reader);
    if (count == 0) break;
    if (count > left) return refused(path, "has more content than its header says");
    left -= count;
    const std::string_view bytes(block.data(), static_cast<std::size_t>(count));
    crypto_hash_sha256_update(&hash, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    if (auto written = write_all(file, bytes); !written) {
      return tl::unexpected(Error{"unpack the package", written.error().error_number, path});
    }
  }
  crypto_hash_sha256_final(&hash, entry.sha256.data());
  return {};
}

/// The directory that `path` is in, open until the next call.
Result<int> PackageReader::parent(const std::string& path) {
  const std::string above = split_path(path).first;
  if (above.empty()) return root_;
  if (!parent_ || above != parent_path_) {
    auto opened = open_directory(root_, above);
    if (!opened) return tl::unexpected(opened.error());
    parent_ = std::move(*opened);
    parent_path_ = above;
  }
  return parent_.get();
}

}  // namespace kai
