#include "audit/export.h"

#include <sodium.h>

#include <array>

#include <nlohmann/json.hpp>

#include "audit/record.h"
#include "base/json_check.h"
#include "base/text.h"

namespace kai::audit {
namespace {

constexpr std::string_view kRecords = R"("records":[)";

bool is_string(const nlohmann::json& document, const char* key) {
  return document.contains(key) && document[key].is_string();
}

/// What kai.exported says of itself.
std::string closing_metadata(std::uint64_t agent_seq) {
  return R"({"agentSeq":)" + std::to_string(agent_seq) + "}";
}

}  // namespace

std::string format_export_header(const ExportHeader& header) {
  std::string line = R"({"agentId":)";
  append_json_string(line, header.agent_id);
  line += R"(,"exportedAt":)";
  append_json_string(line, header.exported_at);
  line += R"(,"checkpoint":)";
  append_json_string(line, header.checkpoint);
  line += R"(,"keyRotations":[)";
  for (const std::string& rotation : header.key_rotations) {
    if (line.back() != '[') line += ',';
    append_json_string(line, rotation);
  }
  return line.append("],").append(kRecords);
}

std::string format_export_footer(std::string_view checksum) {
  return std::string(R"(],"checksum":")").append(checksum).append("\"}");
}

struct ExportSum::State {
  crypto_hash_sha256_state hash;
};

ExportSum::ExportSum() : state_(std::make_unique<State>()) {
  crypto_hash_sha256_init(&state_->hash);
}
ExportSum::~ExportSum() = default;
ExportSum::ExportSum(ExportSum&&) noexcept = default;

void ExportSum::add(std::string_view record_line) {
  const unsigned char end = '\n';
  crypto_hash_sha256_update(&state_->hash, reinterpret_cast<const unsigned char*>(record_line.data()),
                            record_line.size());
  crypto_hash_sha256_update(&state_->hash, &end, 1);
}

std::string ExportSum::hex() {
  std::array<unsigned char, crypto_hash_sha256_BYTES> hash;
  crypto_hash_sha256_final(&state_->hash, hash.data());
  std::array<char, 2 * crypto_hash_sha256_BYTES + 1> text;
  return sodium_bin2hex(text.data(), text.size(), hash.data(), hash.size());
}

ExportCheck::ExportCheck(const PublicKey& key, std::string_view remembered)
    : key_(key), keys_{key}, remembered_note_(remembered) {}

bool ExportCheck::broken(std::string problem) {
  at_ = At::kBroken;
  report_.add({0, {}, {}, "line " + std::to_string(line_number_) + ": " + std::move(problem)});
  return false;
}

bool ExportCheck::line(std::string_view text) {
  ++line_number_;
  switch (at_) {
    case At::kBroken:
      return false;
    case At::kHeader:
      return header(text);
    case At::kEnd:
      return broken("the file goes on after its end");
    case At::kSeparator:
      at_ = At::kRecord;
      return text == kExportSeparator || footer(text);
    case At::kFirstRecord:
      if (text.starts_with("]")) return footer(text);
      break;
    case At::kRecord:
      break;
  }
  at_ = At::kSeparator;
  if (text.size() > kMaxExportLine) return broken("it is longer than any record");
  sum_.add(text);
  record(text);
  return true;
}

bool ExportCheck::header(std::string_view text) {
  const std::string not_ours =
      "this is not the beginning of an export as kaictl wrote it, with one record a line: a JSON document that another "
      "program printed anew (indented, or in one line) cannot be verified; export again, or find the original file";
  if (text.size() > kMaxHeader || !text.ends_with(kRecords)) return broken(not_ours);
  const std::string whole = std::string(text) + "]}";
  if (!is_json_object(whole)) return broken(not_ours);
  const auto document = nlohmann::json::parse(whole, nullptr, false);
  const bool typed = document.is_object() && is_string(document, "agentId") && is_string(document, "exportedAt") &&
                     is_string(document, "checkpoint");
  if (!typed) return broken("agentId, exportedAt or checkpoint is not there");
  header_.agent_id = document["agentId"];
  header_.exported_at = document["exportedAt"];
  header_.checkpoint = document["checkpoint"];
  if (document.contains("keyRotations")) {
    if (!document["keyRotations"].is_array()) return broken("keyRotations is not a list");
    for (const auto& rotation : document["keyRotations"]) {
      if (!rotation.is_string()) return broken("keyRotations holds something else than records");
      header_.key_rotations.push_back(rotation);
    }
  }
  const auto head = parse_checkpoint(header_.checkpoint);
  if (!head) return broken(head.error().message());
  if (!take_keys(header_.key_rotations, *head)) return false;
  const auto opened = open_checkpoint(header_.checkpoint, key_);
  if (!opened) return broken(opened.error().message());
  head_ = *opened;
  report_.checkpoints = 1;
  report_.checkpoint = header_.checkpoint;
  at_ = At::kFirstRecord;
  compare_remembered();
  return true;
}

/// From the given key to the one that was in force: each step is a record below a checkpoint of the key before.
bool ExportCheck::take_keys(const std::vector<std::string>& rotations, const Checkpoint& head) {
  for (const std::string& line : rotations) {
    const auto listed = parse_listed(line);
    const auto record = listed ? parse_record(listed->record) : std::nullopt;
    const auto proof = listed ? parse_proof(listed->proof) : std::nullopt;
    if (!record || !proof || record->event != "kai.key_rotated" || record->agent_id != "kaid") {
      return broken("keyRotations holds something else than key rotations");
    }
    const auto keys = nlohmann::json::parse(record->metadata, nullptr, false);
    if (!keys.is_object() || !is_string(keys, "oldKey") || !is_string(keys, "newKey")) {
      return broken("a key rotation does not name its keys");
    }
    // Steps before the given key are of no use to whoever has that key.
    if (keys["oldKey"] != key_.text()) continue;
    const auto signed_by_old = open_checkpoint(proof->note, key_);
    if (!signed_by_old) return broken("a key rotation: " + signed_by_old.error().message());
    if (proof->index + 1 != record->seq || !check_inclusion(leaf_hash(listed->record), proof->index,
                                                            signed_by_old->size, proof->path, signed_by_old->root)) {
      return broken("a key rotation is not below its checkpoint");
    }
    // The checkpoint over it is still the old key's.
    if (signed_by_old->size >= head.size) continue;
    const auto next = PublicKey::parse(keys["newKey"].get<std::string>());
    if (!next) return broken("a key rotation: " + next.error().message());
    key_ = *next;
    keys_.push_back(*next);
  }
  return true;
}

void ExportCheck::record(std::string_view line) {
  ++report_.records;
  Finding at{0, {}, {}, {}};
  const auto find = [&](std::string problem) {
    at.problem = "line " + std::to_string(line_number_) + ": " + std::move(problem);
    report_.add(at);
  };
  const auto listed = parse_listed(line);
  const auto record = listed ? parse_record(listed->record) : std::nullopt;
  if (!record) return find("this is not a record with its signature");
  at = {record->seq, std::string(record->agent_id), std::string(record->event), {}};
  const auto proof = parse_proof(listed->proof);
  if (!proof) return find("its signature is not a proof");
  const Hash leaf = leaf_hash(listed->record);
  if (proof->note != header_.checkpoint) {
    const auto own = open_checkpoint(proof->note, key_);
    find(own ? "its signature is of another checkpoint than the file's"
             : "it was signed anew: " + own.error().message());
  } else if (proof->index + 1 != record->seq) {
    find("its signature is that of record " + std::to_string(proof->index + 1));
  } else if (!check_inclusion(leaf, proof->index, head_.size, proof->path, head_.root)) {
    find("it was edited: its bytes, or its signature, are not those of the signed log");
  }
  check_order(record->seq, record->agent_seq, record->agent_id, at);
  remember(leaf);
  const bool closes = header_.agent_id == kWholeLog ? record->agent_id == "kaid" : true;
  closed_ = closes && record->event == "kai.exported" && record->metadata == closing_metadata(record->agent_seq) &&
            record->timestamp == header_.exported_at;
}

void ExportCheck::check_order(std::uint64_t seq, std::uint64_t agent_seq, std::string_view agent, const Finding& at) {
  const auto find = [&](std::string problem) {
    Finding finding = at;
    finding.problem = "line " + std::to_string(line_number_) + ": " + std::move(problem);
    report_.add(std::move(finding));
  };
  const bool whole = header_.agent_id == kWholeLog;
  if (!whole && agent != header_.agent_id) return find("it is of another agent than " + header_.agent_id);
  if (seq <= last_seq_) {
    find("it stands after record " + std::to_string(last_seq_));
  } else if (whole && seq != last_seq_ + 1) {
    find("records before it are missing: the last one is " + std::to_string(last_seq_));
  }
  last_seq_ = seq;
  auto known = agent_seqs_.find(agent);
  if (known == agent_seqs_.end()) known = agent_seqs_.emplace(agent, 0).first;
  if (agent_seq != known->second + 1) {
    find("records before it are missing or moved: its agentSeq is " + std::to_string(agent_seq) + ", after " +
         std::to_string(known->second));
  }
  known->second = agent_seq;
}

/// A remembered checkpoint can be compared where it is of the same size, or where all leaves up to it are here.
void ExportCheck::compare_remembered() {
  if (remembered_note_.empty()) return;
  Result<Checkpoint> opened = failure("no key");
  for (const PublicKey& key : keys_) {
    opened = open_checkpoint(remembered_note_, key);
    if (opened) break;
  }
  if (!opened) {
    return report_.add({0, {}, {}, "the remembered checkpoint is not of this log: " + opened.error().message()});
  }
  if (opened->size > head_.size) {
    return report_.add({head_.size + 1,
                        {},
                        {},
                        "the export's checkpoint is older (" + std::to_string(head_.size) +
                            " records) than the remembered one (" + std::to_string(opened->size) +
                            "): the log was cut off or rolled back, or the export was made before"});
  }
  if (opened->size == head_.size) {
    if (opened->root != head_.root) {
      report_.add({head_.size, {}, {}, "the log up to here is not the one of the remembered checkpoint"});
    }
  } else if (header_.agent_id == kWholeLog) {
    remembered_size_ = opened->size;
    remembered_root_ = bytes_of(opened->root);
  } else {
    report_.remarks.push_back(
        "the remembered checkpoint is older than the export's, and the records of one agent do not show whether both "
        "are of one history: ask the daemon, kaictl audit prove --checkpoint FILE");
  }
}

void ExportCheck::remember(const Hash& leaf) {
  if (header_.agent_id != kWholeLog) return;
  tree_.append(leaf);
  if (tree_.size() != remembered_size_ || bytes_of(tree_.root()) == remembered_root_) return;
  report_.add({remembered_size_, {}, {}, "the log up to here is not the one of the remembered checkpoint"});
}

bool ExportCheck::footer(std::string_view text) {
  at_ = At::kEnd;
  if (text.size() > 1024 || !text.starts_with(R"(],"checksum":")") || !text.ends_with("\"}")) {
    return broken("this is neither a record nor the end of an export");
  }
  if (text != format_export_footer(sum_.hex())) {
    report_.add({0, {}, {}, "the checksum is not that of the records"});
  }
  return true;
}

Report ExportCheck::finish() {
  if (at_ == At::kBroken) return std::move(report_);
  if (at_ == At::kHeader) {
    ++line_number_;
    broken("the file is empty");
    return std::move(report_);
  }
  if (at_ != At::kEnd) report_.add({last_seq_, {}, {}, "the file ends in the middle: it was cut off"});
  if (!closed_) {
    report_.add({last_seq_,
                 {},
                 {},
                 "the closing record is missing: the last one is not the kai.exported of this export, so records may "
                 "have been cut off"});
  }
  return std::move(report_);
}

}  // namespace kai::audit
