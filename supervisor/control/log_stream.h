// The log on kaid's standard error: for a person at a terminal, for a program at a pipe, for the journal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/log_line.h"

namespace kai {

enum class StreamFormat {
  kText,     ///< the operator's line
  kColour,   ///< the same with colours
  kJson,     ///< a record a line
  kJournal,  ///< "<6>agent event ...": systemd reads the priority and has a time of its own (sd-daemon(3))
};

/// Journal when systemd says that `fd` is its own (JOURNAL_STREAM); else JSON when asked for or `fd` is no terminal;
/// else colour, or plain text where NO_COLOR is set or TERM is dumb.
StreamFormat choose_stream_format(int fd, bool json_asked);

/// Writes lines to a descriptor that it borrows. A reader that has stopped (Ctrl-S, a full pipe) must not stop the
/// supervisor: it never waits, and what does not fit is lost and counted.
class LogStream {
 public:
  LogStream(int fd, StreamFormat format) : fd_(fd), format_(format) {}

  [[nodiscard]] StreamFormat format() const { return format_; }
  [[nodiscard]] bool open() const { return fd_ >= 0; }

  void write_json(std::string_view json);
  void write_record(const LogRecord& record);

  /// Lines lost since the last call, once the reader takes lines again; 0 while it does not.
  std::uint64_t take_lost();

 private:
  void write_line();
  bool write_ready(std::string_view bytes, std::size_t& written);

  int fd_;
  StreamFormat format_;
  std::string line_;   // kept for its memory
  bool torn_ = false;  // the reader got only a part of the last line
  std::uint64_t lost_ = 0;
};

}  // namespace kai
