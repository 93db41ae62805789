// The backends on SQLite, for the conformance suite and tests of their own.
#pragma once

#include <optional>
#include <string>

#include "supervisor/memory/sqlite_store.h"
#include "tests/unit/control/temp_directory.h"
#include "tests/unit/memory/conformance.h"

namespace kai {

struct SqliteBackend {
  explicit SqliteBackend(SqliteFile like = {}) {
    backend.make = [this, like](EventLoop& loop, const ExpiryClock& clock, const MemoryTerms& terms) {
      SqliteFile file = like;
      file.path = path(terms.agent_id);
      MemoryTerms with_key = terms;
      with_key.key = key;
      with_key.old_key = old_key;
      return make_sqlite_store(loop, clock, with_key, file);
    };
  }
  SqliteBackend(const SqliteBackend&) = delete;
  SqliteBackend& operator=(const SqliteBackend&) = delete;

  [[nodiscard]] std::string path(const std::string& agent_id = "conformer") const { return directory / agent_id; }

  TempDirectory directory;
  std::optional<SealKey> key, old_key;
  MemoryBackend backend;
};

}  // namespace kai
