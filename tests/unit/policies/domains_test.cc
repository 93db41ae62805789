#include "policies/domains.h"

#include <doctest/doctest.h>

#include "policies/addresses.h"

namespace kai {
namespace {

DomainPattern pattern(const char* text) {
  const auto read = read_domain_pattern(text);
  REQUIRE_MESSAGE(read, text);
  return *read;
}

bool names(const char* text, const char* host) {
  const auto canonical = canonical_host(host);
  return canonical && names_host(pattern(text), *canonical);
}

}  // namespace

TEST_CASE("a pattern is a name, *.name, either with a port, or *") {
  CHECK(pattern("Example.COM.") == DomainPattern{"example.com", false, 0});
  CHECK(pattern("*.example.com:8443") == DomainPattern{"example.com", true, 8443});
  CHECK(pattern("example.com.:1") == DomainPattern{"example.com", false, 1});
  CHECK(pattern("*").is_anything());
  CHECK(pattern("*.A.b:5").text() == "*.a.b:5");
  CHECK(pattern("*").text() == "*");
  for (const char* bad : {"",        ".",         "*.",         "*.*",   "a*",
                          "*a",      "*:443",     "a.*.b",      "a..b",  "a.b..",
                          "1.2.3.4", "1.2.3.4.",  "0x7f000001", "[::1]", "::1",
                          "a:b:c",   "a.com:0",   "a_b.com/",   "a b",   "m\xC3\xBCller.de",
                          "127.1",   "2130706433"}) {
    CAPTURE(std::string(bad));
    CHECK(!read_domain_pattern(bad));
  }
}

TEST_CASE("only the name itself, or what is below it") {
  CHECK(names("allowed.com", "allowed.com"));
  CHECK(names("allowed.com", "ALLOWED.com."));
  CHECK(!names("allowed.com", "evilallowed.com"));
  CHECK(!names("allowed.com", "sub.allowed.com"));
  CHECK(!names("allowed.com", "allowed.com.evil.org"));
  CHECK(names("*.allowed.com", "a.allowed.com"));
  CHECK(names("*.allowed.com", "a.b.Allowed.Com."));
  CHECK(!names("*.allowed.com", "allowed.com"));
  CHECK(!names("*.allowed.com", "evilallowed.com"));
  CHECK(!names("*.allowed.com", ".allowed.com"));
  CHECK(names("*", "anything.example"));
  for (const char* host : {"1.2.3.4", "a..com", "*.com", "a.com:80", "[::1]", "x.com..", "", "."})
    CHECK(!names("*", host));
  CHECK(!canonical_host(std::string_view("allowed.com\0.evil.org", 21)));
  CHECK(!canonical_host("\xC3\xA4llowed.com"));
}

TEST_CASE("a port of the pattern's is part of the match") {
  CHECK(matches(pattern("a.com:443"), "a.com", 443));
  CHECK(!matches(pattern("a.com:443"), "a.com", 80));
  CHECK(matches(pattern("a.com"), "a.com", 80));
}

TEST_CASE("one pattern covers another") {
  CHECK(covers(pattern("*"), pattern("*.a.com")));
  CHECK(covers(pattern("*.a.com"), pattern("x.a.com")));
  CHECK(covers(pattern("*.a.com"), pattern("*.x.a.com")));
  CHECK(covers(pattern("*.a.com"), pattern("*.a.com")));
  CHECK(!covers(pattern("*.a.com"), pattern("a.com")));
  CHECK(!covers(pattern("a.com"), pattern("*.a.com")));
  CHECK(!covers(pattern("*.a.com"), pattern("*.evila.com")));
  CHECK(!covers(pattern("*.x.a.com"), pattern("*.a.com")));
  CHECK(!covers(pattern("*.a.com"), pattern("*")));
}

TEST_CASE("addresses and their blocks, each in one spelling") {
  const auto in = [](const char* cidr, const char* address) {
    const auto block = read_cidr(cidr);
    REQUIRE_MESSAGE(block, cidr);
    const auto literal = read_address(address);
    return literal && contains(*block, *literal);
  };
  CHECK(in("10.1.0.0/16", "10.1.255.255"));
  CHECK(!in("10.1.0.0/16", "10.2.0.0"));
  CHECK(in("10.1.0.0/16", "::ffff:10.1.2.3"));
  CHECK(in("0.0.0.0/0", "1.2.3.4"));
  CHECK(!in("0.0.0.0/0", "::1"));
  CHECK(in("127.0.0.1/32", "127.0.0.1"));
  CHECK(in("fd00::/9", "fd7f::1"));
  CHECK(!in("fd00::/9", "fd80::1"));
  for (const char* odd : {"127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "fe80::1%1", "1.2.3.4 ", ""}) {
    CAPTURE(std::string(odd));
    CHECK(!read_address(odd));
  }
  CHECK(!read_cidr("::ffff:0:0/96"));
}

}  // namespace kai
