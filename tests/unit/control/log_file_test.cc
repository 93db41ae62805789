#include "supervisor/control/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::int64_t kStart = 1'800'000'000'000;

std::string record(const std::string& agent, int number, std::int64_t at = kStart) {
  return R"({"time":")" + iso_time(at) + R"(","level":"info","agent":")" + agent +
         R"(","event":"stdout","message":"line )" + std::to_string(number) + "\"}";
}

LogFile open_file(const std::string& directory, std::size_t bytes = 10 << 20, unsigned files = 5) {
  auto file = LogFile::open(directory, bytes, files);
  REQUIRE(file);
  return std::move(*file);
}

std::vector<std::string> messages(const std::string& directory, const LogFilter& filter, std::size_t batch = 7) {
  auto reader = LogReader::open(directory, filter);
  REQUIRE(reader);
  std::vector<std::string> found;
  for (;;) {
    auto next = reader->next(batch);
    REQUIRE(next);
    CHECK(next->records.size() <= batch);
    for (const std::string& text : next->records) found.push_back(json::parse(text)["message"]);
    if (next->done) return found;
  }
}

std::vector<std::string> numbered(int from, int to) {
  std::vector<std::string> expected;
  for (int at = from; at <= to; ++at) expected.push_back("line " + std::to_string(at));
  return expected;
}

TEST_CASE("records come back in order through rotated files, within the bound") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  auto file = open_file(log, 1000, 3);
  for (int at = 1; at <= 50; ++at) REQUIRE(file.append(record("a", at)));
  std::uintmax_t total = 0;
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(log)) {
    CHECK(entry.file_size() <= 1000);
    total += entry.file_size();
    ++files;
  }
  CHECK(files == 3);
  CHECK(total <= 3000);
  const auto all = messages(log, {});
  REQUIRE(all.size() > 10);
  CHECK(all == numbered(51 - static_cast<int>(all.size()), 50));
}

TEST_CASE("the bound holds with one file, and when it is lowered") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  {
    auto file = open_file(log, 300, 5);
    for (int at = 1; at <= 20; ++at) REQUIRE(file.append(record("a", at)));
    CHECK(fs::exists(log + "/kaid.4.log"));
  }
  auto file = open_file(log, 300, 1);
  CHECK_FALSE(fs::exists(log + "/kaid.1.log"));
  for (int at = 21; at <= 25; ++at) REQUIRE(file.append(record("a", at)));
  CHECK_FALSE(fs::exists(log + "/kaid.1.log"));
  CHECK(messages(log, {}).back() == "line 25");
  CHECK_FALSE(LogFile::open(log, 300, 0));
}

TEST_CASE("filters: agent, time, the last N, and all of them") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  auto file = open_file(log, 2000, 50);
  for (int at = 1; at <= 300; ++at) REQUIRE(file.append(record(at % 3 == 0 ? "third" : "a", at, kStart + at)));

  CHECK(messages(log, {}) == numbered(1, 300));
  CHECK(messages(log, {"third", 0, {}}).size() == 100);
  CHECK(messages(log, {"thir", 0, {}}).empty());
  CHECK(messages(log, {"", kStart + 291, {}}) == numbered(291, 300));
  CHECK(messages(log, {"", 0, 10}) == numbered(291, 300));
  CHECK(messages(log, {"", 0, 1000}) == numbered(1, 300));
  CHECK(messages(log, {"", 0, 0}).empty());
  CHECK(messages(log, {"third", 0, 2}) == std::vector<std::string>{"line 297", "line 300"});
  CHECK(messages(log, {"third", kStart + 298, 5}) == std::vector<std::string>{"line 300"});
  CHECK(messages(log, {"nobody", 0, 5}).empty());
  CHECK(messages(log, {"", INT64_MAX, {}}).empty());
  CHECK(messages(log, {"", INT64_MIN, {}}) == numbered(1, 300));
}

TEST_CASE("no files, no records; what is written after the opening is not given") {
  const TempDirectory directory;
  CHECK(messages(directory / "none", {}).empty());
  const std::string log = directory / "log";
  auto file = open_file(log);
  CHECK(messages(log, {}).empty());
  REQUIRE(file.append(record("a", 1)));
  auto reader = LogReader::open(log, {});
  REQUIRE(reader);
  REQUIRE(file.append(record("a", 2)));
  const auto batch = reader->next(10);
  REQUIRE(batch);
  CHECK(batch->records.size() == 1);
}

TEST_CASE("a reader keeps its records when the files are rotated away meanwhile") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  auto file = open_file(log, 300, 2);
  for (int at = 1; at <= 3; ++at) REQUIRE(file.append(record("a", at)));
  auto reader = LogReader::open(log, {});
  REQUIRE(reader);
  for (int at = 4; at <= 40; ++at) REQUIRE(file.append(record("a", at)));
  const auto batch = reader->next(100);
  REQUIRE(batch);
  REQUIRE(batch->records.size() == 3);
  CHECK(json::parse(batch->records[0])["message"] == "line 1");
}

TEST_CASE("a line that a crash tore is left out and cut off") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  REQUIRE(open_file(log).append(record("a", 1)));
  for (const std::string& torn : {record("a", 2).substr(0, 60), std::string(5000, '\0'), record("a", 2)}) {
    std::ofstream(log + "/kaid.log", std::ios::app | std::ios::binary) << torn;  // without its line feed
    CHECK(messages(log, {}) == numbered(1, 1));
    auto file = open_file(log);
    CHECK(fs::file_size(log + "/kaid.log") == record("a", 1).size() + 1);
  }
  auto file = open_file(log);
  REQUIRE(file.append(record("a", 2)));
  CHECK(messages(log, {}) == numbered(1, 2));
}

TEST_CASE("lines that are no record of ours are left out, however long") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  REQUIRE(open_file(log).append(record("a", 1)));
  {
    std::ofstream out(log + "/kaid.log", std::ios::app | std::ios::binary);
    out << "\n{}\nnot JSON\n" << record("a", 2).substr(0, 90) << "\n" << std::string(5 << 20, 'x') << "\n";
    out << R"({"time":"2026)"
        << "\n"
        << record("a", 3) << "\n";
  }
  const std::vector<std::string> expected = {"line 1", "line 3"};
  CHECK(messages(log, {}) == expected);
  CHECK(messages(log, {"a", 0, 2}) == expected);
}

TEST_CASE("a batch ends after some megabytes of log that do not match") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  auto file = open_file(log, 64 << 20);
  const std::string filler = record("b", 0).insert(record("b", 0).size() - 2, std::string(4000, 'x'));
  for (int at = 0; at < 3000; ++at) REQUIRE(file.append(filler));
  REQUIRE(file.append(record("a", 1)));
  auto reader = LogReader::open(log, {"a", 0, {}});
  REQUIRE(reader);
  const auto batch = reader->next(100);
  REQUIRE(batch);
  CHECK(batch->records.empty());
  CHECK_FALSE(batch->done);
  CHECK(messages(log, {"a", 0, {}}) == numbered(1, 1));
}

TEST_CASE("files that are none of a log are refused or left alone") {
  const TempDirectory directory;
  const std::string log = directory / "log";
  fs::create_directories(log);
  REQUIRE(mkfifo((log + "/kaid.log").c_str(), 0600) == 0);
  CHECK_FALSE(LogFile::open(log, 1000, 2));
  CHECK(messages(log, {}).empty());  // and does not wait for a writer
  fs::remove(log + "/kaid.log");
  fs::create_symlink("/etc/passwd", log + "/kaid.log");
  CHECK_FALSE(LogFile::open(log, 1000, 2));
  CHECK_FALSE(LogReader::open(log, {}));
}

}  // namespace
}  // namespace kai
