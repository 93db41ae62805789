// Export and import of a whole context.
#include <fcntl.h>
#include <unistd.h>

#include "supervisor/memory/memory_file.h"
#include "supervisor/memory/request_check.h"

namespace kai {

MemoryOutcome<> MemoryFile::save(Fd file, std::string exported_at) {
  if (unusable_) return tl::unexpected(*unusable_);
  const auto unavailable = [](const Error& error) {
    return tl::unexpected(memory_error("UNAVAILABLE", "cannot export the agent's memory: " + error.message()));
  };
  const int descriptor = ::fcntl(file.get(), F_DUPFD_CLOEXEC, 0);
  const Fd synced(descriptor);
  const char* backend = file_.indexed_db ? "indexeddb" : file_.durable ? "sqlite" : "memory";
  auto writer = MemoryExportWriter::begin(std::move(file), {terms_.agent_id, std::move(exported_at), backend});
  if (!writer) return unavailable(writer.error());
  const std::int64_t now = clock_.now_ms();
  auto done = entries_->each(now, [&](const Entries::Entry& entry) {
    DumpEntry line{entry.key, entry.value, entry.binary, entry.version, {}};
    if (entry.expires_ms > 0) line.ttl_ms = static_cast<std::uint64_t>(entry.expires_ms - now);
    return writer->add(line);
  });
  if (done && indexed_db_) done = indexed_db_->dump([&](DumpLine&& line) { return writer->add(line); });
  if (!done) {
    // The file that is written to may be full, or ours be damaged.
    return done.error().error_number != 0 ? unavailable(done.error()) : tl::unexpected(fail(done.error()));
  }
  if (auto total = writer->finish(); !total) return unavailable(total.error());
  if (fsync(synced.get()) < 0 && errno != EINVAL && errno != EROFS) {  // those: it is a pipe
    const auto failed = errno_failure("fsync", "the exported file");
    return unavailable(failed.value());
  }
  return {};
}

MemoryOutcome<> MemoryFile::restore(Fd file) {
  if (unusable_) return tl::unexpected(*unusable_);
  end_session();
  forget_errors();
  const Entries::Counters counters = entries_->counters();
  const MemoryUsage used = account_.used();
  std::optional<klp::MemoryError> refused;
  const auto loaded = load_lines(std::move(file), refused);
  if (loaded && !refused) return {};
  reset_counts(counters, used);
  return tl::unexpected(refused ? as_storage_error(*std::move(refused)) : fail(loaded.error()));
}

Result<> MemoryFile::load_lines(Fd file, std::optional<klp::MemoryError>& refused) {
  auto reader = MemoryExportReader::open(std::move(file));
  const auto invalid = [&](const Error& error) {
    refused = memory_error("INVALID", "cannot import the file: " + error.message());
    return Result<>{};
  };
  if (!reader) return invalid(reader.error());
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  if (auto deleted = entries_->delete_all(); !deleted) return deleted;
  if (indexed_db_) {
    if (auto cleared = indexed_db_->clear(); !cleared) refused = std::move(cleared.error());
  }
  const std::int64_t now = clock_.now_ms();
  while (!refused) {
    auto line = reader->next();
    if (!line) return invalid(line.error());
    if (!*line) break;
    if (auto loaded = load_line(**line, now, refused); !loaded) return loaded;
  }
  if (!refused && indexed_db_) {
    if (auto finished = indexed_db_->finish_load(); !finished) refused = std::move(finished.error());
  }
  if (refused) return {};
  if (auto written = entries_->write_counters(); !written) return written;
  return transaction.commit();
}

Result<> MemoryFile::load_line(const DumpLine& line, std::int64_t now_ms, std::optional<klp::MemoryError>& refused) {
  if (const auto* entry = std::get_if<DumpEntry>(&line)) {
    klp::MemoryWrite write;
    write.set_has_ttl(true);
    write.set_ttl_ms(entry->ttl_ms.value_or(0));
    auto inserted =
        entries_->insert({entry->key, entry->value, entry->binary, entry->version, expires_at(write, 0, now_ms)});
    if (!inserted) return tl::unexpected(inserted.error());
    refused = *std::move(inserted);
  } else if (indexed_db_) {
    if (auto loaded = indexed_db_->load(line); !loaded) refused = std::move(loaded.error());
  } else {
    refused = memory_error("INVALID",
                           "the file has IndexedDB's databases in it, and the agent's manifest has another "
                           "memory.backend than indexeddb");
  }
  return {};
}

}  // namespace kai
