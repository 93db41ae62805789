// Exported memory as text, and its lines again: for the unit tests and the fuzz target.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/unix.h"
#include "supervisor/memory/memory_export.h"

namespace kai {

inline Result<std::string> dump_text(const DumpHeader& header, const std::vector<DumpLine>& lines) {
  const Fd file(memfd_create("dump", MFD_CLOEXEC));
  if (!file) return errno_failure("memfd_create");
  auto writer = MemoryExportWriter::begin(Fd(dup(file.get())), header);
  if (!writer) return tl::unexpected(writer.error());
  for (const DumpLine& line : lines) {
    if (auto added = writer->add(line); !added) return tl::unexpected(added.error());
  }
  if (auto total = writer->finish(); !total) return tl::unexpected(total.error());
  if (lseek(file.get(), 0, SEEK_SET) < 0) return errno_failure("lseek");
  return read_all(file.get(), 1 << 30);
}

inline Result<std::vector<DumpLine>> remaining(MemoryExportReader& reader) {
  std::vector<DumpLine> lines;
  while (true) {
    auto line = reader.next();
    if (!line) return tl::unexpected(line.error());
    if (!*line) return lines;
    lines.push_back(std::move(**line));
  }
}

}  // namespace kai
