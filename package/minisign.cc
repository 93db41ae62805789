#include "package/minisign.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "base/base64.h"
#include "base/text.h"

namespace kai::package {
namespace {

using Bytes = std::span<unsigned char>;
using ConstBytes = std::span<const unsigned char>;

constexpr std::string_view kUntrusted = "untrusted comment: ";
constexpr std::string_view kTrusted = "trusted comment: ";
constexpr std::string_view kLegacy = "Ed";
constexpr std::string_view kHashed = "ED";
constexpr std::string_view kScrypt = "Sc";
constexpr std::string_view kNoPassword("\0\0", 2);
constexpr std::string_view kBlake2b = "B2";

constexpr std::size_t kMaxLine = 8192;  // of a trusted comment, as minisign has it
constexpr std::size_t kMaxKeyFile = 4096;

// Layout of a secret key (SeckeyStruct of minisign): three algorithms of 2 bytes, then these.
constexpr std::size_t kSaltAt = 6;
constexpr std::size_t kOpsLimitAt = kSaltAt + crypto_pwhash_scryptsalsa208sha256_SALTBYTES;
constexpr std::size_t kMemoryLimitAt = kOpsLimitAt + 8;
constexpr std::size_t kEncryptedAt = kMemoryLimitAt + 8;  // id, key, check sum
constexpr std::size_t kKeyAt = kEncryptedAt + 8;
constexpr std::size_t kCheckAt = kKeyAt + 64;
constexpr std::size_t kSecretKeyBytes = kCheckAt + 32;

/// Memory that is wiped when it goes.
template <std::size_t size>
struct Secret {
  Secret() = default;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { sodium_memzero(bytes.data(), bytes.size()); }
  std::array<unsigned char, size> bytes{};
};

const unsigned char* as_bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

/// Exactly `out.size()` bytes of base64 with padding, decoded without a copy: it may be a secret.
bool decode(std::string_view text, Bytes out) {
  std::size_t length = 0;
  return sodium_base642bin(out.data(), out.size(), text.data(), text.size(), nullptr, &length, nullptr,
                           sodium_base64_VARIANT_ORIGINAL) == 0 &&
         length == out.size();
}

std::string encode(ConstBytes bytes) {
  std::string text;
  append_base64(text, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  return text;
}

/// The next line, without its line feed and a carriage return before it.
std::string_view take_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  while (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char letter) {
    const auto byte = static_cast<unsigned char>(letter);
    return (byte < 0x20 && letter != '\t') || byte == 0x7F;
  });
}

/// The base64 line of a key file: the one behind the comment.
std::optional<std::string_view> key_line(std::string_view text) {
  if (!text.starts_with(kUntrusted)) return std::nullopt;
  static_cast<void>(take_line(text));
  const std::string_view line = take_line(text);
  if (!is_blank(text)) return std::nullopt;
  return line;
}

std::uint64_t little_endian(ConstBytes bytes) {
  std::uint64_t number = 0;
  for (std::size_t at = 0; at < 8; ++at) number |= std::uint64_t{bytes[at]} << (8 * at);
  return number;
}

bool has_algorithm(ConstBytes bytes, std::string_view algorithm) {
  return std::equal(algorithm.begin(), algorithm.end(), bytes.begin(),
                    [](char letter, unsigned char byte) { return static_cast<unsigned char>(letter) == byte; });
}

std::string shown_id(const std::array<unsigned char, 8>& id) {
  // As minisign prints it: the bytes are a little endian number.
  std::string text;
  for (auto byte = id.rbegin(); byte != id.rend(); ++byte) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    text += kDigits[*byte >> 4];
    text += kDigits[*byte & 15];
  }
  return text;
}

bool is_signed(const std::array<unsigned char, 64>& signature, std::string_view message, const MinisignPublicKey& key) {
  return crypto_sign_verify_detached(signature.data(), as_bytes(message), message.size(), key.key.data()) == 0;
}

std::string blake2b_512(std::string_view message) {
  std::array<unsigned char, 64> hash;
  crypto_generichash(hash.data(), hash.size(), as_bytes(message), message.size(), nullptr, 0);
  return std::string(hash.begin(), hash.end());
}

/// What the trusted comment is signed with: the signature before it.
std::string comment_message(const std::array<unsigned char, 64>& signature, std::string_view trusted_comment) {
  std::string message(signature.begin(), signature.end());
  message += trusted_comment;
  return message;
}

/// Reads what every secret key begins with, and refuses what minisign does not write.
Result<> decode_secret_key(std::string_view text, Secret<kSecretKeyBytes>& out) {
  if (text.size() > kMaxKeyFile) return failure("this is no minisign secret key: the file is too large");
  const auto line = key_line(text);
  if (!line || !decode(*line, out.bytes) || !has_algorithm(out.bytes, kLegacy)) {
    return failure(
        "this is no minisign secret key: the file that minisign -G writes has a comment and a line of base64");
  }
  const ConstBytes bytes(out.bytes);
  if (!has_algorithm(bytes.subspan(2), kScrypt) && !has_algorithm(bytes.subspan(2), kNoPassword)) {
    return failure("the secret key is encrypted in a way that this version does not know (only scrypt)");
  }
  if (!has_algorithm(bytes.subspan(4), kBlake2b)) {
    return failure("the secret key has a check sum that this version does not know (only BLAKE2b)");
  }
  return {};
}

/// Decrypts the key in its place.
Result<> decrypt(Secret<kSecretKeyBytes>& key, std::string_view password) {
  const ConstBytes bytes(key.bytes);
  const std::uint64_t operations = little_endian(bytes.subspan(kOpsLimitAt));
  const std::uint64_t memory = little_endian(bytes.subspan(kMemoryLimitAt));
  if (operations > crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE ||
      memory > crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE) {
    return failure("the secret key asks for more work or memory than minisign itself does (1 GB); it is not used");
  }
  Secret<kSecretKeyBytes - kEncryptedAt> stream;
  errno = 0;
  if (crypto_pwhash_scryptsalsa208sha256(stream.bytes.data(), stream.bytes.size(), password.data(), password.size(),
                                         bytes.data() + kSaltAt, operations, static_cast<std::size_t>(memory)) != 0) {
    const int why = errno;
    return tl::unexpected(Error{
        "derive the key from the password, which needs " + std::to_string(memory >> 20) + " MB of memory", why, ""});
  }
  for (std::size_t at = 0; at < stream.bytes.size(); ++at) key.bytes[kEncryptedAt + at] ^= stream.bytes[at];
  return {};
}

/// Whether the check sum is that of algorithm, id and key.
bool has_check_sum(const Secret<kSecretKeyBytes>& key) {
  Secret<2 + 8 + 64> covered;
  std::memcpy(covered.bytes.data(), key.bytes.data(), 2);
  std::memcpy(covered.bytes.data() + 2, key.bytes.data() + kEncryptedAt, 8 + 64);
  Secret<32> sum;
  crypto_generichash(sum.bytes.data(), sum.bytes.size(), covered.bytes.data(), covered.bytes.size(), nullptr, 0);
  return sodium_memcmp(sum.bytes.data(), key.bytes.data() + kCheckAt, sum.bytes.size()) == 0;
}

/// Ed25519 signs with both halves: with a public half that is not the other's, a signature gives the secret away.
bool halves_match(const unsigned char* key) {
  Secret<crypto_sign_SEEDBYTES> seed;
  Secret<crypto_sign_SECRETKEYBYTES> derived;
  std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> public_key;
  crypto_sign_ed25519_sk_to_seed(seed.bytes.data(), key);
  crypto_sign_seed_keypair(public_key.data(), derived.bytes.data(), seed.bytes.data());
  return sodium_memcmp(derived.bytes.data(), key, derived.bytes.size()) == 0;
}

}  // namespace

std::string MinisignPublicKey::text() const {
  std::array<unsigned char, 2 + 8 + 32> bytes;
  std::copy(kLegacy.begin(), kLegacy.end(), bytes.begin());
  std::copy(id.begin(), id.end(), bytes.begin() + 2);
  std::copy(key.begin(), key.end(), bytes.begin() + 10);
  return encode(bytes);
}

Result<MinisignPublicKey> parse_public_key(std::string_view text) {
  std::array<unsigned char, 2 + 8 + 32> bytes;
  const auto line = text.starts_with(kUntrusted) ? key_line(text) : trimmed(text);
  if (text.size() > kMaxKeyFile || !line || !decode(*line, bytes) || !has_algorithm(bytes, kLegacy)) {
    return failure("this is no minisign public key: a .pub file, or its line that begins with RW, is needed");
  }
  MinisignPublicKey key;
  std::copy_n(bytes.begin() + 2, key.id.size(), key.id.begin());
  std::copy_n(bytes.begin() + 10, key.key.size(), key.key.begin());
  return key;
}

Result<MinisignSignature> parse_signature(std::string_view text) {
  const auto malformed = [](std::string_view why) {
    return failure("this is no minisign signature: " + std::string(why));
  };
  if (text.size() > kMaxSignatureBytes) return malformed("it is larger than 16 KB");
  if (!take_line(text).starts_with(kUntrusted)) return malformed("the first line is not its untrusted comment");
  std::array<unsigned char, 2 + 8 + 64> bytes;
  if (!decode(take_line(text), bytes)) return malformed("the second line is not 74 bytes in base64");
  MinisignSignature signature;
  signature.hashed = has_algorithm(bytes, kHashed);
  if (!signature.hashed && !has_algorithm(bytes, kLegacy)) {
    return malformed("its algorithm is neither ED (hashed) nor Ed (legacy)");
  }
  std::copy_n(bytes.begin() + 2, signature.key_id.size(), signature.key_id.begin());
  std::copy_n(bytes.begin() + 10, signature.signature.size(), signature.signature.begin());
  const std::string_view comment = take_line(text);
  if (!comment.starts_with(kTrusted)) return malformed("the third line is not its trusted comment");
  signature.trusted_comment = comment.substr(kTrusted.size());
  if (signature.trusted_comment.size() > kMaxLine) return malformed("its trusted comment is longer than 8192 bytes");
  if (has_control_character(signature.trusted_comment)) {
    return malformed("its trusted comment has a control character");
  }
  if (!decode(take_line(text), signature.global_signature)) {
    return malformed("the fourth line is not 64 bytes in base64");
  }
  if (!is_blank(text)) return malformed("something follows its fourth line");
  return signature;
}

Result<> verify(const MinisignSignature& signature, const MinisignPublicKey& key, std::string_view message) {
  if (signature.key_id != key.id) {
    return failure("it was signed with the key " + shown_id(signature.key_id) + ", not with " + shown_id(key.id));
  }
  const bool holds = signature.hashed ? is_signed(signature.signature, blake2b_512(message), key)
                                      : is_signed(signature.signature, message, key);
  if (!holds) {
    return failure("the signature does not hold: what was signed with the key " + shown_id(key.id) +
                   " was something else, or the signature was changed");
  }
  if (!is_signed(signature.global_signature, comment_message(signature.signature, signature.trusted_comment), key)) {
    return failure("the signature of the trusted comment does not hold: the comment was changed");
  }
  return {};
}

MinisignSecretKey::MinisignSecretKey(MinisignSecretKey&& other) noexcept {
  *this = std::move(other);
}

MinisignSecretKey& MinisignSecretKey::operator=(MinisignSecretKey&& other) noexcept {
  if (this == &other) return *this;
  id_ = other.id_;
  key_ = other.key_;
  sodium_memzero(other.key_.data(), other.key_.size());
  return *this;
}

MinisignSecretKey::~MinisignSecretKey() {
  sodium_memzero(key_.data(), key_.size());
}

MinisignPublicKey MinisignSecretKey::public_key() const {
  MinisignPublicKey key;
  key.id = id_;
  std::copy_n(key_.begin() + 32, key.key.size(), key.key.begin());
  return key;
}

std::string MinisignSecretKey::sign(std::string_view message, std::string_view trusted_comment) const {
  const auto signature_of = [this](std::string_view bytes) {
    std::array<unsigned char, 64> signature;
    crypto_sign_detached(signature.data(), nullptr, as_bytes(bytes), bytes.size(), key_.data());
    return signature;
  };
  const auto signature = signature_of(blake2b_512(message));
  std::array<unsigned char, 2 + 8 + 64> line;
  std::copy(kHashed.begin(), kHashed.end(), line.begin());
  std::copy(id_.begin(), id_.end(), line.begin() + 2);
  std::copy(signature.begin(), signature.end(), line.begin() + 10);
  std::string text(kUntrusted);
  text += "signature from minisign secret key\n";  // the text that minisign has there
  text += encode(line) + "\n";
  text += kTrusted;
  text += trusted_comment;
  text += "\n" + encode(signature_of(comment_message(signature, trusted_comment))) + "\n";
  return text;
}

void wipe(std::string& secret) {
  sodium_memzero(secret.data(), secret.size());
  secret.clear();
}

Result<bool> needs_password(std::string_view secret_key_file) {
  Secret<kSecretKeyBytes> key;
  if (auto decoded = decode_secret_key(secret_key_file, key); !decoded) return tl::unexpected(decoded.error());
  return has_algorithm(ConstBytes(key.bytes).subspan(2), kScrypt);
}

Result<MinisignSecretKey> parse_secret_key(std::string_view text, std::string_view password) {
  if (sodium_init() < 0) return failure("sodium_init");  // it chooses the fast scrypt
  Secret<kSecretKeyBytes> key;
  if (auto decoded = decode_secret_key(text, key); !decoded) return tl::unexpected(decoded.error());
  if (has_algorithm(ConstBytes(key.bytes).subspan(2), kScrypt)) {
    if (auto decrypted = decrypt(key, password); !decrypted) return tl::unexpected(decrypted.error());
    if (!has_check_sum(key)) return failure("the password does not open this secret key");
  } else if (!sodium_is_zero(key.bytes.data() + kCheckAt, 32) && !has_check_sum(key)) {  // minisign 0.11 writes zeros
    return failure("the secret key is damaged: its check sum does not hold");
  }
  if (!halves_match(key.bytes.data() + kKeyAt)) {
    return failure("the secret key is damaged: its public half is not that of its secret half");
  }
  MinisignSecretKey parsed;
  std::copy_n(key.bytes.begin() + kEncryptedAt, parsed.id_.size(), parsed.id_.begin());
  std::copy_n(key.bytes.begin() + kKeyAt, parsed.key_.size(), parsed.key_.begin());
  return parsed;
}

}  // namespace kai::package
