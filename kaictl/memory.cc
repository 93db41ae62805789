#include "kaictl/memory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/ask.h"
#include "kaictl/fresh_file.h"
#include "kaictl/json_text.h"
#include "kaictl/records.h"

namespace kai {
namespace {

/// A key is an agent's text, and this line is made to be copied into a shell.
std::string shell_word(const std::string& text) {
  std::string quoted = "'";
  for (const char letter : text) quoted += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
  return quoted += '\'';
}

// All of a memory is read or written: as long as kaid shows a sign of life.
constexpr Milliseconds kWholeMemoryLimit{600'000};

std::string or_dash(std::string text) {
  return text.empty() ? "-" : text;
}

/// A member that is a number of MB: "0 B", "1.4 KB", "50 MB"; missing: "".
std::string size_of(const Json& object, std::string_view key) {
  const Json megabytes = member(object, key);
  if (!megabytes.is_number()) return {};
  return readable_size(megabytes.get<double>() * (1 << 20));
}

/// "1.4 KB of 50 MB".
std::string size_text(const Json& stats) {
  const std::string limit = size_of(stats, "limit");
  return or_dash(size_of(stats, "size")) + (limit.empty() ? "" : " of " + limit);
}

/// "1 entry, 2048 bytes".
std::string total_text(std::string_view json) {
  const Json document = parse_document(json);
  const std::string entries = or_dash(text_of(document, "entries"));
  return entries + (entries == "1" ? " entry, " : " entries, ") + or_dash(text_of(document, "bytes")) + " bytes";
}

Outcome<Answer> ask_whole(const Context& context, const control::Request& request, const std::string& activity,
                          const std::string& id, int fd) {
  const std::array<int, 1> fds = {fd};
  const auto waiting = call_options(context, activity + " " + id, context.timeout.value_or(kWholeMemoryLimit));
  return ask(context, request, waiting, fds, id_document(id));
}

/// kaid writes it to a file without a name; it is printed once all of it is there.
Outcome<Answer> export_to_output(const Context& context, const control::Request& request, const std::string& id) {
  if (isatty(STDOUT_FILENO) == 1) {
    return usage_failure("memory export: standard output is a terminal, and what an agent wrote could drive it",
                         "Give a FILE, or a pipe");
  }
  Spool spool;
  if (auto made = spool.flush(); !made) return local_failure("cannot make a temporary file", made.error());
  auto answer = ask_whole(context, request, "export the memory of", id, spool.file());
  if (!answer) return answer;
  if (auto printed = spool.copy_to(STDOUT_FILENO); !printed) {
    return local_failure("cannot write the export", printed.error());
  }
  return Answer{"", "", std::move(answer->warnings)};
}

/// Standard input may be a pipe: kaid reads the file twice, so it gets one.
Outcome<> spool_input(Spool& spool) {
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t count = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return local_failure("cannot read standard input", Error{"read", errno, {}});
    if (count == 0) break;
    if (auto added = spool.add({buffer.data(), static_cast<std::size_t>(count)}); !added) {
      return local_failure("cannot keep standard input", added.error());
    }
  }
  if (auto flushed = spool.flush(); !flushed) return local_failure("cannot keep standard input", flushed.error());
  if (lseek(spool.file(), 0, SEEK_SET) < 0) {
    return local_failure("cannot keep standard input", Error{"lseek", errno, {}});
  }
  return {};
}

/// What is not there, or is nothing to read, is the operator's mistake to mend.
Outcome<Fd> open_export(const std::string& path) {
  auto file = open_at(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (!file) {
    const bool missing = file.error().error_number == ENOENT || file.error().error_number == ENOTDIR;
    return fail(missing ? "NOT_FOUND" : "INVALID",
                "cannot read " + path + ": " + strerrordesc_np(file.error().error_number),
                missing ? "Check the path; such a file is made by: kaictl memory export ID FILE"
                        : "Give a file that you may read; exports are readable by their owner only");
  }
  struct stat info {};
  if (fstat(file->get(), &info) < 0) return local_failure("cannot read FILE", Error{"fstat", errno, path});
  if (S_ISREG(info.st_mode)) return std::move(*file);
  return fail("INVALID", "cannot read " + path + ": it is no regular file", "Give - for standard input");
}

}  // namespace

std::string memory_stats_text(std::string_view json) {
  const Json document = parse_document(json);
  const Json contexts = member(document, "contexts");
  if (!contexts.is_array() || contexts.empty()) return "no agent has a memory in use\n";
  std::string faults;
  std::vector<TableRow> rows = {{"ID", "TYPE", "BACKEND", "SIZE", "ENTRIES", "LAST ACCESSED", "ENCRYPTED"}};
  for (const Json& stats : contexts) {
    const std::string id = text_of(stats, "id");
    rows.push_back({or_dash(id), or_dash(text_of(stats, "type")), or_dash(text_of(stats, "backend")), size_text(stats),
                    or_dash(text_of(stats, "entryCount")), or_dash(text_of(stats, "lastAccessed")),
                    text_of(stats, "encrypted") == "true" ? "yes" : "-"});
    if (const std::string fault = text_of(stats, "fault"); !fault.empty()) {
      faults += "the memory of " + id + " cannot be used: " + fault + "\n";
    }
  }
  return table(rows) + faults;
}

Outcome<Answer> memory_stats(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_memory_stats()->set_id(id);
  const auto waiting = call_options(context, "memory", context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, R"({"totalAllocated":0,"activeContexts":0,"contexts":[]})");
  if (answer) answer->text = memory_stats_text(answer->json);
  return answer;
}

Outcome<Answer> memory_get(const Context& context, const std::string& id, const std::string& key) {
  control::Request request;
  request.mutable_memory_read()->set_id(id);
  request.mutable_memory_read()->set_key(key);
  const auto waiting = call_options(context, "memory of " + id, context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, "{}");
  if (!answer) return answer;
  answer->text = value_text(answer->json, "value", isatty(STDOUT_FILENO) == 1);
  if (parse_document(answer->json).contains("valueBase64")) {
    answer->warnings.emplace_back("the value is bytes, printed as base64");
  }
  return answer;
}

Outcome<Answer> memory_list(const Context& context, const std::string& id, const MemoryListOptions& options) {
  control::Request request;
  control::MemoryKeys& keys = *request.mutable_memory_keys();
  keys.set_id(id);
  keys.set_prefix(options.prefix);
  keys.set_limit(options.limit);
  keys.set_cursor(options.cursor);
  const auto waiting = call_options(context, "memory of " + id, context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, R"({"keys":[]})");
  if (!answer) return answer;
  const Json document = parse_document(answer->json);
  const Json found = member(document, "keys");
  for (const Json& key : found.is_array() ? found : Json::array()) {
    answer->text += escape_for_terminal(key.is_string() ? key.get<std::string>() : dump(key)) + "\n";
  }
  if (const Json cursor = member(document, "cursor"); cursor.is_string()) {
    answer->warnings.push_back("there are more keys; go on with: --cursor " + shell_word(cursor.get<std::string>()));
  }
  return answer;
}

Outcome<Answer> memory_export(const Context& context, const std::string& id, const std::string& file) {
  control::Request request;
  request.mutable_memory_export()->set_id(id);
  if (file == "-") return export_to_output(context, request, id);
  auto fresh = FreshFile::open("FILE", file);
  if (!fresh) return tl::unexpected(fresh.error());
  auto answer = ask_whole(context, request, "export the memory of", id, fresh->fd());
  if (!answer) return answer;
  if (auto kept = fresh->keep(); !kept) return tl::unexpected(kept.error());
  answer->text =
      escape_for_terminal(id) + ": exported to " + escape_for_terminal(file) + " (" + total_text(answer->json) + ")\n";
  return answer;
}

Outcome<Answer> memory_import(const Context& context, const std::string& id, const std::string& file) {
  control::Request request;
  request.mutable_memory_import()->set_id(id);
  Spool spool;
  Fd opened;
  if (file == "-") {
    if (auto kept = spool_input(spool); !kept) return tl::unexpected(kept.error());
  } else {
    auto found = open_export(file);
    if (!found) return tl::unexpected(found.error());
    opened = std::move(*found);
  }
  auto answer = ask_whole(context, request, "import the memory of", id, opened ? opened.get() : spool.file());
  if (!answer) return answer;
  answer->text = escape_for_terminal(id) + ": imported from " +
                 (file == "-" ? "standard input" : escape_for_terminal(file)) + " (" + total_text(answer->json) +
                 "), in the place of all that it remembered\n";
  return answer;
}

}  // namespace kai
