#include "supervisor/egress/names.h"

#include <algorithm>
#include <set>

#include <doctest/doctest.h>

namespace kai::egress {
namespace {

void allow(Rules& rules, const std::string& name, bool subdomains = false) {
  for (Pattern* pattern : {rules.add_asked(), rules.add_allowed()}) {
    pattern->set_name(name);
    pattern->set_subdomains(subdomains);
  }
}

std::string text(const Address& address) {
  return address_text(address);
}

TEST_CASE("A name has one address of each family, and both lead back to it") {
  Rules rules;
  allow(rules, "wide.test", true);
  SyntheticNames names(rules);
  const auto first = names.addresses("a.wide.test");
  REQUIRE(first);
  CHECK(text(first->v4).starts_with("198.19."));
  CHECK(text(first->v6).starts_with("fde0:23a2:f472:"));
  CHECK(SyntheticNames::is_synthetic(first->v4));
  CHECK(SyntheticNames::is_synthetic(first->v6));
  CHECK(names.name_of(first->v4) == "a.wide.test");
  CHECK(names.name_of(first->v6) == "a.wide.test");
  CHECK(text(names.addresses("a.wide.test")->v4) == text(first->v4));
  CHECK(text(names.addresses("b.wide.test")->v4) != text(first->v4));
}

TEST_CASE("What stands for nothing is no name") {
  Rules rules;
  const SyntheticNames names(rules);
  for (const char* address : {"198.18.0.1", "198.19.255.254", "198.18.0.0", "198.17.0.1", "198.20.0.1", "8.8.8.8",
                              "fde0:23a2:f472::c612:1", "fde0:23a2:f472::1", "::1", "fde0:23a2:f473::c612:1"}) {
    CAPTURE(address);
    CHECK_FALSE(names.name_of(*read_address(address)));
  }
  CHECK(SyntheticNames::is_synthetic(*read_address("198.18.0.0")));
  CHECK(SyntheticNames::is_synthetic(*read_address("198.19.255.255")));
  CHECK_FALSE(SyntheticNames::is_synthetic(*read_address("198.17.255.255")));
  CHECK_FALSE(SyntheticNames::is_synthetic(*read_address("198.20.0.0")));
  CHECK_FALSE(SyntheticNames::is_synthetic(*read_address("2001:db8::c612:1")));
}

TEST_CASE("A name of the rules has the same address in every life, and is understood before anybody asks for it") {
  Rules rules;
  allow(rules, "api.example.com");
  allow(rules, "www.example.com");
  StaticHost& host = *rules.add_hosts();
  host.set_name("db.example.com");
  SyntheticNames first(rules);
  const auto address = first.addresses("api.example.com");
  const auto mapped = first.addresses("db.example.com");
  REQUIRE(address);
  CHECK(text(address->v4).starts_with("198.18."));
  const SyntheticNames second(rules);
  CHECK(second.name_of(address->v4) == "api.example.com");
  CHECK(second.name_of(address->v6) == "api.example.com");
  CHECK(second.name_of(mapped->v4) == "db.example.com");
  CHECK(second.entries().empty());
}

TEST_CASE("No address ends in 0 or 255, and none is there twice") {
  Rules rules;
  for (int at = 0; at < 1500; ++at) allow(rules, "exact" + std::to_string(at) + ".test");
  SyntheticNames names(rules);
  std::set<std::string> seen;
  const auto check = [&](const std::string& name) {
    const auto made = names.addresses(name);
    REQUIRE(made);
    CHECK(made->v4.bytes[3] != 0);
    CHECK(made->v4.bytes[3] != 255);
    CHECK(seen.insert(text(made->v4)).second);
    CHECK(seen.insert(text(made->v6)).second);
    CHECK(names.name_of(made->v4) == name);
  };
  for (int at = 0; at < 1500; ++at) check("exact" + std::to_string(at) + ".test");
  for (int at = 0; at < 2000; ++at) check("below" + std::to_string(at) + ".wide.test");
}

TEST_CASE(
    "The name that was not used for the longest gives its address up; names of the rules and names in use never") {
  Rules rules;
  allow(rules, "exact.test");
  SyntheticNames names(rules);
  const auto exact = names.addresses("exact.test");
  const auto used = names.addresses("used.wide.test");
  const auto old = names.addresses("old.wide.test");
  names.open("used.wide.test");
  for (std::size_t at = 0; at < 2 * SyntheticNames::kMaxNames; ++at) {
    REQUIRE(names.addresses("n" + std::to_string(at) + ".wide.test"));
  }
  CHECK(names.entries().size() == SyntheticNames::kMaxNames);
  CHECK(names.name_of(exact->v4) == "exact.test");
  CHECK(names.name_of(used->v4) == "used.wide.test");
  CHECK_FALSE(names.name_of(old->v4));
  names.close("used.wide.test");
  for (std::size_t at = 0; at < SyntheticNames::kMaxNames; ++at) {
    REQUIRE(names.addresses("m" + std::to_string(at) + ".wide.test"));
  }
  CHECK_FALSE(names.name_of(used->v4));
}

TEST_CASE("When every name is in use, a new one gets nothing") {
  Rules rules;
  SyntheticNames names(rules);
  for (std::size_t at = 0; at < SyntheticNames::kMaxNames; ++at) names.open("n" + std::to_string(at) + ".wide.test");
  CHECK_FALSE(names.addresses("one.more.test"));
  names.open("one.more.test");  // nothing happens
  CHECK(names.entries().size() == SyntheticNames::kMaxNames);
  names.close("n7.wide.test");
  CHECK(names.addresses("one.more.test"));
}

TEST_CASE("New rules leave every address as it is, and give theirs to new names") {
  Rules rules;
  allow(rules, "before.test");
  SyntheticNames names(rules);
  const auto before = names.addresses("before.test");
  const auto below = names.addresses("a.wide.test");
  Rules other;
  allow(other, "after.test");
  allow(other, "a.wide.test");
  names.use(other);
  CHECK(text(names.addresses("before.test")->v4) == text(before->v4));
  CHECK(text(names.addresses("a.wide.test")->v4) == text(below->v4));
  CHECK(text(names.addresses("after.test")->v4).starts_with("198.18."));
  SyntheticNames fresh(other);
  CHECK(text(fresh.addresses("after.test")->v4) == text(names.addresses("after.test")->v4));
  CHECK_FALSE(fresh.name_of(before->v4));
}

TEST_CASE("A list of names that is longer than half of all addresses works, and has no address twice") {
  Rules rules;
  for (int at = 0; at < 6000; ++at) allow(rules, "n" + std::to_string(at) + ".test");
  SyntheticNames names(rules);
  std::set<std::string> seen;
  for (int at = 0; at < 4000; ++at) seen.insert(text(names.addresses("n" + std::to_string(at) + ".test")->v4));
  CHECK(seen.size() == 4000);
}

TEST_CASE("entries() begins with the name that was used last") {
  Rules rules;
  SyntheticNames names(rules);
  REQUIRE(names.addresses("a.test"));
  REQUIRE(names.addresses("b.test"));
  names.open("a.test");
  REQUIRE(names.entries().size() == 2);
  CHECK(names.entries().front().name == "a.test");
  CHECK(names.entries().front().connections == 1);
  names.close("a.test");
  names.close("a.test");
  names.close("unknown.test");
  CHECK(names.entries().front().connections == 0);
}

}  // namespace
}  // namespace kai::egress
