#include "supervisor/egress/name_guard.h"

#include <array>
#include <string>

#include <doctest/doctest.h>

#include "honest_names.h"

namespace kai::egress {
namespace {

using std::chrono::milliseconds, std::chrono::seconds;

// policies/network_rules.cc.
constexpr std::uint32_t kLookups = 50, kNameBits = 8192;

Limits limits(std::uint32_t lookups, std::uint32_t name_bits) {
  Limits made;
  made.set_lookups(lookups);
  made.set_name_bits(name_bits);
  return made;
}

const Clock::time_point kStart = Clock::time_point{} + std::chrono::hours(1);

TEST_CASE("Information is counted by the smallest alphabet that has all characters") {
  CHECK(NameGuard::bits_of("") == 0);
  CHECK(NameGuard::bits_of("-.-") == 0);
  CHECK(NameGuard::bits_of("1234567890") == 34);
  CHECK(NameGuard::bits_of("deadbeef") == 32);
  CHECK(NameGuard::bits_of("dead0000") == 32);
  CHECK(NameGuard::bits_of("www") == 15);
  CHECK(NameGuard::bits_of("w1") == 11);
  CHECK(NameGuard::bits_of("a_1") == 18);
  CHECK(NameGuard::bits_of("550e8400-e29b-41d4-a716-446655440000") == 128);
}

TEST_CASE("So many lookups a second, and as many at once") {
  NameGuard guard(limits(10, kNameBits));
  int passed = 0;
  for (int at = 0; at < 100; ++at) passed += guard.take_lookup(kStart) ? 1 : 0;
  CHECK(passed == 10);
  CHECK_FALSE(guard.take_lookup(kStart + milliseconds(50)));
  CHECK(guard.take_lookup(kStart + milliseconds(150)));
  passed = 0;
  for (int at = 0; at < 100; ++at) passed += guard.take_lookup(kStart + seconds(60)) ? 1 : 0;
  CHECK(passed == 10);
}

TEST_CASE("No limit said is nothing allowed") {
  NameGuard guard(Limits{});
  CHECK_FALSE(guard.take_lookup(kStart));
  CHECK_FALSE(guard.take_name("a", kStart));
}

TEST_CASE("Names that real programs ask for pass, all within a minute") {
  NameGuard guard(limits(kLookups, kNameBits));
  static_assert(kHonestNames.size() >= 200);
  auto now = kStart;
  for (const HonestName& name : kHonestNames) {
    CAPTURE(name.below);
    CAPTURE(name.pattern);
    CHECK(guard.take_name(name.below, now));
    now += milliseconds(60'000 / kHonestNames.size());
  }
}

/// As iodine and dnscat2 make them: labels full of data.
std::string tunnel_name(std::size_t size, std::uint32_t& random, std::string_view alphabet) {
  std::string name;
  for (std::size_t at = 0; at < size; ++at) {
    random = random * 1664525 + 1013904223;
    if (at > 0 && at % 60 == 0) name += '.';
    name += alphabet[(random >> 16U) % alphabet.size()];
  }
  return name;
}

TEST_CASE("A tunnel is stopped once the minute's budget is gone, whatever its alphabet") {
  std::uint32_t random = 1;
  for (const std::string_view alphabet :
       {"abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdef", "0123456789abcdefghijklmnopqrstuvwxyz_"}) {
    for (const std::size_t size : {50U, 100U, 200U}) {
      CAPTURE(alphabet);
      CAPTURE(size);
      NameGuard guard(limits(kLookups, kNameBits));
      std::size_t characters = 0, refused = 0;
      auto now = kStart;
      for (int at = 0; at < 600; ++at, now += milliseconds(100)) {
        (guard.take_name(tunnel_name(size, random, alphabet), now) ? characters : refused) += size;
      }
      CHECK(refused > 0);
      // A full budget to begin with, and one that came back within the minute: at 4 bits a character and more.
      CHECK(characters * 4 <= 2 * kNameBits);
      CHECK(characters * 6 >= kNameBits);
    }
  }
}

TEST_CASE("New limits keep what was used up") {
  NameGuard guard(limits(10, 100));
  for (int at = 0; at < 10; ++at) CHECK(guard.take_lookup(kStart));
  guard.use(limits(20, 100));
  CHECK_FALSE(guard.take_lookup(kStart));
  CHECK(guard.take_lookup(kStart + milliseconds(60)));
}

}  // namespace
}  // namespace kai::egress
