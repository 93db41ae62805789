#include "agent-host/json_view.h"

#include <doctest/doctest.h>

#include "agent-host/limits.h"

namespace kai {

TEST_CASE("what is JSON") {
  for (const char* text : {"{}", " [1, 2] ", "\"a\"", "-1.5e3", "true", "null", "{\"a\":{\"b\":[]}}"}) {
    CHECK_MESSAGE(JsonView::parse(text), text);
  }
}

TEST_CASE("what is not") {
  const std::string deep = std::string(kMaxJsonDepth + 1, '[') + std::string(kMaxJsonDepth + 1, ']');
  for (const std::string& text :
       {std::string(), std::string(" "), std::string("{"), std::string("{}{}"), std::string("{} x"), std::string("'a'"),
        std::string("{\"a\":1,}"), std::string("01"), std::string("NaN"), std::string("\"\n\""),
        std::string("\"\xC0\x80\""), std::string("\xEF\xBB\xBF{}"), std::string("{}\0", 3), std::string("{}\0{", 4),
        std::string("/* */ {}"), deep}) {
    CHECK_MESSAGE(!JsonView::parse(text), text);
  }
  CHECK(JsonView::parse(deep.substr(1, deep.size() - 2)));
  CHECK_FALSE(JsonView::parse(std::string(1 << 20, '[')));
}

TEST_CASE("members: raw text, escaped names, the last of two") {
  const std::string text = R"( {"a" : [1, {"b":"}\""}] , "\u0063": 1.50, "a\"": "x", "d":1, "d":2} )";
  const auto json = JsonView::parse(text);
  REQUIRE(json);
  CHECK(json->text().front() == '{');
  CHECK(json->text().back() == '}');
  CHECK(json->member("a")->text() == R"([1, {"b":"}\""}])");
  CHECK(json->member("c")->text() == "1.50");
  CHECK(json->member("a\"")->string() == "x");
  CHECK(json->member("d")->text() == "2");
  CHECK_FALSE(json->member("e"));
  CHECK_FALSE(json->member("a")->member("b"));
}

TEST_CASE("scalars by type") {
  const std::string text = R"(["a\u00e9\n", 7, -7, 1.5, true, null, 18446744073709551616])";
  const auto json = JsonView::parse(text);
  JsonView::Items items(*json);
  const auto next = [&] {
    REQUIRE(items.next());
    return items.value();
  };
  const JsonView string = next();
  CHECK(string.string() == "a\xC3\xA9\n");
  CHECK_FALSE(string.number());
  CHECK_FALSE(string.unsigned_integer());
  const JsonView seven = next();
  CHECK(seven.unsigned_integer() == 7);
  CHECK(seven.number() == 7);
  CHECK_FALSE(seven.string());
  const JsonView negative = next();
  CHECK_FALSE(negative.unsigned_integer());
  CHECK(negative.number() == -7);
  const JsonView fraction = next();
  CHECK_FALSE(fraction.unsigned_integer());
  CHECK(fraction.number() == 1.5);
  const JsonView yes = next();
  CHECK(yes.boolean() == true);
  CHECK_FALSE(yes.number());
  CHECK(next().is_null());
  const JsonView big = next();
  CHECK_FALSE(big.unsigned_integer());
  CHECK(big.number() == 18446744073709551616.0);
  CHECK_FALSE(items.next());
}

TEST_CASE("strings: every escape, and what no UTF-8 can say") {
  const auto decoded = [](std::string_view text) { return JsonView::parse(text)->string(); };
  CHECK(decoded(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
  CHECK(decoded(R"("\u0041\u00E9\u20ac\ud83d\ude00")") == "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  for (const char* half : {R"("\ud800")", R"("\ud800x")", R"("\udc00")", R"("\ud800\ud800")", R"("\ud83d\n")"}) {
    CHECK_MESSAGE(!decoded(half), half);
  }
  CHECK_FALSE(JsonView::parse("1e999")->number());
}

TEST_CASE("empty containers and scalars have no items") {
  for (const char* text : {"{}", "[ ]", "1", "\"a\""}) {
    const auto json = JsonView::parse(text);
    JsonView::Items items(*json);
    CHECK_FALSE(items.next());
  }
}

}  // namespace kai
