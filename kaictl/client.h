// One connection to kaid: requests out, responses in, and no wait without a deadline.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "kaictl/failure.h"
#include "proto/control.pb.h"
#include "proto/frame.h"

namespace kai {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

/// The largest answer that is taken: a payload of klp.md's limit grows as JSON text or base64.
inline constexpr std::size_t kMaxResponseBytes = std::size_t{16} << 20;
/// After this long without an answer a person is told what is being waited for.
inline constexpr Milliseconds kQuietTime{2000};
/// What a request may take beyond the time that kaid itself was given, so that kaid's own answer comes first.
inline constexpr Milliseconds kGraceTime{2000};

class Client {
 public:
  /// Connects within `limit`. Exit code 3 when nobody listens there.
  static Outcome<Client> connect(const std::string& path, Milliseconds limit);

  /// Sends one request; the descriptors ride on the frame's first byte. The caller keeps them.
  Outcome<> send(const control::Request& request, std::span<const int> fds, Clock::time_point deadline);

  /// The next response that is already here; nullopt: none is whole yet. Never waits.
  Outcome<std::optional<control::Response>> take();

  /// The next response, or the failure TIMEOUT at the deadline. nullopt: `interrupt_fd` (-1: none) became readable.
  Outcome<std::optional<control::Response>> receive(Clock::time_point deadline, int interrupt_fd = -1);

  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  Client(Fd socket, std::string path) : socket_(std::move(socket)), path_(std::move(path)) {}
  Outcome<std::optional<control::Response>> take_decoded();
  [[nodiscard]] tl::unexpected<Failure> lost(const std::string& why) const;

  Fd socket_;  // non-blocking
  std::string path_;
  FrameDecoder decoder_{kMaxResponseBytes};
};

/// What a call does while it waits.
struct CallOptions {
  Milliseconds limit{10'000};  ///< since the last sign of life of kaid, that is the last record or progress message
  bool unlimited = false;      ///< logs -f: once the request is sent
  int interrupt_fd = -1;       ///< becomes readable: the call ends as if kaid had said Done
  std::string activity;        ///< "start calendarAgent": what a person is told that is being waited for
  bool show_progress = false;  ///< standard error is a terminal
  std::function<bool(std::string_view record)> on_record =
      {};  ///< false: enough, the call ends as if kaid had said Done
};

/// A whole request: connect, send, records and progress, until Done or Failed.
Outcome<control::Done> call(const std::string& path, control::Request request, std::span<const int> fds,
                            const CallOptions& options);

/// kaid's Failed as our Failure.
Failure failure_of(const control::Failed& failed);

}  // namespace kai
