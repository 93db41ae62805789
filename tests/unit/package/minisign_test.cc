#include "package/minisign.h"

#include <sodium.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include "base/base64.h"
#include "tests/unit/package/minisign_fixture.h"

namespace kai::package {
namespace {

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

bool says(const Error& error, std::string_view what) {
  const bool found = error.message().find(what) != std::string::npos;
  if (!found) MESSAGE(error.message());
  return found;
}

std::string base64(std::string_view bytes) {
  std::string text;
  append_base64(text, bytes);
  return text;
}

/// kSecretFile's bytes: algorithm, KDF, check sum's algorithm, salt 32, limits 8 and 8, id 8, key 64, check sum 32.
std::string secret_bytes() {
  const std::string text = kSecretFile;
  const std::size_t begin = text.find('\n') + 1;
  return *decode_base64(std::string_view(text).substr(begin, text.size() - begin - 1));
}

std::string secret_file(const std::string& bytes) {
  return "untrusted comment: minisign encrypted secret key\n" + base64(bytes) + "\n";
}

std::string little_endian(std::uint64_t number) {
  std::string bytes;
  for (int at = 0; at < 8; ++at) bytes += static_cast<char>(number >> (8 * at) & 0xFF);
  return bytes;
}

/// The key of kSecretFile encrypted as minisign does it, with limits that a test can wait for.
std::string encrypted_secret_file(const std::string& password) {
  constexpr std::uint64_t kOperations = crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_MIN;
  constexpr std::uint64_t kMemory = crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_MIN;
  std::string bytes = secret_bytes();
  const std::string covered = "Ed" + bytes.substr(54, 72);
  std::string plain = bytes.substr(54, 72) + std::string(32, '\0');
  crypto_generichash(reinterpret_cast<unsigned char*>(plain.data()) + 72, 32,
                     reinterpret_cast<const unsigned char*>(covered.data()), covered.size(), nullptr, 0);
  const std::string salt(32, 's');
  std::vector<unsigned char> stream(plain.size());
  REQUIRE(crypto_pwhash_scryptsalsa208sha256(stream.data(), stream.size(), password.data(), password.size(),
                                             reinterpret_cast<const unsigned char*>(salt.data()), kOperations,
                                             kMemory) == 0);
  std::transform(plain.begin(), plain.end(), stream.begin(), plain.begin(),
                 [](char letter, unsigned char byte) { return static_cast<char>(letter ^ static_cast<char>(byte)); });
  return secret_file("EdScB2" + salt + little_endian(kOperations) + little_endian(kMemory) + plain);
}

TEST_CASE("a public key is read from its file and from its line, and written as that line") {
  const auto from_file = parse_public_key(kPublicFile);
  const auto from_line = parse_public_key(std::string(kPublicLine) + "\n");
  REQUIRE(from_file);
  REQUIRE(from_line);
  CHECK(*from_file == *from_line);
  CHECK(from_file->text() == kPublicLine);
}

TEST_CASE("what is no public key is refused") {
  const std::string line = kPublicLine;
  for (const std::string& text :
       {std::string(), std::string("RW"), line.substr(1), line + "A", line.substr(0, line.size() - 4),
        "X" + line.substr(1), std::string("untrusted comment: only\n"), line + "\n" + line,
        std::string(kPublicFile) + "more\n", std::string(kSecretFile),
        "untrusted comment: " + std::string(9000, 'x')}) {
    CAPTURE(text);
    CHECK_FALSE(parse_public_key(text));
  }
}

TEST_CASE("signatures of Debian's minisign hold, hashed and legacy") {
  const auto key = parse_public_key(kPublicLine);
  REQUIRE(key);
  for (const char* text : {kHashedSignature, kLegacySignature}) {
    const auto signature = parse_signature(text);
    REQUIRE(signature);
    CHECK(signature->hashed == (text == kHashedSignature));
    CHECK(signature->trusted_comment == "release 1");
    CHECK(signature->key_id == key->id);
    CHECK(verify(*signature, *key, kMessage));
    CHECK(says(verify(*signature, *key, "from kAI").error(), "does not hold"));
    CHECK(says(verify(*signature, *key, "").error(), "does not hold"));
  }
}

TEST_CASE("a changed trusted comment is noticed, and a change of the untrusted one is not") {
  const auto key = parse_public_key(kPublicLine);
  const auto trusted = parse_signature(replaced(kHashedSignature, "release 1", "release 2"));
  REQUIRE(trusted);
  CHECK(says(verify(*trusted, *key, kMessage).error(), "trusted comment"));
  const auto untrusted = parse_signature(replaced(kHashedSignature, "minisign secret key", "whoever"));
  REQUIRE(untrusted);
  CHECK(verify(*untrusted, *key, kMessage));
}

TEST_CASE("one form is not taken for the other") {
  const auto key = parse_public_key(kPublicLine);
  auto signature = *parse_signature(kHashedSignature);
  signature.hashed = false;
  CHECK_FALSE(verify(signature, *key, kMessage));
  signature = *parse_signature(kLegacySignature);
  signature.hashed = true;
  CHECK_FALSE(verify(signature, *key, kMessage));
}

TEST_CASE("a foreign key is named, with its id as minisign prints it") {
  auto key = *parse_public_key(kPublicLine);
  key.id[0] ^= 1;
  const auto signature = parse_signature(kHashedSignature);
  const auto verified = verify(*signature, key, kMessage);
  REQUIRE_FALSE(verified);
  CHECK(says(verified.error(), "4834C325ECA7170D"));
  // The same id and another key: the id alone proves nothing.
  key = *parse_public_key(kPublicLine);
  key.key[0] ^= 1;
  CHECK_FALSE(verify(*signature, key, kMessage));
}

TEST_CASE("any bit of the signature's two lines that is turned is noticed") {
  const auto key = parse_public_key(kPublicLine);
  const auto signature = parse_signature(kHashedSignature);
  for (std::size_t at = 0; at < 64; ++at) {
    auto changed = *signature;
    changed.signature[at] ^= 0x10;
    CHECK_FALSE(verify(changed, *key, kMessage));
    changed = *signature;
    changed.global_signature[at] ^= 0x10;
    CHECK_FALSE(verify(changed, *key, kMessage));
  }
}

TEST_CASE("what is no signature is refused with what is wrong") {
  const std::string good = kHashedSignature;
  const auto refused = [](const std::string& text, std::string_view why) {
    const auto parsed = parse_signature(text);
    CAPTURE(text);
    REQUIRE_FALSE(parsed);
    CHECK(says(parsed.error(), why));
  };
  refused("", "first line");
  refused("comment: x\n" + good, "first line");
  refused(replaced(good, "RUQN", "RUN"), "second line");
  refused(replaced(good, "RUQN", "RXQN"), "algorithm");
  refused(replaced(good, "trusted comment: release", "comment: release"), "third line");
  refused(replaced(good, "release 1", "release \x1b[2J1"), "control character");
  refused(replaced(good, "release 1", std::string("a\0b", 3)), "control character");
  refused(replaced(good, "release 1", std::string(8193, 'x')), "8192");
  refused(replaced(good, "release 1", std::string(kMaxSignatureBytes, 'x')), "16 KB");
  refused(replaced(good, "pSDL", "pSD"), "fourth line");
  refused(good.substr(0, good.find("pSDL")), "fourth line");
  refused(good + "more\n", "follows");
  CHECK(parse_signature(good + "\n\n"));
  CHECK(parse_signature(good.substr(0, good.size() - 1)));
}

TEST_CASE("a file with carriage returns is the same signature") {
  std::string text;
  for (const char letter : std::string(kHashedSignature))
    text += letter == '\n' ? std::string("\r\n") : std::string(1, letter);
  const auto signature = parse_signature(text);
  REQUIRE(signature);
  CHECK(verify(*signature, *parse_public_key(kPublicLine), kMessage));
}

TEST_CASE("a key without a password signs, byte for byte as minisign does") {
  CHECK(*needs_password(kSecretFile) == false);
  const auto key = parse_secret_key(kSecretFile, "ignored");
  REQUIRE(key);
  CHECK(key->public_key().text() == kPublicLine);
  CHECK(key->sign(kMessage, "release 1") == kHashedSignature);
}

TEST_CASE("a key with a password opens with that one only") {
  const std::string file = encrypted_secret_file("correct horse");
  CHECK(*needs_password(file) == true);
  const auto key = parse_secret_key(file, "correct horse");
  REQUIRE(key);
  CHECK(key->sign(kMessage, "release 1") == kHashedSignature);
  for (const char* wrong : {"", "correct", "correct horse "}) {
    const auto opened = parse_secret_key(file, wrong);
    REQUIRE_FALSE(opened);
    CHECK(says(opened.error(), "password"));
  }
}

TEST_CASE("a key that asks for more memory or work than minisign does is refused before any is spent") {
  std::string bytes = secret_bytes();
  bytes.replace(2, 2, "Sc");
  const std::uint64_t operations = crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE;
  const std::uint64_t memory = crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE;
  for (const auto& [most_operations, most_memory] :
       {std::pair{operations + 1, memory}, std::pair{operations, memory + 1}, std::pair{UINT64_MAX, UINT64_MAX}}) {
    bytes.replace(38, 16, little_endian(most_operations) + little_endian(most_memory));
    const auto key = parse_secret_key(secret_file(bytes), "x");
    REQUIRE_FALSE(key);
    CHECK(says(key.error(), "more work or memory"));
  }
}

TEST_CASE("a damaged key signs nothing") {
  const auto refused = [](std::string bytes, std::string_view why) {
    const auto key = parse_secret_key(secret_file(bytes), "");
    REQUIRE_FALSE(key);
    CHECK(says(key.error(), why));
  };
  const std::string good = secret_bytes();
  std::string bytes = good;
  bytes[0] = 'X';
  refused(bytes, "no minisign secret key");
  refused(good.substr(1), "no minisign secret key");
  refused(good + "x", "no minisign secret key");
  bytes = good;
  bytes.replace(2, 2, "Ar");
  refused(bytes, "does not know (only scrypt)");
  bytes = good;
  bytes.replace(4, 2, "B3");
  refused(bytes, "BLAKE2b");
  bytes = good;
  bytes[157] = 1;  // no zeros any more: it has to hold
  refused(bytes, "check sum does not hold");
  bytes = good;
  bytes[62 + 32] = static_cast<char>(bytes[62 + 32] ^ 1);  // the public half
  refused(bytes, "public half");
  CHECK_FALSE(needs_password(kPublicFile));
  CHECK_FALSE(needs_password(""));
}

TEST_CASE("a secret key that was moved from is wiped") {
  auto key = parse_secret_key(kSecretFile, "");
  REQUIRE(key);
  const MinisignSecretKey other(std::move(*key));
  CHECK(other.public_key().text() == kPublicLine);
  CHECK(key->public_key().key == decltype(MinisignPublicKey::key){});  // NOLINT(bugprone-use-after-move)
}

}  // namespace
}  // namespace kai::package
