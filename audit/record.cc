#include "audit/record.h"

#include <charconv>

#include "audit/checkpoint.h"
#include "base/base64.h"
#include "base/json_check.h"
#include "base/text.h"

namespace kai::audit {
namespace {

constexpr std::string_view kSignature = R"(,"signature":")";
constexpr std::string_view kProof = "c2sp.org/tlog-proof@v1\n";
constexpr std::size_t kUuid = 36;
constexpr std::size_t kTimestamp = 24;
// Escaping makes text up to six times as long.
constexpr std::size_t kMaxText = kMaxMetadata / 8;

/// What is left of a text, taken from its beginning; once something is not there nothing is taken any more.
class Scan {
 public:
  explicit Scan(std::string_view text) : rest_(text) {}

  void literal(std::string_view expected) {
    if (rest_.starts_with(expected)) {
      rest_.remove_prefix(expected.size());
    } else {
      ok_ = false;
    }
  }
  std::uint64_t number() {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    const auto length = static_cast<std::size_t>(end - rest_.data());
    if (error != std::errc{} || (length > 1 && rest_[0] == '0')) ok_ = false;
    rest_.remove_prefix(length);
    return value;
  }
  /// Up to a quote: at most `longest` characters of identifiers.
  std::string_view word(std::size_t longest) {
    std::size_t length = 0;
    while (length < rest_.size() && length <= longest && is_word(rest_[length])) ++length;
    if (length == 0 || length > longest) ok_ = false;
    const std::string_view found = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return found;
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-' || c == ':';
  }
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace

std::string format_record(const RecordView& record) {
  std::string text = R"({"seq":)" + std::to_string(record.seq);
  text.reserve(256 + record.metadata.size());
  text += R"(,"agentSeq":)" + std::to_string(record.agent_seq);
  text.append(R"(,"id":")").append(record.id);
  text.append(R"(","agentId":")").append(record.agent_id);
  text.append(R"(","event":")").append(record.event);
  text.append(R"(","timestamp":")").append(record.timestamp);
  text.append(R"(","metadata":)");
  const std::string_view metadata = record.metadata;
  const bool object = metadata.starts_with('{') && metadata.ends_with('}') &&
                      metadata.find('\n') == std::string_view::npos && is_json_object(metadata);
  if (metadata.size() > (object ? kMaxMetadata : kMaxText)) {
    text.append(R"({"omittedBytes":)").append(std::to_string(metadata.size())).append("}");
  } else if (object) {
    text += metadata;
  } else {
    text += R"({"text":)";
    append_json_string(text, metadata);
    text += '}';
  }
  return text += '}';
}

std::optional<RecordView> parse_record(std::string_view bytes) {
  if (bytes.size() > kMaxRecord) return std::nullopt;
  Scan scan(bytes);
  RecordView record;
  scan.literal(R"({"seq":)");
  record.seq = scan.number();
  scan.literal(R"(,"agentSeq":)");
  record.agent_seq = scan.number();
  scan.literal(R"(,"id":")");
  record.id = scan.word(kUuid);
  scan.literal(R"(","agentId":")");
  record.agent_id = scan.word(64);
  scan.literal(R"(","event":")");
  record.event = scan.word(64);
  scan.literal(R"(","timestamp":")");
  record.timestamp = scan.word(kTimestamp);
  scan.literal(R"(","metadata":)");
  record.metadata = scan.rest();
  const bool object =
      record.metadata.size() >= 3 && record.metadata.starts_with('{') && record.metadata.ends_with("}}");
  if (!scan.ok() || !object || record.id.size() != kUuid || record.timestamp.size() != kTimestamp) return std::nullopt;
  record.metadata.remove_suffix(1);
  return record;
}

std::string format_listed(std::string_view record, std::string_view proof) {
  std::string line;
  line.reserve(record.size() + kSignature.size() + proof.size() / 3 * 4 + 8);
  line.append(record.substr(0, record.size() - 1)).append(kSignature);
  append_base64(line, proof);
  return line += "\"}";
}

std::optional<Listed> parse_listed(std::string_view line) {
  // Base64 holds no quote: the last one that opens a signature is ours, whatever metadata says.
  const std::size_t at = line.rfind(kSignature);
  if (at == std::string_view::npos || !line.ends_with("\"}")) return std::nullopt;
  const std::size_t begin = at + kSignature.size();
  if (line.size() - 2 < begin) return std::nullopt;
  auto proof = decode_base64(line.substr(begin, line.size() - 2 - begin));
  if (!proof) return std::nullopt;
  return Listed{std::string(line.substr(0, at)) + "}", std::move(*proof)};
}

std::string format_proof(const InclusionProof& proof) {
  std::string text(kProof);
  text += "index " + std::to_string(proof.index) + "\n";
  for (const Hash& hash : proof.path) {
    append_base64(text, bytes_of(hash));
    text += '\n';
  }
  return text.append("\n").append(proof.note);
}

std::optional<InclusionProof> parse_proof(std::string_view text) {
  Scan scan(text);
  scan.literal(kProof);
  scan.literal("index ");
  InclusionProof proof;
  proof.index = scan.number();
  scan.literal("\n");
  if (!scan.ok()) return std::nullopt;
  std::string_view rest = scan.rest();
  while (!rest.starts_with('\n')) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos || proof.path.size() == kMaxPath) return std::nullopt;
    const auto hash = decode_base64(rest.substr(0, end));
    if (!hash || hash->size() != sizeof(Hash)) return std::nullopt;
    proof.path.push_back(hash_from(*hash));
    rest.remove_prefix(end + 1);
  }
  proof.note = rest.substr(1);
  if (proof.note.size() > kMaxNote) return std::nullopt;
  return proof;
}

std::string format_rotation(std::string_view old_key, std::string_view new_key) {
  // Keys hold nothing that JSON escapes.
  return std::string(R"({"oldKey":")").append(old_key).append(R"(","newKey":")").append(new_key).append(R"("})");
}

}  // namespace kai::audit
