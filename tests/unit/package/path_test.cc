#include "package/path.h"

#include <doctest/doctest.h>

namespace kai::package {
namespace {

TEST_CASE("a member's name becomes a path below the root, or is refused") {
  CHECK(*member_path("./lib//a.py", 64) == "lib/a.py");
  CHECK(*member_path("lib/", 64) == "lib");
  CHECK(member_path("./", 64).value_or("?").empty());
  CHECK(member_path(std::string(255, 'x'), 64));
  CHECK(member_path("a/b/c", 3));
  for (const std::string& name : {std::string(), std::string("/x"), std::string("a/../b"), std::string(".."),
                                  std::string("a\nb"), std::string("a\0b", 3), std::string("\xff"),
                                  std::string("\xc2\x9b"), std::string(256, 'x'), std::string("a/b/c/d")}) {
    CAPTURE(name);
    CHECK_FALSE(member_path(name, 3));
  }
  std::string longest;
  while (longest.size() < kMaxPath) longest += "0123456/";
  CHECK(member_path(longest.substr(0, kMaxPath - 1), 1000));
  CHECK_FALSE(member_path(longest + "xx", 1000));
}

TEST_CASE("a symlink stays inside") {
  for (const char* target : {"b", "./b", "../b", "../../b", "b/c", ".."}) CHECK(check_symlink("lib/deep/a", target));
  for (const char* target : {"", "/b", "../../../b", "b/../c", "a\nb"})
    CHECK_FALSE(check_symlink("lib/deep/a", target));
  CHECK_FALSE(check_symlink("a", "../b"));
}

TEST_CASE("small archives may hold anything, large ones not much more than they are") {
  CHECK_FALSE(is_bomb(0, 0));
  CHECK_FALSE(is_bomb(100, kRatioFrom));
  CHECK(is_bomb(100, kRatioFrom + 1));
  CHECK_FALSE(is_bomb(1 << 20, kMaxRatio << 20));
  CHECK(is_bomb(1 << 20, (kMaxRatio << 20) + kMaxRatio));
  CHECK(is_bomb(1, UINT64_MAX));
}

}  // namespace
}  // namespace kai::package
