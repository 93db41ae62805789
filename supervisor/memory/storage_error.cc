#include "supervisor/memory/storage_error.h"

namespace kai {
namespace {

// And not the disk: SQLite says the same of both.
bool at_page_limit(Database& database) {
  const auto pages = database.number("PRAGMA page_count");
  const auto most = database.number("PRAGMA max_page_count");
  // Half: what did not fit was rolled back.
  return pages && most && *pages > *most / 2;
}

}  // namespace

klp::MemoryError storage_error(Database* database, const Error& error) {
  switch (database != nullptr ? database->error_code() : SQLITE_OK) {
    case SQLITE_FULL:
      if (!at_page_limit(*database)) return memory_error("UNAVAILABLE", error.message());
      return memory_error("QUOTA_EXCEEDED",
                          "the file of the agent's memory is at its limit, with all that SQLite needs beside keys and "
                          "values; delete some, or give the agent a greater memory.maxSize");
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_NOMEM:
    case SQLITE_CANTOPEN:
      return memory_error("UNAVAILABLE", error.message());
    default:
      return memory_error(error.error_number != 0 ? "UNAVAILABLE" : "INTERNAL", error.message());
  }
}

}  // namespace kai
