#include "base/text.h"

#include <set>
#include <string>

#include <doctest/doctest.h>

namespace kai {
namespace {

using namespace std::string_literals;

TEST_CASE("UTF-8: what RFC 3629 allows") {
  CHECK(is_utf8(""));
  CHECK(is_utf8("plain"));
  CHECK(is_utf8("\0 inside"s));
  CHECK(is_utf8("\xC2\x80"));          // U+0080, the smallest of two bytes
  CHECK(is_utf8("\xE0\xA0\x80"));      // U+0800
  CHECK(is_utf8("\xED\x9F\xBF"));      // U+D7FF, just below the surrogates
  CHECK(is_utf8("\xEE\x80\x80"));      // U+E000, just above them
  CHECK(is_utf8("\xF0\x90\x80\x80"));  // U+10000
  CHECK(is_utf8("\xF4\x8F\xBF\xBF"));  // U+10FFFF
}

TEST_CASE("UTF-8: what it refuses") {
  for (const std::string& bytes : {
           "\x80"s, "\xBF"s,                                   // a continuation byte on its own
           "\xC0\x80"s, "\xC1\xBF"s,                           // overlong in two bytes
           "\xE0\x80\x80"s, "\xE0\x9F\xBF"s,                   // overlong in three
           "\xF0\x80\x80\x80"s, "\xF0\x8F\xBF\xBF"s,           // overlong in four
           "\xED\xA0\x80"s, "\xED\xBF\xBF"s,                   // surrogates
           "\xF4\x90\x80\x80"s, "\xF5\x80\x80\x80"s, "\xFF"s,  // beyond U+10FFFF
           "\xC2"s, "\xE2\x82"s, "\xF0\x9F\x98"s,              // cut off
           "\xC2\x41"s, "ok \xE2\x28\xA1"s,                    // no continuation where one must be
       }) {
    CAPTURE(bytes);
    CHECK_FALSE(is_utf8(bytes));
  }
}

TEST_CASE("escaping leaves ordinary text of any language alone") {
  for (const std::string& text :
       {"plain text, with \\ and \"quotes\""s, "grüß Gott"s, "日本語"s, "\xF0\x9F\x98\x80"s}) {
    CHECK(escape_for_terminal(text) == text);
  }
}

TEST_CASE("escaping disarms what drives a terminal or forges a line") {
  CHECK(escape_for_terminal("a\nb") == "a\\nb");
  CHECK(escape_for_terminal("a\rb\tc") == "a\\rb\\tc");
  CHECK(escape_for_terminal("\x1B[31mred\x1B]0;title\x07") == "\\e[31mred\\e]0;title\\x07");
  CHECK(escape_for_terminal("\0"s) == "\\x00");
  CHECK(escape_for_terminal("\x7F") == "\\x7f");
  CHECK(escape_for_terminal("\xC2\x9B"
                            "2J") == "\\u{009b}2J");  // CSI as one C1 character
  CHECK(escape_for_terminal("\xE2\x80\xAE"
                            "gpj") == "\\u{202e}gpj");  // right-to-left override
  CHECK(escape_for_terminal("\xE2\x81\xA6"
                            "x") == "\\u{2066}x");            // isolate
  CHECK(escape_for_terminal("\xE2\x80\xA8") == "\\u{2028}");  // line separator
  CHECK(escape_for_terminal("a\xE2\x80\x8B"
                            "b") == "a\\u{200b}b");                // zero-width space
  CHECK(escape_for_terminal("\xEF\xBB\xBF") == "\\u{feff}");       // byte-order mark
  CHECK(escape_for_terminal("\xF3\xA0\x81\x81") == "\\u{e0041}");  // a tag character
}

TEST_CASE("escaping shows bytes that are not UTF-8, one by one") {
  CHECK(escape_for_terminal("a\xFF\xFE"
                            "b") == "a\\xff\\xfeb");
  CHECK(escape_for_terminal("\xC3") == "\\xc3");
  CHECK(escape_for_terminal("\xED\xA0\x80") == "\\xed\\xa0\\x80");
}

TEST_CASE("whatever comes in, what comes out is UTF-8 on one line without control characters") {
  std::string every_pair;
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; second += 7) {
      every_pair += static_cast<char>(first);
      every_pair += static_cast<char>(second);
    }
  }
  const std::string text = escape_for_terminal(every_pair);
  CHECK(is_utf8(text));
  for (const char c : text) {
    REQUIRE(static_cast<unsigned char>(c) >= 0x20);
    REQUIRE(c != 0x7F);
  }
  CHECK(escape_for_terminal(text) == text);
}

TEST_CASE("agent ids") {
  for (const std::string& id : {"a"s, "calendarAgent"s, "Echo-1.2_x"s, "0"s, std::string(64, 'x')}) {
    CAPTURE(id);
    CHECK(is_agent_id(id));
  }
  for (const std::string& id : {""s, std::string(65, 'x'), ".hidden"s, "-rf"s, "_x"s, "a/b"s, "a@b"s, "a b"s, "a\n"s,
                                "a\0"s, "\xC3\xA4"s, ".."s, "kaid"s, "operator"s, "topic"s}) {
    CAPTURE(id);
    CHECK_FALSE(is_agent_id(id));
  }
  CHECK(is_agent_id("Kaid"));  // ids are case-sensitive
}

TEST_CASE("times are UTC with milliseconds") {
  CHECK(iso_time(0) == "1970-01-01T00:00:00.000Z");
  CHECK(iso_time(1'777'899'600'007) == "2026-05-04T13:00:00.007Z");
  CHECK(iso_time(951'782'400'000) == "2000-02-29T00:00:00.000Z");
  CHECK(iso_time(-1) == "1969-12-31T23:59:59.999Z");
  CHECK(iso_now().size() == 24);
}

TEST_CASE("the monotonic clock does not go back") {
  const std::int64_t before = monotonic_ms();
  CHECK(monotonic_ms() >= before);
  CHECK(unix_ms() > 1'700'000'000'000);
}

TEST_CASE("UUIDs are of version 7, in the order of time, and not repeated") {
  std::set<std::string> seen;
  const std::string first = new_uuid();
  for (int count = 0; count < 1000; ++count) {
    const std::string id = new_uuid();
    REQUIRE(id.size() == 36);
    REQUIRE(id[8] == '-');
    REQUIRE(id[13] == '-');
    REQUIRE(id[14] == '7');
    REQUIRE(id[18] == '-');
    REQUIRE(std::string("89ab").find(id[19]) != std::string::npos);
    REQUIRE(id[23] == '-');
    REQUIRE(id.substr(0, 13) >= first.substr(0, 13));  // 48 bits of milliseconds
    REQUIRE(seen.insert(id).second);
  }
}

}  // namespace
}  // namespace kai
