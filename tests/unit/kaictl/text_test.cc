// The small parts: times, escapes, encodings, the way to the socket.
#include "base/text.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include <doctest/doctest.h>

#include "base/base64.h"
#include "kaictl/arguments.h"
#include "kaictl/logs.h"
#include "kaictl/output.h"
#include "kaictl/socket_path.h"
#include "kaictl/terminal_filter.h"
#include "tests/unit/kaictl/fake_daemon.h"

namespace kai::test {
namespace {

TEST_CASE("--since takes how long ago") {
  constexpr std::int64_t kNow = 1'777'900'000'000;
  CHECK(*parse_since("10m", kNow) == kNow - 600'000);
  CHECK(*parse_since("1h30m", kNow) == kNow - 5'400'000);
  CHECK(*parse_since("250ms", kNow) == kNow - 250);
  CHECK(*parse_since("1m500ms", kNow) == kNow - 60'500);
  CHECK(*parse_since("0s", kNow) == kNow);
  CHECK(*parse_since("7d", kNow) == kNow - 604'800'000);
}

TEST_CASE("--since takes RFC 3339") {
  CHECK(iso_time(*parse_since("2026-05-04T13:00:00Z", 0)) == "2026-05-04T13:00:00.000Z");
  CHECK(iso_time(*parse_since("2026-05-04T13:00:00.2509Z", 0)) == "2026-05-04T13:00:00.250Z");
  CHECK(iso_time(*parse_since("2026-05-04t15:30:00+02:30", 0)) == "2026-05-04T13:00:00.000Z");
  CHECK(iso_time(*parse_since("2026-12-31 23:00:00-02:00", 0)) == "2027-01-01T01:00:00.000Z");
  CHECK(iso_time(*parse_since("2024-02-29T00:00:00Z", 0)) == "2024-02-29T00:00:00.000Z");
  CHECK(iso_time(*parse_since(iso_time(1'777'900'000'123), 0)) == iso_time(1'777'900'000'123));
}

TEST_CASE("--since refuses everything else, as a usage error") {
  for (const char* const text : {"",
                                 "10",
                                 "m",
                                 "10x",
                                 "-10m",
                                 "+10m",
                                 "10m ",
                                 "1.5h",
                                 "99999999999999999999s",
                                 "9999999999d",
                                 "2026-05-04",
                                 "2026-05-04T13:00:00",
                                 "2026-02-29T00:00:00Z",
                                 "2026-13-01T00:00:00Z",
                                 "2026-05-04T24:00:00Z",
                                 "2026-05-04T13:00:00.Z",
                                 "2026-05-04T13:00:00+2:00",
                                 "2026-05-04T13:00:00Zx",
                                 "26-05-04T13:00:00Z",
                                 "2026-05-04T13:-1:00Z"}) {
    CAPTURE(text);
    const auto parsed = parse_since(text, 0);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().exit_code == kExitUsage);
  }
}

TEST_CASE("a terminal gets lines and tabs, and whole characters whatever the pieces") {
  const std::string bytes = "a\tb\n\xe2\x82\xac\x1b]0;x\x07\xf0\x9f\x98\x80\xe2\x80\xae\xff\r\n";
  const std::string expected = "a\tb\n\xe2\x82\xac\\e]0;x\\x07\xf0\x9f\x98\x80\\u{202e}\\xff\\r\n";
  for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
    TerminalFilter filter;
    std::string text;
    for (std::size_t at = 0; at < bytes.size(); at += piece) text += filter.feed(bytes.substr(at, piece));
    CHECK(text + filter.finish() == expected);
  }
  TerminalFilter filter;
  CHECK(filter.feed("\xe2\x82").empty());
  CHECK(filter.finish() == "\\xe2\\x82");
}

TEST_CASE("base64") {
  CHECK(*decode_base64("") == "");
  CHECK(*decode_base64("Zg==") == "f");
  CHECK(*decode_base64("Zm8=") == "fo");
  CHECK(*decode_base64("Zm9v") == "foo");
  CHECK(*decode_base64("+/8A") == std::string("\xfb\xff\0", 3));
  for (const char* const text : {"Z", "Zg=", "Zm9v\n", "Z===", "Zm-v", "=Zg="}) CHECK_FALSE(decode_base64(text));
}

TEST_CASE("durations for a person") {
  CHECK(readable_duration(0) == "0ms");
  CHECK(readable_duration(5120) == "5.1s");
  CHECK(readable_duration(192'000) == "3m 12s");
  CHECK(readable_duration(600'000) == "10m");
  CHECK(readable_duration(7'500'000) == "2h 5m");
  CHECK(readable_duration(97 * 3'600'000LL) == "4d 1h");
}

TEST_CASE("where the socket is") {
  CHECK(default_socket_path(0, "/run/user/0") == "/run/kai/kaid.sock");
  CHECK(default_socket_path(1000, "/run/user/1000") == "/run/user/1000/kai/kaid.sock");
  CHECK(default_socket_path(1000, nullptr) == "/tmp/kai-1000/kaid.sock");
  CHECK(default_socket_path(1000, "relative") == "/tmp/kai-1000/kaid.sock");
}

TEST_CASE("a directory in /tmp is trusted only if it is ours alone") {
  const ScratchDirectory directory;
  CHECK(check_private_directory(directory.path(), geteuid()));
  CHECK_FALSE(check_private_directory(directory.path(), geteuid() + 1));
  CHECK_FALSE(check_private_directory(directory / "missing", geteuid()));
  const std::string link = directory / "link";
  REQUIRE(symlink(directory.path().c_str(), link.c_str()) == 0);
  CHECK_FALSE(check_private_directory(link, geteuid()));
  REQUIRE(chmod(directory.path().c_str(), 0750) == 0);
  CHECK_FALSE(check_private_directory(directory.path(), geteuid()));
}

TEST_CASE("the command line, looked through before it is read") {
  const std::array<const char*, 10> run = {"--socket", "run", "-o", "json", "run", "--env", "A=b", "--", "p", "--"};
  const Arguments found = look_through(run);
  CHECK(found.command == "run");
  CHECK(found.format == OutputFormat::kJson);
  CHECK(found.options.size() == 7);
  CHECK(found.program == std::vector<std::string>{"p", "--"});
  const std::array<const char*, 5> send = {"send", "run", "echo", "--", "-5"};
  CHECK(look_through(send).program.empty());
  CHECK(look_through(send).options.size() == 5);
  CHECK(look_through({}).command.empty());
}

TEST_CASE("a record of the log as a line") {
  CHECK(render_record("not json\x1b", false) == "not json\\e\n");
  const std::string line = render_record(
      R"({"time":"2026-05-04T13:00:00.000Z","level":"info","agent":"a","event":"stdout","message":"m\nn","k":{"x":1}})",
      false);
  CHECK(line.starts_with("2026-05-04T13:00:00.000Z"));
  CHECK(line.find("m\\nn") != std::string::npos);
  CHECK(line.find("k=") != std::string::npos);
  CHECK(line.find('\n') == line.size() - 1);
}

}  // namespace
}  // namespace kai::test
