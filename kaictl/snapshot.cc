#include "kaictl/snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <ctime>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/ask.h"
#include "kaictl/fresh_file.h"
#include "kaictl/json_text.h"

namespace kai {
namespace {

// All of a memory and a package are read or written: as long as kaid shows a sign of life.
constexpr Milliseconds kWholeAgentLimit{600'000};

/// "20260504T130000Z": it sorts by time, and is a file name everywhere.
std::string time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text;
  return {text.data(), std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &parts)};
}

/// kaid checks ids and versions; this holds for what is no kaid, too: a name of the working directory, and no path.
std::string file_name_of(const std::string& id, const Json& document) {
  std::string name = id;
  if (const std::string version = text_of(document, "version"); !version.empty()) name += "-" + version;
  for (char& letter : name) {
    if (letter == '/') letter = '_';
  }
  return name + "-" + time_now() + ".kai";
}

/// "1.4 MB: package, 12 entries of memory, its saved state".
std::string content_text(const Json& document) {
  std::string text = "package";
  const std::string entries = text_of(document, "memoryEntries");
  if (!entries.empty()) text += ", " + entries + (entries == "1" ? " entry" : " entries") + " of memory";
  if (is_true(document, "state")) text += ", its saved state";
  return text;
}

Outcome<Fd> open_snapshot(const std::string& path) {
  auto file = open_at(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (!file) {
    const bool missing = file.error().error_number == ENOENT || file.error().error_number == ENOTDIR;
    return fail(missing ? "NOT_FOUND" : "INVALID",
                "cannot read " + path + ": " + strerrordesc_np(file.error().error_number),
                missing ? "Check the path; such a file is made by: kaictl snapshot ID"
                        : "Give a file that you may read; snapshots are readable by their owner only");
  }
  struct stat info {};
  if (fstat(file->get(), &info) < 0) return local_failure("cannot read FILE", Error{"fstat", errno, path});
  if (S_ISREG(info.st_mode)) return std::move(*file);
  return fail("INVALID", "cannot read " + path + ": it is no regular file",
              "Give a file that was made by: kaictl snapshot ID");
}

}  // namespace

Outcome<Answer> snapshot(const Context& context, const std::string& id, const SnapshotOptions& options) {
  const std::string& file = options.file;
  // Looked at before kaid is asked, so that nobody waits in vain; keep_new decides.
  if (!file.empty() && !options.overwrite && access(file.c_str(), F_OK) == 0) return FreshFile::is_there(file);
  auto fresh = FreshFile::open("--file", file.empty() ? "kai-snapshot" : file);
  if (!fresh) return tl::unexpected(fresh.error());
  control::Request request;
  request.mutable_snapshot()->set_id(id);
  const std::array<int, 1> fds = {fresh->fd()};
  const auto waiting = call_options(context, "snapshot of " + id, context.timeout.value_or(kWholeAgentLimit));
  auto answer = ask(context, request, waiting, fds, id_document(id));
  if (!answer) return answer;
  Json document = parse_document(answer->json);
  const std::string name = file.empty() ? file_name_of(id, document) : file;
  const auto kept = options.overwrite && !file.empty() ? fresh->keep() : fresh->keep_new(name);
  if (!kept) return tl::unexpected(kept.error());
  if (document.is_object()) {
    document["file"] = name;
    answer->json = dump(document);
  }
  const Json bytes = member(document, "bytes");
  const std::string size = bytes.is_number() ? readable_size(bytes.get<double>()) + ": " : "";
  answer->text = escape_for_terminal(id) + " " + text_of(document, "version") + ": written to " +
                 escape_for_terminal(name) + " (" + size + content_text(document) + ")\n";
  return answer;
}

Outcome<Answer> restore(const Context& context, const std::string& file) {
  auto opened = open_snapshot(file);
  if (!opened) return tl::unexpected(opened.error());
  control::Request request;
  request.mutable_restore()->set_label(file);
  const std::array<int, 1> fds = {opened->get()};
  const auto waiting = call_options(context, "restore " + file, context.timeout.value_or(kWholeAgentLimit));
  auto answer = ask(context, request, waiting, fds, "{}");
  if (!answer) return answer;
  const Json document = parse_document(answer->json);
  const std::string id = text_of(document, "id");
  answer->text = id + " " + text_of(document, "version") + ": restored from " + escape_for_terminal(file) + " (" +
                 content_text(document) + "); start it with: kaictl start " + id + "\n";
  return answer;
}

}  // namespace kai
