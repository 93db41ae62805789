#include "supervisor/memory/seal.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/temp_directory.h"
#include "tests/unit/memory/put_file.h"

using kai::SealKey;

namespace {

std::string refusal(const std::string& path, bool make) {
  const auto key = kai::load_node_key(path, make);
  REQUIRE_FALSE(key);
  return key.error().message();
}

bool says(const std::string& message, const std::string& part) {
  return message.find(part) != std::string::npos;
}

SealKey key_of(unsigned char byte) {
  SealKey key;
  key.fill(byte);
  return key;
}

}  // namespace

TEST_CASE("a node's key is made once, for its owner alone, and is the same afterwards") {
  const kai::TempDirectory directory;
  const std::string path = directory / "node.key";
  kai::put_file(path + ".new", "what an interrupted start left");
  const auto made = kai::load_node_key(path, true);
  REQUIRE(made);
  CHECK(std::any_of(made->begin(), made->end(), [](unsigned char byte) { return byte != 0; }));
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(status.st_size == 32);
  CHECK(status.st_nlink == 1);
  CHECK_FALSE(std::filesystem::exists(path + ".new"));
  CHECK(*kai::load_node_key(path, true) == *made);
  CHECK(*kai::load_node_key(path, false) == *made);
  CHECK(*kai::load_node_key(directory / "another.key", true) != *made);
}

TEST_CASE("a node's key that was made and is gone is not made again") {
  const kai::TempDirectory directory;
  const std::string path = directory / "node.key";
  CHECK_FALSE(kai::node_key_was_made(path));
  const auto made = kai::load_node_key(path, true);
  REQUIRE(made);
  CHECK(kai::node_key_was_made(path));
  CHECK(std::filesystem::exists(path + ".made"));
  std::filesystem::rename(path, path + ".away");
  CHECK(kai::node_key_was_made(path));
  for (const bool make : {true, false}) CHECK(says(refusal(path, make), "put a copy of the key in its place"));
  CHECK_FALSE(std::filesystem::exists(path));
  std::filesystem::rename(path + ".away", path);
  CHECK(*kai::load_node_key(path, true) == *made);

  // Of an earlier kaid, or one that was killed between the two: marked when it is read.
  std::filesystem::remove(path + ".made");
  REQUIRE(kai::load_node_key(path, false));
  CHECK(std::filesystem::exists(path + ".made"));
}

TEST_CASE("a node's key that is not there is not made by itself") {
  const kai::TempDirectory directory;
  CHECK(says(refusal(directory / "node.key", false), "put a copy of the key in its place"));
  CHECK(std::filesystem::is_empty(directory.path()));
}

TEST_CASE("a key file that others may read, or that is no key, is refused and left as it is") {
  const kai::TempDirectory directory;
  const std::string path = directory / "node.key";
  REQUIRE(kai::load_node_key(path, true));
  for (const mode_t mode : {0640U, 0604U, 0660U, 0610U, 0602U}) {
    REQUIRE(chmod(path.c_str(), mode) == 0);
    CHECK(says(refusal(path, true), "chmod 600"));
  }
  for (const std::size_t size : {0U, 31U, 33U, 64U}) {
    kai::put_file(path, std::string(size, 'k'));
    REQUIRE(chmod(path.c_str(), 0600) == 0);
    CHECK(says(refusal(path, true), std::to_string(size) + " bytes in the place of 32"));
    CHECK(std::filesystem::file_size(path) == size);
  }
  REQUIRE(unlink(path.c_str()) == 0);

  SUBCASE("a symbolic link") {
    REQUIRE(kai::load_node_key(directory / "real.key", true));
    REQUIRE(symlink("real.key", path.c_str()) == 0);
    refusal(path, true);
  }
  SUBCASE("a named pipe, which does not hold it up") {
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    CHECK(says(refusal(path, true), "no regular file"));
  }
  SUBCASE("a directory") {
    REQUIRE(mkdir(path.c_str(), 0700) == 0);
    CHECK(says(refusal(path, true), "no regular file"));
  }
}

// Only root can make a file that is another's.
TEST_CASE("a key file that belongs to somebody else is refused" * doctest::skip(geteuid() != 0)) {
  const kai::TempDirectory directory;
  const std::string path = directory / "node.key";
  REQUIRE(kai::load_node_key(path, true));
  REQUIRE(chown(path.c_str(), 12'345, 0) == 0);
  CHECK(says(refusal(path, true), "uid 12345"));
}

TEST_CASE("an agent's key is BLAKE2b of its id with the node's key") {
  // echo -n calendarAgent | python3 -c 'import hashlib,sys; print(hashlib.blake2b(sys.stdin.buffer.read(),
  // key=b"\1"*32, digest_size=32).hexdigest())'
  const SealKey key = kai::agent_key(key_of(1), "calendarAgent");
  CHECK(key != kai::agent_key(key_of(1), "calendaragent"));
  CHECK(key != kai::agent_key(key_of(2), "calendarAgent"));
  CHECK(key == SealKey{0x38, 0x23, 0x1d, 0xfc, 0xdd, 0x81, 0x0f, 0xad, 0x09, 0x51, 0x78, 0x35, 0xbe, 0xfe, 0x47, 0xd4,
                       0xc8, 0xc4, 0x08, 0x06, 0x1f, 0x9c, 0x13, 0x61, 0xfa, 0x12, 0x7c, 0xf5, 0x8a, 0xd3, 0x3a, 0x10});
}

TEST_CASE("what was sealed opens with its key at its place, and nowhere else") {
  const SealKey key = kai::agent_key(key_of(1), "a");
  for (const std::string& value :
       {std::string(), std::string("x"), std::string("\0\xff\n", 3), std::string(1 << 20, 'v')}) {
    const std::string sealed = kai::seal(key, value, "key");
    CHECK(sealed.size() == value.size() + kai::kSealOverheadBytes);
    CHECK(kai::unseal(key, sealed, "key") == value);
    CHECK_FALSE(kai::unseal(key, sealed, "kez"));
    CHECK_FALSE(kai::unseal(key, sealed, ""));
    CHECK_FALSE(kai::unseal(kai::agent_key(key_of(1), "b"), sealed, "key"));
    CHECK_FALSE(kai::unseal(key_of(1), sealed, "key"));
  }
}

TEST_CASE("no changed bit, no shortening and no lengthening passes") {
  const SealKey key = key_of(7);
  const std::string sealed = kai::seal(key, "the value", "place");
  for (std::size_t bit = 0; bit < sealed.size() * 8; ++bit) {
    std::string changed = sealed;
    changed[bit / 8] = static_cast<char>(static_cast<unsigned char>(changed[bit / 8]) ^ (1U << (bit % 8)));
    CHECK_FALSE(kai::unseal(key, changed, "place"));
  }
  for (std::size_t length = 0; length < sealed.size(); ++length) {
    CHECK_FALSE(kai::unseal(key, std::string_view(sealed).substr(0, length), "place"));
  }
  CHECK_FALSE(kai::unseal(key, sealed + '\0', "place"));
}

TEST_CASE("the same value is never sealed to the same bytes, and does not show in them") {
  const SealKey key = key_of(9);
  std::set<std::string> seen;
  for (int round = 0; round < 1'000; ++round) {
    const std::string sealed = kai::seal(key, "a secret appointment", "p");
    CHECK(sealed.find("secret") == std::string::npos);
    seen.insert(sealed.substr(0, 24));
  }
  CHECK(seen.size() == 1'000);
}

TEST_CASE("it is XChaCha20-Poly1305: the vector of draft-irtf-cfrg-xchacha, A.3.1") {
  const auto from_hex = [](std::string_view hex) {
    std::string bytes;
    for (std::size_t at = 0; at < hex.size(); at += 2) {
      bytes += static_cast<char>(std::stoi(std::string(hex.substr(at, 2)), nullptr, 16));
    }
    return bytes;
  };
  SealKey key;
  for (std::size_t at = 0; at < key.size(); ++at) key[at] = static_cast<unsigned char>(0x80 + at);
  const std::string sealed = from_hex(
      "404142434445464748494a4b4c4d4e4f5051525354555657"
      "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c"
      "54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615"
      "c6"
      "8b13b52ec0875924c1c7987947deafd8780acf49");
  const auto value = kai::unseal(key, sealed, from_hex("50515253c0c1c2c3c4c5c6c7"));
  REQUIRE(value);
  CHECK(
      *value ==
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be "
      "it.");
}
