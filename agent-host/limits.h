// Every limit of agent-host in one place. All are hard: what goes beyond one is refused, never stretched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "proto/frame.h"

namespace kai {

// Runner protocol (docs/runner-protocol.md).
inline constexpr std::size_t kMaxLineBytes = kMaxFrameBytes + (64 << 10);  ///< without its LF, both directions
inline constexpr int kMaxJsonDepth = 128;
inline constexpr std::size_t kMaxRpcIdBytes = 128;
inline constexpr int kMaxBrokenLines = 100;  ///< the hundredth ends the agent
/// Lines that wait for a runner that does not read: over the first, senders get BUSY; the second also holds the answers
/// to the runner's own requests, and a runner that asks on and on without reading is ended there.
inline constexpr std::size_t kMaxQueuedMessageBytes = 2 * kMaxLineBytes;
inline constexpr std::size_t kMaxQueuedRunnerBytes = kMaxQueuedMessageBytes + kMaxLineBytes;
/// Over this, control's answers to memory.* wait in its socket.
inline constexpr std::size_t kQueuedLinesPauseControl = kMaxLineBytes;

// Memory (docs/runner-protocol.md, memory).
inline constexpr std::size_t kMaxMemoryCalls = 256;  ///< of the runner's that wait for control's answer
/// What a result may have, so that its line stays below kMaxLineBytes: lists and records end there, with `more`.
inline constexpr std::size_t kMaxResultBytes = kMaxLineBytes - kMaxRpcIdBytes - 64;

/// An agent's saved state, as JSON. A line and a frame hold it both ways, so that what was saved can be restored.
inline constexpr std::size_t kMaxStateBytes = kMaxFrameBytes;

// KLP (../shared/klp.md). A payload may have Accepted.max_frame_bytes, a frame kEnvelopeOverheadBytes more.
inline constexpr std::uint32_t kDefaultInFlight = 64;
inline constexpr std::uint32_t kMaxInFlight = 4096;  ///< ceiling over Accepted.max_in_flight
/// Frames that wait for a control that does not read: over the first the runner is not read, over the second control
/// itself is not.
inline constexpr std::size_t kQueuedFramesPauseRunner = 512 << 10;
inline constexpr std::size_t kQueuedFramesPauseControl = 4 << 20;
/// Log records and events that wait for the next control; what is more is lost and counted.
inline constexpr std::size_t kMaxKeptBytes = 512 << 10;

// Text of the agent's that travels beside a payload: all of one envelope stays below kEnvelopeOverheadBytes. What is
// longer is cut (texts) or left out (JSON).
inline constexpr std::size_t kMaxErrorMessageBytes = 2 << 10;
inline constexpr std::size_t kMaxStackBytes = 6 << 10;
inline constexpr std::size_t kMaxDetailsBytes = 4 << 10;
inline constexpr std::size_t kMaxNameBytes = 128;                 ///< error names, sdk, capabilities, content types
inline constexpr std::size_t kMaxAddressBytes = 6 + 64 + 1 + 64;  ///< topic:AGENT.NAME
inline constexpr std::size_t kMaxLogMessageBytes = 64 << 10;      ///< a log envelope has no payload beside it
inline constexpr std::size_t kMaxLogFieldsBytes = 16 << 10;
inline constexpr std::size_t kMaxHealthErrors = 16;
inline constexpr std::size_t kMaxHealthTextBytes = 256;

// Times, in milliseconds.
inline constexpr std::int64_t kDefaultMessageDeadlineMs = 30'000;
inline constexpr std::int64_t kMaxMessageDeadlineMs = 24 * 3600 * 1000;
inline constexpr std::int64_t kHealthDeadlineMs = 4'000;     ///< shorter than control's interval of 5 s
inline constexpr std::int64_t kDefaultGraceMs = 5'000;       ///< SIGTERM to agent-host itself, a failed start
inline constexpr std::int64_t kShutdownExitMs = 1'000;       ///< from the answer to `shutdown` to SIGTERM
inline constexpr std::int64_t kClosedChannelExitMs = 1'000;  ///< from the runner closing descriptor 3 to SIGKILL
inline constexpr std::int64_t kFlushMs = 1'000;              ///< for the last frames to a control that is slow to read
inline constexpr std::int64_t kKeeperPatienceMs = 60'000;    ///< without a keeper, where Job.outlives_keeper
inline constexpr std::int64_t kEventErrorMs = 30'000;        ///< how long an event's refusal is waited for
inline constexpr std::size_t kMaxWatchedEvents = 64;         ///< events whose refusal is waited for

inline constexpr std::size_t kReadBytes = 16 << 10;  ///< one read(2); also what an idle buffer may keep

}  // namespace kai
