// `kaictl audit list` and `export`: records with their proofs, made on the thread pool in pieces that the client has
// read before the next is made.
#include <nlohmann/json.hpp>

#include "audit/checkpoint.h"
#include "audit/export.h"
#include "audit/record.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/audit_reader.h"
#include "supervisor/control/record_stream.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

constexpr std::size_t kRecordsAtOnce = 128;

/// Which records, under which checkpoint. `next` is called on the thread pool, one call at a time.
class AuditLines {
 public:
  AuditLines(std::unique_ptr<AuditReader> reader, std::string agent, std::string note, std::uint64_t size)
      : reader_(std::move(reader)), agent_(std::move(agent)), note_(std::move(note)), size_(size), up_to_(size) {}

  void only_last(std::uint64_t lines) { last_ = lines; }
  void export_up_to(std::uint64_t seq) {
    up_to_ = seq;
    exporting_ = true;
  }

  Result<RecordStream::Piece> next();

 private:
  Result<> begin(RecordStream::Piece& piece);
  Result<> begin_export(RecordStream::Piece& piece);

  std::unique_ptr<AuditReader> reader_;
  std::string agent_, note_;
  std::uint64_t size_;       // of the checkpoint
  std::uint64_t up_to_;      // the last record that is told
  std::uint64_t after_ = 0;  // told up to here
  std::optional<std::uint64_t> last_;
  bool exporting_ = false, begun_ = false, any_ = false;
  audit::ExportSum sum_;
};

Result<> AuditLines::begin(RecordStream::Piece& piece) {
  begun_ = true;
  if (exporting_) return begin_export(piece);
  if (!last_) return {};
  const auto last = reader_->last(agent_, up_to_);
  if (!last) return tl::unexpected(last.error());
  after_ = *last > *last_ ? *last - *last_ : 0;
  return {};
}

Result<> AuditLines::begin_export(RecordStream::Piece& piece) {
  const auto closing = reader_->record(up_to_);
  if (!closing) return tl::unexpected(closing.error());
  const auto record = audit::parse_record(closing->body);
  if (!record) return failure("read the audit", "record " + std::to_string(up_to_) + " was edited");
  auto rotations = reader_->rotations(size_);
  if (!rotations) return tl::unexpected(rotations.error());
  const std::string agent = agent_.empty() ? std::string(audit::kWholeLog) : agent_;
  piece.records.push_back(
      audit::format_export_header({agent, std::string(record->timestamp), note_, std::move(*rotations)}));
  return {};
}

Result<RecordStream::Piece> AuditLines::next() {
  RecordStream::Piece piece;
  if (!begun_) {
    if (auto done = begin(piece); !done) return tl::unexpected(done.error());
  }
  auto records = reader_->records(agent_, after_, up_to_, kRecordsAtOnce);
  if (!records) return tl::unexpected(records.error());
  for (const AuditReader::Stored& record : *records) {
    auto line = reader_->listed(record, note_, size_);
    if (!line) return tl::unexpected(line.error());
    if (exporting_) {
      if (any_) piece.records.emplace_back(audit::kExportSeparator);
      sum_.add(*line);
    }
    any_ = true;
    after_ = agent_.empty() ? record.seq : record.agent_seq;
    piece.records.push_back(std::move(*line));
  }
  piece.done = records->size() < kRecordsAtOnce;
  if (piece.done && exporting_) piece.records.push_back(audit::format_export_footer(sum_.hex()));
  return piece;
}

std::string checkpoint_document(const std::string& note) {
  return nlohmann::ordered_json{{"checkpoint", note}}.dump();
}

void stream(Operations& operations, AuditLines lines, const std::string& note, const Responder& responder) {
  RecordStream::Source source;
  source.next = [told = std::make_shared<AuditLines>(std::move(lines))] { return told->next(); };
  source.unreadable = audit_unreadable;
  source.last_word = checkpoint_document(note);
  RecordStream::begin(operations.environment.loop, std::move(source), responder);
}

void list_records(Operations& operations, const control::AuditList& request, const Responder& responder) {
  const AuditLog::Head head = operations.environment.audit.head();
  const auto checkpoint = audit::parse_checkpoint(head.note);
  if (!checkpoint) {
    if (operations.environment.audit.last_seq() == 0) return responder.done("{}");
    return responder.fail(audit_unreadable(checkpoint.error()));
  }
  auto reader = AuditReader::open(head.directory);
  if (!reader) return responder.fail(audit_unreadable(reader.error()));
  const auto known = audit_knows(operations, **reader, request.id());
  if (!known) return responder.fail(audit_unreadable(known.error()));
  if (!*known) return responder.fail(not_registered(request.id()));
  AuditLines lines(std::move(*reader), request.id(), head.note, checkpoint->size);
  if (request.has_lines()) lines.only_last(request.lines());
  stream(operations, std::move(lines), head.note, responder);
}

void export_records(Operations& operations, const std::string& id, std::uint64_t seq, const Responder& responder) {
  const AuditLog::Head head = operations.environment.audit.head();
  const auto checkpoint = audit::parse_checkpoint(head.note);
  if (!checkpoint) return responder.fail(audit_unreadable(checkpoint.error()));
  auto reader = AuditReader::open(head.directory);
  if (!reader) return responder.fail(audit_unreadable(reader.error()));
  AuditLines lines(std::move(*reader), id, head.note, checkpoint->size);
  lines.export_up_to(seq);
  stream(operations, std::move(lines), head.note, responder);
}

}  // namespace

Failure audit_unreadable(const Error& error) {
  return {"INTERNAL", "the audit cannot be read: " + error.message(), "See what 'kaictl audit verify' says", {}, false};
}

Result<bool> audit_knows(Operations& operations, AuditReader& reader, const std::string& id) {
  if (id.empty() || operations.agents.find(id) != nullptr) return true;
  const auto last = reader.last(id, operations.environment.audit.last_seq());
  if (!last) return tl::unexpected(last.error());
  return *last > 0;
}

void handle_audit_list(Operations& operations, const control::AuditList& request, const Responder& responder) {
  // What happened just now is to be listed too, with its proof. A disk that takes nothing hides no older record.
  operations.environment.audit.when_durable(
      [&operations, request, responder](const Result<>&) { list_records(operations, request, responder); });
}

void handle_audit_export(Operations& operations, const control::AuditExport& request, const Responder& responder) {
  Environment& environment = operations.environment;
  {
    auto reader = AuditReader::open(environment.audit.head().directory);
    if (!reader) return responder.fail(audit_unreadable(reader.error()));
    const auto known = audit_knows(operations, **reader, request.id());
    if (!known) return responder.fail(audit_unreadable(known.error()));
    if (!*known) return responder.fail(not_registered(request.id()));
  }
  if (const auto refusal = environment.audit.refusal()) return responder.fail(*refusal);
  const std::uint64_t seq = environment.audit.append_exported(request.id().empty() ? "kaid" : request.id());
  environment.audit.when_durable([&operations, id = request.id(), seq, responder](const Result<>& durable) {
    const auto refusal = operations.environment.audit.refusal();
    if (seq == 0 || !durable) {
      return responder.fail(
          refusal.value_or(Failure{"UNAVAILABLE", "the audit was not written", "Try again", {}, true}));
    }
    export_records(operations, id, seq, responder);
  });
}

}  // namespace kai
