#include "audit/checkpoint.h"

#include <sodium.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "base/base64.h"
#include "base/text.h"

namespace kai::audit {
namespace {

constexpr char kEd25519 = 1;
constexpr std::string_view kPrivate = "PRIVATE+KEY+";
constexpr std::string_view kDash = "\xE2\x80\x94 ";  // U+2014 and a space, before each signature

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == '\n' || text.front() == ' ')) text.remove_prefix(1);
  return text;
}

const unsigned char* unsigned_bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string_view view(const std::array<std::uint8_t, 32>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::uint32_t big_endian(const unsigned char* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 | bytes[3];
}

std::string hex(std::uint32_t number) {
  std::array<char, 9> text;
  std::snprintf(text.data(), text.size(), "%08x", number);
  return text.data();
}

std::uint32_t id_of(std::string_view name, const std::array<std::uint8_t, 32>& key) {
  std::string input(name);
  input += '\n';
  input += kEd25519;
  input += view(key);
  std::array<unsigned char, 32> hash;
  crypto_hash_sha256(hash.data(), unsigned_bytes(input), input.size());
  return big_endian(hash.data());
}

/// Names are non-empty, without Unicode spaces or plus; ours are ASCII, and so is what we accept.
bool is_name(std::string_view name) {
  if (name.empty() || name.size() > 255) return false;
  for (const char c : name) {
    if (c <= ' ' || c > '~' || c == '+') return false;
  }
  return true;
}

struct KeyParts {
  std::string name;
  std::uint32_t id = 0;
  std::array<std::uint8_t, 32> bytes{};
};

/// "NAME+HASH+BASE64" of either kind of key.
Result<KeyParts> parse_key(std::string_view text, const char* what) {
  const auto wrong = [what](const char* why) { return failure(std::string("the ") + what + " cannot be read:", why); };
  const std::size_t first = text.find('+');
  const std::size_t second = first == std::string_view::npos ? first : text.find('+', first + 1);
  if (second == std::string_view::npos || text.size() > 1024) return wrong("it is not NAME+HASH+BASE64");
  KeyParts parts;
  parts.name = text.substr(0, first);
  if (!is_name(parts.name)) return wrong("its name is not one word");
  const std::string_view id = text.substr(first + 1, second - first - 1);
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), parts.id, 16);
  if (id.size() != 8 || error != std::errc{} || end != id.data() + id.size())
    return wrong("its hash is not 8 hex digits");
  const auto data = decode_base64(text.substr(second + 1));
  if (!data || data->size() != 33 || data->front() != kEd25519) return wrong("it is not an Ed25519 key");
  std::copy(data->begin() + 1, data->end(), parts.bytes.begin());
  return parts;
}

}  // namespace

Result<PublicKey> PublicKey::parse(std::string_view text) {
  const auto parts = parse_key(trimmed(text), "public key");
  if (!parts) return tl::unexpected(parts.error());
  if (id_of(parts->name, parts->bytes) != parts->id)
    return failure("the public key cannot be read:", "its hash is not its own");
  return PublicKey{parts->name, parts->bytes, parts->id};
}

std::string PublicKey::text() const {
  std::string data(1, kEd25519);
  data += view(bytes);
  std::string text = name + "+" + hex(id) + "+";
  append_base64(text, data);
  return text;
}

SecretKey::SecretKey(std::string_view name, const std::array<std::uint8_t, 32>& seed) {
  crypto_sign_seed_keypair(public_key_.bytes.data(), secret_.data(), seed.data());
  public_key_.name = name;
  if (name.empty()) {
    std::array<unsigned char, 32> hash;
    crypto_hash_sha256(hash.data(), public_key_.bytes.data(), public_key_.bytes.size());
    public_key_.name = "kai/" + hex(big_endian(hash.data())) + hex(big_endian(hash.data() + 4));
  }
  public_key_.id = id_of(public_key_.name, public_key_.bytes);
}

SecretKey::~SecretKey() {
  sodium_memzero(secret_.data(), secret_.size());
}

SecretKey SecretKey::generate(std::string_view name) {
  std::array<std::uint8_t, 32> seed;
  // Without randomness there is no key.
  if (sodium_init() < 0) std::abort();
  randombytes_buf(seed.data(), seed.size());
  return SecretKey(name, seed);
}

Result<SecretKey> SecretKey::parse(std::string_view text) {
  text = trimmed(text);
  if (!text.starts_with(kPrivate))
    return failure("the secret key cannot be read:", "it does not begin with PRIVATE+KEY+");
  const auto parts = parse_key(text.substr(kPrivate.size()), "secret key");
  if (!parts) return tl::unexpected(parts.error());
  SecretKey key(parts->name, parts->bytes);
  if (key.public_key_.id != parts->id) return failure("the secret key cannot be read:", "its hash is not its own");
  return key;
}

std::string SecretKey::text() const {
  std::string data(1, kEd25519);
  data.append(reinterpret_cast<const char*>(secret_.data()), 32);
  std::string text(kPrivate);
  text += public_key_.name + "+" + hex(public_key_.id) + "+";
  append_base64(text, data);
  return text;
}

std::string SecretKey::sign(std::string_view text) const {
  std::array<unsigned char, crypto_sign_BYTES> signature;
  crypto_sign_detached(signature.data(), nullptr, unsigned_bytes(text), text.size(), secret_.data());
  std::string data;
  for (int shift = 24; shift >= 0; shift -= 8) data += static_cast<char>(public_key_.id >> shift & 0xFF);
  data.append(reinterpret_cast<const char*>(signature.data()), signature.size());
  std::string note(text);
  note += '\n';
  note += kDash;
  note += public_key_.name + " ";
  append_base64(note, data);
  note += '\n';
  return note;
}

std::string Checkpoint::text() const {
  std::string text = origin + "\n" + std::to_string(size) + "\n";
  append_base64(text, bytes_of(root));
  return text + "\n";
}

namespace {

struct Note {
  std::string_view text;        // with its last LF
  std::string_view signatures;  // lines, each with its LF
};

Result<Note> split_note(std::string_view note) {
  if (note.size() > kMaxNote) return failure("the checkpoint cannot be read:", "it is longer than 8 KiB");
  // The last empty line parts them: text may hold empty lines of its own (c2sp.org/signed-note).
  const std::size_t middle = note.rfind("\n\n");
  if (middle == std::string_view::npos || note.back() != '\n' || !is_utf8(note)) {
    return failure("the checkpoint cannot be read:", "it is not a signed note");
  }
  return Note{note.substr(0, middle + 1), note.substr(middle + 2)};
}

std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

Result<Checkpoint> parse_text(std::string_view text) {
  Checkpoint checkpoint;
  checkpoint.origin = take_line(text);
  const std::string_view size = take_line(text);
  const auto root = decode_base64(take_line(text));
  const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), checkpoint.size);
  const bool number = error == std::errc{} && end == size.data() + size.size() && !size.empty();
  if (!number || (size[0] == '0' && size.size() > 1) || checkpoint.size >> 62 != 0) {
    return failure("the checkpoint cannot be read:", "its second line is not a size");
  }
  if (!root || root->size() != sizeof(Hash))
    return failure("the checkpoint cannot be read:", "its third line is not a hash");
  if (checkpoint.origin.empty()) return failure("the checkpoint cannot be read:", "its first line is empty");
  checkpoint.root = hash_from(*root);
  return checkpoint;
}

/// Whether one of the lines is `key`'s signature of `text`.
Result<> check_signature(const Note& note, const PublicKey& key) {
  std::string_view lines = note.signatures;
  while (!lines.empty()) {
    std::string_view line = take_line(lines);
    if (!line.starts_with(kDash))
      return failure("the checkpoint cannot be read:", "a signature line does not begin with —");
    line.remove_prefix(kDash.size());
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos)
      return failure("the checkpoint cannot be read:", "a signature line has no signature");
    const auto data = decode_base64(line.substr(space + 1));
    if (!data || data->size() < 5) return failure("the checkpoint cannot be read:", "a signature is not base64");
    // Other names and ids are other signers: witnesses, and keys that we do not know.
    if (line.substr(0, space) != key.name || big_endian(unsigned_bytes(*data)) != key.id) continue;
    if (data->size() != 4 + crypto_sign_BYTES ||
        crypto_sign_verify_detached(unsigned_bytes(*data) + 4, unsigned_bytes(note.text), note.text.size(),
                                    key.bytes.data()) != 0) {
      return failure("the checkpoint does not hold:", "its signature by " + key.name + "+" + hex(key.id) + " is false");
    }
    return {};
  }
  return failure("the checkpoint does not hold:", "it is not signed by the key " + key.name + "+" + hex(key.id));
}

}  // namespace

Result<Checkpoint> parse_checkpoint(std::string_view note) {
  const auto parts = split_note(note);
  if (!parts) return tl::unexpected(parts.error());
  return parse_text(parts->text);
}

Result<Checkpoint> open_checkpoint(std::string_view note, const PublicKey& key) {
  const auto parts = split_note(note);
  if (!parts) return tl::unexpected(parts.error());
  if (auto signature = check_signature(*parts, key); !signature) return tl::unexpected(signature.error());
  auto checkpoint = parse_text(parts->text);
  if (checkpoint && checkpoint->origin != key.name) {
    return failure("the checkpoint does not hold:", "it is of another log");
  }
  return checkpoint;
}

}  // namespace kai::audit
