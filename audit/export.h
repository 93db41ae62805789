// The export file: one JSON document, and one record a line (docs/audit.md):
//
//   {"agentId":"…","exportedAt":"…","checkpoint":"NOTE","keyRotations":["RECORD",…],"records":[
//   RECORD
//   ,
//   RECORD
//   ],"checksum":"…"}
//
// A RECORD is a listed one (record.h): stored bytes and `signature`. The comma stands by itself, so that a record's
// line is a JSON document too. All signatures end in the same note, which is `checkpoint`.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "audit/checkpoint.h"
#include "audit/report.h"

namespace kai::audit {

/// `agentId` of an export of the whole log. No agent's id has such a character.
inline constexpr std::string_view kWholeLog = "*";
inline constexpr std::size_t kMaxHeader = 4 << 20;
inline constexpr std::size_t kMaxExportLine = (64 << 10) + (32 << 10);

struct ExportHeader {
  std::string agent_id;
  std::string exported_at;  ///< the timestamp of the last record, kai.exported
  std::string checkpoint;
  std::vector<std::string> key_rotations;  ///< listed records, each below the first checkpoint over it
};
/// Lines without their LF.
std::string format_export_header(const ExportHeader& header);
inline constexpr std::string_view kExportSeparator = ",";
std::string format_export_footer(std::string_view checksum);

/// SHA-256 of the record lines, each with its LF.
class ExportSum {
 public:
  ExportSum();
  ~ExportSum();
  ExportSum(ExportSum&&) noexcept;
  void add(std::string_view record_line);
  /// Lower-case hex; ends it.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Checks such a file with nothing but a public key, line by line. Whatever the lines are, it takes bounded memory.
class ExportCheck {
 public:
  /// `key`: the newest of the log, or one that it had before. `remembered`: a note kept elsewhere, or empty.
  ExportCheck(const PublicKey& key, std::string_view remembered);

  /// Without its LF. false: nothing after it can be judged.
  bool line(std::string_view text);
  Report finish();

 private:
  enum class At { kHeader, kFirstRecord, kRecord, kSeparator, kEnd, kBroken };

  bool broken(std::string problem);
  bool header(std::string_view text);
  bool take_keys(const std::vector<std::string>& rotations, const Checkpoint& head);
  bool footer(std::string_view text);
  void record(std::string_view line);
  void check_order(std::uint64_t seq, std::uint64_t agent_seq, std::string_view agent, const Finding& at);
  void remember(const Hash& leaf);
  void compare_remembered();

  PublicKey key_;  // in force at the checkpoint, once the rotations were followed
  std::vector<PublicKey> keys_;
  std::string remembered_note_;
  At at_ = At::kHeader;
  std::uint64_t line_number_ = 0;
  Report report_;
  ExportHeader header_;
  Checkpoint head_;
  ExportSum sum_;
  std::uint64_t last_seq_ = 0;
  std::map<std::string, std::uint64_t, std::less<>> agent_seqs_;
  Frontier tree_;  // of an export of the whole log
  std::string remembered_root_;
  std::uint64_t remembered_size_ = 0;
  bool closed_ = false;  // the record before was the closing one
};

}  // namespace kai::audit
