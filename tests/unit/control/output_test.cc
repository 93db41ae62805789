#include "supervisor/control/output.h"

#include <ctime>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace kai {
namespace {

using nlohmann::json;

std::vector<std::string> split(const std::vector<std::string>& pieces, std::size_t limit = 10) {
  LineSplitter splitter(limit);
  std::vector<std::string> lines;
  const LineSplitter::Sink sink = [&](std::string_view line, bool continues) {
    lines.push_back(std::string(line) + (continues ? "+" : ""));
    return true;
  };
  for (const std::string& piece : pieces) CHECK(splitter.feed(piece, sink) == 0);
  CHECK(splitter.finish(sink) == 0);
  return lines;
}

using Lines = std::vector<std::string>;

TEST_CASE("bytes in any pieces become lines") {
  CHECK(split({}).empty());
  CHECK(split({"a\nb\n"}) == Lines{"a", "b"});
  CHECK(split({"a", "b", "\nc"}) == Lines{"ab", "c"});
  CHECK(split({"\n\n"}) == Lines{"", ""});
  CHECK(split({"a\r\nb\r", "\nc\rd\n\r\n"}) == Lines{"a", "b", "c\rd", ""});
  CHECK(split({"rest\r"}) == Lines{"rest"});
}

TEST_CASE("a line over the limit comes in marked pieces") {
  CHECK(split({"0123456789\n"}) == Lines{"0123456789"});
  CHECK(split({"0123456789a\n"}) == Lines{"0123456789+", "a"});
  CHECK(split({"01234", "56789abcdefghij", "k\n"}) == Lines{"0123456789+", "abcdefghij+", "k"});
  CHECK(split({"01234567€\n"}) == Lines{"01234567+", "€"});  // between characters, not in one
  CHECK(split({std::string(25, '\x80') + "\n"}) ==
        Lines{std::string(10, '\x80') + "+", std::string(10, '\x80') + "+", std::string(5, '\x80')});
}

TEST_CASE("one byte at a time gives the same lines") {
  const std::string text = "one\r\ntwo which is long\n\nthree";
  Lines bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  CHECK(split(bytes) == split({text}));
}

TEST_CASE("what the sink does not want is counted, whole lines at a time") {
  LineSplitter splitter(10);
  Lines lines;
  int wanted = 1;
  const LineSplitter::Sink sink = [&](std::string_view line, bool) {
    if (wanted-- <= 0) return false;
    lines.emplace_back(line);
    return true;
  };
  CHECK(splitter.feed("a\nb\nc\nd", sink) == 3);  // d has begun, and is dropped whole
  wanted = 1;
  CHECK(splitter.feed("dd", sink) == 0);
  CHECK(splitter.feed("ddd\ne\nf\n", sink) == 1);
  wanted = 0;
  CHECK(splitter.feed("0123456789abc\ng", sink) == 2);  // an overlong line is one
  wanted = 2;
  CHECK(splitter.feed("g\nh", sink) == 0);
  CHECK(splitter.finish(sink) == 0);
  CHECK(lines == Lines{"a", "e", "h"});
}

TEST_CASE("the budget is a token bucket, and reports once a second") {
  LogBudget budget(200, 0);
  int taken = 0;
  while (budget.take(0)) ++taken;
  CHECK(taken == 200);
  CHECK_FALSE(budget.take(4));
  CHECK(budget.take(5));
  CHECK_FALSE(budget.take(5));
  CHECK_FALSE(budget.take(1));  // time never runs back, and if it does, nothing is gained
  taken = 0;
  while (budget.take(100'000)) ++taken;
  CHECK(taken == 200);

  CHECK_FALSE(budget.owes_report());
  CHECK_FALSE(budget.report(100'000));
  budget.drop(3);
  CHECK(budget.report(100'000) == 3U);
  budget.drop(4);
  CHECK_FALSE(budget.report(100'999));
  CHECK(budget.report(101'000) == 4U);
  budget.drop(5);
  CHECK(budget.report(101'001, true) == 5U);
  CHECK_FALSE(budget.owes_report());
}

/// A log whose records a test reads.
struct Records {
  Records() {
    LogOptions options;
    options.stream = -1;
    log = std::move(*Log::open(options));
    log->add_observer([this](const LogEvent& event) { records.push_back(json::parse(event.json)); });
  }
  std::unique_ptr<Log> log;
  std::vector<json> records;
};

TEST_CASE("an agent's output becomes its records") {
  Records seen;
  AgentOutput output(*seen.log, "a", 200, 0);
  output.feed(AgentOutput::Stream::kStdout, "hello\r\nwor", 0);
  output.feed(AgentOutput::Stream::kStderr, "oops\n", 0);
  output.feed(AgentOutput::Stream::kStdout, "ld", 0);
  output.log(LogLevel::kWarn, "from the SDK", R"({"n":1})", 0);
  output.finish(0);
  REQUIRE(seen.records.size() == 4);
  CHECK(seen.records[0]["message"] == "hello");
  CHECK(seen.records[0]["event"] == "stdout");
  CHECK(seen.records[0]["level"] == "info");
  CHECK(seen.records[0]["agent"] == "a");
  CHECK(seen.records[1]["event"] == "stderr");
  CHECK(seen.records[2]["event"] == "log");
  CHECK(seen.records[2]["level"] == "warn");
  CHECK(seen.records[2]["fields"] == R"({"n":1})");
  CHECK(seen.records[3]["message"] == "world");
}

TEST_CASE("one budget holds both streams and the SDK's log; what it drops is said") {
  Records seen;
  AgentOutput output(*seen.log, "a", 2, 0);
  output.feed(AgentOutput::Stream::kStdout, "1\n", 0);
  output.feed(AgentOutput::Stream::kStderr, "2\n3\n", 0);
  output.log(LogLevel::kError, "4", "", 0);
  CHECK(output.owes_report());
  output.tick(999);
  CHECK(seen.records.size() == 2);
  output.tick(1000);
  REQUIRE(seen.records.size() == 3);
  CHECK(seen.records[2]["message"] == "dropped 2 lines (log limit 2/s)");
  CHECK(seen.records[2]["event"] == "log.dropped");
  CHECK(seen.records[2]["level"] == "warn");
  CHECK(seen.records[2]["dropped"] == 2);
  output.feed(AgentOutput::Stream::kStdout, "5\n6\n7\n", 1000);
  output.finish(1000);
  CHECK(seen.records.back()["message"] == "dropped 1 line (log limit 2/s)");
}

TEST_CASE("100 MB cost little, whatever is in them") {
  constexpr std::size_t kChunk = 65536;
  constexpr std::size_t kBytes = 100 << 20;
  std::string chunk;
  std::uint64_t lines = 0;
  SUBCASE("lines of 64 bytes") {
    while (chunk.size() < kChunk) chunk += std::string(63, 'x') + "\n";
    lines = kBytes / 64;
  }
  SUBCASE("empty lines") {
    chunk = std::string(kChunk, '\n');
    lines = kBytes;
  }
  SUBCASE("no line feed at all") {
    chunk = std::string(kChunk, 'x');
    lines = 0;  // one line without an end: its pieces are dropped with it
  }
  Records seen;
  AgentOutput output(*seen.log, "a", 200, 0);
  const std::clock_t begin = std::clock();
  for (std::size_t fed = 0; fed < kBytes; fed += kChunk) output.feed(AgentOutput::Stream::kStdout, chunk, 0);
  output.finish(0);
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  // Some tens of milliseconds as released; a debug build under a sanitizer must be far below this too.
  CHECK(seconds < 10);
  MESSAGE("CPU seconds for 100 MB: " << seconds);
  CHECK(seen.records.size() == 201);
  const std::uint64_t dropped = seen.records.back()["dropped"];
  CHECK(dropped == (lines > 0 ? lines - 200 : 1));
}

}  // namespace
}  // namespace kai
