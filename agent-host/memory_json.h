// memory.* in its two forms: JSON on the runner's side (docs/runner-protocol.md), protobuf (proto/memory.proto) on
// control's. Pure: no I/O. Only shapes are checked here; what a key, a value or a condition may be is the store's word,
// as nothing that comes out of a sandbox is believed there.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "agent-host/json_view.h"
#include "agent-host/klp_error.h"
#include "proto/memory.pb.h"

namespace kai {

/// Which method was called: the answer has to be put into its words.
enum class MemoryCall { kGet, kGetMany, kSet, kSetMany, kDelete, kList, kIndexedDb };

/// nullopt: there is no such method.
std::optional<MemoryCall> memory_call(std::string_view method);

/// The params as a request without its id. INVALID says which member is wrong.
tl::expected<klp::MemoryRequest, KlpError> memory_request(MemoryCall call, const JsonView& params);

/// The result, one line of JSON of at most kMaxResultBytes; or the error that the answer is. INTERNAL: the answer is
/// not one to this call, or calls JSON what is none.
tl::expected<std::string, KlpError> memory_result(MemoryCall call, const klp::MemoryAnswer& answer);

}  // namespace kai
