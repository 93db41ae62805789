// The file of `kaictl memory export` and `import`: an agent's memory at one moment, a JSON document a line.
//
//   {"format":"kai-memory/1","agentId":"…","exportedAt":"…","backend":"sqlite"}
//   {"key":"…","value":JSON,"version":3,"ttlMs":86000}           or valueBase64 of bytes; no ttlMs: it never expires
//   {"database":{"name":"…","version":2}}                        IndexedDB: stores below their database,
//   {"store":{"id":1,"name":"…","keyPath":JSON,"autoIncrement":false,"nextKey":1}}
//   {"index":{"id":2,"name":"…","keyPath":JSON,"unique":false,"multiEntry":false}}    indexes below their store,
//   {"record":{"key":"BASE64","value":"BASE64","indexKeys":[[2,"BASE64"]]}}           records after its indexes
//   {"entries":2,"checksum":"…"}                                 keys and records; SHA-256 of all lines before
//
// JSON stands as the agent wrote it, byte for byte; where that does not go on a line (it has an LF, or is as deep as is
// allowed), value is valueJsonBase64, and keyPath keyPathJsonBase64. A name that is no UTF-8, or longer than 4 KiB, is
// nameBase64.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai {

inline constexpr std::size_t kMaxDumpLineBytes = 4 << 20;

struct DumpHeader {
  std::string agent_id;
  std::string exported_at;  ///< UTC, milliseconds
  std::string backend;
};
struct DumpEntry {
  std::string key, value;
  bool binary = false;
  std::uint64_t version = 0;            ///< from 1
  std::optional<std::uint64_t> ttl_ms;  ///< what is left of it, from 1; nullopt: never
};
struct IdbDumpDatabase {
  std::string name;
  std::uint64_t version = 0;
};
struct IdbDumpStore {
  std::uint32_t id = 0;
  std::string name, key_path_json;
  bool auto_increment = false;
  std::uint64_t next_key = 0;
};
struct IdbDumpIndex {
  std::uint32_t id = 0;
  std::string name, key_path_json;
  bool unique = false, multi_entry = false;
};
struct IdbDumpRecord {
  std::string key, value;
  std::vector<std::pair<std::uint32_t, std::string>> index_keys;  ///< index, key
};
using DumpLine = std::variant<DumpEntry, IdbDumpDatabase, IdbDumpStore, IdbDumpIndex, IdbDumpRecord>;

struct DumpTotal {
  std::uint64_t entries = 0;  ///< keys and IndexedDB's records
  std::uint64_t bytes = 0;    ///< of the file
};

/// Writes at the file's own position, through a buffer. After an error the file is of no use.
class MemoryExportWriter {
 public:
  static Result<MemoryExportWriter> begin(Fd file, const DumpHeader& header);
  MemoryExportWriter(MemoryExportWriter&&) noexcept;
  MemoryExportWriter& operator=(MemoryExportWriter&&) noexcept;
  ~MemoryExportWriter();

  Result<> add(const DumpLine& line);
  /// The last line; nothing is in the file for sure before. It is not synced.
  Result<DumpTotal> finish();

 private:
  struct State;
  explicit MemoryExportWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Believes nothing: a file comes from an operator, and what is in it from an agent. Memory is bounded by the longest
/// line. What a line means beside others (an id that is there twice, a record's index) is for the store to check, and
/// whether it fits the quota.
class MemoryExportReader {
 public:
  /// Reads a regular file once from its own position to its end, and checks each line, their number and the checksum.
  static Result<MemoryExportReader> open(Fd file);
  MemoryExportReader(MemoryExportReader&&) noexcept;
  MemoryExportReader& operator=(MemoryExportReader&&) noexcept;
  ~MemoryExportReader();

  [[nodiscard]] const DumpHeader& header() const;
  [[nodiscard]] DumpTotal total() const;
  /// Reads it a second time; nullopt after the last one. A file that is another one by now is an error at its end: what
  /// was taken from it must not stay.
  Result<std::optional<DumpLine>> next();

 private:
  struct State;
  explicit MemoryExportReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kai
