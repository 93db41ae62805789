#include "supervisor/control/replay_window.h"

#include <doctest/doctest.h>

#include "base/text.h"

namespace kai {
namespace {

UuidBytes id(std::uint32_t number) {
  UuidBytes bytes{};
  for (std::size_t at = 0; at < 4; ++at) bytes[at] = static_cast<std::uint8_t>(number >> (8 * at));
  return bytes;
}

TEST_CASE("a UUIDv7 is read in either case; nothing else is") {
  const auto lower = parse_uuid_v7("01890a5d-ac96-774b-bcce-b302099a8057");
  REQUIRE(lower);
  CHECK((*lower)[0] == 0x01);
  CHECK((*lower)[15] == 0x57);
  CHECK(parse_uuid_v7("01890A5D-AC96-774B-BCCE-B302099A8057") == lower);
  CHECK(parse_uuid_v7(new_uuid()));
  for (const char* wrong : {"", "01890a5d-ac96-774b-bcce-b302099a805", "01890a5d-ac96-774b-bcce-b302099a80577",
                            "01890a5d-ac96-474b-bcce-b302099a8057",  // version 4
                            "01890a5d-ac96-774b-ccce-b302099a8057",  // another variant
                            "01890a5d-ac96-774b-7cce-b302099a8057", "01890a5dac96-774b-bcce-b302099a8057a",
                            "01890a5d-ac96-774b-bcce+b302099a8057", "g1890a5d-ac96-774b-bcce-b302099a8057",
                            "{1890a5d-ac96-774b-bcce-b302099a805}", "01890a5d-ac96-774b-bcce-b302099a80\x00\x35"}) {
    CAPTURE(wrong);
    CHECK_FALSE(parse_uuid_v7(wrong));
  }
  CHECK_FALSE(parse_uuid_v7(std::string_view("01890a5d-ac96-774b-bcce-b302099a805\0", 36)));
}

TEST_CASE("an id is taken once while it is in the window") {
  ReplayWindow window;
  CHECK(window.accept(id(1), 0));
  CHECK_FALSE(window.accept(id(1), 0));
  CHECK(window.accept(id(2), 1));
  CHECK_FALSE(window.accept(id(1), ReplayWindow::kMs - 1));
  CHECK_FALSE(window.accept(id(2), ReplayWindow::kMs));
}

TEST_CASE("the window is 5 minutes long") {
  ReplayWindow window;
  CHECK(window.accept(id(1), 0));
  CHECK(window.accept(id(2), 10));
  CHECK(window.accept(id(1), ReplayWindow::kMs));
  CHECK_FALSE(window.accept(id(2), ReplayWindow::kMs));
  CHECK_FALSE(window.accept(id(1), ReplayWindow::kMs));
}

TEST_CASE("the window has 10,000 ids, and a refused one takes no place in it") {
  ReplayWindow window;
  for (std::uint32_t number = 0; number < ReplayWindow::kIds; ++number) CHECK(window.accept(id(number), 0));
  for (std::uint32_t number = 0; number < ReplayWindow::kIds; ++number) CHECK_FALSE(window.accept(id(number), 0));
  CHECK(window.accept(id(ReplayWindow::kIds), 0));
  CHECK_FALSE(window.accept(id(1), 0));
  CHECK(window.accept(id(0), 0));  // it was the oldest
  CHECK(window.accept(id(1), 0));  // and now this one
}

}  // namespace
}  // namespace kai
