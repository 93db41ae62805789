// One record: the exact bytes that are stored and hashed, the line that `audit list` shows of it, and its proof.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "audit/merkle.h"
#include "audit/proof.h"

namespace kai::audit {

/// A record that does not fit is not written as it is (see format_record), nor read.
inline constexpr std::size_t kMaxMetadata = 64 << 10;
inline constexpr std::size_t kMaxRecord = kMaxMetadata + 1024;

/// Views into a record's bytes, or into what it is to be made of.
struct RecordView {
  std::uint64_t seq = 0;        ///< in the log, from 1: the leaf index and one
  std::uint64_t agent_seq = 0;  ///< of this agent, from 1, without gaps
  std::string_view id;          ///< a UUID
  std::string_view agent_id;    ///< kaid: its own
  std::string_view event;
  std::string_view timestamp;  ///< ISO 8601, UTC, ms; clocks step: it orders nothing
  std::string_view metadata;   ///< a JSON object
};

/// {"seq":…,"agentSeq":…,"id":…,"agentId":…,"event":…,"timestamp":…,"metadata":{…}}. Metadata that is no JSON object in
/// one line becomes {"text":"…"}; what is over kMaxMetadata {"omittedBytes":N}.
std::string format_record(const RecordView& record);
/// nullopt: not exactly as format_record writes it. Metadata is looked at from the outside only: it begins and ends
/// with a brace.
std::optional<RecordView> parse_record(std::string_view bytes);

/// The record as listed and exported: `"signature":"BASE64"` becomes its last key.
std::string format_listed(std::string_view record, std::string_view proof);
struct Listed {
  std::string record;  ///< the stored bytes
  std::string proof;   ///< decoded
};
/// nullopt: no signature at its end, or it is not base64.
std::optional<Listed> parse_listed(std::string_view line);

/// What `signature` is the base64 of: c2sp.org/tlog-proof. The signed note comes last, whole.
struct InclusionProof {
  std::uint64_t index = 0;
  Path path;
  std::string note;
};
std::string format_proof(const InclusionProof& proof);
std::optional<InclusionProof> parse_proof(std::string_view text);

/// Metadata of kai.key_rotated: the keys as PublicKey::text.
std::string format_rotation(std::string_view old_key, std::string_view new_key);

}  // namespace kai::audit
