// Rows that were written under the other policy on encryption, brought to the one of now.
#pragma once

#include <functional>
#include <string>

#include "supervisor/database/database.h"
#include "supervisor/memory/store.h"

namespace kai {

/// Of one table, in the caller's transaction, row by row: a statement may not read what another changes under it.
/// `select` gives id, sealed, value and what `place` needs of the next row after id ?1 whose `sealed` is not ?2;
/// `update` sets value ?1 and sealed ?2 of id ?3. Both are literals.
Result<> reseal(Database& database, const MemoryTerms& terms, const char* select, const char* update,
                const std::function<std::string(const Statement&)>& place);

}  // namespace kai
