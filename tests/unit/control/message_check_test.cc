#include "supervisor/control/message_check.h"

#include <doctest/doctest.h>

#include "base/text.h"
#include "proto/frame.h"
#include "tests/unit/control/signing_keys.h"

namespace kai {
namespace {

constexpr std::int64_t kNow = 1'777'777'777'000;

klp::Message message_at(std::int64_t unix_ms) {
  klp::Message message;
  message.set_protocol("klp/1.0");
  message.set_id(new_uuid());
  message.set_type(klp::EVENT);
  message.set_timestamp(iso_time(unix_ms));
  return message;
}

struct Signed {
  test::Ed25519Key key;
  MessageCheck check{*MessageSignature::of(Crypto::kEd25519, key.public_key())};

  std::string code(const klp::Message& message) {
    const std::string bytes = message.SerializeAsString();
    const auto refusal = check.refusal(message, bytes, key.sign(bytes), kNow, 0);
    return refusal ? refusal->code : "";
  }
};

TEST_CASE("a signed message is at most 30 s from control's clock") {
  Signed agent;
  for (const std::int64_t drift : {0, -30'000, 30'000}) CHECK(agent.code(message_at(kNow + drift)).empty());
  for (const std::int64_t drift : {-30'001, 30'001, -86'400'000, 86'400'000}) {
    CHECK(agent.code(message_at(kNow + drift)) == "EXPIRED");
  }
  klp::Message message = message_at(kNow);
  message.set_timestamp("yesterday");
  CHECK(agent.code(message) == "INVALID");
  const std::string bytes = message_at(kNow - 31'000).SerializeAsString();
  const auto refusal = agent.check.refusal(message_at(kNow - 31'000), bytes, agent.key.sign(bytes), kNow, 0);
  REQUIRE(refusal);
  CHECK(refusal->message.find("31000 ms behind") != std::string::npos);
}

TEST_CASE("what is not signed by the sender's key takes no place in the replay window") {
  Signed agent;
  const klp::Message message = message_at(kNow);
  const std::string bytes = message.SerializeAsString();
  for (const std::string& wrong : {std::string(), std::string(64, '\0'), test::Ed25519Key(9).sign(bytes)}) {
    const auto refusal = agent.check.refusal(message, bytes, wrong, kNow, 0);
    REQUIRE(refusal);
    CHECK(refusal->code == "BAD_SIGNATURE");
  }
  CHECK(agent.code(message).empty());
  CHECK(agent.code(message) == "REPLAY");
}

TEST_CASE("without a key: form and replay, and no clock") {
  MessageCheck check(*MessageSignature::of(Crypto::kNone, ""));
  const auto code = [&](const klp::Message& message) {
    const auto refusal = check.refusal(message, message.SerializeAsString(), "", kNow, 0);
    return refusal ? refusal->code : "";
  };
  klp::Message message = message_at(0);
  CHECK(code(message).empty());
  CHECK(code(message) == "REPLAY");
  message.set_id("not a UUID");
  CHECK(code(message) == "INVALID");
  message = message_at(0);
  message.set_protocol("klp/2.0");
  CHECK(code(message) == "INVALID");
}

TEST_CASE("every text of a message is bounded") {
  CHECK(size_fault(message_at(0)).empty());
  const std::string most(256, 'x'), over(257, 'x');
  klp::Message message = message_at(0);
  for (auto set : {+[](klp::Message&m, const std::string&text) { m.set_id(text); },
                   +[](klp::Message&m, const std::string&text) { m.set_to(text); },
                   +[](klp::Message&m, const std::string&text) { m.set_correlation_id(text); },
                   +[](klp::Message&m, const std::string&text) { m.set_capability(text); },
                   +[](klp::Message&m, const std::string&text) { m.set_timestamp(text); },
                   +[](klp::Message&m, const std::string&text) { m.set_content_type(text); },
                   +[](klp::Message&m, const std::string&text) { m.set_protocol(text); },
                   +[](klp::Message&m, const std::string&text) { m.mutable_metadata()->set_traceparent(text); },
                   +[](klp::Message&m, const std::string&text) { m.mutable_error()->set_code(text); }}) {
    set(message, over);
    CHECK_FALSE(size_fault(message).empty());
    set(message, most);
    CHECK(size_fault(message).empty());
  }
  message.set_payload(std::string(kMaxFrameBytes, 'x'));
  CHECK(size_fault(message).empty());
  // The largest that passes fits into a frame of the receiver's.
  klp::Envelope envelope;
  message.SerializeToString(envelope.mutable_message());
  CHECK(envelope.ByteSizeLong() <= kMaxFrameBytes + kEnvelopeOverheadBytes);
  message.mutable_payload()->push_back('x');
  CHECK_FALSE(size_fault(message).empty());
  message.clear_payload();
  message.mutable_error()->set_message(std::string(40'000, 'x'));
  message.mutable_error()->set_details_json(std::string(25'536, 'x'));
  CHECK(size_fault(message).empty());
  message.mutable_error()->mutable_details_json()->push_back('x');
  CHECK_FALSE(size_fault(message).empty());
}

TEST_CASE("fields that nobody knows go to nobody") {
  klp::Message message = message_at(0);
  message.set_from("liar");
  message.set_to("b");
  message.set_payload("[1]");
  message.set_capability("echo");
  message.set_deadline_ms(5);
  message.mutable_metadata()->set_traceparent("00-1");
  message.mutable_metadata()->set_ttl_seconds(3);
  message.mutable_metadata()->set_priority(static_cast<klp::Priority>(77));
  klp::Message with_more;
  // Field 100, length-delimited, and the same inside of the metadata.
  const std::string unknown("\xa2\x06\x03xyz", 6);
  REQUIRE(with_more.ParseFromString(message.SerializeAsString() + unknown + std::string("\x5a\x06", 2) + unknown));
  REQUIRE(with_more.SerializeAsString().find("xyz") != std::string::npos);
  const klp::Message known = known_fields(std::move(with_more));
  CHECK(known.SerializeAsString().find("xyz") == std::string::npos);
  message.clear_from();
  message.mutable_metadata()->set_priority(klp::NORMAL);
  CHECK(known.SerializeAsString() == message.SerializeAsString());
}

}  // namespace
}  // namespace kai
