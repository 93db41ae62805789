#include "supervisor/memory/memory_export.h"

#include <string_view>

#include "base/base64.h"
#include "base/json_check.h"
#include "base/text.h"
#include "base/unix.h"
#include "supervisor/memory/dump_sum.h"

namespace kai {
namespace {

constexpr std::size_t kBufferBytes = 256 << 10;
// A name that an agent chose may become six times as long by escapes: a line must hold it all the same.
constexpr std::size_t kMaxPlainTextBytes = 4096;

enum class JsonForm { kInline, kBase64 };

void append_name(std::string& line, std::string_view name) {
  line.append(",\"").append(name);
}

void append_number(std::string& line, std::string_view name, std::uint64_t number) {
  append_name(line, name);
  line.append("\":" + std::to_string(number));
}

void append_flag(std::string& line, std::string_view name, bool flag) {
  append_name(line, name);
  line.append(flag ? "\":true" : "\":false");
}

void append_bytes(std::string& line, std::string_view name, std::string_view bytes) {
  append_name(line, name);
  line += "\":\"";
  append_base64(line, bytes);
  line += '"';
}

/// A name as text, or NAMEBase64 where it is none.
void append_text(std::string& line, std::string_view name, std::string_view text) {
  if (text.size() > kMaxPlainTextBytes || !is_utf8(text)) return append_bytes(line, std::string(name) + "Base64", text);
  append_name(line, name);
  line += "\":";
  append_json_string(line, text);
}

void append_json(std::string& line, std::string_view name, std::string_view json, JsonForm form) {
  if (form == JsonForm::kBase64) return append_bytes(line, std::string(name) + "JsonBase64", json);
  append_name(line, name);
  line.append("\":").append(json);
}

/// An object of members that each begin with a comma.
std::string object(std::string_view members) {
  return std::string("{").append(members.substr(1)).append("}");
}

std::string below(std::string_view kind, std::string_view members) {
  return std::string("{\"").append(kind).append("\":").append(object(members)).append("}");
}

struct Format {
  JsonForm form;

  std::string operator()(const DumpEntry& entry) const {
    std::string line;
    append_text(line, "key", entry.key);
    if (entry.binary) {
      append_bytes(line, "valueBase64", entry.value);
    } else {
      append_json(line, "value", entry.value, form);
    }
    append_number(line, "version", entry.version);
    if (entry.ttl_ms) append_number(line, "ttlMs", *entry.ttl_ms);
    return object(line);
  }
  std::string operator()(const IdbDumpDatabase& database) const {
    std::string line;
    append_text(line, "name", database.name);
    append_number(line, "version", database.version);
    return below("database", line);
  }
  std::string operator()(const IdbDumpStore& store) const {
    std::string line;
    append_number(line, "id", store.id);
    append_text(line, "name", store.name);
    append_json(line, "keyPath", store.key_path_json, form);
    append_flag(line, "autoIncrement", store.auto_increment);
    append_number(line, "nextKey", store.next_key);
    return below("store", line);
  }
  std::string operator()(const IdbDumpIndex& index) const {
    std::string line;
    append_number(line, "id", index.id);
    append_text(line, "name", index.name);
    append_json(line, "keyPath", index.key_path_json, form);
    append_flag(line, "unique", index.unique);
    append_flag(line, "multiEntry", index.multi_entry);
    return below("index", line);
  }
  std::string operator()(const IdbDumpRecord& record) const {
    std::string line;
    append_bytes(line, "key", record.key);
    append_bytes(line, "value", record.value);
    line += ",\"indexKeys\":[";
    for (const auto& [index, key] : record.index_keys) {
      line.append(line.back() == '[' ? "[" : ",[").append(std::to_string(index)).append(",\"");
      append_base64(line, key);
      line += "\"]";
    }
    return below("record", line + "]");
  }
};

/// What stands in a line as it is; nullptr: nothing.
const std::string* json_of(const DumpLine& line) {
  if (const auto* entry = std::get_if<DumpEntry>(&line)) return entry->binary ? nullptr : &entry->value;
  if (const auto* store = std::get_if<IdbDumpStore>(&line)) return &store->key_path_json;
  if (const auto* index = std::get_if<IdbDumpIndex>(&line)) return &index->key_path_json;
  return nullptr;
}

tl::unexpected<Error> cannot(std::string why) {
  return failure("cannot export:", std::move(why));
}

Result<std::string> format(const DumpLine& line) {
  const std::string* const json = json_of(line);
  // Checked by itself: what is no single value could pass for members of ours.
  if (json != nullptr && !is_json(*json)) {
    const auto* entry = std::get_if<DumpEntry>(&line);
    return cannot(entry == nullptr ? "a key path in the store is no JSON: it is damaged"
                                   : "the value of " + escape_for_terminal(entry->key) +
                                         " in the store is no JSON: it is damaged; delete this key, or set it anew");
  }
  const bool one_line = json == nullptr || json->find('\n') == std::string::npos;
  std::string text = std::visit(Format{one_line ? JsonForm::kInline : JsonForm::kBase64}, line);
  if (one_line && json != nullptr && !is_json_object(text)) text = std::visit(Format{JsonForm::kBase64}, line);
  if (text.size() > kMaxDumpLineBytes) return cannot("an entry is longer than 4 MiB as a line");
  return text;
}

}  // namespace

struct MemoryExportWriter::State {
  Fd file;
  std::string buffer;
  DumpSum sum;
  DumpTotal total;

  Result<> put(std::string_view line) {
    sum.add(line);
    total.bytes += line.size() + 1;
    buffer.append(line).append("\n");
    return buffer.size() < kBufferBytes ? Result<>() : flush();
  }
  Result<> flush() {
    auto written = write_all(file.get(), buffer);
    buffer.clear();
    return written;
  }
};

MemoryExportWriter::MemoryExportWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
MemoryExportWriter::MemoryExportWriter(MemoryExportWriter&&) noexcept = default;
MemoryExportWriter& MemoryExportWriter::operator=(MemoryExportWriter&&) noexcept = default;
MemoryExportWriter::~MemoryExportWriter() = default;

Result<MemoryExportWriter> MemoryExportWriter::begin(Fd file, const DumpHeader& header) {
  MemoryExportWriter writer(std::make_unique<State>());
  writer.state_->file = std::move(file);
  std::string line;
  append_text(line, "format", kDumpFormat);
  append_text(line, "agentId", header.agent_id);
  append_text(line, "exportedAt", header.exported_at);
  append_text(line, "backend", header.backend);
  if (auto put = writer.state_->put(object(line)); !put) return tl::unexpected(put.error());
  return writer;
}

Result<> MemoryExportWriter::add(const DumpLine& line) {
  const auto text = format(line);
  if (!text) return tl::unexpected(text.error());
  if (std::holds_alternative<DumpEntry>(line) || std::holds_alternative<IdbDumpRecord>(line)) ++state_->total.entries;
  return state_->put(*text);
}

Result<DumpTotal> MemoryExportWriter::finish() {
  std::string line;
  append_number(line, "entries", state_->total.entries);
  append_text(line, "checksum", state_->sum.hex());
  if (auto put = state_->put(object(line)); !put) return tl::unexpected(put.error());
  if (auto flushed = state_->flush(); !flushed) return tl::unexpected(flushed.error());
  return state_->total;
}

}  // namespace kai
