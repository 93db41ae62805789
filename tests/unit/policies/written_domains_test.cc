#include "policies/written_domains.h"

#include <doctest/doctest.h>

#include "policies/listed_address.h"
#include "tests/unit/policies/policy_fixture.h"

namespace kai {

TEST_CASE("names in Unicode become A-labels, once; in ASCII they stay") {
  const std::pair<const char*, const char*> names[] = {
      {"B\xC3\xBC"
       "cher.Example.",
       "xn--bcher-kva.example"},
      {"*.B\xC3\x9C"
       "CHER.de:8443",
       "*.xn--bcher-kva.de:8443"},
      {"bu\xCC\x88"
       "cher.de",
       "xn--bcher-kva.de"},  // decomposed
      {"stra\xC3\x9F"
       "e.de",
       "xn--strae-oqa.de"},  // not strasse: non-transitional
      {"\xE4\xBE\x8B\xE3\x81\x88.\xE3\x83\x86\xE3\x82\xB9\xE3\x83\x88", "xn--r8jz45g.xn--zckzah"},
      {"\xC3\xBC\xE3\x80\x82"
       "de",
       "xn--tda.de"},                                // the ideographic full stop is a dot
      {"\xD0\xB0llowed.com", "xn--llowed-2nf.com"},  // Cyrillic: another name than allowed.com
      {"XN--Bcher-KVA.de", "xn--bcher-kva.de"},
      {"A.com.:1", "a.com:1"},
      {"*", "*"},
  };
  for (const auto& [text, expected] : names) {
    CAPTURE(std::string(text));
    const auto found = normalized_domain(text);
    CHECK(written_domain_fault(text) == nullptr);
    REQUIRE(found);
    CHECK(*found == expected);
    CHECK(normalized_domain(*found) == found);
  }
}

TEST_CASE("what IDNA does not take is no name, and nothing of it is dropped") {
  for (const char* text : {
           "\xE2\x98\x83.example",  // a symbol
           "\xC3\xBC*.de",          // libidn2 would leave the * out
           "b\xC3\xBC cher.de",
           "b\xC3\xBC/cher.de",
           "\xC3\xBC_b.de",
           "\xC3\xBC%31.de",
           "b.\xC3\xBC..de",
           "-\xC3\xBC.de",
           "\xC3\xBC-.de",
           "ab--\xC3\xBC.de",
           "a\xE2\x80\x8D\xC3\xBC.de",  // zero-width joiner
           "\xD7\x90"
           "a.com",  // both directions in one label
           "xn--zzzz99999.\xC3\xBC",
           "xn--a.example",  // A-labels that IDNA would not make: no punycode,
           "a.XN--A.example:443",
           "*.xn--.example",
           "xn--abc-.example",       // of ASCII alone,
           "xn--BCHER-2OA.example",  // of an upper case Ü, and of a symbol
           "xn--n3h.example",
           "\xEF\xBC\x91\xEF\xBC\x92\xEF\xBC\x97.0.0.1",  // fullwidth 127
           "\xE2\x91\xA0.2.3.4",                          // circled 1
           "\xEF\xBC\x8A.\xC3\xBC.de",                    // fullwidth *
           "\xC3\xBC.de:\xEF\xBC\x91",                    // a port in other digits
           "\xC3\xBC.de:0",
           "\xFF\xFE.de",  // no UTF-8
       }) {
    CAPTURE(std::string(text));
    CHECK(written_domain_fault(text) != nullptr);
    CHECK(manifest_domain_fault(text) != nullptr);
    CHECK(!normalized_domain(text));
  }
  CHECK(std::string(written_domain_fault("\xE2\x98\x83.example")).find("IDNA") != std::string::npos);
  CHECK(std::string(written_domain_fault("xn--a.example")).find("IDNA") != std::string::npos);
  for (const char* url : {"http://a.example", "https://\xC3\xBC.example/", "a.example/path"}) {
    CAPTURE(std::string(url));
    CHECK(std::string(written_domain_fault(url)).find("must be a name alone") == 0);
    CHECK(std::string(written_domain_fault(url)).find("not a URL") != std::string::npos);
    CHECK(std::string(manifest_domain_fault(url)).find("not a URL") != std::string::npos);
  }
  CHECK(testing::fault("policies:\n- network: {allowedDomains: [\"http://a.example\"]}\n").find("not a URL") !=
        std::string::npos);
  CHECK(testing::fault("policies:\n- network: {allowedDomains: [10.0.0.0/8]}\n").find("network.allowedCidrs") !=
        std::string::npos);
  CHECK(!ascii_domain(std::string_view("\xC3\xBC\0.de", 6)));
  CHECK(written_host("B\xC3\xBC"
                     "cher.de") == "xn--bcher-kva.de");
  CHECK(
      !written_host("*.b\xC3\xBC"
                    "cher.de"));
  CHECK(
      !written_host("b\xC3\xBC"
                    "cher.de:80"));
}

TEST_CASE("policies take international names, everywhere they have names") {
  const Policy rules = testing::policy(
      "  network:\n    allowedDomains: [\"*.B\xC3\xBC"
      "cher.de\"]\n    blockedDomains: [\xC3\xBC.b\xC3\xBC"
      "cher.de]\n"
      "    hosts: {\xC3\xBC.de: 1.2.3.4}\n");
  CHECK(rules.network.allowed_domains == std::vector<std::string>{"*.xn--bcher-kva.de"});
  CHECK(rules.network.blocked_domains == std::vector<std::string>{"xn--tda.xn--bcher-kva.de"});
  CHECK(rules.network.hosts.at("xn--tda.de") == "1.2.3.4");
  CHECK(rules.rule("network.hosts.xn--tda.de") == "10-test.yaml:6");
  CHECK(testing::fault("policies:\n- network: {allowedDomains: [\xE2\x98\x83.example]}\n").find("IDNA") !=
        std::string::npos);
}

TEST_CASE("addresses among a manifest's names, each in one spelling") {
  const auto listed = read_listed_address("10.1.2.3:8080");
  REQUIRE(listed);
  CHECK(listed->port == 8080);
  CHECK(listed->block.prefix == 32);
  CHECK(read_listed_address("[fd00::1]:443")->port == 443);
  CHECK(read_listed_address("fd00::1")->block.prefix == 128);
  CHECK(read_listed_address("fd00::/8")->block.prefix == 8);
  CHECK(read_listed_address("::1:80")->port == 0);  // an address, not a port
  for (const char* bad :
       {"127.1",         "0177.0.0.1", "0x7f.0.0.1",   "2130706433",        "1.2.3.4.",       "1.2.3.4:0",
        "1.2.3.4:65536", "1.2.3.4:",   "1.2.3.4:080",  "[1.2.3.4]:80",      "[::1]",          "[::1]:",
        "[::1]:0",       "::1%lo",     "fe80::1%eth0", "[fe80::1%eth0]:80", "::ffff:1.2.3.4", "::ffff:102:304",
        "::1.2.3.4",     "1.2.3.4/8",  "10.0.0.0/08",  "10.0.0.0/8:80",     "https://a.com",  "a.com/x",
        "a:b:c",         "[a.com]:80"}) {
    CAPTURE(std::string(bad));
    CHECK(looks_like_address(bad));
    CHECK(listed_address_fault(bad) != nullptr);
    CHECK(!read_listed_address(bad));
    CHECK(manifest_domain_fault(bad) != nullptr);
  }
  CHECK(!looks_like_address("a.com:80"));
  CHECK(!looks_like_address("1a.com"));
  CHECK(!looks_like_address("*.a.com"));
  CHECK(std::string(manifest_domain_fault("https://a.com/")).find("no path") != std::string::npos);
}

}  // namespace kai
