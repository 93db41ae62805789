#include "supervisor/control/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

using nlohmann::json;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    REQUIRE(end != std::string::npos);  // every line is ended
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::vector<std::string> lines_of_file(const std::string& path) {
  return lines_of(read_file(path, 64 << 20).value());
}

std::unique_ptr<Log> open_log(const LogOptions& options) {
  auto log = Log::open(options);
  REQUIRE(log);
  return std::move(*log);
}

LogOptions to_files(const TempDirectory& directory) {
  LogOptions options;
  options.directory = directory / "log";
  options.stream = -1;
  return options;
}

/// A pipe whose reader is this test.
struct Pipe {
  Pipe() : ends(make_pipe(O_NONBLOCK).value()) {}
  LogOptions options(StreamFormat format) const {
    LogOptions made;
    made.stream = ends.second.get();
    made.stream_format = format;
    return made;
  }
  std::string drain() const {
    std::string text;
    std::array<char, 65536> buffer;
    for (ssize_t count = 0; (count = read(ends.first.get(), buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return text;
  }
  std::pair<Fd, Fd> ends;
};

TEST_CASE("a record has the shape of contracts.md") {
  const TempDirectory directory;
  const auto log = open_log(to_files(directory));
  log->write(LogLevel::kInfo, "calendarAgent", "started", "ready",
             {{"pid", 812}, {"cpu", 0.5}, {"ok", true}, {"how", "a"}});
  log->write(LogLevel::kWarn, "", "reload", "");
  const auto lines = lines_of_file(directory / "log/kaid.log");
  REQUIRE(lines.size() == 2);
  const json record = json::parse(lines[0]);
  CHECK(record["time"].get<std::string>().size() == iso_now().size());
  CHECK(record["level"] == "info");
  CHECK(record["agent"] == "calendarAgent");
  CHECK(record["event"] == "started");
  CHECK(record["message"] == "ready");
  CHECK(record["pid"] == 812);
  CHECK(record["cpu"] == 0.5);
  CHECK(record["ok"] == true);
  CHECK(record["how"] == "a");
  CHECK(json::parse(lines[1])["agent"] == "kaid");
}

TEST_CASE("a field cannot take the place of the record's own keys") {
  const TempDirectory directory;
  const auto log = open_log(to_files(directory));
  log->write(LogLevel::kInfo, "a", "e", "m", {{"level", "error"}, {"time", "never"}});
  const json record = json::parse(lines_of_file(directory / "log/kaid.log").at(0));
  CHECK(record["level"] == "info");
  CHECK(record["level_"] == "error");
  CHECK(record["time_"] == "never");
}

TEST_CASE("levels below the set one are written nowhere") {
  const TempDirectory directory;
  const auto log = open_log(to_files(directory));
  log->write(LogLevel::kDebug, "a", "e", "hidden");
  log->set_level(LogLevel::kDebug);
  log->write(LogLevel::kDebug, "a", "e", "shown");
  const auto lines = lines_of_file(directory / "log/kaid.log");
  REQUIRE(lines.size() == 1);
  CHECK(json::parse(lines[0])["message"] == "shown");
}

TEST_CASE("whatever an agent wrote, JSON stays one line of valid JSON and reads back") {
  const TempDirectory directory;
  const auto log = open_log(to_files(directory));
  const std::string hostile = "x\n{\"time\":\"forged\"}\r\033[2J\xC2\x9b\u202E\u2028\"\\";
  log->write(LogLevel::kInfo, "a", "stdout", hostile, {{hostile, hostile}});
  log->write(LogLevel::kInfo, "a", "stdout", "half \xE2\x82 and \xff");
  const std::string text = read_file(directory / "log/kaid.log").value();
  CHECK(text.find('\033') == std::string::npos);
  CHECK(text.find("\u202E") == std::string::npos);
  const auto lines = lines_of(text);
  REQUIRE(lines.size() == 2);
  CHECK(json::parse(lines[0])["message"] == hostile);
  CHECK(json::parse(lines[0])[hostile] == hostile);
  CHECK(json::parse(lines[1])["message"] == "half \\xe2\\x82 and \\xff");
}

TEST_CASE("an overlong value is cut at a character and says so") {
  const TempDirectory directory;
  const auto log = open_log(to_files(directory));
  std::string message(1 << 20, 'x');
  message.replace((32 << 10) - 1, 3, "€");
  log->write(LogLevel::kInfo, "a", "log", message);
  const std::string cut = json::parse(lines_of_file(directory / "log/kaid.log").at(0))["message"];
  CHECK(cut.size() < 33 << 10);
  CHECK(cut.ends_with("x... (1015809 more bytes)"));
}

TEST_CASE("the stream has the line of an operator, JSON, or the journal's form") {
  const Pipe pipe;
  SUBCASE("text") {
    open_log(pipe.options(StreamFormat::kText))->write(LogLevel::kWarn, "a", "stdout", "one\ntwo", {{"n", 1}});
    const auto lines = lines_of(pipe.drain());
    REQUIRE(lines.size() == 1);
    CHECK(lines[0].ends_with(" warn  a              stdout           n=1 one\\ntwo"));
  }
  SUBCASE("colour") {
    open_log(pipe.options(StreamFormat::kColour))->write(LogLevel::kWarn, "a", "e", "m");
    CHECK(pipe.drain().find("\033[33mwarn") != std::string::npos);
  }
  SUBCASE("JSON") {
    open_log(pipe.options(StreamFormat::kJson))->write(LogLevel::kWarn, "a", "e", "m");
    CHECK(json::parse(lines_of(pipe.drain()).at(0))["message"] == "m");
  }
  SUBCASE("journal") {
    const auto log = open_log(pipe.options(StreamFormat::kJournal));
    log->write(LogLevel::kError, "a", "stdout", "<0>panic\n<0>panic");
    CHECK(pipe.drain() == "<3>error a              stdout           <0>panic\\n<0>panic\n");
  }
}

TEST_CASE("the stream's format follows what it is") {
  const Pipe pipe;
  const int fd = pipe.ends.second.get();
  unsetenv("JOURNAL_STREAM");
  CHECK(choose_stream_format(fd, false) == StreamFormat::kJson);
  struct stat status {};
  REQUIRE(fstat(fd, &status) == 0);
  setenv("JOURNAL_STREAM", (std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino)).c_str(), 1);
  CHECK(choose_stream_format(fd, false) == StreamFormat::kJournal);
  setenv("JOURNAL_STREAM", "1:1", 1);  // inherited from a service, but this is another stream
  CHECK(choose_stream_format(fd, false) == StreamFormat::kJson);
  unsetenv("JOURNAL_STREAM");

  const Fd terminal(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(terminal);
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  CHECK(choose_stream_format(terminal.get(), false) == StreamFormat::kColour);
  CHECK(choose_stream_format(terminal.get(), true) == StreamFormat::kJson);
  setenv("NO_COLOR", "1", 1);
  CHECK(choose_stream_format(terminal.get(), false) == StreamFormat::kText);
  unsetenv("NO_COLOR");
}

TEST_CASE("a reader that has stopped costs lines, not time, and is told") {
  auto ends = make_pipe(0);  // blocking: a write that had to wait would hang this test
  REQUIRE(ends);
  LogOptions options;
  options.stream = ends->second.get();
  options.stream_format = StreamFormat::kJson;
  const auto log = open_log(options);
  const std::string message(5000, 'x');
  for (int at = 0; at < 100; ++at) log->write(LogLevel::kInfo, "a", "stdout", message);
  REQUIRE(set_nonblocking(ends->first.get()));
  const auto drain = [&] {
    std::string text;
    std::array<char, 65536> buffer;
    for (ssize_t count = 0; (count = read(ends->first.get(), buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return text;
  };
  const std::string before = drain();
  log->write(LogLevel::kInfo, "a", "stdout", "after");
  const std::string after = drain();
  const auto shown = static_cast<int>(std::count(before.begin(), before.end(), '\n'));
  CHECK(shown >= 5);
  std::vector<json> records;
  for (const std::string& line : lines_of(after)) {
    if (json::accept(line)) records.push_back(json::parse(line));
  }
  REQUIRE(records.size() == 2);
  CHECK(records[0]["event"] == "log.lost");
  CHECK(records[0]["lost"] == 100 - shown);
  CHECK(records[1]["message"] == "after");
}

TEST_CASE("a full disk is reported once, and what is missing when it is over") {
  const Pipe pipe;
  const TempDirectory directory;
  LogOptions options = pipe.options(StreamFormat::kJson);
  options.directory = directory / "log";
  options.file_bytes = 400;
  options.files = 2;
  const auto log = open_log(options);
  const std::string message(300, 'x');
  log->write(LogLevel::kInfo, "a", "e", message);
  // The file cannot be rotated onto a directory: every record after this is over the limit and lost.
  REQUIRE(mkdir((directory / "log/kaid.1.log").c_str(), 0700) == 0);
  for (int at = 0; at < 3; ++at) log->write(LogLevel::kInfo, "a", "e", message);
  REQUIRE(rmdir((directory / "log/kaid.1.log").c_str()) == 0);
  log->write(LogLevel::kInfo, "a", "e", "again");
  const auto shown = lines_of(pipe.drain());
  REQUIRE(shown.size() == 7);
  CHECK(json::parse(shown[2])["event"] == "log.lost");
  CHECK(json::parse(shown[2])["level"] == "error");
  CHECK(json::parse(shown[6])["event"] == "log.lost");
  CHECK(json::parse(shown[6])["lost"] == 3);
  const auto kept = lines_of_file(directory / "log/kaid.log");
  CHECK(json::parse(kept.at(0))["message"] == "again");
  CHECK(json::parse(kept.at(1))["lost"] == 3);
}

TEST_CASE("observers get every record, and may go while one is given") {
  LogOptions options;
  options.stream = -1;
  const auto log = open_log(options);
  std::vector<std::string> first;
  int second = 0;
  Log::ObserverId own = 0;
  Log::ObserverId other = 0;
  own = log->add_observer([&](const LogEvent& event) {
    first.emplace_back(event.json);
    CHECK(event.agent == "a");
    CHECK(event.unix_ms > 0);
    log->remove_observer(own);
    log->remove_observer(other);
  });
  other = log->add_observer([&](const LogEvent&) { ++second; });
  log->write(LogLevel::kInfo, "a", "e", "one");
  log->write(LogLevel::kInfo, "a", "e", "two");
  REQUIRE(first.size() == 1);
  CHECK(json::parse(first[0])["message"] == "one");
  CHECK(second == 0);
}

}  // namespace
}  // namespace kai
