// What is in a package, as far as its check sums and its signature go.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/fd.h"
#include "kaictl/failure.h"
#include "package/sums.h"

namespace kai {

struct PackageContents {
  std::string id, version;               ///< as manifest.json has them; fit for a file's name
  package::Sums entries;                 ///< every regular file but the next two, every symlink
  std::optional<std::string> sums;       ///< text of SHA256SUMS
  std::optional<std::string> signature;  ///< text of SHA256SUMS.minisig
  std::string top;                       ///< the tar's one top directory, which is the root then; empty: none
  std::uint64_t unpacked = 0;            ///< bytes of the tar, decompressed
};

/// Reads the whole tar and holds it to the package format; nothing is unpacked. `tar` is borrowed, `shown_as` for
/// messages.
Outcome<PackageContents> read_contents(int tar, const std::string& shown_as);

/// The package's own files by name: SHA256SUMS, SHA256SUMS.minisig.
using OwnFiles = std::map<std::string, std::string>;

/// Writes the package in `tar`, which read_contents has accepted as `contents`, as .tar.gz to `out`, with `own` in the
/// place of its own files. The same bytes for the same files: owner 0, modes 0644 and 0755, and every time `mtime`.
Outcome<> write_archive(int tar, const PackageContents& contents, const OwnFiles& own, std::int64_t mtime, int out);

}  // namespace kai
