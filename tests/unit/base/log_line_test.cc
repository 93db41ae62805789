#include "base/log_line.h"

#include <algorithm>
#include <string>

#include <doctest/doctest.h>

#include "base/text.h"

namespace kai {
namespace {

using namespace std::string_literals;

std::string line_of(const LogRecord& record, bool colour = false) {
  std::string line;
  append_log_line(line, record, colour);
  return line;
}

LogRecord started() {
  return {"2026-05-04T13:00:00.000Z",      LogLevel::kInfo, "calendarAgent", "started", "ready",
          {{"pid", "812"}, {"why", "a b"}}};
}

TEST_CASE("levels have the names of the records") {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError}) {
    CHECK(parse_log_level(log_level_name(level)) == level);
  }
  CHECK_FALSE(parse_log_level("INFO"));
  CHECK_FALSE(parse_log_level(""));
}

TEST_CASE("a record is a line of columns") {
  CHECK(line_of(started()) ==
        "2026-05-04T13:00:00.000Z info  calendarAgent  started          pid=812 why=\"a b\" ready");
  LogRecord bare{"", LogLevel::kError, "a", "e", "", {}};
  CHECK(line_of(bare) == "error a              e");
}

TEST_CASE("values that could be taken for something else are quoted") {
  LogRecord record{"", LogLevel::kInfo, "a", "e", "", {{"empty", ""}, {"pair", "x=y"}, {"said", "\"hi\""}}};
  CHECK(line_of(record).ends_with(R"(empty="" pair="x=y" said="\"hi\"")"));
}

TEST_CASE("colour adds our codes and nothing else") {
  std::string coloured = line_of(started(), true);
  CHECK(coloured.find("\033[32minfo\033[0m") != std::string::npos);
  for (std::size_t at; (at = coloured.find('\033')) != std::string::npos;) {
    coloured.erase(at, coloured.find('m', at) - at + 1);
  }
  CHECK(coloured == line_of(started()));
}

TEST_CASE("nothing in a record starts a line or drives a terminal") {
  const std::string hostile = "x\n2026-05-04T13:00:00.000Z error kaid forged\r\033[2J\x9b\xC2\x9b\u202E\u2028\xff";
  for (const bool colour : {false, true}) {
    const LogRecord harmless{"t", LogLevel::kInfo, "x", "x", "x", {{"x", "x"}}};
    const LogRecord record{hostile, LogLevel::kInfo, hostile, hostile, hostile, {{hostile, hostile}}};
    const std::string line = line_of(record, colour);
    const auto escapes = [](const std::string& text) { return std::count(text.begin(), text.end(), '\033'); };
    CHECK(is_utf8(line));
    CHECK(line.find_first_of("\n\r\x9b"s) == std::string::npos);
    CHECK(line.find("\u202E") == std::string::npos);
    CHECK(line.find("\u2028") == std::string::npos);
    CHECK(escapes(line) == escapes(line_of(harmless, colour)));
  }
}

TEST_CASE("a JSON string reads back, and shows no control") {
  const auto json = [](std::string_view text) {
    std::string out;
    append_json_string(out, text);
    return out;
  };
  CHECK(json("") == R"("")");
  CHECK(json("plain ä €") == "\"plain ä €\"");
  CHECK(json("\"\\\n\t\r\0"s) == R"("\"\\\n\t\u000d\u0000")");
  CHECK(json("\033[2J\x7f") == R"("\u001b[2J\u007f")");
  CHECK(json("\xC2\x9b\u202E") == R"("\u009b\u202e")");
  CHECK(json("\U000E0041") == R"("\udb40\udc41")");
  CHECK(json("a\xff\xC2") == R"("a\\xff\\xc2")");
}

}  // namespace
}  // namespace kai
