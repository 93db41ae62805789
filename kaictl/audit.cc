#include "kaictl/audit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>

#include "audit/checkpoint.h"
#include "audit/verify_file.h"
#include "base/text.h"
#include "base/unix.h"
#include "kaictl/ask.h"
#include "kaictl/events.h"
#include "kaictl/fresh_file.h"
#include "kaictl/json_text.h"
#include "kaictl/policy.h"
#include "kaictl/records.h"

namespace kai {
namespace {

// All of a log is read and hashed: as long as kaid shows a sign of life.
constexpr Milliseconds kVerifyLimit{600'000};
// audit/checkpoint.h takes no larger log.
constexpr std::uint64_t kMaxSeq = std::uint64_t{1} << 62;
// A note is a few hundred bytes; witnesses add a signature line each.
constexpr std::size_t kCheckpointBytes = 64 << 10;

/// A checkpoint that the operator remembered, for kaid to read: it never opens a path that a client names.
Outcome<std::vector<Fd>> checkpoint_descriptor(const std::string& path) {
  std::vector<Fd> fds;
  if (path.empty()) return fds;
  const auto note = read_file(path, kCheckpointBytes);
  if (!note) return local_failure("cannot read --checkpoint", note.error());
  auto memory = sealed_memfd("checkpoint", *note);
  if (!memory) return local_failure("cannot pass --checkpoint on", memory.error());
  fds.push_back(std::move(*memory));
  return fds;
}

Outcome<control::Done> call_with_checkpoint(const Context& context, const control::Request& request,
                                            const std::string& checkpoint, const CallOptions& options) {
  const auto fds = checkpoint_descriptor(checkpoint);
  if (!fds) return tl::unexpected(fds.error());
  std::vector<int> numbers;
  for (const Fd& fd : *fds) numbers.push_back(fd.get());
  return call(context.socket, request, numbers, options);
}

/// kaid's document, and its own words for it.
Outcome<Answer> in_kaids_words(const control::Done& done) {
  auto document = checked_document(done, "{}");
  if (!document) return tl::unexpected(document.error());
  return Answer{escaped_lines(done.text()), std::move(*document), warnings_of(done)};
}

/// "1234 records, root hash abc=" of a signed note; what is none is "".
std::string checkpoint_summary(const Json& document) {
  const Json note = member(document, "checkpoint");
  if (!note.is_string()) return {};
  const std::string text = note.get<std::string>();
  const std::size_t origin = text.find('\n');
  const std::size_t size = origin == std::string::npos ? origin : text.find('\n', origin + 1);
  const std::size_t root = size == std::string::npos ? size : text.find('\n', size + 1);
  if (root == std::string::npos) return {};
  return escape_for_terminal(text.substr(origin + 1, size - origin - 1)) + " records, root hash " +
         escape_for_terminal(text.substr(size + 1, root - size - 1));
}

constexpr const char* kRemember =
    "remember the checkpoint, away from this machine, with: kaictl audit checkpoint > FILE\n";

Outcome<Answer> export_to_file(const Context& context, const control::Request& request, const std::string& path) {
  auto fresh = FreshFile::open("--file", path);
  if (!fresh) return tl::unexpected(fresh.error());
  Spool spool(Fd(fcntl(fresh->fd(), F_DUPFD_CLOEXEC, 0)));
  const auto done = spool_records(context, request, "the export", spool);
  if (!done) return tl::unexpected(done.error());
  if (auto kept = fresh->keep(); !kept) return tl::unexpected(kept.error());
  Json document = {{"file", path}};
  if (const Json note = member(parse_document(done->json()), "checkpoint"); note.is_string()) {
    document["checkpoint"] = note;
  }
  const std::string name = escape_for_terminal(path);
  return Answer{"exported to " + name + "; check it with: kaictl audit verify --file " + name + " --key PUB\n",
                dump(document), warnings_of(*done)};
}

/// What says nothing does not hold.
bool is_valid(const Json& report) {
  const Json valid = member(report, "valid");
  return valid.is_boolean() && valid.get<bool>();
}

/// "1 record", "41 records".
std::string counted(const Json& report, std::string_view key, const std::string& noun) {
  const std::string count = text_of(report, key);
  return (count.empty() ? "0" : count) + " " + noun + (count == "1" ? "" : "s");
}

/// "record 41 (a, started): it was edited".
std::string finding_line(const Json& finding) {
  const std::string seq = text_of(finding, "seq");
  const std::string agent = text_of(finding, "agentId");
  const std::string event = text_of(finding, "event");
  std::string line = seq.empty() ? "" : "record " + seq;
  if (!agent.empty()) line += (line.empty() ? "(" : " (") + agent + (event.empty() ? "" : ", " + event) + ")";
  return line + (line.empty() ? "" : ": ") + text_of(finding, "problem") + "\n";
}

/// A report as the answer; exit code 1 where something is found.
Answer report_answer(std::string json) {
  Answer answer;
  answer.text = audit_verify_text(json);
  answer.exit_code = is_valid(parse_document(json)) ? kExitDone : kExitFailed;
  answer.json = std::move(json);
  return answer;
}

/// --key: the file, or the key itself ("NAME+HASH+BASE64") where there is no such file.
Outcome<Fd> key_descriptor(const std::string& key) {
  auto file = open_at(AT_FDCWD, key, O_RDONLY | O_CLOEXEC);
  if (file) return std::move(*file);
  if (file.error().error_number != ENOENT || !audit::PublicKey::parse(key)) {
    return local_failure("cannot read --key", file.error(), "Give the file key.pub, or the key that is in it");
  }
  auto memory = sealed_memfd("key", key);
  if (!memory) return local_failure("cannot keep --key", memory.error());
  return std::move(*memory);
}

/// A path that the operator gave: what is not there, or is nothing to read, is their mistake to mend.
tl::unexpected<Failure> unreadable(const std::string& option, const std::string& path, const Error& error) {
  const bool missing = error.error_number == ENOENT || error.error_number == ENOTDIR;
  return fail(missing ? "NOT_FOUND" : "INVALID",
              "cannot read " + option + " " + path + ": " + strerrordesc_np(error.error_number),
              missing ? "Check the path; an export is made by: kaictl audit export --file FILE"
                      : "Give a regular file that you may read; exports are readable by their owner only");
}

/// open(2) takes a directory, whose first read then fails.
Outcome<Fd> open_regular(const std::string& option, const std::string& path) {
  auto file = open_at(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (!file) return unreadable(option, path, file.error());
  struct stat info {};
  if (fstat(file->get(), &info) < 0) return unreadable(option, path, Error{"fstat", errno, path});
  if (S_ISDIR(info.st_mode)) return unreadable(option, path, Error{"open", EISDIR, path});
  return std::move(*file);
}

/// An export file, without kaid.
Outcome<Answer> verify_export(const AuditVerifyOptions& options) {
  const auto file = open_regular("--file", options.file);
  if (!file) return tl::unexpected(file.error());
  const auto key = key_descriptor(options.key);
  if (!key) return tl::unexpected(key.error());
  Fd remembered;
  if (!options.checkpoint.empty()) {
    auto opened = open_at(AT_FDCWD, options.checkpoint, O_RDONLY | O_CLOEXEC);
    if (!opened) return local_failure("cannot read --checkpoint", opened.error());
    remembered = std::move(*opened);
  }
  const auto report = audit::verify_file(file->get(), key->get(), remembered.get());
  if (!report) return local_failure("cannot verify " + options.file, report.error());
  return report_answer(report->json());
}

/// The seq of the agent's newest record.
Outcome<std::uint64_t> newest_record(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_audit_list()->set_id(id);
  request.mutable_audit_list()->set_has_lines(true);
  request.mutable_audit_list()->set_lines(1);
  std::uint64_t seq = 0;
  auto waiting = call_options(context, "look for its records", context.timeout.value_or(kLookUpLimit));
  waiting.on_record = [&seq](std::string_view record) {
    const Json number = member(parse_document(record), "seq");
    if (number.is_number_unsigned()) seq = number.get<std::uint64_t>();
    return true;
  };
  const auto done = call(context.socket, request, {}, waiting);
  if (!done) return tl::unexpected(done.error());
  if (seq == 0)
    return fail("NOT_FOUND", "the audit has no record of " + id, "See who has some with: kaictl audit list");
  return seq;
}

/// Digits alone are a number, though an agent may be called so: its records have numbers too.
Outcome<std::uint64_t> record_number(const Context& context, const std::string& record) {
  const bool option_like = record.starts_with('-');  // CLI11 takes -3 for a value
  if (!option_like && record.find_first_not_of("0123456789") != std::string::npos)
    return newest_record(context, record);
  std::uint64_t seq = 0;
  const auto [end, error] = std::from_chars(record.data(), record.data() + record.size(), seq);
  if (error == std::errc{} && seq >= 1 && seq <= kMaxSeq) return seq;
  return usage_failure("audit prove: " + record + " is not the number of a record",
                       "Give the seq of a record (see: kaictl audit list), or an agent's id");
}

}  // namespace

Outcome<Answer> audit_list(const Context& context, const AuditListOptions& options) {
  control::Request request;
  request.mutable_audit_list()->set_id(options.id);
  if (options.lines) {
    request.mutable_audit_list()->set_has_lines(true);
    request.mutable_audit_list()->set_lines(*options.lines);
  }
  const auto done = print_records(context, request, {"the audit", false, render_event});
  if (!done) return tl::unexpected(done.error());
  const std::string summary = checkpoint_summary(parse_document(done->json()));
  // In JSON mode there are records only, a line each.
  return Answer{summary.empty() ? "" : "checkpoint: " + summary + "\n", "", warnings_of(*done)};
}

Outcome<Answer> audit_export(const Context& context, const AuditExportOptions& options) {
  control::Request request;
  request.mutable_audit_export()->set_id(options.id);
  if (!options.file.empty()) return export_to_file(context, request, options.file);
  Spool spool;
  const auto done = spool_records(context, request, "the export", spool);
  if (!done) return tl::unexpected(done.error());
  if (auto printed = spool.copy_to(STDOUT_FILENO); !printed) {
    return local_failure("cannot write the export", printed.error());
  }
  return Answer{"", "", warnings_of(*done)};
}

Outcome<Answer> audit_verify(const Context& context, const AuditVerifyOptions& options) {
  if (!options.file.empty()) return verify_export(options);
  if (!options.id.empty()) {
    if (const auto known = newest_record(context, options.id); !known) return tl::unexpected(known.error());
  }
  control::Request request;
  request.mutable_audit_verify();
  const auto waiting = call_options(context, "verify the audit", context.timeout.value_or(kVerifyLimit));
  const auto done = call_with_checkpoint(context, request, options.checkpoint, waiting);
  if (!done) return tl::unexpected(done.error());
  auto document = checked_document(*done, "{}");
  if (!document) return tl::unexpected(document.error());
  return report_answer(std::move(*document));
}

Outcome<Answer> audit_prove(const Context& context, const AuditProveOptions& options) {
  if (options.record.empty() == options.checkpoint.empty()) {
    return usage_failure("audit prove needs either an agent's id, the number of a record, or --checkpoint",
                         "Give an id or a seq (see: kaictl audit list), or a checkpoint that you remembered");
  }
  std::uint64_t seq = 0;
  if (!options.record.empty()) {
    const auto found = record_number(context, options.record);
    if (!found) return tl::unexpected(found.error());
    seq = *found;
  }
  control::Request request;
  request.mutable_audit_prove()->set_seq(seq);
  const auto waiting = call_options(context, "prove it", context.timeout.value_or(kVerifyLimit));
  const auto done = call_with_checkpoint(context, request, options.checkpoint, waiting);
  if (!done) return tl::unexpected(done.error());
  return in_kaids_words(*done);
}

Outcome<Answer> audit_rotate_key(const Context& context) {
  control::Request request;
  request.mutable_audit_rotate_key();
  const auto done = call(context.socket, request, {},
                         call_options(context, "rotate the key", context.timeout.value_or(kChangeLimit)));
  if (!done) return tl::unexpected(done.error());
  return in_kaids_words(*done);
}

Outcome<Answer> audit_checkpoint(const Context& context) {
  control::Request request;
  request.mutable_audit_list()->set_has_lines(true);  // the last 0: only what comes with them
  const auto waiting = call_options(context, "the checkpoint", context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, "{}");
  if (!answer) return answer;
  const Json note = member(parse_document(answer->json), "checkpoint");
  if (!note.is_string()) return fail("UNAVAILABLE", "kaid has no checkpoint yet", "Try again in a second");
  answer->text = escaped_lines(note.get<std::string>());
  return answer;
}

std::string audit_verify_text(std::string_view json) {
  const Json report = parse_document(json);
  std::string remarks;
  const Json listed = member(report, "remarks");
  for (const Json& remark : listed.is_array() ? listed : Json::array()) {
    remarks += "remark: " + escape_for_terminal(remark.is_string() ? remark.get<std::string>() : dump(remark)) + "\n";
  }
  const std::string looked_at =
      counted(report, "records", "record") + ", " + counted(report, "checkpoints", "checkpoint") + " looked at\n";
  if (is_valid(report)) {
    std::string text = "the audit holds: " + looked_at + remarks;
    if (const std::string head = checkpoint_summary(report); !head.empty()) {
      text += "checkpoint: " + head + "\n" + kRemember;
    }
    return text;
  }
  std::string text = "the audit does not hold: " + looked_at;
  const Json findings = member(report, "findings");
  for (const Json& finding : findings.is_array() ? findings : Json::array()) text += finding_line(finding);
  if (const std::string more = text_of(report, "findingsOmitted"); !more.empty()) text += "and " + more + " more\n";
  return text + remarks;
}

}  // namespace kai
