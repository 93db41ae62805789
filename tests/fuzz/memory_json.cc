// memory.*: any JSON as the params of each method, and any bytes as control's answer to it. What is accepted has to say
// the same again, and no answer may break a line.
#include "agent-host/memory_json.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent-host/json_rpc.h"
#include "agent-host/limits.h"
#include "base/json_check.h"
#include "base/text.h"

namespace {

constexpr std::array kCalls = {kai::MemoryCall::kGet,      kai::MemoryCall::kGetMany, kai::MemoryCall::kSet,
                               kai::MemoryCall::kSetMany,  kai::MemoryCall::kDelete,  kai::MemoryCall::kList,
                               kai::MemoryCall::kIndexedDb};

void require(bool holds) {
  if (!holds) __builtin_trap();
}

void check_error(const kai::KlpError& error) {
  require(!error.code.empty());
  const std::string line = kai::rpc_error("1", kai::RpcCode::kAgentError, error);
  require(line.find('\n') == line.size() - 1 && kai::is_json(line));
}

void check_request(kai::MemoryCall call, std::string_view text) {
  const auto params = kai::JsonView::parse(text);
  if (!params || !params->is_object()) return;
  const auto request = kai::memory_request(call, *params);
  if (!request) return check_error(request.error());
  require(request->op_case() != kai::klp::MemoryRequest::OP_NOT_SET);
  for (const auto& write : request->set().writes()) {
    require(kai::is_utf8(write.key()));
    require(write.binary() || kai::is_json(write.value()));
    require(write.has_ttl() || write.ttl_ms() == 0);
  }
  // Each byte was in the line: nothing is made more of.
  require(request->ByteSizeLong() <= 4 * text.size() + 64);
}

void check_answer(kai::MemoryCall call, std::string_view bytes) {
  kai::klp::MemoryAnswer answer;
  if (!answer.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto result = kai::memory_result(call, answer);
  if (!result) return check_error(result.error());
  require(result->size() <= kai::kMaxResultBytes);
  require(result->find('\n') == std::string::npos && result->find('\r') == std::string::npos);
  require(kai::is_json_object(*result));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  // The first byte says which method is meant.
  const kai::MemoryCall call = kCalls[data[0] % kCalls.size()];
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_request(call, rest);
  check_answer(call, rest);
  return 0;
}
