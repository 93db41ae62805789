#include "supervisor/control/audit_check.h"

#include <nlohmann/json.hpp>

#include "audit/log_check.h"
#include "audit/record.h"
#include "base/unix.h"
#include "supervisor/control/audit_store.h"

namespace kai {
namespace {

/// Rotations as their table and records give them; LogCheck decides whether they are true.
Result<std::vector<audit::Rotation>> read_rotations(Database& database) {
  auto select =
      database.prepare("SELECT t.seq, r.body FROM rotations t LEFT JOIN records r ON r.seq = t.seq ORDER BY t.seq");
  if (!select) return tl::unexpected(select.error());
  std::vector<audit::Rotation> rotations;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return rotations;
    audit::Rotation rotation{static_cast<std::uint64_t>((*select)->number(0)), {}, {}};
    if (const auto record = audit::parse_record((*select)->bytes(1))) {
      const auto keys = nlohmann::json::parse(record->metadata, nullptr, false);
      if (keys.is_object() && keys.contains("oldKey") && keys["oldKey"].is_string()) rotation.old_key = keys["oldKey"];
      if (keys.is_object() && keys.contains("newKey") && keys["newKey"].is_string()) rotation.new_key = keys["newKey"];
    }
    rotations.push_back(std::move(rotation));
  }
}

std::string fetch(Database& database, std::uint64_t seq) {
  auto select = database.prepare("SELECT body FROM records WHERE seq = ?1");
  if (!select) return {};
  const auto row = (*select)->bind(1, static_cast<std::int64_t>(seq)).step();
  return row && *row ? (*select)->text(0) : std::string();
}

/// Records and the checkpoints between them, in the order of the log.
Result<> feed(Database& database, audit::LogCheck& check, std::atomic<std::uint64_t>& done) {
  auto records = database.prepare("SELECT seq, body FROM records WHERE seq > 0 ORDER BY seq");
  if (!records) return tl::unexpected(records.error());
  auto checkpoints =
      database.prepare("SELECT size, note, frontier, leaves FROM checkpoints WHERE size > 0 ORDER BY size");
  if (!checkpoints) return tl::unexpected(checkpoints.error());
  auto more_records = (*records)->step();
  auto more_checkpoints = (*checkpoints)->step();
  for (;;) {
    if (!more_records) return tl::unexpected(more_records.error());
    if (!more_checkpoints) return tl::unexpected(more_checkpoints.error());
    const bool record_next =
        *more_records && (!*more_checkpoints || (*records)->number(0) <= (*checkpoints)->number(0));
    if (record_next) {
      check.record(static_cast<std::uint64_t>((*records)->number(0)), (*records)->bytes(1));
      done.fetch_add(1, std::memory_order_relaxed);
      more_records = (*records)->step();
    } else if (*more_checkpoints) {
      check.checkpoint({static_cast<std::uint64_t>((*checkpoints)->number(0)), (*checkpoints)->bytes(1),
                        (*checkpoints)->bytes(2), (*checkpoints)->bytes(3)});
      more_checkpoints = (*checkpoints)->step();
    } else {
      return {};
    }
  }
}

void check_key_file(const AuditCheck& check, audit::Report& report) {
  const auto text = read_file(check.directory + AuditFiles::kPublicKey, 4096);
  const auto key = text ? audit::PublicKey::parse(*text) : Result<audit::PublicKey>(tl::unexpected(text.error()));
  if (!key) {
    report.add({0, {}, {}, "key.pub: " + key.error().message()});
  } else if (key->text() != check.public_key) {
    report.add({0, {}, {}, "key.pub is not the key that kaid signs with"});
  }
}

}  // namespace

Result<AuditCheckResult> check_stored_audit(const AuditCheck& check, std::atomic<std::uint64_t>& done) {
  const auto key = audit::PublicKey::parse(check.public_key);
  if (!key) return tl::unexpected(key.error());
  auto opened = Database::open_unchecked(check.directory + AuditFiles::kDatabase, kAuditNames, true);
  if (!opened) return tl::unexpected(opened.error());
  Database& database = **opened;
  // One state of the log for all of it, whatever is written meanwhile.
  if (auto begun = database.execute("BEGIN"); !begun) return tl::unexpected(begun.error());
  auto rotations = read_rotations(database);
  if (!rotations) return tl::unexpected(rotations.error());
  audit::LogCheck log(*key, std::move(*rotations), [&](std::uint64_t seq) { return fetch(database, seq); });
  for (const auto& remembered : check.remembered) log.remember(remembered.note, remembered.whose);
  const Result<> read = feed(database, log, done);
  AuditCheckResult result;
  result.last_seq = log.last_seq();
  result.report = log.finish();
  if (!read) {
    result.report.add(
        {result.last_seq + 1, {}, {}, "the database cannot be read from here on: " + read.error().message()});
  }
  const auto below = database.number("SELECT count(*) FROM records WHERE seq < 1");
  if (below && *below > 0) {
    result.report.add({0, {}, {}, std::to_string(*below) + " records have no number above 0: they are not kaid's"});
  }
  check_key_file(check, result.report);
  const auto tampered = read_tampered(check.directory);
  if (!tampered) result.report.add({0, {}, {}, "the file tampered: " + tampered.error().message()});
  for (const audit::Finding& finding : tampered ? *tampered : std::vector<audit::Finding>{}) result.report.add(finding);
  return result;
}

}  // namespace kai
