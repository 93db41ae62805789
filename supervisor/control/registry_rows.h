// How a version's row is read. Internal to registry*.cc.
#pragma once

#include "supervisor/control/registry.h"
#include "supervisor/database/database.h"

namespace kai::registry_rows {

/// Of `versions v`, in the order that version_at reads them.
#define KAI_VERSION_COLUMNS "v.version, v.package, v.manifest, v.entry_override, v.registered_at, v.signer, v.bad"

/// `column`: of the first of them.
RegisteredVersion version_at(const Statement& row, int column);

}  // namespace kai::registry_rows
