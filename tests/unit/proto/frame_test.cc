#include "proto/frame.h"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "proto/klp.pb.h"

namespace kai {
namespace {

using namespace std::string_literals;

std::string framed(std::string_view body) {
  std::string out;
  append_frame(out, body);
  return out;
}

TEST_CASE("a frame is four bytes of length, most significant first, then the body") {
  CHECK(framed("") == "\0\0\0\0"s);
  CHECK(framed("abc") == "\0\0\0\3abc"s);
  CHECK(framed(std::string(0x010203, 'x')).substr(0, 4) == "\0\1\2\3"s);
}

TEST_CASE("frames come out whole and in order, however the stream is cut") {
  const std::vector<std::string> bodies = {"first", "", std::string(5000, 'x'), "\0\xFF"s, "last"};
  std::string stream;
  for (const std::string& body : bodies) append_frame(stream, body);
  for (std::size_t piece = 1; piece <= stream.size(); piece = piece < 16 ? piece + 1 : piece * 3) {
    CAPTURE(piece);
    FrameDecoder decoder;
    std::vector<std::string> decoded;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      decoder.feed(std::string_view(stream).substr(at, piece));
      for (auto frame = decoder.next();; frame = decoder.next()) {
        REQUIRE(frame.has_value());
        if (!*frame) break;
        decoded.emplace_back(**frame);
      }
    }
    CHECK(decoded == bodies);
    CHECK_FALSE(decoder.mid_frame());
  }
}

TEST_CASE("half a frame waits, and says that it does") {
  FrameDecoder decoder;
  CHECK_FALSE(decoder.mid_frame());
  decoder.feed("\0\0"s);
  CHECK(decoder.mid_frame());
  CHECK_FALSE(decoder.next().value().has_value());
  decoder.feed("\0\2a"s);
  CHECK_FALSE(decoder.next().value().has_value());
  CHECK(decoder.mid_frame());
  decoder.feed("b");
  CHECK(decoder.next().value() == "ab");
  CHECK_FALSE(decoder.mid_frame());
}

TEST_CASE("the limit is exact, and a length beyond it is an error before the body comes") {
  FrameDecoder exact(8);
  exact.feed(framed("12345678"));
  CHECK(exact.next().value() == "12345678");
  FrameDecoder over(8);
  over.feed("\0\0\0\x09"s);
  CHECK_FALSE(over.next().has_value());
  FrameDecoder lying(kMaxFrameBytes);
  lying.feed("\xFF\xFF\xFF\xFF"s);
  CHECK_FALSE(lying.next().has_value());
}

TEST_CASE("an envelope survives the way through a frame, and garbage does not parse as one") {
  klp::Envelope sent;
  sent.mutable_hello()->set_agent_id("calendarAgent");
  sent.mutable_hello()->add_capabilities("scheduleEvent");
  FrameDecoder decoder;
  decoder.feed(framed(sent.SerializeAsString()));
  const auto body = decoder.next().value();
  REQUIRE(body.has_value());
  klp::Envelope received;
  REQUIRE(received.ParseFromArray(body->data(), static_cast<int>(body->size())));
  CHECK(received.hello().agent_id() == "calendarAgent");
  CHECK(received.hello().capabilities_size() == 1);
  CHECK_FALSE(received.ParseFromString("\xFF\xFF\xFF garbage"));
}

}  // namespace
}  // namespace kai
