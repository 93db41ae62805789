// What a person is handed as a file of exported memory: never a crash, never unbounded, and what is taken is what an
// export of it holds again. Most inputs fail at their checksum, so the target puts the right one to their lines too.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/unix.h"
#include "supervisor/memory/dump_sum.h"
#include "supervisor/memory/memory_export.h"
#include "tests/unit/memory/dump_text.h"

namespace {

kai::Result<kai::MemoryExportReader> open(std::string_view text) {
  kai::Fd file(memfd_create("dump", MFD_CLOEXEC));
  if (!file || !kai::write_all(file.get(), text) || lseek(file.get(), 0, SEEK_SET) < 0) __builtin_trap();
  return kai::MemoryExportReader::open(std::move(file));
}

/// `lines` with a last line that fits them.
std::string closed(std::string_view lines) {
  kai::DumpSum sum;
  std::string text;
  std::uint64_t entries = 0;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    if (line.starts_with("{\"entries\"")) break;
    if (line.starts_with("{\"key\"") || line.starts_with("{\"record\"")) ++entries;
    sum.add(line);
    text.append(line).append("\n");
  }
  return text + R"({"entries":)" + std::to_string(entries) + R"(,"checksum":")" + sum.hex() + "\"}\n";
}

void read(std::string_view text) {
  auto reader = open(text);
  if (!reader) {
    if (reader.error().message().find("line ") == std::string::npos) __builtin_trap();
    return;
  }
  const auto lines = kai::remaining(*reader);
  if (!lines) __builtin_trap();
  const auto again = kai::dump_text(reader->header(), *lines);
  if (!again) __builtin_trap();
  auto second = open(*again);
  if (!second || second->total().entries != reader->total().entries) __builtin_trap();
  const auto same = kai::remaining(*second);
  if (!same) __builtin_trap();
  const auto third = kai::dump_text(second->header(), *same);
  if (!third || *third != *again) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  read(text);
  read(closed(text));
  return 0;
}
