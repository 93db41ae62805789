// Signatures of what the host sends, checked with the libraries' own verification.
#include "agent-host/signing.h"

#include <secp256k1.h>
#include <sodium.h>

#include <array>
#include <set>

#include <doctest/doctest.h>

#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

const unsigned char* bytes_of(const std::string& bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

bool verifies(const std::string& crypto, const std::string& key, const std::string& signature,
              const std::string& bytes) {
  if (signature.size() != 64) return false;
  if (crypto == "ed25519") {
    return key.size() == 32 &&
           crypto_sign_verify_detached(bytes_of(signature), bytes_of(bytes), bytes.size(), bytes_of(key)) == 0;
  }
  std::array<unsigned char, 32> hash;
  crypto_hash_sha256(hash.data(), bytes_of(bytes), bytes.size());
  secp256k1_pubkey point;
  secp256k1_ecdsa_signature parsed, low;
  secp256k1_context* context = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
  const bool good = key.size() == 33 && secp256k1_ec_pubkey_parse(context, &point, bytes_of(key), key.size()) == 1 &&
                    secp256k1_ecdsa_signature_parse_compact(context, &parsed, bytes_of(signature)) == 1 &&
                    secp256k1_ecdsa_signature_normalize(context, &low, &parsed) == 0 &&  // 0: it was low already
                    secp256k1_ecdsa_verify(context, &parsed, hash.data(), &point) == 1;
  secp256k1_context_destroy(context);
  return good;
}

}  // namespace

TEST_CASE("both schemes sign what verifies, and only that") {
  for (const std::string crypto : {"ed25519", "secp256k1"}) {
    CAPTURE(crypto);
    SigningKey key, other;
    REQUIRE(key.make(crypto));
    REQUIRE(other.make(crypto));
    CHECK(key.public_key() != other.public_key());
    for (const std::string& bytes : {std::string(), std::string("a"), std::string(100'000, '\xFF')}) {
      const std::string signature = key.sign(bytes);
      CHECK(verifies(crypto, key.public_key(), signature, bytes));
      CHECK_FALSE(verifies(crypto, other.public_key(), signature, bytes));
      CHECK_FALSE(verifies(crypto, key.public_key(), signature, bytes + "x"));
    }
  }
}

TEST_CASE("none signs nothing, and a scheme that is not known is an error") {
  for (const std::string crypto : {"", "none"}) {
    SigningKey key;
    CHECK(key.make(crypto));
    CHECK(key.public_key().empty());
    CHECK_FALSE(key.makes_signatures());
    CHECK(key.sign("x").empty());
  }
  CHECK_FALSE(SigningKey().make("rsa"));
}

TEST_CASE("every message of the host is signed, over the bytes as sent") {
  for (const std::string crypto : {"ed25519", "secp256k1"}) {
    CAPTURE(crypto);
    spec::SandboxSpec spec = runner(R"(
start()
answer(hear(), {"payload": "response"})
fail(hear(), "error")
ask(1, "klp.send", to="other", capability="c", payload=1)
ask(2, "klp.emit", name="booked", data=1)
hear()
hear()
)");
    spec.set_crypto(crypto);
    Host host(spec);
    const klp::Hello hello = host.receive().hello();
    host.start();
    const auto check = [&](klp::Type type) {
      const klp::Envelope envelope = host.receive();
      klp::Message message;
      REQUIRE(message.ParseFromString(envelope.message()));
      CHECK(message.type() == type);
      CHECK(verifies(crypto, hello.public_key(), envelope.signature(), envelope.message()));
    };
    host.request("1", "x", "{}");
    check(klp::RESPONSE);
    host.request("2", "x", "{}");
    check(klp::ERROR);
    check(klp::REQUEST);
    check(klp::EVENT);
    CHECK(host.resumed().hello().public_key() == hello.public_key());
  }
}

TEST_CASE("without crypto nothing is signed, and every agent has a key of its own") {
  Host unsigned_host(runner("start()\nanswer(hear(), {})\nhear()"));
  CHECK(unsigned_host.receive().hello().public_key().empty());
  unsigned_host.start();
  unsigned_host.request("1", "x", "{}");
  CHECK(unsigned_host.receive().signature().empty());

  std::set<std::string> keys;
  for (int count = 0; count < 3; ++count) {
    spec::SandboxSpec spec = program({"/bin/sh", "-c", "exec tail -f /dev/null"});
    spec.set_crypto("ed25519");
    Host host(spec);
    keys.insert(host.receive().hello().public_key());
  }
  CHECK(keys.size() == 3);
}

TEST_CASE("a scheme that this agent-host does not know: no agent") {
  spec::SandboxSpec spec = program({"/bin/sh", "-c", "exec tail -f /dev/null"});
  spec.set_crypto("rsa");
  Host host(spec);
  CHECK(host.receive().start_failed().message().find("key") != std::string::npos);
  CHECK(host.wait() == 126);
}

}  // namespace kai::test
