// memory.* between the runner and control: what waits, for how long, and what becomes of it when its answer does not
// come. memory_json has the words.
#include "agent-host/bridge.h"

namespace kai {

void Bridge::on_memory(const RpcMessage& message, MemoryCall call) {
  auto request = memory_request(call, *message.content);
  if (!request) {
    const bool invalid = request.error().code == "INVALID";
    return refuse(message, invalid ? RpcCode::kInvalidParams : RpcCode::kAgentError, request.error());
  }
  if (memory_calls_.size() >= kMaxMemoryCalls) {
    return refuse(message, RpcCode::kAgentError,
                  {"BUSY", "as many memory requests wait for answers as may: await some of them first", {}, true});
  }
  klp::Envelope envelope;
  *envelope.mutable_memory_request() = std::move(*request);
  envelope.mutable_memory_request()->set_id(last_memory_call_ + 1);
  if (envelope.ByteSizeLong() > kMaxFrameBytes + kEnvelopeOverheadBytes) {
    return refuse(message, RpcCode::kAgentError,
                  {"TOO_LARGE", "the request is larger than a frame to kaid: write less at once", {}, false});
  }
  memory_calls_.add(++last_memory_call_, {call, std::string(message.id)}, now_ + message_deadline_ms_);
  control_.send(envelope);
}

void Bridge::on_memory_answer(const klp::MemoryAnswer& answer) {
  const auto open = memory_calls_.take(answer.id());
  if (!open) return abandon(answer);
  const auto result = memory_result(open->call, answer);
  std::string line =
      result ? rpc_result(open->rpc_id, *result) : rpc_error(open->rpc_id, RpcCode::kAgentError, result.error());
  if (line.size() > kMaxLineBytes + 1) {  // an error's own text
    line =
        rpc_error(open->rpc_id, RpcCode::kAgentError, {"INTERNAL", "kaid's error is too large to be told", {}, false});
  }
  answer_runner(line);
}

void Bridge::abandon(const klp::MemoryAnswer& answer) {
  // The runner has had its TIMEOUT, and will not end a transaction that it does not know of: others would wait for it.
  if (!answer.indexed_db().has_begun()) return;
  klp::Envelope envelope;
  klp::MemoryRequest& request = *envelope.mutable_memory_request();
  request.set_id(++last_memory_call_);
  request.mutable_indexed_db()->set_transaction(answer.indexed_db().begun().transaction());
  request.mutable_indexed_db()->mutable_abort();
  control_.send(envelope);
}

void Bridge::expire_memory() {
  const KlpError error{"TIMEOUT", "kaid's memory gave no answer within the message deadline", {}, true};
  while (const auto open = memory_calls_.take_expired(now_)) {
    answer_runner(rpc_error(open->rpc_id, RpcCode::kAgentError, error));
  }
}

}  // namespace kai
