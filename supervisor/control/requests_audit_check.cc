// `kaictl audit verify`, `prove` and `rotate-key`.
#include <nlohmann/json.hpp>

#include "audit/checkpoint.h"
#include "audit/proof.h"
#include "audit/record.h"
#include "base/base64.h"
#include "base/unix.h"
#include "supervisor/control/audit_check.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/audit_reader.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

// Something that takes longer says what it does.
constexpr std::chrono::milliseconds kProgressEvery{2000};

/// What a client passed as a checkpoint: it may be anything. Empty: it passed nothing.
Outcome<std::string> read_remembered(const Fd& file) {
  if (!file) return std::string();
  std::string note(audit::kMaxNote + 1, '\0');
  // pread never waits for a pipe's other end: what cannot be read so is no file.
  const ssize_t count = pread(file.get(), note.data(), note.size(), 0);
  if (count < 0) return refuse("INVALID", "the checkpoint cannot be read", "Pass a file with one signed checkpoint");
  note.resize(static_cast<std::size_t>(count));
  if (const auto checkpoint = audit::parse_checkpoint(note); !checkpoint) {
    return refuse("INVALID", checkpoint.error().message(), "Pass a file with one signed checkpoint");
  }
  return note;
}

class VerifySession : public std::enable_shared_from_this<VerifySession> {
 public:
  VerifySession(Operations& operations, std::string remembered, Responder responder)
      : environment_(operations.environment),
        remembered_(std::move(remembered)),
        responder_(std::move(responder)),
        progress_(environment_.loop) {}

  void begin(const Result<>& durable) {
    if (!durable) trouble_ = durable.error().message();
    const AuditLog::Head head = environment_.audit.head();
    check_.directory = head.directory;
    check_.public_key = head.public_key;
    // The log on the disk has to contain what this process signed last, whatever was put there since.
    if (!head.note.empty()) check_.remembered.push_back({head.note, "the checkpoint that kaid signed last"});
    if (!remembered_.empty()) check_.remembered.push_back({remembered_, "the remembered checkpoint"});
    tell_progress();
    const auto result = std::make_shared<Result<AuditCheckResult>>();
    environment_.loop.work(
        [self = shared_from_this(), result] { *result = check_stored_audit(self->check_, self->done_); },
        [self = shared_from_this(), result] { self->finish(*result); });
  }

 private:
  void tell_progress() {
    progress_.start(kProgressEvery, [this] {
      responder_.progress(std::to_string(done_.load()) + " records verified");
      tell_progress();
    });
  }

  void finish(const Result<AuditCheckResult>& result) {
    progress_.stop();
    if (!result) {
      return responder_.fail({"INTERNAL",
                              "the audit cannot be read: " + result.error().message(),
                              "Put a copy of STATE/audit in its place, or move it away to begin a new audit",
                              {},
                              false});
    }
    audit::Report report = result->report;
    if (result->last_seq > environment_.audit.last_seq()) {
      report.add(
          {environment_.audit.last_seq() + 1, {}, {}, "kaid did not write it: the log was continued by somebody else"});
    }
    if (!trouble_.empty()) report.remarks.push_back("newer records are not on the disk yet: " + trouble_);
    responder_.done(report.json(), {}, report.text());
  }

  Environment& environment_;
  std::string remembered_;
  Responder responder_;
  std::string trouble_;
  AuditCheck check_;
  std::atomic<std::uint64_t> done_ = 0;
  Timer progress_;
};

/// What prove says; made on the thread pool.
struct Proof {
  nlohmann::ordered_json document;
  std::string text;
};

std::string base64(const audit::Hash& hash) {
  std::string text;
  append_base64(text, audit::bytes_of(hash));
  return text;
}

Outcome<Proof> unreadable(const Error& error) {
  return refuse("INTERNAL", "the audit cannot be read: " + error.message(), "See what 'kaictl audit verify' says");
}

Outcome<Proof> prove_inclusion(AuditReader& reader, std::uint64_t seq, const std::string& note, std::uint64_t size) {
  if (seq > size) {
    return refuse("NOT_FOUND", "there is no record " + std::to_string(seq) + ": the log has " + std::to_string(size),
                  "See 'kaictl audit list'");
  }
  const auto record = reader.record(seq);
  if (!record) return unreadable(record.error());
  auto path = audit::inclusion_path(reader, seq - 1, size);
  if (!path) return unreadable(path.error());
  const auto checkpoint = audit::parse_checkpoint(note);
  const audit::Hash leaf = audit::leaf_hash(record->body);
  if (!checkpoint || !audit::check_inclusion(leaf, seq - 1, size, *path, checkpoint->root)) {
    return refuse("CONFLICT", "record " + std::to_string(seq) + " is not the one that was signed",
                  "See what 'kaictl audit verify' says");
  }
  Proof proof;
  proof.text = audit::format_proof({seq - 1, std::move(*path), note});
  proof.document = {
      {"type", "inclusion"}, {"seq", seq}, {"record", record->body}, {"leafHash", base64(leaf)}, {"proof", proof.text}};
  return proof;
}

Outcome<Proof> prove_consistency(AuditReader& reader, const std::string& remembered, const std::string& note,
                                 const audit::Checkpoint& head) {
  const auto old = audit::parse_checkpoint(remembered);
  if (!old) return refuse("INVALID", old.error().message(), "Pass a file with one signed checkpoint");
  if (old->origin != head.origin) {
    return refuse("INVALID", "the checkpoint is of another log", "Pass a checkpoint of this kaid's audit");
  }
  audit::Path path;
  if (old->size > 0 && old->size <= head.size) {
    auto made = audit::consistency_path(reader, old->size, head.size);
    if (!made) return unreadable(made.error());
    path = std::move(*made);
  }
  if (!audit::check_consistency(old->size, old->root, head.size, head.root, path)) {
    return refuse("CONFLICT", "the log is no continuation of that checkpoint: it was rolled back or replaced",
                  "Compare with exports that you kept; 'kaictl audit verify --checkpoint FILE' says more");
  }
  Proof proof;
  // As a witness is told (c2sp.org/tlog-witness): the old size, the path, the new checkpoint.
  proof.text = "old " + std::to_string(old->size) + "\n";
  nlohmann::ordered_json hashes = nlohmann::ordered_json::array();
  for (const audit::Hash& hash : path) {
    hashes.push_back(base64(hash));
    proof.text += base64(hash) + "\n";
  }
  proof.text += "\n" + note;
  proof.document = {
      {"type", "consistency"}, {"oldSize", old->size}, {"size", head.size}, {"path", hashes}, {"checkpoint", note}};
  return proof;
}

void prove(Operations& operations, std::uint64_t seq, const std::string& remembered, const Responder& responder) {
  const AuditLog::Head head = operations.environment.audit.head();
  const auto proof = std::make_shared<Outcome<Proof>>();
  const auto make = [head, seq, remembered]() -> Outcome<Proof> {
    const auto checkpoint = audit::parse_checkpoint(head.note);
    if (!checkpoint) return refuse("NOT_FOUND", "the audit has no records yet");
    auto reader = AuditReader::open(head.directory);
    if (!reader) return unreadable(reader.error());
    return seq == 0 ? prove_consistency(**reader, remembered, head.note, *checkpoint)
                    : prove_inclusion(**reader, seq, head.note, checkpoint->size);
  };
  operations.environment.loop.work([make, proof] { *proof = make(); },
                                   [proof, responder] {
                                     if (!*proof) return responder.fail(proof->error());
                                     const auto replace = nlohmann::json::error_handler_t::replace;
                                     responder.done((*proof)->document.dump(-1, ' ', false, replace), {},
                                                    (*proof)->text);
                                   });
}

}  // namespace

void handle_audit_verify(Operations& operations, Fd remembered, const Responder& responder) {
  auto note = read_remembered(remembered);
  if (!note) return responder.fail(note.error());
  // What was said so far is below a checkpoint first: then everything can be judged.
  const auto session = std::make_shared<VerifySession>(operations, std::move(*note), responder);
  operations.environment.audit.when_durable([session](const Result<>& durable) { session->begin(durable); });
}

void handle_audit_prove(Operations& operations, const control::AuditProve& request, Fd remembered,
                        const Responder& responder) {
  const auto note = read_remembered(remembered);
  if (!note) return responder.fail(note.error());
  if ((request.seq() == 0) == note->empty()) {
    return responder.fail(
        {"INVALID", "a proof is of a record, or from a remembered checkpoint", "Give one of both", {}, false});
  }
  operations.environment.audit.when_durable([&operations, seq = request.seq(), note = *note,
                                             responder](const Result<>&) { prove(operations, seq, note, responder); });
}

void handle_audit_rotate_key(Operations& operations, const Responder& responder) {
  operations.environment.audit.rotate_key([&operations, responder](const Result<>& rotated) {
    if (!rotated) {
      return responder.fail(
          {"UNAVAILABLE", "the key was not rotated: " + rotated.error().message(), "Try again", {}, true});
    }
    const std::string key = operations.environment.audit.head().public_key;
    responder.done(nlohmann::ordered_json{{"publicKey", key}}.dump(), {},
                   "the audit is signed by a new key: " + key + "\n");
  });
}

}  // namespace kai
