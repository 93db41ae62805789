// What an agent is told of an error of its memory's SQLite file.
#pragma once

#include "supervisor/database/database.h"
#include "supervisor/memory/store.h"

namespace kai {

/// By the database's error code, which stays and is forgotten by the next request. nullptr: it could not be opened.
/// INTERNAL: of damage too, which the file's owner sees by the code.
[[nodiscard]] klp::MemoryError storage_error(Database* database, const Error& error);

}  // namespace kai
