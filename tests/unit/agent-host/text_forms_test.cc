// The small forms: JSON text, base64, timestamps, deadlines.
#include <doctest/doctest.h>

#include "agent-host/deadline_table.h"
#include "agent-host/json_text.h"
#include "base/base64.h"
#include "base/text.h"
#include "base/timestamp.h"

namespace kai {

TEST_CASE("base64: the vectors of RFC 4648, and back") {
  const std::pair<std::string, std::string> cases[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : cases) {
    std::string encoded;
    append_base64(encoded, bytes);
    CHECK(encoded == text);
    CHECK(decode_base64(text) == bytes);
  }
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  std::string encoded;
  append_base64(encoded, every);
  CHECK(decode_base64(encoded) == every);
}

TEST_CASE("base64 that is none") {
  for (const char* text : {"Z", "Zg", "Zg=", "Zg===", "====", "Zg=a", "Zm9 ", "Zh==", "Zm9v\n", "Zm-_"}) {
    CHECK_MESSAGE(!decode_base64(text), text);
  }
}

TEST_CASE("text is cut between characters") {
  CHECK(clip_utf8("abc", 3) == "abc");
  CHECK(clip_utf8("abcd", 3) == "abc");
  CHECK(clip_utf8("a\xC3\xA9", 2) == "a");
  CHECK(clip_utf8("\xF0\x9F\x98\x80x", 3).empty());
}

TEST_CASE("numbers and lines") {
  std::string text;
  append_json_number(text, 31.2);
  text += ' ';
  append_json_number(text, 1e15);
  text += ' ';
  append_json_number(text, -32601);
  text += ' ';
  append_decimal(text, UINT64_MAX);
  CHECK(text == "31.2 1e+15 -32601 18446744073709551615");
  std::string line;
  append_json_on_one_line(line, "{\r\n \"a\": 1\n}");
  CHECK(line == "{   \"a\": 1 }");
}

TEST_CASE("timestamps") {
  CHECK(parse_iso_time("1970-01-01T00:00:00Z") == 0);
  CHECK(parse_iso_time("2000-02-29T12:00:00.5Z") == 951825600500);
  CHECK(parse_iso_time("2026-05-04T15:00:00.123456+02:00") == parse_iso_time("2026-05-04T13:00:00.123Z"));
  for (const std::int64_t ms : {std::int64_t{0}, std::int64_t{951782399999}, std::int64_t{1709164800000},
                                std::int64_t{4107542400000}, unix_ms()}) {
    CHECK(parse_iso_time(iso_time(ms)) == ms);
  }
  for (const char* text : {"", "2026-05-04", "2026-05-04T13:00:00", "2026-13-04T13:00:00Z", "2026-00-04T13:00:00Z",
                           "1969-12-31T23:59:59Z", "2026-05-04T24:00:00Z", "2026-05-04T13:00:00.Z",
                           "2026-05-04T13:00:00+0200", "2026-05-04T13:00:00Zx", " 2026-05-04T13:00:00Z"}) {
    CHECK_MESSAGE(!parse_iso_time(text), text);
  }
}

TEST_CASE("deadlines") {
  DeadlineTable<int, const char*> table;
  CHECK(table.next_deadline() == kNever);
  CHECK_FALSE(table.take_expired(1000));
  table.add(1, "one", 10);
  table.add(2, "two", 5);
  table.add(3, "three", 10);
  CHECK(table.next_deadline() == 5);
  CHECK(*table.take(2) == std::string("two"));
  CHECK_FALSE(table.take(2));
  CHECK(table.next_deadline() <= 10);
  CHECK_FALSE(table.take_expired(9));
  CHECK(table.next_deadline() == 10);
  CHECK(table.take_expired(10));
  CHECK(table.take_expired(10));
  CHECK_FALSE(table.take_expired(10));
  CHECK(table.size() == 0);
  CHECK(table.next_deadline() == kNever);
}

}  // namespace kai
