#include "supervisor/control/log_stream.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace kai {
namespace {

// A pipe that polls writable takes PIPE_BUF bytes without waiting (pipe(7)).
constexpr std::size_t kPiece = 4096;

// syslog(3) priorities of debug, info, warn, error.
constexpr std::array<std::string_view, 4> kPriorities = {"<7>", "<6>", "<4>", "<3>"};

bool is_journal(int fd) {
  const char* named = std::getenv("JOURNAL_STREAM");  // "device:inode" of the stream that systemd made
  struct stat status {};
  if (named == nullptr || fstat(fd, &status) < 0) return false;
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) == named;
}

}  // namespace

StreamFormat choose_stream_format(int fd, bool json_asked) {
  if (is_journal(fd)) return StreamFormat::kJournal;
  if (json_asked || isatty(fd) == 0) return StreamFormat::kJson;
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool plain =
      (no_colour != nullptr && *no_colour != '\0') || term == nullptr || std::string_view(term) == "dumb";
  return plain ? StreamFormat::kText : StreamFormat::kColour;
}

void LogStream::write_json(std::string_view json) {
  line_ = json;
  write_line();
}

void LogStream::write_record(const LogRecord& record) {
  line_.clear();
  if (format_ == StreamFormat::kJournal) line_ = kPriorities[static_cast<std::size_t>(record.level)];
  append_log_line(line_, record, format_ == StreamFormat::kColour);
  write_line();
}

void LogStream::write_line() {
  if (torn_) line_.insert(0, 1, '\n');
  line_ += '\n';
  std::size_t written = 0;
  if (write_ready(line_, written)) {
    torn_ = false;
  } else {
    torn_ = torn_ || written > 0;
    ++lost_;
  }
}

bool LogStream::write_ready(std::string_view bytes, std::size_t& written) {
  while (written < bytes.size()) {
    pollfd ready{fd_, POLLOUT, 0};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return false;
    const ssize_t count = write(fd_, bytes.data() + written, std::min(kPiece, bytes.size() - written));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    written += static_cast<std::size_t>(count);
  }
  return true;
}

std::uint64_t LogStream::take_lost() {
  pollfd ready{fd_, POLLOUT, 0};
  if (lost_ == 0 || poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return 0;
  return std::exchange(lost_, 0);
}

}  // namespace kai
