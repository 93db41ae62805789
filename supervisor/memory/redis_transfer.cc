// A context on redis as a file and back: page by page, the file's side on a worker thread. Nothing else of the context
// runs meanwhile, so that all pages are of one moment.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <utility>

#include "supervisor/memory/account.h"
#include "supervisor/memory/memory_export.h"
#include "supervisor/memory/redis_context.h"
#include "supervisor/memory/request_check.h"

namespace kai {

namespace {

/// Of values in one run of the script.
constexpr std::size_t kPageBytes = 1 << 20, kPageEntries = 256;
/// Lua counts in doubles.
constexpr std::uint64_t kMostVersion = (std::uint64_t{1} << 53) - 1;

klp::MemoryError file_error(const Error& error) {
  return memory_error("INTERNAL", error.message());
}

/// What a file claims, as an agent's request would be checked.
std::optional<klp::MemoryError> check_entry(const DumpEntry& entry) {
  klp::MemoryRequest request;
  auto& write = *request.mutable_set()->add_writes();
  write.set_key(entry.key);
  write.set_value(entry.value);
  write.set_binary(entry.binary);
  if (entry.version == 0 || entry.version > kMostVersion)
    return memory_error("INVALID", "a version in the file is not a number from 1 to 2^53 - 1");
  return check_memory_request(request);
}

}  // namespace

struct RedisContext::Export {
  Fd file, synced;
  DumpHeader header;
  std::optional<MemoryExportWriter> writer;
  std::vector<DumpEntry> entries;  // of the page that is being written
  Result<> result;

  void begin() {
    synced = Fd(fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
    if (!synced) {
      result = errno_failure("fcntl", "the exported file");
      return;
    }
    auto made = MemoryExportWriter::begin(std::move(file), header);
    if (made) {
      writer.emplace(std::move(*made));
    } else {
      result = tl::unexpected(made.error());
    }
  }
  void add() {
    for (auto& entry : entries) {
      if (!result) return;
      result = writer->add(std::move(entry));
    }
    entries.clear();
  }
  void finish() {
    if (auto total = writer->finish(); !total) {
      result = tl::unexpected(total.error());
    } else if (fsync(synced.get()) < 0 && errno != EINVAL && errno != EROFS) {  // those: it is a pipe
      result = errno_failure("fsync", "the exported file");
    }
  }
};

void RedisContext::save(Fd file, std::string exported_at, Done done) {
  auto state = std::make_shared<Export>();
  state->file = std::move(file);
  state->header = {.agent_id = terms_.agent_id, .exported_at = std::move(exported_at), .backend = "redis"};
  give_alone(
      [this, state] {
        loop_.work([state] { state->begin(); },
                   [this, state, alive = std::weak_ptr(alive_)] {
                     if (!alive.expired()) save_page(state, "-");
                   });
      },
      std::move(done));
}

void RedisContext::save_page(const std::shared_ptr<Export>& file, const std::string& from) {
  if (!file->result) return end_alone(tl::unexpected(file_error(file->result.error())));
  const std::string most = std::to_string(kPageBytes);
  run("page", {from, most}, [this, file](MemoryOutcome<ScriptAnswer>&& answer) {
    if (!answer) return end_alone(tl::unexpected(answer.error()));
    save_entries(file, *answer);
  });
}

void RedisContext::save_entries(const std::shared_ptr<Export>& file, const ScriptAnswer& answer) {
  const std::int64_t now = clock_.now_ms();
  std::string last;
  for (std::size_t i = 1; i + 1 < answer.rest.size(); i += 2) {
    last = answer.text(i);
    auto record = opened(last, answer.text(i + 1));
    if (!record) return end_alone(tl::unexpected(record.error()));
    if (record->expires_ms != 0 && record->expires_ms <= now) continue;
    auto& entry = file->entries.emplace_back();
    entry = {.key = last, .value = std::move(record->value), .binary = record->binary, .version = record->version};
    if (record->expires_ms != 0) entry.ttl_ms = static_cast<std::uint64_t>(record->expires_ms - now);
  }
  const bool more = answer.number(0) == 1 && !last.empty();
  loop_.work(
      [file, more] {
        file->add();
        if (!more && file->result) file->finish();
      },
      [this, file, more, last, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        if (more) return save_page(file, "(" + last);
        if (!file->result) return end_alone(tl::unexpected(file_error(file->result.error())));
        end_alone({});
      });
}

struct RedisContext::Import {
  Fd file;
  std::optional<MemoryExportReader> reader;
  std::vector<DumpEntry> entries;  // of the next run
  MemoryUsage total;
  std::uint64_t expiring = 0, version = 0;
  bool at_end = false, first = true;
  std::optional<klp::MemoryError> error;

  /// On a worker thread.
  void read_lines() {
    if (!reader) {
      auto opened = MemoryExportReader::open(std::move(file));
      if (!opened) return fail(opened.error());
      reader.emplace(std::move(*opened));
    }
    std::size_t bytes = 0;
    while (bytes < kPageBytes && entries.size() < kPageEntries && !error) {
      auto line = reader->next();
      if (!line) return fail(line.error());
      at_end = !*line;
      if (at_end) return;
      auto* entry = std::get_if<DumpEntry>(&**line);
      if (entry == nullptr) {
        error = memory_error("INVALID", "the file has IndexedDB's databases, and this agent's backend is redis");
        return;
      }
      error = check_entry(*entry);
      bytes += entry->value.size();
      total.bytes += entry->key.size() + entry->value.size();
      ++total.entries;
      version = std::max(version, entry->version);
      if (entry->ttl_ms) ++expiring;
      entries.push_back(std::move(*entry));
    }
  }
  void fail(const Error& why) { error = memory_error("INVALID", why.message()); }
};

void RedisContext::restore(Fd file, Done done) {
  auto state = std::make_shared<Import>();
  state->file = std::move(file);
  give_alone([this, state] { restore_lines(state); }, std::move(done));
}

void RedisContext::restore_lines(const std::shared_ptr<Import>& file) {
  loop_.work([file] { file->read_lines(); },
             [this, file, alive = std::weak_ptr(alive_)] {
               if (alive.expired()) return;
               if (!file->error)
                 file->error = Account(terms_.max_bytes, {})
                                   .charge(static_cast<std::int64_t>(file->total.bytes),
                                           static_cast<std::int64_t>(file->total.entries));
               if (file->error) return give_up(*file->error);
               stage(file);
             });
}

/// Into keys beside the context's own.
void RedisContext::stage(const std::shared_ptr<Import>& file) {
  std::deque<std::string> kept;
  const auto keep = [&kept](std::string text) -> std::string_view { return kept.emplace_back(std::move(text)); };
  Words own{file->first ? "1" : "0"};
  for (const auto& entry : file->entries) {
    klp::MemoryWrite write;
    write.set_has_ttl(true);
    write.set_ttl_ms(entry.ttl_ms.value_or(0));
    const std::uint64_t flags = flags_of(entry.binary);
    own.push_back(entry.key);
    own.push_back(keep(std::to_string(entry.version)));
    own.push_back(keep(std::to_string(expires_at(write, 0, clock_.now_ms()))));
    own.push_back(keep(std::to_string(flags)));
    own.push_back(keep(sealed(entry.key, flags, entry.value)));
  }
  run(
      "stage", own,
      [this, file](MemoryOutcome<ScriptAnswer>&& answer) {
        if (!answer) return give_up(answer.error());
        file->entries.clear();
        file->first = false;
        if (file->at_end) return replace(file);
        restore_lines(file);
      },
      stage_keys_);
}

void RedisContext::replace(const std::shared_ptr<Import>& file) {
  const std::string entries = std::to_string(file->total.entries), bytes = std::to_string(file->total.bytes);
  const std::string expiring = std::to_string(file->expiring);
  run(
      "replace", {entries, bytes, expiring},
      [this](MemoryOutcome<ScriptAnswer>&& answer) {
        if (!answer) return end_alone(tl::unexpected(answer.error()));
        if (answer->status == "TWICE") return give_up(memory_error("INVALID", "a key is in the file twice"));
        told_lost_ = false;
        end_alone({});
      },
      stage_keys_, file->version);
}

/// What was staged goes; nothing of the context was changed.
void RedisContext::give_up(klp::MemoryError error) {
  run(
      "stage", {"1"},
      [this, error = std::move(error)](MemoryOutcome<ScriptAnswer>&&) { end_alone(tl::unexpected(error)); },
      stage_keys_);
}

}  // namespace kai
