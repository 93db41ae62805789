#include "supervisor/control/log.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::string_view kSupervisor = "kaid";

// Of one value: with the escapes of JSON (six times) and some values a record stays below kMaxLogRecord. Longer ones
// are cut, and say so.
constexpr std::size_t kMaxValueBytes = 32 << 10;

/// `text`, or its beginning in `cut` with a mark.
std::string_view limited(std::string_view text, std::string& cut) {
  if (text.size() <= kMaxValueBytes) return text;
  std::size_t end = kMaxValueBytes;
  while (end > kMaxValueBytes - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  cut = text.substr(0, end);
  cut += "... (" + std::to_string(text.size() - end) + " more bytes)";
  return cut;
}

bool is_own_key(std::string_view key) {
  return key == "time" || key == "level" || key == "agent" || key == "event" || key == "message";
}

template <typename Number>
void append_number(std::string& out, Number number) {
  std::array<char, 40> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  out.append(digits.data(), end);
}

struct AppendJson {
  std::string& out;
  void operator()(std::string_view text) const {
    std::string cut;
    append_json_string(out, limited(text, cut));
  }
  void operator()(std::int64_t number) const { append_number(out, number); }
  void operator()(double number) const {
    if (std::isfinite(number))
      append_number(out, number);
    else
      out += "null";
  }
  void operator()(bool yes) const { out += yes ? "true" : "false"; }
};

struct AppendText {
  std::string& out;
  void operator()(std::string_view text) const {
    std::string cut;
    out += limited(text, cut);
  }
  void operator()(std::int64_t number) const { append_number(out, number); }
  void operator()(double number) const { append_number(out, number); }
  void operator()(bool yes) const { out += yes ? "true" : "false"; }
};

std::string key_of(const LogField& field) {
  return std::string(field.key) + (is_own_key(field.key) ? "_" : "");
}

void append_member(std::string& out, std::string_view key, std::string_view text) {
  out += ",\"";
  out += key;
  out += "\":";
  AppendJson{out}(text);
}

}  // namespace

Result<std::unique_ptr<Log>> Log::open(const LogOptions& options) {
  std::unique_ptr<Log> log(new Log(options));
  if (!options.directory.empty()) {
    auto file = LogFile::open(options.directory, options.file_bytes, options.files);
    if (!file) return tl::unexpected(file.error());
    log->file_ = std::make_unique<LogFile>(std::move(*file));
  }
  return log;
}

Log::Log(const LogOptions& options) : level_(options.level), stream_(options.stream, options.stream_format) {}

void Log::write(LogLevel level, std::string_view agent, std::string_view event, std::string_view message,
                std::initializer_list<LogField> fields) {
  write(level, agent, event, message, std::span<const LogField>(fields.begin(), fields.size()));
}

void Log::write(LogLevel level, std::string_view agent, std::string_view event, std::string_view message,
                std::span<const LogField> fields) {
  if (!enabled(level)) return;
  report_lost_lines();
  report_file(emit({unix_ms(), level, agent.empty() ? kSupervisor : agent, event, message, fields}));
}

/// To all three; false: the file did not take it.
bool Log::emit(const Entry& entry) {
  format_json(entry);
  bool written = true;
  if (file_) {
    const auto result = file_->append(json_);
    written = result.has_value();
    if (!written) file_error_ = result.error().message();
  }
  show(entry);
  notify(entry);
  return written;
}

std::string fields_json(std::string_view message, std::span<const LogField> fields) {
  std::string json = "{";
  const auto name = [&](std::string_view key) {
    if (json.size() > 1) json += ',';
    append_json_string(json, key);
    json += ':';
  };
  if (!message.empty()) {
    name("message");
    append_json_string(json, message);
  }
  for (const LogField& field : fields) {
    name(field.key);
    std::visit(AppendJson{json}, field.value);
  }
  return json += '}';
}

/// LogReader::matches relies on the order time, level, agent.
void Log::format_json(const Entry& entry) {
  json_ = "{\"time\":\"";
  json_ += iso_time(entry.unix_ms);
  json_ += "\",\"level\":\"";
  json_ += log_level_name(entry.level);
  json_ += '"';
  append_member(json_, "agent", entry.agent);
  append_member(json_, "event", entry.event);
  append_member(json_, "message", entry.message);
  for (const LogField& field : entry.fields) {
    json_ += ',';
    append_json_string(json_, key_of(field));
    json_ += ':';
    std::visit(AppendJson{json_}, field.value);
  }
  json_ += '}';
}

/// On the stream; json_ holds the entry.
void Log::show(const Entry& entry) {
  if (!stream_.open()) return;
  if (stream_.format() == StreamFormat::kJson) {
    stream_.write_json(json_);
    return;
  }
  LogRecord record;
  if (stream_.format() != StreamFormat::kJournal) record.time = iso_time(entry.unix_ms);
  record.level = entry.level;
  record.agent = entry.agent;
  record.event = entry.event;
  AppendText{record.message}(entry.message);
  for (const LogField& field : entry.fields) {
    auto& [key, value] = record.fields.emplace_back(key_of(field), std::string());
    std::visit(AppendText{value}, field.value);
  }
  stream_.write_record(record);
}

/// For whoever reads the stream only: the others have the records.
void Log::report_lost_lines() {
  const std::uint64_t lost = stream_.open() ? stream_.take_lost() : 0;
  if (lost == 0) return;
  const std::string message = std::to_string(lost) + " records were not shown: this reader was too slow";
  const LogField count("lost", lost);
  const Entry entry{unix_ms(), LogLevel::kWarn, kSupervisor, "log.lost", message, std::span(&count, 1)};
  format_json(entry);
  show(entry);
}

void Log::report_file(bool written) {
  if (!written) {
    if (++lost_in_file_ > 1) return;
    const std::string message = "the log file takes no records until this is repaired: " + file_error_;
    const Entry entry{unix_ms(), LogLevel::kError, kSupervisor, "log.lost", message, {}};
    format_json(entry);
    show(entry);
  } else if (lost_in_file_ > 0) {
    const std::string message =
        std::to_string(lost_in_file_) + " records before this one are not in the file: " + file_error_;
    const LogField count("lost", std::exchange(lost_in_file_, 0));
    if (!emit({unix_ms(), LogLevel::kWarn, kSupervisor, "log.lost", message, std::span(&count, 1)})) ++lost_in_file_;
  }
}

Log::ObserverId Log::add_observer(Observer observer) {
  observers_.emplace(++last_observer_, std::move(observer));
  return last_observer_;
}

void Log::remove_observer(ObserverId id) {
  observers_.erase(id);
}

void Log::notify(const Entry& entry) {
  if (observers_.empty()) return;
  // An observer may remove any of them, itself too, and with it the function that is running.
  std::vector<ObserverId> ids;
  for (const auto& [id, observer] : observers_) ids.push_back(id);
  const std::string json = json_;
  for (const ObserverId id : ids) {
    const auto found = observers_.find(id);
    if (found == observers_.end()) continue;
    const Observer observer = found->second;
    observer({entry.agent, entry.unix_ms, json});
  }
}

}  // namespace kai
