#include "supervisor/control/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::size_t kBatchBytes = 4 << 20;

std::string file_name(unsigned number) {
  return number == 0 ? "kaid.log" : "kaid." + std::to_string(number) + ".log";
}

/// Where the last whole line of a file ends: after its last line feed.
Result<std::uint64_t> end_of_lines(int fd, std::uint64_t size) {
  std::string block(kReadBytes, '\0');
  while (size > 0) {
    const std::size_t wanted = std::min<std::uint64_t>(block.size(), size);
    const ssize_t count = pread(fd, block.data(), wanted, static_cast<off_t>(size - wanted));
    if (count != static_cast<ssize_t>(wanted)) return errno_failure("read", file_name(0));
    const std::size_t line_feed = std::string_view(block.data(), wanted).rfind('\n');
    if (line_feed != std::string_view::npos) return size - wanted + line_feed + 1;
    size -= wanted;
  }
  return 0;
}

}  // namespace

Result<LogFile> LogFile::open(const std::string& directory, std::size_t file_bytes, unsigned files) {
  if (files == 0 || files > kMaxLogFiles) return failure("log", "the number of files is 1 to 100");
  if (mkdir(directory.c_str(), 0750) < 0 && errno != EEXIST) return errno_failure("make the log directory", directory);
  LogFile log;
  log.directory_ = Fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!log.directory_) return errno_failure("open the log directory", directory);
  log.file_bytes_ = file_bytes;
  log.files_ = files;
  // Those of an earlier run that was allowed more.
  for (unsigned number = files; number < kMaxLogFiles; ++number) {
    unlinkat(log.directory_.get(), file_name(number).c_str(), 0);
  }
  if (auto opened = log.open_current(); !opened) return tl::unexpected(opened.error());
  return log;
}

Result<> LogFile::open_current() {
  const std::string name = file_name(0);
  Fd file(openat(directory_.get(), name.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640));
  if (!file) return errno_failure("open", name);
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return errno_failure("stat", name);
  if (!S_ISREG(status.st_mode)) return failure("open", name + ": is not a regular file");
  const auto end = end_of_lines(file.get(), static_cast<std::uint64_t>(status.st_size));
  if (!end) return tl::unexpected(end.error());
  // A line that a crash or a full disk cut short would run into the next one.
  if (static_cast<off_t>(*end) != status.st_size && ftruncate(file.get(), static_cast<off_t>(*end)) < 0) {
    return errno_failure("truncate", name);
  }
  file_ = std::move(file);
  size_ = *end;
  return {};
}

Result<> LogFile::append(std::string_view line) {
  if (!file_) {
    if (auto opened = open_current(); !opened) return opened;
  }
  if (size_ > 0 && size_ + line.size() + 1 > file_bytes_) {
    if (auto rotated = rotate(); !rotated) return rotated;
  }
  char line_feed = '\n';
  const std::array<iovec, 2> pieces = {iovec{const_cast<char*>(line.data()), line.size()}, iovec{&line_feed, 1}};
  ssize_t count = 0;
  do {
    count = writev(file_.get(), pieces.data(), pieces.size());
  } while (count < 0 && errno == EINTR);
  if (count == static_cast<ssize_t>(line.size() + 1)) {
    size_ += line.size() + 1;
    return {};
  }
  if (count >= 0) errno = ENOSPC;  // what a short write to a regular file means
  auto error = errno_failure("write", file_name(0));
  file_.reset();
  return error;
}

Result<> LogFile::rotate() {
  file_.reset();
  if (files_ == 1 && unlinkat(directory_.get(), file_name(0).c_str(), 0) < 0)
    return errno_failure("remove", file_name(0));
  for (unsigned number = files_ - 1; number > 0; --number) {
    const std::string from = file_name(number - 1);
    const std::string to = file_name(number);
    if (renameat(directory_.get(), from.c_str(), directory_.get(), to.c_str()) < 0 && errno != ENOENT) {
      return errno_failure("rename", from);
    }
  }
  return open_current();
}

Result<LogReader> LogReader::open(const std::string& directory, const LogFilter& filter) {
  LogReader reader;
  // Times compare as text only within four-digit years.
  constexpr std::int64_t kYear10000 = 253'402'300'800'000;
  reader.since_ = iso_time(std::clamp<std::int64_t>(filter.since_unix_ms, 0, kYear10000 - 1));
  reader.agent_mark_ = R"(","agent":)";
  if (!filter.agent.empty()) {
    append_json_string(reader.agent_mark_, filter.agent);
    reader.agent_mark_ += ',';
  }
  const Fd folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder && errno != ENOENT) return errno_failure("open the log directory", directory);
  for (unsigned number = kMaxLogFiles; folder && number-- > 0;) {
    File file;
    file.fd = Fd(openat(folder.get(), file_name(number).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file.fd && errno == ENOENT) continue;
    struct stat status {};
    if (!file.fd || fstat(file.fd.get(), &status) < 0) return errno_failure("open", file_name(number));
    if (!S_ISREG(status.st_mode)) continue;
    file.size = static_cast<std::uint64_t>(status.st_size);
    reader.files_.push_back(std::move(file));
  }
  if (filter.last) {
    if (auto found = reader.find_last(*filter.last); !found) return tl::unexpected(found.error());
  }
  return reader;
}

Result<LogReader::Batch> LogReader::next(std::size_t limit) {
  Batch batch;
  for (std::size_t scanned = 0; scanned < kBatchBytes && batch.records.size() < limit && !batch.done;) {
    if (file_ >= files_.size()) {
      batch.done = true;
      break;
    }
    std::string_view line;
    const auto more = read_line(line);
    if (!more) return tl::unexpected(more.error());
    if (!*more) {
      seek(file_ + 1, 0);
      continue;
    }
    scanned += line.size() + 1;
    if (matches(line)) batch.records.emplace_back(line);
  }
  return batch;
}

/// The next whole line of the file being read; false: there is none. A line over kMaxLogRecord comes in pieces, of
/// which none looks like a record.
Result<bool> LogReader::read_line(std::string_view& line) {
  std::size_t searched = start_;
  for (;;) {
    const std::size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos || buffer_.size() - start_ > kMaxLogRecord) {
      const std::size_t length = (end == std::string::npos ? buffer_.size() : end) - start_;
      line = std::string_view(buffer_).substr(start_, length);
      const std::size_t taken = length + (end == std::string::npos ? 0 : 1);
      start_ += taken;
      offset_ += taken;
      return true;
    }
    buffer_.erase(0, start_);
    start_ = 0;
    const std::size_t held = buffer_.size();
    const std::uint64_t left = files_[file_].size - std::min(files_[file_].size, offset_ + held);
    if (left == 0) return false;
    searched = held;
    const std::size_t wanted = std::min<std::uint64_t>(kReadBytes, left);
    buffer_.resize(held + wanted);
    const ssize_t count =
        pread(files_[file_].fd.get(), buffer_.data() + held, wanted, static_cast<off_t>(offset_ + held));
    if (count < 0) return errno_failure("read the log");
    buffer_.resize(held + static_cast<std::size_t>(count));
    if (count == 0) return false;
  }
}

Result<> LogReader::find_last(std::size_t count) {
  std::size_t first_file = files_.size();
  std::uint64_t first_offset = 0;
  for (std::size_t at = files_.size(); at-- > 0 && count > 0;) {
    std::deque<std::uint64_t> matching;
    seek(at, 0);
    for (;;) {
      const std::uint64_t begin = offset_;
      std::string_view line;
      const auto more = read_line(line);
      if (!more) return tl::unexpected(more.error());
      if (!*more) break;
      if (!matches(line)) continue;
      matching.push_back(begin);
      if (matching.size() > count) matching.pop_front();
    }
    if (matching.empty()) continue;
    first_file = at;
    first_offset = matching.front();
    count -= matching.size();
  }
  seek(first_file, first_offset);
  return {};
}

void LogReader::seek(std::size_t file, std::uint64_t offset) {
  file_ = file;
  offset_ = offset;
  buffer_.clear();
  start_ = 0;
}

bool LogReader::matches(std::string_view line) const {
  constexpr std::string_view kTime = R"({"time":")";
  constexpr std::string_view kLevel = R"(","level":")";
  constexpr std::size_t kTimeLength = 24;
  if (!line.starts_with(kTime) || !line.ends_with('}')) return false;
  line.remove_prefix(kTime.size());
  const std::string_view time = line.substr(0, kTimeLength);
  if (time.size() != kTimeLength || time < since_) return false;
  line.remove_prefix(kTimeLength);
  if (!line.starts_with(kLevel)) return false;
  line.remove_prefix(kLevel.size());
  const std::size_t level_end = line.find('"');
  return level_end != std::string_view::npos && line.substr(level_end).starts_with(agent_mark_);
}

}  // namespace kai
