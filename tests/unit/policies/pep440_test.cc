// PEP 440's own examples, and what tests/versions leaves out. Everything else is held to `packaging` there.
#include "policies/versions/pep440.h"

#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace kai {
namespace {

std::string normal(const std::string& text) {
  const auto version = Pep440Version::parse(text);
  return version ? version->text() : "none";
}

bool has(const std::string& specifiers, const std::string& version) {
  INFO(specifiers << " and " << version);
  const auto parsed = Pep440Specifiers::parse(specifiers);
  const auto candidate = Pep440Version::parse(version);
  REQUIRE(parsed);
  REQUIRE(candidate);
  return parsed->has(*candidate);
}

TEST_CASE("PEP 440: every spelling of a version has one normal form") {
  CHECK(normal("1.1RC1") == "1.1rc1");
  CHECK(normal("1.1-alpha_2") == "1.1a2");
  CHECK(normal("1.1.preview") == "1.1rc0");
  CHECK(normal("1.2-1") == "1.2.post1");
  CHECK(normal("1.2.r4") == "1.2.post4");
  CHECK(normal("1.2-DEV") == "1.2.dev0");
  CHECK(normal(" v01!00.007 ") == "1!0.7");
  CHECK(normal("1.0+Ubuntu-01_a") == "1.0+ubuntu.1.a");
  CHECK(normal("99999999999999999999999.0") == "99999999999999999999999.0");
  for (const std::string text :
       {"", "v", "1..2", "1.", "latest", "1.0 a1", "1.0_1", "1.0+", "1.0+a..b", "1!", "1.0\xc3\xa9"}) {
    INFO(text);
    CHECK(normal(text) == "none");
  }
  CHECK(normal(std::string(256, '1')).size() == 256);
  CHECK(normal(std::string(257, '1')) == "none");
}

TEST_CASE("PEP 440: versions in their order") {
  const std::vector<std::string> order = {"1.dev0",
                                          "1.0.dev456",
                                          "1.0a1",
                                          "1.0a2.dev456",
                                          "1.0a12.dev456",
                                          "1.0a12",
                                          "1.0b1.dev456",
                                          "1.0b2",
                                          "1.0b2.post345.dev456",
                                          "1.0b2.post345",
                                          "1.0rc1.dev456",
                                          "1.0rc1",
                                          "1.0",
                                          "1.0+abc.5",
                                          "1.0+abc.7",
                                          "1.0+5",
                                          "1.0.post456.dev34",
                                          "1.0.post456",
                                          "1.0.15",
                                          "1.1.dev1",
                                          "1!0.1"};
  for (std::size_t at = 1; at < order.size(); ++at) {
    // The last specifier lets pre-releases in.
    CHECK(has("<=" + order[at].substr(0, order[at].find('+')) + ",>=0.dev0", order[at - 1]));
    if (order[at].find('+') == std::string::npos && order[at - 1].find('+') == std::string::npos) {
      CHECK_FALSE(has(">=" + order[at] + ",>=0.dev0", order[at - 1]));
    }
  }
}

TEST_CASE("PEP 440: specifiers") {
  CHECK(has("~=2.2", "2.9"));
  CHECK_FALSE(has("~=2.2", "3.0"));
  CHECK(has("~=1.4.5", "1.4.9.post1"));
  CHECK_FALSE(has("~=1.4.5", "1.5"));
  CHECK(has("==1.1", "1.1.0"));
  CHECK(has("==1.1", "1.1+local"));
  CHECK_FALSE(has("==1.1+local", "1.1"));
  CHECK_FALSE(has("==1.1", "1.1.post1"));
  CHECK(has("==1.1.*", "1.1.post1"));
  CHECK(has("==1.1.*", "1.1"));
  CHECK_FALSE(has("!=1.1.*", "1.1.7"));
  CHECK_FALSE(has(">1.7", "1.7.0.post1"));
  CHECK(has(">1.7.post2", "1.7.0.post3"));
  CHECK_FALSE(has(">1.7", "1.7+local"));
  CHECK(has(">=2.8.1, ==2.8.*, !=2.8.3", "2.8.4"));
  CHECK_FALSE(has(">=2.8.1, ==2.8.*, !=2.8.3", "2.8.3"));
  CHECK(has("===1.0", "1.0"));
  CHECK_FALSE(has("===1.0", "1.0.0"));
  CHECK_FALSE(has("===anything", "1.0"));
}

TEST_CASE("PEP 440: a pre-release has to be asked for") {
  CHECK_FALSE(has("", "1.0a1"));
  CHECK_FALSE(has(">=1.0", "1.1rc1"));
  CHECK_FALSE(has("<2.0b1", "1.5a1"));
  CHECK(has(">=1.0a1", "1.1.dev3"));
  CHECK(has(">=1.0a1,<3", "2.0b1"));
  CHECK_FALSE(has(">=1.0a1,<2.0", "2.0b1"));
  CHECK(has("==1.0rc1", "1.0c1"));
}

TEST_CASE("PEP 440: prefixes and epochs, where packaging 23.0 is wrong") {
  CHECK(has("==1!1.0.*", "1!1"));
  CHECK(has("==1!1.*", "1!1.5"));
  CHECK_FALSE(has("==1.*", "1!1.5"));
  CHECK_FALSE(has("==0.*", "1!7"));
  CHECK(has("~=1!2.3", "1!2.4"));
  CHECK_FALSE(has("~=0.1", "1!1.0"));
  CHECK(has("~=1.4-alpha.4", "1.9"));
}

TEST_CASE("PEP 440: what is no specifier says which") {
  for (const std::string text :
       {"1.2", "^1.2", "~1.2", "=1", "==", "<1.*", "~=1", ">=1+x", "== 1 2", "==1.0a1.*", "latest"}) {
    INFO(text);
    CHECK_FALSE(Pep440Specifiers::parse(text));
  }
  const auto parsed = Pep440Specifiers::parse(">=1, <banana");
  REQUIRE_FALSE(parsed);
  CHECK(parsed.error().what.find("'<banana'") != std::string::npos);
  CHECK_FALSE(Pep440Specifiers::parse(std::string(300, ',')));
  CHECK(Pep440Specifiers::exactly(*Pep440Version::parse("1.2")).has(*Pep440Version::parse("1.2.0")));
}

}  // namespace
}  // namespace kai
