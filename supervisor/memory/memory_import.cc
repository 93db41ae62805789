// MemoryExportReader.
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>

#include "base/json_check.h"
#include "supervisor/memory/dump_fields.h"
#include "supervisor/memory/dump_sum.h"
#include "supervisor/memory/memory_export.h"
#include "supervisor/memory/store.h"

namespace kai {
namespace {

constexpr std::size_t kBufferBytes = 256 << 10;
constexpr std::string_view kNoLine = "this is no line of exported memory";
DumpEntry entry_of(DumpFields& fields) {
  DumpEntry entry;
  const auto key = fields.take("key");
  entry.key = text_in(key.value_or("")).value_or("");
  if (entry.key.empty() || entry.key.size() > kMaxMemoryKeyBytes || entry.key.find('\0') != std::string::npos) {
    fields.wrong("key is not 1 to 512 bytes of UTF-8 without NUL");
  }
  const auto base64 = fields.take("valueBase64");
  entry.binary = base64.has_value();
  if (base64) {
    auto value = bytes_in(*base64);
    if (!value) fields.wrong("valueBase64 is no base64");
    entry.value = std::move(value).value_or("");
  } else {
    entry.value = fields.json("value");
  }
  if (entry.value.size() > kMaxMemoryValueBytes) fields.wrong("its value has more than 1 MiB");
  entry.version = fields.number<std::uint64_t>("version", 1);
  if (const auto ttl = fields.take("ttlMs")) {
    entry.ttl_ms = number_in<std::uint64_t>(*ttl).value_or(0);
    if (*entry.ttl_ms == 0) fields.wrong("ttlMs is no number from 1");
  }
  return entry;
}

IdbDumpDatabase database_of(DumpFields& fields) {
  return {fields.text("name"), fields.number<std::uint64_t>("version", 1)};
}

IdbDumpStore store_of(DumpFields& fields) {
  return {fields.number<std::uint32_t>("id", 1), fields.text("name"), fields.json("keyPath"),
          fields.flag("autoIncrement"), fields.number<std::uint64_t>("nextKey")};
}

IdbDumpIndex index_of(DumpFields& fields) {
  return {fields.number<std::uint32_t>("id", 1), fields.text("name"), fields.json("keyPath"), fields.flag("unique"),
          fields.flag("multiEntry")};
}

/// [NUMBER,"BASE64"]
std::optional<std::pair<std::uint32_t, std::string>> index_key_in(std::string_view pair) {
  pair = trim_json(pair);
  if (!pair.starts_with('[')) return std::nullopt;
  const std::size_t comma = json_value_end(pair, 1);
  if (pair[comma] != ',') return std::nullopt;
  const std::size_t end = json_value_end(pair, comma + 1);
  const auto index = number_in<std::uint32_t>(pair.substr(1, comma - 1));
  auto key = bytes_in(pair.substr(comma + 1, end - comma - 1));
  if (pair[end] != ']' || !index || !key) return std::nullopt;
  return std::pair(*index, std::move(*key));
}

IdbDumpRecord record_of(DumpFields& fields) {
  IdbDumpRecord record{fields.bytes("key"), fields.bytes("value"), {}};
  const std::string_view list = trim_json(fields.take("indexKeys").value_or(""));
  if (!list.starts_with('[')) {
    fields.wrong("indexKeys is not there, or no list");
    return record;
  }
  std::size_t at = 1;
  while (list[at] != ']') {
    const std::size_t end = json_value_end(list, at);
    auto key = index_key_in(list.substr(at, end - at));
    if (!key) {
      fields.wrong("indexKeys is no list of [index, base64]");
      return record;
    }
    record.index_keys.push_back(std::move(*key));
    if (list[end] == ']') break;
    at = end + 1;
  }
  return record;
}

/// Lines of the file from an offset on.
class Lines {
 public:
  explicit Lines(off_t offset) : offset_(offset), buffer_(kBufferBytes) {}

  [[nodiscard]] std::uint64_t number() const { return number_; }
  /// Bytes of the lines so far.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  [[nodiscard]] tl::unexpected<Error> wrong(std::string_view problem) const {
    return failure("the file of exported memory, line " + std::to_string(number_) + ":", std::string(problem));
  }
  /// nullopt: the end. Without its LF, until the next call.
  Result<std::optional<std::string_view>> next(int file) {
    line_.clear();
    ++number_;
    while (true) {
      if (begin_ == end_) {
        auto more = fill(file);
        if (!more) return tl::unexpected(more.error());
        if (!*more && line_.empty()) return std::nullopt;
        if (!*more) return wrong("the file ends in the middle of it: it was cut off. Find a whole one");
      }
      const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
      const std::size_t length = rest.find('\n');
      const std::string_view piece = rest.substr(0, length);
      if (line_.size() + piece.size() > kMaxDumpLineBytes) return wrong("it is longer than 4 MiB");
      line_.append(piece);
      begin_ += piece.size();
      if (length == std::string_view::npos) continue;
      ++begin_;
      bytes_ += line_.size() + 1;
      return line_;
    }
  }

 private:
  Result<bool> fill(int file) {
    ssize_t count = -1;
    do count = pread(file, buffer_.data(), buffer_.size(), offset_);
    while (count < 0 && errno == EINTR);
    if (count < 0) return errno_failure("read the file of exported memory");
    offset_ += count;
    begin_ = 0;
    end_ = static_cast<std::size_t>(count);
    return count > 0;
  }

  off_t offset_;
  std::string line_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;
  std::uint64_t number_ = 0, bytes_ = 0;
};

/// One reading of the whole file.
class Pass {
 public:
  explicit Pass(off_t offset) : lines_(offset) {}

  [[nodiscard]] const DumpHeader& header() const { return header_; }
  [[nodiscard]] DumpTotal total() const { return {entries_, lines_.bytes()}; }
  [[nodiscard]] const std::string& checksum() const { return checksum_; }
  [[nodiscard]] tl::unexpected<Error> wrong(std::string_view problem) const { return lines_.wrong(problem); }

  Result<> begin(int file);
  /// nullopt: the last line was read, and what it says is so.
  Result<std::optional<DumpLine>> next(int file);

 private:
  /// Where in an IndexedDB database the lines are: what may stand there.
  enum class At { kEntries, kDatabase, kStore, kRecords };

  Result<DumpLine> parse(DumpFields& outer);
  Result<DumpLine> checked(DumpFields& fields, DumpLine&& line, bool in_place) const;
  Result<> end(DumpFields& fields, int file);

  Lines lines_;
  DumpHeader header_;
  DumpSum sum_;
  std::string checksum_;
  std::uint64_t entries_ = 0;
  At at_ = At::kEntries;
};

Result<> Pass::begin(int file) {
  const auto line = lines_.next(file);
  if (!line) return tl::unexpected(line.error());
  if (!*line) return lines_.wrong("the file is empty");
  constexpr std::string_view kNotOurs = "this is not the beginning of a file that kaictl memory export wrote";
  if (!is_json_object(**line)) return lines_.wrong(kNotOurs);
  DumpFields fields(**line);
  if (fields.first() != "format") return lines_.wrong(kNotOurs);
  if (fields.text("format") != kDumpFormat) {
    return lines_.wrong("its format is not " + std::string(kDumpFormat) +
                        ", the only one that this kaid reads: another version of kaid wrote it");
  }
  header_ = {fields.text("agentId"), fields.text("exportedAt"), fields.text("backend")};
  if (const std::string problem = fields.problem(); !problem.empty()) return lines_.wrong(problem);
  sum_.add(**line);
  return {};
}

Result<std::optional<DumpLine>> Pass::next(int file) {
  const auto line = lines_.next(file);
  if (!line) return tl::unexpected(line.error());
  if (!*line) {
    return lines_.wrong("it should be here, as the last one has the checksum: the file was cut off. Find a whole one");
  }
  const std::string_view text = **line;
  if (!is_json_object(text)) return lines_.wrong("it is no JSON object: the file was changed");
  DumpFields fields(text);
  if (fields.first() == "entries") {
    if (auto ended = end(fields, file); !ended) return tl::unexpected(ended.error());
    return std::nullopt;
  }
  auto parsed = parse(fields);
  if (!parsed) return tl::unexpected(parsed.error());
  sum_.add(text);
  if (std::holds_alternative<DumpEntry>(*parsed) || std::holds_alternative<IdbDumpRecord>(*parsed)) ++entries_;
  return std::optional<DumpLine>(std::move(*parsed));
}

Result<DumpLine> Pass::parse(DumpFields& outer) {
  const std::string kind(outer.first());
  if (kind == "key") {
    DumpEntry entry = entry_of(outer);
    return checked(outer, std::move(entry), at_ == At::kEntries);
  }
  const std::string_view inner = trim_json(outer.take(kind).value_or(""));
  if (!inner.starts_with('{')) return lines_.wrong(kNoLine);
  DumpFields fields(inner);
  fields.wrong(outer.problem());
  const At above = at_;
  if (kind == "database") {
    at_ = At::kDatabase;
    return checked(fields, database_of(fields), true);
  }
  if (kind == "store") {
    at_ = At::kStore;
    return checked(fields, store_of(fields), above != At::kEntries);
  }
  if (kind == "index") return checked(fields, index_of(fields), above == At::kStore);
  if (kind != "record") return lines_.wrong(kNoLine);
  at_ = At::kRecords;
  return checked(fields, record_of(fields), above == At::kStore || above == At::kRecords);
}

Result<DumpLine> Pass::checked(DumpFields& fields, DumpLine&& line, bool in_place) const {
  if (const std::string problem = fields.problem(); !problem.empty()) return lines_.wrong(problem);
  if (!in_place) return lines_.wrong("it does not belong below the line before it");
  return std::move(line);
}

Result<> Pass::end(DumpFields& fields, int file) {
  const auto entries = fields.number<std::uint64_t>("entries");
  checksum_ = fields.text("checksum");
  if (const std::string problem = fields.problem(); !problem.empty()) return lines_.wrong(problem);
  if (entries != entries_) {
    return lines_.wrong("it says " + std::to_string(entries) + " entries, and there are " + std::to_string(entries_) +
                        ": the file was changed");
  }
  if (checksum_ != sum_.hex()) {
    return lines_.wrong("its checksum is not that of the lines before it: the file was changed");
  }
  const auto after = lines_.next(file);
  if (!after) return tl::unexpected(after.error());
  if (*after) return lines_.wrong("the file goes on after its last line");
  return {};
}

}  // namespace

struct MemoryExportReader::State {
  Fd file;
  off_t start = 0;
  DumpHeader header;
  DumpTotal total;
  std::string checksum;
  std::unique_ptr<Pass> second;
  bool ended = false;
};

MemoryExportReader::MemoryExportReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
MemoryExportReader::MemoryExportReader(MemoryExportReader&&) noexcept = default;
MemoryExportReader& MemoryExportReader::operator=(MemoryExportReader&&) noexcept = default;
MemoryExportReader::~MemoryExportReader() = default;

Result<MemoryExportReader> MemoryExportReader::open(Fd file) {
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return errno_failure("fstat");
  if (!S_ISREG(status.st_mode)) return failure("the file of exported memory", "is no regular file");
  MemoryExportReader reader(std::make_unique<State>());
  State& state = *reader.state_;
  state.start = lseek(file.get(), 0, SEEK_CUR);
  if (state.start < 0) return errno_failure("lseek");
  Pass first(state.start);
  if (auto begun = first.begin(file.get()); !begun) return tl::unexpected(begun.error());
  for (bool more = true; more;) {
    const auto line = first.next(file.get());
    if (!line) return tl::unexpected(line.error());
    more = line->has_value();
  }
  state.header = first.header();
  state.total = first.total();
  state.checksum = first.checksum();
  state.file = std::move(file);
  return reader;
}

const DumpHeader& MemoryExportReader::header() const {
  return state_->header;
}

DumpTotal MemoryExportReader::total() const {
  return state_->total;
}

Result<std::optional<DumpLine>> MemoryExportReader::next() {
  if (state_->ended) return std::nullopt;
  if (!state_->second) {
    state_->second = std::make_unique<Pass>(state_->start);
    if (auto begun = state_->second->begin(state_->file.get()); !begun) return tl::unexpected(begun.error());
  }
  auto line = state_->second->next(state_->file.get());
  if (!line || *line) return line;
  state_->ended = true;
  if (state_->second->checksum() != state_->checksum) {
    return state_->second->wrong("it is another one than before: somebody changed the file while it was read");
  }
  return std::nullopt;
}

}  // namespace kai
