// The file of a snapshot (docs/snapshot.md): a tar (GNU format, not compressed) that tar(1) can look into.
//
//   snapshot.json   what it is, first: SnapshotHeader
//   package/…       the package as it was registered, without the .kai that kaid compiled
//   memory.jsonl    as `kaictl memory export` writes it
//   state.json      what saveState gave; absent: nothing
//   policy.yaml     the effective policy, for reading
//   SHA256SUMS      of every file before it, last: sha256sum(1) checks it
//
// Everything here blocks, and is for a worker thread. What the file says is not believed: it comes from an operator,
// and may be damaged or made by somebody else. An Error with errno 0 is the file's fault, any other the machine's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/control/packages.h"

namespace kai {

inline constexpr std::size_t kMaxSnapshotState = 1 << 20;   ///< bytes of state.json: what one frame to a host carries
inline constexpr std::size_t kMaxSnapshotPolicy = 4 << 20;  ///< of policy.yaml

struct SnapshotHeader {
  std::string id, version;
  std::string package;     ///< the package's name in the store that it came from
  std::string signer;      ///< RegisteredVersion::signer
  std::string created_at;  ///< UTC, milliseconds
  std::string kai;         ///< version of the kaid that wrote it
  std::string policy;      ///< name of the one that held
  bool has_state = false;
  std::string memory_type, memory_backend;
  std::uint64_t memory_entries = 0;
};

struct SnapshotContent {
  SnapshotHeader header;
  Fd package;          ///< directory in the package store
  Fd memory;           ///< a regular file, read from its start
  std::string state;   ///< JSON, where header.has_state
  std::string policy;  ///< text
};
/// At the file's own position; on the disk when it returns. How many bytes it has.
Result<std::uint64_t> write_snapshot_file(int file, const SnapshotContent& content);

struct SnapshotLimits {
  PackageLimits package;
  std::uint64_t memory_bytes = 4ULL << 30;  ///< of memory.jsonl
};
struct SnapshotParts {
  SnapshotHeader header;
  Fd package_tar;  ///< the package alone, as PackageStore::stage takes it
  Fd memory;       ///< at its start
  std::string state;
  std::string policy;
};
/// From the file's start. `scratch`: a directory for the parts, which are files without a name. Whatever comes back was
/// held against SHA256SUMS; names and symlinks in the package are left to PackageStore::stage.
Result<SnapshotParts> read_snapshot_file(int file, int scratch, const SnapshotLimits& limits = {});

/// STATE/backups.
Result<Fd> open_backups(const std::string& state_dir);
/// A new file in `directory` that has no name any more, for reading and writing.
Result<Fd> scratch_file(int directory);

std::string to_json(const SnapshotHeader& header);
Result<SnapshotHeader> parse_snapshot_header(std::string_view json);

}  // namespace kai
