// Reads a package's tar, which may be a stranger's: member by member, each checked by the rules that kaid has for
// packages, nothing unpacked on the disk. A failure (INVALID) names the member and says what is wrong with it.
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kaictl/failure.h"
#include "kaictl/package_tar.h"

namespace kai {

struct PackageMember {
  enum class Type { kDirectory, kFile, kSymlink } type = Type::kDirectory;
  std::string path;  ///< below the tar's root, without a leading or trailing slash
  bool executable = false;
  std::uint64_t size = 0;  ///< of a file
  std::string target;      ///< of a symlink
};

class PackageTarReader {
 public:
  /// `tar` (maybe gzipped; a regular file or memfd, borrowed) is read from its beginning. `shown_as`: for messages.
  static Outcome<PackageTarReader> open(int tar, std::string shown_as, const PackageLimits& limits = {});

  /// nullopt: there are no more. The root itself is passed over.
  Outcome<std::optional<PackageMember>> next();
  /// The content of the file that next() gave last, in pieces; what is not read is skipped.
  Outcome<> read(const std::function<Outcome<>(std::string_view)>& take);

  /// Bytes of the tar so far, decompressed.
  [[nodiscard]] std::uint64_t unpacked() const {
    return static_cast<std::uint64_t>(archive_filter_bytes(archive_.get(), 0));
  }

  /// A failure of this package.
  [[nodiscard]] tl::unexpected<Failure> refuse(const Error& why) const;
  [[nodiscard]] tl::unexpected<Failure> refuse(std::string_view member, std::string_view why) const;

 private:
  struct ArchiveDeleter {
    void operator()(archive* reader) const { archive_read_free(reader); }
  };
  struct EntryDeleter {
    void operator()(archive_entry* entry) const { archive_entry_free(entry); }
  };
  PackageTarReader(std::string shown_as, const PackageLimits& limits);
  [[nodiscard]] tl::unexpected<Failure> unreadable() const;
  Outcome<> check_amount() const;
  Outcome<> enter(const PackageMember& member);
  Outcome<> describe(PackageMember& member) const;

  std::string shown_as_;
  PackageLimits limits_;
  std::unique_ptr<archive, ArchiveDeleter> archive_;
  std::unique_ptr<archive_entry, EntryDeleter> entry_;
  /// What is known of each path; `named`: a member of its own named it, and not only what is below it.
  struct Known {
    PackageMember::Type type = PackageMember::Type::kDirectory;
    bool named = false;
  };
  std::map<std::string, Known, std::less<>> known_;
  std::uint64_t packed_ = 0;      // bytes of the archive
  std::uint64_t bytes_ = 0;       // of all files
  std::uint64_t path_bytes_ = 0;  // of all names and links
};

}  // namespace kai
