#include "supervisor/control/json_check.h"

#include <doctest/doctest.h>

#include <string>

#include <nlohmann/json.hpp>

namespace kai {
namespace {

TEST_CASE("whole values") {
  for (const char* text : {"{}", "[]", "0", "-0.5e+10", "true", "false", "null", R"("a\u00e9\n")", " [1, {\"a\": []}] ",
                           R"({"a":{"b":[1,2,{"c":null}]},"d":""})", "1E5", "[[],{}]"}) {
    CAPTURE(text);
    CHECK(is_json(text));
  }
}

TEST_CASE("anything that could pass for more than one value, or for fields of ours, is refused") {
  for (const char* text :
       {"", " ", "{", "}", "[1,]", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "01", "1.", ".5", "+1", "-", "1e",
        "tru", "nulll", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\n\"", "1 2", "{} {}", "1,\"from\":\"operator\"", "[1}", "{]",
        "]", "NaN", "Infinity", "'a'", "[1 2]", "{\"a\":1 \"b\":2}", "\"\xff\"", "// c\n1"}) {
    CAPTURE(text);
    CHECK_FALSE(is_json(text));
  }
}

TEST_CASE("depth is limited, and a million brackets cost no stack") {
  CHECK(is_json(std::string(kMaxCheckedJsonDepth, '[') + std::string(kMaxCheckedJsonDepth, ']')));
  CHECK_FALSE(is_json(std::string(kMaxCheckedJsonDepth + 1, '[') + std::string(kMaxCheckedJsonDepth + 1, ']')));
  CHECK_FALSE(is_json(std::string(1'000'000, '[')));
}

TEST_CASE("objects only") {
  CHECK(is_json_object(" {\"a\":1}"));
  CHECK_FALSE(is_json_object("[]"));
  CHECK_FALSE(is_json_object("1"));
  CHECK_FALSE(is_json_object(""));
}

TEST_CASE("it agrees with a full parser on mutated text") {
  const std::string seed = R"({"a":[1,-2.5e3,"x\"\\\u0041"],"b":{"c":true,"d":null},"e":""})";
  for (std::size_t at = 0; at < seed.size(); ++at) {
    for (const char c : std::string("{}[]\",:0e-\\ tn")) {
      std::string text = seed;
      text[at] = c;
      CAPTURE(text);
      CHECK(is_json(text) == nlohmann::json::accept(text));
      text.erase(at, 1);
      CHECK(is_json(text) == nlohmann::json::accept(text));
    }
  }
}

}  // namespace
}  // namespace kai
