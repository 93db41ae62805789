// memory.indexedDb in its two forms, for memory_json: keys and values are base64 in JSON, names and key paths JSON
// themselves. docs/runner-protocol.md has the params of each `op`.
#pragma once

#include <string>

#include <tl/expected.hpp>

#include "agent-host/json_view.h"
#include "agent-host/klp_error.h"
#include "proto/memory.pb.h"

namespace kai {

tl::expected<klp::IdbRequest, KlpError> indexed_db_request(const JsonView& params);

/// Records end where the result would become larger than kMaxResultBytes, with `more`.
tl::expected<std::string, KlpError> indexed_db_result(const klp::IdbAnswer& answer);

}  // namespace kai
