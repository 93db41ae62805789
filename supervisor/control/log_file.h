// The rotated files of the log: DIRECTORY/kaid.log, and older ones kaid.1.log, kaid.2.log, ... One JSON record a line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai {

inline constexpr unsigned kMaxLogFiles = 100;
inline constexpr std::size_t kMaxLogRecord = 1 << 20;  ///< bytes of a line in a file

/// Appends lines, and never holds more than `files` times `file_bytes` (and one line) on the disk. Each line is one
/// write(2), so that it survives a kill -9; a machine that loses power may lose the last ones (the audit is the record
/// that waits for the disk, not the log).
class LogFile {
 public:
  /// Makes the directory (0750) where it is missing; files are 0640. `files` is 1 to kMaxLogFiles.
  static Result<LogFile> open(const std::string& directory, std::size_t file_bytes, unsigned files);

  /// `line` without its line feed. An error means that this line is not in the file; the next may be.
  Result<> append(std::string_view line);

 private:
  Result<> open_current();
  Result<> rotate();

  Fd directory_;
  Fd file_;  // none after a failed write: opening it again cuts the torn line off
  std::size_t file_bytes_ = 0;
  unsigned files_ = 0;
  std::size_t size_ = 0;
};

struct LogFilter {
  std::string agent;                ///< empty: all
  std::int64_t since_unix_ms = 0;   ///< records of that time or later
  std::optional<std::size_t> last;  ///< the last N that match
};

/// Reads what was in the files when it was opened, oldest first, in pieces that the caller's queue can take. Memory is
/// bounded by one line and 8 bytes for each of the last N in one file. Lines that are no record of ours (a crash tore
/// them, a person edited them) are left out.
class LogReader {
 public:
  /// A directory or files that are not there have no records. With `last` it looks through the files from the newest,
  /// as far as it must: some milliseconds each.
  static Result<LogReader> open(const std::string& directory, const LogFilter& filter);

  struct Batch {
    std::vector<std::string> records;  ///< as JSON, without line feeds; may be empty while more follow
    bool done = false;                 ///< there are no more
  };
  /// At most `limit` records, and what some 4 MB of log hold: a turn of the event loop, not a long stop.
  Result<Batch> next(std::size_t limit);

 private:
  struct File {
    Fd fd;
    std::uint64_t size = 0;  // when it was opened
  };

  Result<bool> read_line(std::string_view& line);
  Result<> find_last(std::size_t count);
  [[nodiscard]] bool matches(std::string_view line) const;
  void seek(std::size_t file, std::uint64_t offset);

  std::string agent_mark_;    // how a wanted record goes on after its level
  std::string since_;         // as it stands in records, where times compare as text
  std::vector<File> files_;   // oldest first
  std::size_t file_ = 0;      // being read
  std::uint64_t offset_ = 0;  // in it, of what buffer_ holds from start_ on
  std::string buffer_;
  std::size_t start_ = 0;  // of what read_line() has not given out yet
};

}  // namespace kai
