// What an agent writes to its standard output and error, and logs through its SDK, on its way into the log: cut into
// lines, held to its budget. 100 MB of it must cost the supervisor next to nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "supervisor/control/log.h"

namespace kai {

inline constexpr std::size_t kMaxOutputLine = 8192;  ///< bytes; a longer line comes in pieces

/// Bytes in any pieces → lines. LF or CR LF ends a line; a CR elsewhere stays. A line is given whole or skipped whole
/// (a piece of an overlong one likewise).
class LineSplitter {
 public:
  /// One line without its end. `continues`: it was too long, and the next call has the rest. The view holds during the
  /// call. false: this line was not wanted, nor is any other of the same bytes.
  using Sink = std::function<bool(std::string_view line, bool continues)>;

  explicit LineSplitter(std::size_t limit = kMaxOutputLine) : limit_(limit) {}

  /// Returns how many lines the sink did not want: the one that it refused, and those that were only counted (memchr).
  std::uint64_t feed(std::string_view bytes, const Sink& sink);
  /// At end of file: the rest that no line feed ended, if there is one. Returns 1 if the sink did not want it.
  std::uint64_t finish(const Sink& sink);

 private:
  bool give(std::string_view line, bool continues, const Sink& sink);
  std::uint64_t skip(std::string_view bytes);

  std::size_t limit_;
  std::string pending_;    // the beginning of a line whose end has not come
  bool skipping_ = false;  // inside a line that was not wanted; it has been counted
};

/// A token bucket of lines: `per_second` a second, `at_once` of them (0: as many) in a burst. Time is monotonic_ms().
class LogBudget {
 public:
  LogBudget(std::uint32_t per_second, std::int64_t now_ms, std::uint32_t at_once = 0)
      : per_second_(per_second),
        at_once_(at_once != 0 ? at_once : per_second),
        tokens_(at_once_),
        filled_at_(now_ms),
        reported_at_(now_ms) {}

  /// Whether one line more may be logged now; takes its token.
  bool take(std::int64_t now_ms);
  void drop(std::uint64_t lines) { dropped_ += lines; }
  /// Lines dropped since the last report, at most once a second but for the one `at_end`. nullopt: nothing to say.
  std::optional<std::uint64_t> report(std::int64_t now_ms, bool at_end = false);
  [[nodiscard]] bool owes_report() const { return dropped_ > 0; }
  [[nodiscard]] std::uint32_t per_second() const { return per_second_; }

 private:
  std::uint32_t per_second_, at_once_;
  double tokens_;
  std::int64_t filled_at_;
  std::int64_t reported_at_;
  std::uint64_t dropped_ = 0;
};

/// All that one instance of an agent says. Its budget (policy limits.logLines) holds for the sum.
class AgentOutput {
 public:
  enum class Stream { kStdout, kStderr };

  AgentOutput(Log& log, std::string agent, std::uint32_t lines_per_second, std::int64_t now_ms);

  /// Bytes as they came from the pipe: records of level info, event stdout or stderr.
  void feed(Stream stream, std::string_view bytes, std::int64_t now_ms);
  /// A record by the SDK's log (klp AgentLog): event log. `fields_json` is the agent's own text: it becomes one string.
  void log(LogLevel level, std::string_view message, std::string_view fields_json, std::int64_t now_ms);

  /// Writes `dropped N lines (log limit 200/s)` (level warn, event log.dropped) when a second has gone by since the
  /// last. feed() and log() do so too; a timer is needed only while owes_report(), for an agent that fell silent.
  void tick(std::int64_t now_ms);
  [[nodiscard]] bool owes_report() const { return budget_.owes_report(); }
  /// When both streams are at their end: lines without a line feed, and what was dropped.
  void finish(std::int64_t now_ms);

 private:
  bool write_line(Stream stream, std::string_view line, bool continues, std::int64_t now_ms);
  void report(std::int64_t now_ms, bool at_end);

  Log& log_;
  std::string agent_;
  LogBudget budget_;
  LineSplitter stdout_;
  LineSplitter stderr_;
};

}  // namespace kai
