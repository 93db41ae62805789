#include "kaictl/package_tar_reader.h"

#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "base/text.h"
#include "package/path.h"

namespace kai {
namespace {

constexpr std::size_t kBlock = 128 << 10;
// What headers and padding may add to the content, in decompressed bytes, as kaid has it.
constexpr std::uint64_t kHeaderBytes = 256ULL << 20;
constexpr std::uint64_t kMaxPathBytes = 32ULL << 20;  // of all names and links: they are held in memory

/// libarchive keeps names in several encodings: pax ones are UTF-8, those of ustar and gnu the bytes that are there.
std::string_view either(const char* utf8, const char* bytes) {
  if (utf8 != nullptr) return utf8;
  return bytes == nullptr ? std::string_view() : std::string_view(bytes);
}

std::string megabytes(std::uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MB";
}

}  // namespace

PackageTarReader::PackageTarReader(std::string shown_as, const PackageLimits& limits)
    : shown_as_(std::move(shown_as)), limits_(limits), archive_(archive_read_new()), entry_(archive_entry_new()) {}

Outcome<PackageTarReader> PackageTarReader::open(int tar, std::string shown_as, const PackageLimits& limits) {
  PackageTarReader reader(std::move(shown_as), limits);
  struct stat info {};
  if (fstat(tar, &info) < 0) return local_failure("cannot read " + reader.shown_as_, Error{"fstat", errno, ""});
  if (!S_ISREG(info.st_mode)) return fail("INVALID", reader.shown_as_ + " is neither a directory nor a file");
  if (lseek(tar, 0, SEEK_SET) < 0) return local_failure("cannot read " + reader.shown_as_, Error{"lseek", errno, ""});
  reader.packed_ = static_cast<std::uint64_t>(info.st_size);
  archive* const opened = reader.archive_.get();
  // Nothing else of libarchive's formats: each is code that a stranger's bytes would reach.
  if (opened == nullptr || !reader.entry_ || archive_read_support_format_tar(opened) != ARCHIVE_OK ||
      archive_read_support_filter_gzip(opened) != ARCHIVE_OK) {
    return local_failure("cannot read " + reader.shown_as_, Error{"libarchive reads no gzipped tars here", 0, ""});
  }
  if (archive_read_open_fd(opened, tar, kBlock) != ARCHIVE_OK) return reader.unreadable();
  return reader;
}

tl::unexpected<Failure> PackageTarReader::refuse(const Error& why) const {
  return fail("INVALID", shown_as_ + ": " + why.message());
}

tl::unexpected<Failure> PackageTarReader::refuse(std::string_view member, std::string_view why) const {
  return refuse(package::refused(member, why).value());
}

tl::unexpected<Failure> PackageTarReader::unreadable() const {
  const char* const why = archive_error_string(archive_.get());
  return fail("INVALID",
              shown_as_ + " cannot be read as a tar (ustar, pax or gnu, maybe gzipped): " +
                  escape_for_terminal(why == nullptr ? "no reason given" : why),
              "Give the directory that holds manifest.json, or a .tar.gz of it");
}

/// Of what was decompressed so far.
Outcome<> PackageTarReader::check_amount() const {
  if (unpacked() > limits_.bytes + kHeaderBytes) {
    return fail("INVALID", shown_as_ + " is refused: its tar is over " + megabytes(limits_.bytes + kHeaderBytes));
  }
  if (package::is_bomb(packed_, unpacked())) {
    return fail("INVALID", shown_as_ + " is refused: it unpacks to more than " + std::to_string(package::kMaxRatio) +
                               " times its size, as a bomb does");
  }
  return {};
}

Outcome<std::optional<PackageMember>> PackageTarReader::next() {
  for (;;) {
    const int code = archive_read_next_header2(archive_.get(), entry_.get());
    if (auto amount = check_amount(); !amount) return tl::unexpected(amount.error());
    if (code == ARCHIVE_EOF) return std::nullopt;
    // A warning is about a name's encoding, which member_path judges.
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return unreadable();
    PackageMember member;
    if (auto described = describe(member); !described) return tl::unexpected(described.error());
    if (member.path.empty()) continue;
    if (auto entered = enter(member); !entered) return tl::unexpected(entered.error());
    return member;
  }
}

/// The member that the archive stands at, held against the rules that ask nothing of the others.
Outcome<> PackageTarReader::describe(PackageMember& member) const {
  archive_entry* const entry = entry_.get();
  const std::string name(either(archive_entry_pathname_utf8(entry), archive_entry_pathname(entry)));
  auto path = package::member_path(name, static_cast<std::size_t>(limits_.depth));
  if (!path) return refuse(path.error());
  member.path = std::move(*path);
  if (archive_entry_hardlink_utf8(entry) != nullptr || archive_entry_hardlink(entry) != nullptr) {
    return refuse(name, "is a hard link; make the tar with --hard-dereference");
  }
  const auto type = archive_entry_filetype(entry);
  if (member.path.empty() && type != AE_IFDIR) {
    return refuse(name, "has the name of the package's own directory and is none");
  }
  if (member.path == ".kai" || member.path.starts_with(".kai/")) {
    return refuse(name, "the directory .kai is kAI's own; leave it out of the package");
  }
  if (type == AE_IFDIR) return {};
  if (type == AE_IFLNK) {
    member.type = PackageMember::Type::kSymlink;
    member.target = either(archive_entry_symlink_utf8(entry), archive_entry_symlink(entry));
    return {};
  }
  if (type != AE_IFREG) {
    return refuse(name, "is a device, fifo or socket; a package has files, directories and symlinks only");
  }
  const la_int64_t size = archive_entry_size(entry);
  if (size < 0 || static_cast<std::uint64_t>(size) > limits_.bytes) {
    return refuse(name, "is larger than " + megabytes(limits_.bytes));
  }
  member.type = PackageMember::Type::kFile;
  member.size = static_cast<std::uint64_t>(size);
  member.executable = (archive_entry_perm(entry) & 0100) != 0;
  return {};
}

/// Holds the member against those before it, and counts it.
Outcome<> PackageTarReader::enter(const PackageMember& member) {
  using Type = PackageMember::Type;
  const std::string& path = member.path;
  for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string above = path.substr(0, slash);
    const auto [known, added] = known_.try_emplace(above);
    if (added) path_bytes_ += above.size();
    if (known->second.type != Type::kDirectory) {
      return refuse(path, "is below " + escape_for_terminal(above) + ", which is no directory");
    }
  }
  const auto [known, added] = known_.try_emplace(path, Known{member.type, true});
  // Files may come before the directory that they are in.
  const bool implied = known->second.type == Type::kDirectory && !known->second.named;
  if (!added && (member.type != Type::kDirectory || !implied)) return refuse(path, "is in the tar more than once");
  known->second.named = true;
  bytes_ += member.size;
  path_bytes_ += path.size() + member.target.size();
  if (known_.size() > limits_.entries) {
    return refuse(path, "the package has more than " + std::to_string(limits_.entries) + " files and directories");
  }
  if (bytes_ > limits_.bytes) return refuse(path, "the package is larger than " + megabytes(limits_.bytes));
  if (path_bytes_ > kMaxPathBytes) return refuse(path, "names add up to over " + megabytes(kMaxPathBytes));
  return {};
}

Outcome<> PackageTarReader::read(const std::function<Outcome<>(std::string_view)>& take) {
  std::vector<char> block(kBlock);
  la_int64_t left = archive_entry_size(entry_.get());
  for (;;) {
    const la_ssize_t count = archive_read_data(archive_.get(), block.data(), block.size());
    // ARCHIVE_RETRY too: it comes back for ever on a sparse file whose blocks are out of order.
    if (count < 0) return unreadable();
    if (auto amount = check_amount(); !amount) return amount;
    if (count == 0) break;
    if (count > left) {
      return refuse(either(archive_entry_pathname_utf8(entry_.get()), archive_entry_pathname(entry_.get())),
                    "has more content than its header says");
    }
    left -= count;
    if (auto taken = take(std::string_view(block.data(), static_cast<std::size_t>(count))); !taken) return taken;
  }
  return {};
}

}  // namespace kai
