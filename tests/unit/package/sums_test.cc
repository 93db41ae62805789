#include "package/sums.h"

#include <doctest/doctest.h>

namespace kai::package {
namespace {

const std::string kHex = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";    // of "a"
const std::string kOther = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d";  // of "b"

Sha256 sum_of(const std::string& hex) {
  return parse_sums(hex + "  x\n")->files.at("x");
}

bool says(const Result<>& result, std::string_view what) {
  return !result && result.error().message().find(what) != std::string::npos;
}

TEST_CASE("lines of sha256sum are read, and written as it writes them") {
  // As coreutils 9.1 prints these four names.
  const std::string text = kHex + "   sp \n" +            //
                           "\\" + kHex + "  a\\\\b\n" +   //
                           "\\" + kOther + "  c\\rr\n" +  //
                           "\\" + kOther + "  n\\nl\n";
  const auto sums = parse_sums(text);
  REQUIRE(sums);
  CHECK(sums->files.size() == 4);
  CHECK(sums->files.at(" sp ") == sum_of(kHex));
  CHECK(sums->files.at("a\\b") == sum_of(kHex));
  CHECK(sums->files.at("c\rr") == sum_of(kOther));
  CHECK(sums->files.at("n\nl") == sum_of(kOther));
  CHECK(format_sums(*sums) == text);
}

TEST_CASE("forms that are the same file are") {
  const auto plain = parse_sums(kHex + "  lib/a.py\n");
  REQUIRE(plain);
  CHECK(*parse_sums(kHex + "  ./lib/a.py\n") == *plain);
  CHECK(*parse_sums(kHex + "  ././lib/a.py") == *plain);
  CHECK(*parse_sums(kHex + " *lib/a.py\n") == *plain);
  std::string upper = kHex;
  for (char& letter : upper) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  CHECK(*parse_sums(upper + "  lib/a.py\n") == *plain);
  CHECK(*parse_sums("# of today\n#\n#symlink a -> b\n" + kHex + "  lib/a.py\n") == *plain);  // comments
  CHECK(*parse_sums("") == Sums{});
}

TEST_CASE("any other line is refused, and named by its number") {
  const auto refused = [](const std::string& line, std::string_view why) {
    const auto parsed = parse_sums(kHex + "  first\n" + line);
    CAPTURE(line);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().message().find("line 2 of SHA256SUMS") != std::string::npos);
    CHECK(parsed.error().message().find(why) != std::string::npos);
  };
  refused("\n", "form");
  refused(" # comment\n", "form");
  refused(kHex + "\n", "form");
  refused(kHex + "  \n", "form");
  refused(kHex + " x\n", "form");
  refused(kHex + "\tx\n", "form");
  refused(kHex.substr(1) + "   x\n", "form");
  refused("g" + kHex.substr(1) + "  x\n", "form");
  refused(kHex + kHex + "  x\n", "form");
  refused("SHA256 (x) = " + kHex + "\n", "form");
  refused(" " + kHex + "  x\n", "form");
  refused("\\" + kHex + "  a\\tb\n", "backslash");
  refused("\\" + kHex + "  a\\\n", "backslash");
  refused("\\" + kHex + "  a\\>\n", "backslash");
  refused(kHex + "  /etc/passwd\n", "no path below");
  refused(kHex + "  ../x\n", "no path below");
  refused(kHex + "  a/../../x\n", "no path below");
  refused(kHex + "  a/./x\n", "no path below");
  refused(kHex + "  a//x\n", "no path below");
  refused(kHex + "  a/\n", "no path below");
  refused(kHex + "  .\n", "no path below");
  refused(kHex + "  ./\n", "no path below");
  refused(kHex + std::string("  a\0b\n", 6), "no path below");
  refused(kHex + "  first\n", "second time");
  refused(kHex + "  ./first\n", "second time");
  refused(kHex + "  SHA256SUMS\n", "cannot be listed");
  refused(kHex + "  ./SHA256SUMS.minisig\n", "cannot be listed");
  CHECK(parse_sums(kHex + "  lib/SHA256SUMS\n"));  // only at the root it is this file
}

TEST_CASE("symlinks are in comments of one form") {
  const std::map<std::string, std::string, std::less<>> symlinks = {{"json.py", "lib/other.py"},
                                                                    {"lib/a b", "../x y"},
                                                                    {"back\\slash", "\\n"},
                                                                    {"a -> b", "c -> d"},
                                                                    {"- >", "->"},
                                                                    {"line\nfeed", "re\rturn"},
                                                                    {"#", " "},
                                                                    {"lib/SHA256SUMS", "../SHA256SUMS"},
                                                                    {"verkn\xc3\xbcpft", "./x/"},
                                                                    {"x -", "- > -> x"}};
  const Sums sums = {{{"a", sum_of(kHex)}}, symlinks};
  const std::string text = format_sums(sums);
  CHECK(text.starts_with(kHex + "  a\n# symlink # ->  \n"));
  CHECK(text.find("# symlink json.py -> lib/other.py\n") != std::string::npos);
  CHECK(text.find("# symlink a -\\> b -> c -\\> d\n") != std::string::npos);
  CHECK(text.find("# symlink back\\\\slash -> \\\\n\n") != std::string::npos);
  CHECK(text.find("# symlink line\\nfeed -> re\\rturn\n") != std::string::npos);
  const auto read = parse_sums(text);
  REQUIRE_MESSAGE(read, (read ? "" : read.error().message()));
  CHECK(*read == sums);
}

TEST_CASE("a line that begins as a symlink's and is of another form is refused") {
  const auto refused = [](const std::string& line, std::string_view why) {
    const auto parsed = parse_sums("# symlink first -> x\n" + line + "\n");
    CAPTURE(line);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().message().find("line 2 of SHA256SUMS") != std::string::npos);
    CHECK(parsed.error().message().find(why) != std::string::npos);
  };
  for (const char* line : {"# symlink", "# symlink ", "# symlinks a -> b", "# symlink\ta -> b", "# symlink a",
                           "# symlink a ->", "# symlink a -> ", "# symlink a->b", "# symlink a <- b",
                           "# symlink a -> b -> c", "# symlink a > c -> b", "# symlink a -> b\r", "# symlink a\\ -> b",
                           "# symlink a -> b\\", "# symlink a\\t -> b", "# symlink a -\\> b"}) {
    refused(line, "is not of its form: # symlink PATH -> TARGET");
  }
  for (const char* path : {"/etc/x", "../x", "./x", "a/../x", "a//x", "a/", ".", ""}) {
    refused(std::string("# symlink ") + path + " -> b", "no path below");
  }
  refused("# symlink first -> x", "second time");
  refused("# symlink SHA256SUMS -> b", "cannot be listed");
  refused("# symlink SHA256SUMS.minisig -> b", "cannot be listed");
}

TEST_CASE("more symlinks than a package may have are refused") {
  std::string text;
  for (std::size_t number = 0; number < kMaxSymlinks; ++number)
    text += "# symlink " + std::to_string(number) + " -> x\n";
  CHECK(parse_sums(text)->symlinks.size() == kMaxSymlinks);
  CHECK_FALSE(parse_sums(text + "# symlink x -> x\n"));
}

TEST_CASE("a list larger than its limit is refused") {
  const auto parsed = parse_sums(std::string(kMaxSumsBytes + 1, '\n'));
  REQUIRE_FALSE(parsed);
  CHECK(parsed.error().message().find("32 MB") != std::string::npos);
}

TEST_CASE("list and files are held against each other, and the first difference is named") {
  const Sha256 a = sum_of(kHex);
  const Sha256 b = sum_of(kOther);
  using Files = decltype(Sums::files);
  const auto check = [](const Files& listed, const Files& found) { return check_sums({listed}, {found}); };
  const Files listed = {{"a", a}, {"b/c", b}, {"d", a}};
  CHECK(check(listed, listed));
  CHECK(check({}, {}));
  CHECK(says(check(listed, {{"a", a}, {"b/c", b}}), "d is listed in SHA256SUMS but is not"));
  CHECK(says(check(listed, {{"a", a}, {"d", a}}), "b/c is listed in SHA256SUMS but is not"));
  CHECK(says(check(listed, {{"a", a}, {"b", b}, {"b/c", b}, {"d", a}}), "b is in the package but is not listed"));
  CHECK(says(check(listed, {{"a", a}, {"b/c", b}, {"d", a}, {"z", a}}), "z is in the package but is not listed"));
  CHECK(says(check(listed, {{"a", a}, {"b/c", a}, {"d", b}}), "b/c does not have the check sum"));
  CHECK(says(check({{"x\x1b[2J", a}}, {}), "x\\e[2J is listed"));
}

TEST_CASE("symlinks are held to the list both ways") {
  const auto sums = [](decltype(Sums::symlinks) symlinks) { return Sums{{{"a", sum_of(kHex)}}, std::move(symlinks)}; };
  const Sums listed = sums({{"json.py", "lib/x.py"}, {"m", "a"}});
  const Sums none = sums({});
  for (const auto unlisted : {UnlistedSymlinks::kRefused, UnlistedSymlinks::kAllowed}) {
    CHECK(check_sums(listed, listed, unlisted));
    CHECK(says(check_sums(listed, none, unlisted),
               "the symlink json.py is listed in SHA256SUMS but is not in the package"));
    CHECK(says(check_sums(listed, sums({{"json.py", "lib/x.py"}}), unlisted), "the symlink m is listed"));
    CHECK(says(check_sums(listed, sums({{"json.py", "lib/y.py"}, {"m", "a"}}), unlisted),
               "the symlink json.py does not lead where SHA256SUMS says"));
  }
  CHECK(says(check_sums(none, listed), "the symlink json.py is in the package but is not listed in SHA256SUMS"));
  CHECK(check_sums(none, listed, UnlistedSymlinks::kAllowed));
  const Sums more = sums({{"json.py", "lib/x.py"}, {"k", "a"}, {"m", "a"}, {"z", "a"}});
  CHECK(says(check_sums(listed, more), "the symlink k is in the package"));
  CHECK(check_sums(listed, more, UnlistedSymlinks::kAllowed));
  CHECK(says(check_sums(listed, Sums{}, UnlistedSymlinks::kAllowed), "the file a is listed"));
}

}  // namespace
}  // namespace kai::package
