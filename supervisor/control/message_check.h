// What is held against every message that an agent sends, before anything looks at what it asks for: sizes, form,
// signature, age, replay (klp.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "proto/klp.pb.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/message_signature.h"
#include "supervisor/control/replay_window.h"

namespace kai {

inline constexpr std::string_view kKlpProtocol = "klp/1.0";
inline constexpr std::int64_t kMaxDriftMs = 30'000;  ///< of a signed message's timestamp from control's clock

/// Why a host that sends this is not spoken to any more; empty: nothing is wrong with its sizes. Whatever passes fits
/// into one frame with what control adds, so that it may go on to another agent.
std::string size_fault(const klp::Message& message);

/// Only what proto/klp.proto names: what else its sender put into it goes to nobody.
klp::Message known_fields(klp::Message&& message);

class MessageCheck {
 public:
  explicit MessageCheck(MessageSignature signature) : signature_(std::move(signature)) {}

  /// `bytes` is Envelope.message, of which `message` was made. nullopt: it is taken, and its id will not be again.
  /// Otherwise BAD_SIGNATURE, EXPIRED, INVALID or REPLAY.
  std::optional<Failure> refusal(const klp::Message& message, std::string_view bytes, std::string_view signature,
                                 std::int64_t unix_now_ms, std::int64_t monotonic_now_ms);

  [[nodiscard]] const std::string& public_key() const { return signature_.public_key(); }

 private:
  MessageSignature signature_;
  ReplayWindow window_;
};

}  // namespace kai
