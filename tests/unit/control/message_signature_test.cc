#include "supervisor/control/message_signature.h"

#include <doctest/doctest.h>

#include "tests/unit/control/signing_keys.h"

namespace kai {
namespace {

using test::Ed25519Key;
using test::Secp256k1Key;

std::string from_hex(std::string_view hex) {
  std::string bytes(hex.size() / 2, '\0');
  std::size_t count = 0;
  sodium_hex2bin(reinterpret_cast<unsigned char*>(bytes.data()), bytes.size(), hex.data(), hex.size(), nullptr, &count,
                 nullptr);
  REQUIRE(count == bytes.size());
  return bytes;
}

/// Every change of one byte, a cut and an addition are noticed, and so is another message.
void check_holds(const MessageSignature& key, std::string_view message, const std::string& signature) {
  CHECK(key.verify(message, signature));
  CHECK_FALSE(key.verify(std::string(message) + "x", signature));
  CHECK_FALSE(key.verify(message, ""));
  CHECK_FALSE(key.verify(message, signature.substr(0, 63)));
  CHECK_FALSE(key.verify(message, signature + "x"));
  for (std::size_t at = 0; at < signature.size(); ++at) {
    std::string changed = signature;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    CAPTURE(at);
    CHECK_FALSE(key.verify(message, changed));
  }
}

TEST_CASE("ed25519: a vector of RFC 8032 (section 7.1, test 3)") {
  const auto key = MessageSignature::of(Crypto::kEd25519,
                                        from_hex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"));
  REQUIRE(key);
  check_holds(*key, from_hex("af82"),
              from_hex("6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                       "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"));
}

TEST_CASE("secp256k1: what libsecp256k1 signs holds, another key's does not") {
  const Secp256k1Key mine(7), other(8);
  const auto key = MessageSignature::of(Crypto::kSecp256k1, mine.public_key());
  REQUIRE(key);
  check_holds(*key, "a message", mine.sign("a message"));
  CHECK_FALSE(key->verify("a message", other.sign("a message")));
}

// RFC 6979's nonce makes the signature of one message by one key one value, known from other implementations: key 1,
// SHA-256 of "Satoshi Nakamoto".
TEST_CASE("secp256k1: a vector that other implementations have") {
  const auto key = MessageSignature::of(Crypto::kSecp256k1,
                                        from_hex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"));
  REQUIRE(key);
  const std::string signature = from_hex(
      "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
      "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5");
  check_holds(*key, "Satoshi Nakamoto", signature);
  // n − s verifies as well in plain ECDSA; here there is one signature a message.
  const std::string high =
      signature.substr(0, 32) + from_hex("dbbd3162d46e9f9bef7feb87c16dc13b4f6568a87f4e83f728e2443ba586675c");
  CHECK_FALSE(key->verify("Satoshi Nakamoto", high));
}

TEST_CASE("a public key of the wrong size or off the curve is refused") {
  const std::string ed25519 = Ed25519Key().public_key();
  const std::string secp256k1 = Secp256k1Key().public_key();
  CHECK(MessageSignature::of(Crypto::kEd25519, ed25519));
  CHECK(MessageSignature::of(Crypto::kSecp256k1, secp256k1));
  CHECK(MessageSignature::of(Crypto::kNone, ""));
  CHECK_FALSE(MessageSignature::of(Crypto::kNone, ed25519));
  for (const std::string& wrong :
       {std::string(), ed25519.substr(1), ed25519 + "x", secp256k1, std::string(32, '\0'), std::string(32, '\xff'),
        from_hex("0100000000000000000000000000000000000000000000000000000000000000"),     // of order 1
        from_hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")}) {  // of order 2
    CHECK_FALSE(MessageSignature::of(Crypto::kEd25519, wrong));
  }
  for (const std::string& wrong :
       {std::string(), ed25519, std::string(33, '\0'), std::string(33, '\xff'), "\x04" + secp256k1.substr(1),
        "\x02" + std::string(32, '\xff'),            // x over the field's prime
        "\x02" + std::string(31, '\0') + "\x05"}) {  // x = 5 is on no point
    CHECK_FALSE(MessageSignature::of(Crypto::kSecp256k1, wrong));
  }
}

TEST_CASE("crypto none needs no signature") {
  const auto none = MessageSignature::of(Crypto::kNone, "");
  REQUIRE(none);
  CHECK_FALSE(none->required());
  CHECK(none->verify("x", ""));
  CHECK(crypto_named("") == Crypto::kNone);
  CHECK(crypto_named("none") == Crypto::kNone);
  CHECK(crypto_named("ed25519") == Crypto::kEd25519);
  CHECK(crypto_named("secp256k1") == Crypto::kSecp256k1);
}

}  // namespace
}  // namespace kai
