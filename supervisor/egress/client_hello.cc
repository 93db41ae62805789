#include "supervisor/egress/client_hello.h"

#include <algorithm>
#include <array>
#include <optional>

namespace kai::egress {
namespace {

using Bytes = std::span<const std::uint8_t>;
using State = ClientHello::State;

constexpr std::size_t kRecordHeader = 5;         // type, version (2), length (2): RFC 8446 5.1
constexpr std::size_t kMaxRecord = 1 << 14;      // the same
constexpr std::size_t kMaxRecords = 64;          // of one hello: what each call walks through
constexpr std::size_t kHandshakeHeader = 4;      // type, length (3): RFC 8446 4
constexpr std::size_t kMaxName = 255;            // as in DNS
constexpr std::uint8_t kHandshakeRecord = 22;    // ContentType
constexpr std::uint8_t kClientHello = 1;         // HandshakeType
constexpr std::uint8_t kMajorVersion = 3;        // of SSL 3 and every TLS
constexpr std::size_t kServerName = 0;           // ExtensionType: RFC 6066 3
constexpr std::size_t kEncryptedHello = 0xfe0d;  // ExtensionType: RFC 9849 5
constexpr std::size_t kRandom = 32;

constexpr const char* kTooLarge = "is larger than 32 KB";
constexpr const char* kLyingLengths = "has lengths that contradict each other";

/// Fields of TLS's presentation language (RFC 8446 3): big-endian numbers, vectors behind their length.
class Fields {
 public:
  explicit Fields(Bytes bytes) : left_(bytes) {}

  [[nodiscard]] bool empty() const { return left_.empty(); }
  std::optional<Bytes> take(std::size_t size) {
    if (left_.size() < size) return std::nullopt;
    const Bytes taken = left_.first(size);
    left_ = left_.subspan(size);
    return taken;
  }
  std::optional<std::size_t> number(std::size_t width) {
    const auto bytes = take(width);
    if (!bytes) return std::nullopt;
    std::size_t value = 0;
    for (const std::uint8_t byte : *bytes) value = value << 8 | byte;
    return value;
  }
  std::optional<Bytes> vector(std::size_t width_of_length) {
    const auto size = number(width_of_length);
    return size ? take(*size) : std::nullopt;
  }

 private:
  Bytes left_;
};

/// What the handshake records carry, put together: a hello may be cut anywhere, inside the name too.
struct Handshake {
  std::array<std::uint8_t, kMaxHelloBytes> bytes;  // of which `size`
  std::size_t size = 0;

  [[nodiscard]] bool has_header() const { return size >= kHandshakeHeader; }
  /// With the header.
  [[nodiscard]] std::size_t announced() const {
    return kHandshakeHeader + (std::size_t{bytes[1]} << 16 | std::size_t{bytes[2]} << 8 | bytes[3]);
  }
  [[nodiscard]] bool whole() const { return has_header() && size >= announced(); }
};

struct Verdict {
  State state;
  const char* fault = nullptr;
};
Verdict malformed(const char* fault) {
  return {State::kMalformed, fault};
}

/// Of a record's header, as far as it is there.
const char* record_fault(Bytes header) {
  if (header[0] != kHandshakeRecord) {
    // RFC 5246 E.2: two bytes of length with the highest bit set, then the type.
    const bool ssl2 = (header[0] & 0x80) != 0 && header.size() > 2 && header[2] == kClientHello;
    return ssl2 ? "is in the format of SSL 2" : "is not there: what was sent instead is not TLS";
  }
  if (header.size() > 1 && header[1] != kMajorVersion) return "is not there: what was sent instead is not TLS";
  if (header.size() < kRecordHeader) return nullptr;
  const std::size_t length = std::size_t{header[3]} << 8 | header[4];
  if (length == 0) return "has an empty record";
  return length > kMaxRecord ? "has a record of more than 16 KB" : nullptr;
}

const char* message_fault(const Handshake& message) {
  if (message.bytes[0] != kClientHello) return "is not there: the handshake begins with another message";
  if (message.has_header() && message.announced() + kRecordHeader > kMaxHelloBytes) return kTooLarge;
  return nullptr;
}

/// kComplete: `message` is whole. Nothing is awaited that could not make it right any more.
Verdict collect(Bytes input, Handshake& message) {
  for (std::size_t records = 0; !input.empty(); ++records) {
    if (records == kMaxRecords) return malformed("is cut into more than 64 records");
    const Bytes header = input.first(std::min(input.size(), kRecordHeader));
    if (const char* fault = record_fault(header)) return malformed(fault);
    if (header.size() < kRecordHeader) break;
    const std::size_t length = std::size_t{header[3]} << 8 | header[4];
    const Bytes content = input.subspan(kRecordHeader, std::min(length, input.size() - kRecordHeader));
    std::copy(content.begin(), content.end(), message.bytes.begin() + static_cast<std::ptrdiff_t>(message.size));
    message.size += content.size();
    if (message.size > 0) {
      if (const char* fault = message_fault(message)) return malformed(fault);
    }
    // Keys may change after a hello, so no record reaches beyond it (RFC 8446 5.1).
    const std::size_t missing = length - content.size();
    if (message.has_header() && message.size + missing > message.announced()) {
      return malformed("shares a record with something else");
    }
    if (message.whole()) return {State::kComplete};
    input = input.subspan(kRecordHeader + content.size());
  }
  return {State::kIncomplete};
}

/// The extension server_name: a list with one entry. Types other than host_name were never defined, and cannot be now:
/// their length would not be known.
const char* read_server_name(Bytes extension, std::string& name) {
  Fields outer(extension);
  const auto list = outer.vector(2);
  if (!list || !outer.empty()) return kLyingLengths;
  Fields entries(*list);
  const auto type = entries.number(1);
  if (!type) return "has a server_name without a name";
  if (*type != 0) return "has a server_name that is no host_name";
  const auto host = entries.vector(2);
  if (!host) return kLyingLengths;
  if (!entries.empty()) return "has more than one name in server_name";
  if (host->empty()) return "has a server_name without a name";
  if (host->size() > kMaxName) return "has a server_name of more than 255 bytes";
  const auto printable = [](std::uint8_t byte) { return byte > 0x20 && byte < 0x7f; };
  if (!std::all_of(host->begin(), host->end(), printable)) {
    return "has a server_name with a byte that no host name has (NUL, a space, a control or non-ASCII character)";
  }
  name.assign(host->begin(), host->end());
  return nullptr;
}

const char* read_encrypted_hello(Bytes extension) {
  const auto type = Fields(extension).number(1);
  if (!type || *type > 1) return "has an encrypted_client_hello that RFC 9849 does not know";
  return *type == 1 ? "says that it is the inner one of another" : nullptr;
}

const char* read_extensions(Bytes list, ClientHello& hello) {
  bool named = false;
  for (Fields fields(list); !fields.empty();) {
    const auto type = fields.number(2);
    const auto content = fields.vector(2);
    if (!type || !content) return kLyingLengths;
    if (*type == kServerName) {
      if (named) return "has server_name twice";
      named = true;
      if (const char* fault = read_server_name(*content, hello.server_name)) return fault;
    } else if (*type == kEncryptedHello) {
      if (hello.encrypted_inner) return "has encrypted_client_hello twice";
      if (const char* fault = read_encrypted_hello(*content)) return fault;
      hello.encrypted_inner = true;
    }
  }
  return nullptr;
}

/// RFC 8446 4.1.2; before TLS 1.3 the extensions may be missing.
const char* read_body(Bytes body, ClientHello& hello) {
  Fields fields(body);
  const auto version = fields.number(2);
  const auto random = fields.take(kRandom);
  const auto session = fields.vector(1);
  const auto ciphers = fields.vector(2);
  const auto compressions = fields.vector(1);
  if (!version || !random || !session || !ciphers || !compressions) return kLyingLengths;
  if (*version >> 8 != kMajorVersion) return "has a version that is not TLS's";
  if (session->size() > 32) return "has a session id of more than 32 bytes";
  if (ciphers->empty() || ciphers->size() % 2 != 0) return "has no list of cipher suites";
  if (compressions->empty()) return "has no list of compression methods";
  if (fields.empty()) return nullptr;
  const auto extensions = fields.vector(2);
  if (!extensions || !fields.empty()) return kLyingLengths;
  return read_extensions(*extensions, hello);
}

}  // namespace

ClientHello read_client_hello(Bytes bytes) {
  Handshake message;  // left as it is: 32 KB would be cleared for a hello of 500 bytes
  ClientHello hello;
  const Bytes looked_at = bytes.first(std::min(bytes.size(), kMaxHelloBytes));
  Verdict verdict = collect(looked_at, message);
  if (verdict.state == State::kIncomplete && bytes.size() >= kMaxHelloBytes) verdict = malformed(kTooLarge);
  if (verdict.state == State::kComplete) {
    const Bytes body = Bytes(message.bytes).subspan(kHandshakeHeader, message.announced() - kHandshakeHeader);
    if (const char* fault = read_body(body, hello)) verdict = malformed(fault);
  }
  // Of what is malformed nothing is passed on that looks like a name.
  if (verdict.state == State::kMalformed) hello = ClientHello{};
  hello.state = verdict.state;
  hello.fault = verdict.fault;
  return hello;
}

}  // namespace kai::egress
