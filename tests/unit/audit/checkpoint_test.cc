#include "audit/checkpoint.h"

#include <doctest/doctest.h>

namespace kai::audit {
namespace {

// The example of c2sp.org/signed-note: key and note as golang.org/x/mod/sumdb/note has them.
constexpr const char* kPeter = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
constexpr const char* kPeterNote =
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\xE2\x80\x94 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

TEST_CASE("somebody else's key and note are read as theirs") {
  const auto key = PublicKey::parse(kPeter);
  REQUIRE(key);
  CHECK(key->text() == kPeter);
  CHECK(key->id == 0xc74f20a3);
  // The signature is true; what it signs is no checkpoint.
  const auto opened = open_checkpoint(kPeterNote, *key);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().message().find("size") != std::string::npos);
  std::string edited = kPeterNote;
  edited[0] = 'i';
  CHECK(open_checkpoint(edited, *key).error().message().find("false") != std::string::npos);
}

TEST_CASE("keys survive being written down, and a changed letter is noticed") {
  const SecretKey key = SecretKey::generate();
  CHECK(key.public_key().name.starts_with("kai/"));
  const auto again = SecretKey::parse(key.text() + "\n");
  REQUIRE(again);
  CHECK(again->public_key() == key.public_key());
  CHECK(*PublicKey::parse(key.public_key().text() + "\n") == key.public_key());
  for (std::string text : {key.public_key().text(), key.text()}) {
    const bool secret = text.starts_with("PRIVATE");
    for (std::size_t at = 0; at < text.size(); ++at) {
      std::string changed = text;
      changed[at] = changed[at] == 'b' ? 'c' : 'b';
      const bool read = secret ? SecretKey::parse(changed).has_value() : PublicKey::parse(changed).has_value();
      CHECK_FALSE_MESSAGE(read, changed);
    }
  }
  CHECK_FALSE(PublicKey::parse(""));
  CHECK_FALSE(PublicKey::parse("a+b"));
  CHECK_FALSE(PublicKey::parse(std::string(5000, 'a')));
}

TEST_CASE("a checkpoint is read as it was signed, by its key only, and no byte of it can change") {
  const SecretKey key = SecretKey::generate();
  const Checkpoint checkpoint{key.public_key().name, 41, leaf_hash("root")};
  const std::string note = key.sign(checkpoint.text());
  const auto opened = open_checkpoint(note, key.public_key());
  REQUIRE(opened);
  CHECK(opened->size == 41);
  CHECK(opened->root == checkpoint.root);
  CHECK_FALSE(open_checkpoint(note, SecretKey::generate().public_key()));
  CHECK_FALSE(open_checkpoint(note, SecretKey::generate(key.public_key().name).public_key()));
  for (std::size_t at = 0; at < note.size(); ++at) {
    std::string changed = note;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    const auto read = open_checkpoint(changed, key.public_key());
    CHECK_FALSE_MESSAGE(read.has_value(), changed);
  }
}

TEST_CASE("notes with witnesses' signatures and extension lines are read too") {
  const SecretKey key = SecretKey::generate();
  const SecretKey witness = SecretKey::generate("witness.example");
  const std::string text = Checkpoint{key.public_key().name, 7, leaf_hash("x")}.text() + "an extension\n";
  std::string note = witness.sign(text);
  const std::string own = key.sign(text);
  note += own.substr(own.rfind("\xE2\x80\x94"));
  CHECK(open_checkpoint(note, key.public_key()));
  CHECK_FALSE(open_checkpoint(note, SecretKey::generate().public_key()));
}

TEST_CASE("what is no checkpoint is refused") {
  const SecretKey key = SecretKey::generate();
  const std::string root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
  const std::string& name = key.public_key().name;
  for (const std::string& text : {name + "\n07\n" + root, name + "\n-1\n" + root, name + "\n\n" + root,
                                  name + "\n1\nAAAA\n", name + "\n99999999999999999999\n" + root,
                                  std::string("\n1\n") + root, "other\n1\n" + root, name + "\n1 \n" + root}) {
    CHECK_FALSE_MESSAGE(open_checkpoint(key.sign(text), key.public_key()).has_value(), text);
  }
  for (const std::string& note :
       {std::string(), std::string("\n\n"), std::string(kMaxNote + 1, 'a'), std::string("a\n\nb")}) {
    CHECK_FALSE(parse_checkpoint(note));
  }
}

}  // namespace
}  // namespace kai::audit
