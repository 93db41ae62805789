// The one structured log of the product. A record is {"time","level","agent","event","message", + fields}, and goes to
// rotated JSON-lines files, to kaid's standard error, and to whoever follows. Single-threaded, as control is.
//
// What agents wrote may be in any value. In JSON it is escaped so that every line is valid JSON in UTF-8 and reads back
// as it was (bytes that are not UTF-8 become the text \xNN), and so that even `cat kaid.log` drives no terminal. In
// text see base/log_line.h.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/log_line.h"
#include "base/result.h"
#include "supervisor/control/log_file.h"
#include "supervisor/control/log_stream.h"

namespace kai {

/// A further key of a record. Views: they must hold until write() returns.
struct LogField {
  using Value = std::variant<std::string_view, std::int64_t, double, bool>;

  LogField(std::string_view name, std::string_view text) : key(name), value(text) {}
  LogField(std::string_view name, const char* text) : key(name), value(std::string_view(text)) {}
  LogField(std::string_view name, const std::string& text) : key(name), value(std::string_view(text)) {}
  LogField(std::string_view name, bool yes) : key(name), value(yes) {}
  LogField(std::string_view name, double number) : key(name), value(number) {}
  template <std::integral Number>
  LogField(std::string_view name, Number number) : key(name), value(static_cast<std::int64_t>(number)) {}

  std::string_view key;  ///< time, level, agent, event and message get a `_` at their end: those are the record's own
  Value value;
};

/// Message (where there is one) and fields as one JSON object, escaped as a record of the log is.
std::string fields_json(std::string_view message, std::span<const LogField> fields);

struct LogOptions {
  LogLevel level = LogLevel::kInfo;                  ///< what is below is written nowhere
  std::string directory;                             ///< of kaid.log and its older files; empty: no files
  std::size_t file_bytes = 10 << 20;                 ///< of each file
  unsigned files = 5;                                ///< kaid.log, kaid.1.log (the next older), ... kaid.4.log
  int stream = 2;                                    ///< borrowed; -1: none
  StreamFormat stream_format = StreamFormat::kText;  ///< choose_stream_format() decides
};

/// What an observer gets; views that hold during the call.
struct LogEvent {
  std::string_view agent;
  std::int64_t unix_ms = 0;
  std::string_view json;  ///< the record as it stands in the file, without its line feed
};

class Log {
 public:
  using Observer = std::function<void(const LogEvent&)>;
  using ObserverId = std::uint64_t;

  /// Owned by main, passed by reference.
  static Result<std::unique_ptr<Log>> open(const LogOptions& options);

  /// `agent` empty means kaid itself. Never fails and never waits for a reader: what a full disk or a stopped terminal
  /// does not take is counted, and the count is a record (event log.lost) as soon as it takes records again.
  void write(LogLevel level, std::string_view agent, std::string_view event, std::string_view message,
             std::span<const LogField> fields = {});
  void write(LogLevel level, std::string_view agent, std::string_view event, std::string_view message,
             std::initializer_list<LogField> fields);

  void set_level(LogLevel level) { level_ = level; }
  [[nodiscard]] bool enabled(LogLevel level) const { return level >= level_; }

  /// Called with each record from now on, in order. It may add and remove observers, itself too; it must not write().
  /// What a LogReader that was opened before in the same turn of the loop gives, and what the observer gets, join
  /// without a gap and without an overlap.
  ObserverId add_observer(Observer observer);
  void remove_observer(ObserverId id);

 private:
  struct Entry {
    std::int64_t unix_ms;
    LogLevel level;
    std::string_view agent, event, message;
    std::span<const LogField> fields;
  };

  explicit Log(const LogOptions& options);
  void format_json(const Entry& entry);
  void show(const Entry& entry);
  bool emit(const Entry& entry);
  void notify(const Entry& entry);
  void report_lost_lines();
  void report_file(bool written);

  LogLevel level_;
  std::unique_ptr<LogFile> file_;
  std::uint64_t lost_in_file_ = 0;
  std::string file_error_;
  LogStream stream_;
  std::map<ObserverId, Observer> observers_;
  ObserverId last_observer_ = 0;
  std::string json_;  // of the record being written; kept for its memory
};

}  // namespace kai
