// An agent-host under test: serve() in a child process that really is PID 1 of a pid namespace, with a real runner
// below it. The test is control: it speaks KLP over the other end of the socket; and the keeper, on the pair with which
// that brings a new socket.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "proto/frame.h"
#include "proto/klp.pb.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::test {

/// A spec that runs `argv`, with a PATH, in /.
spec::SandboxSpec program(std::initializer_list<std::string> argv);
/// A spec with the runner protocol whose runner is this Python script. The script finds: say(object), raw(bytes),
/// hear() → object or None at the end, answer(request, result), fail(request, message, **data), hello(), start()
/// (answers init and start, returns the init params), serve(METHOD=result or function of the request, …) (prints each
/// request as [method, params], answers it, with {} where nothing else is said), unknown(request) (-32601).
spec::SandboxSpec runner(std::string_view script);

class Host {
 public:
  explicit Host(const spec::SandboxSpec& spec, bool outlives_keeper = false);
  /// Ends what still runs.
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  void send(const klp::Envelope& envelope);
  void send_bytes(std::string_view bytes);
  void accept(std::uint32_t in_flight = 64, std::uint32_t deadline_ms = 20'000);
  /// A REQUEST from `operator`; the id is also the answer's correlation id.
  void request(const std::string& id, const std::string& capability, const std::string& payload,
               std::uint32_t deadline_ms = 0);
  void send_message(const klp::Message& message);
  /// accept(), with the start held.
  void accept_held();
  /// A HookCall; `call` needs no id. Returns the one that it got.
  std::uint64_t call(klp::HookCall call);
  std::uint64_t call(klp::HookCall::Hook hook);
  /// The next envelope, which answers the call with this id.
  klp::HookDone done(std::uint64_t id);
  /// call(), answered.
  template <typename Call>
  klp::HookDone hook(const Call& what) {
    return done(call(what));
  }
  void stop(std::uint32_t grace_ms);
  /// Control dies: with what it had not read.
  void hang_up();
  /// Some of what has come so far, at most 64 KiB, without waiting and without taking it apart.
  std::string receive_bytes();
  /// The keeper brings a new control. One that the host has not lost stays open until the next call of this.
  void reconnect();
  /// reconnect(), and the Resume that the host says.
  klp::Resume resume();
  /// resume(), answered.
  klp::Resume resumed();
  /// Any packet on the keeper's channel.
  void send_to_keeper_channel(std::string_view bytes, std::span<const int> fds = {});
  void lose_keeper() { keeper_.reset(); }

  /// The next envelope; throws after kPatience or at the end of the stream.
  klp::Envelope receive();
  /// The next one that is of this kind; others before it are dropped.
  klp::Envelope receive(klp::Envelope::KindCase kind);
  /// The next envelope's message.
  klp::Message receive_message();
  /// accept(), and everything up to started.
  void start();

  /// What the agent wrote on standard output, until all of its processes have closed it.
  std::string output();
  /// Until the agent's standard output has ended or a line has come.
  std::string output_line();
  /// Until the runner stands still (SIGSTOP).
  void wait_stopped() const;
  /// agent-host's exit status, once it has ended.
  int wait();
  /// agent-host's pid as the test sees it.
  [[nodiscard]] pid_t pid() const { return host_; }

 private:
  Fd klp_, old_klp_, keeper_, output_;
  FrameDecoder decoder_{kMaxFrameBytes + kEnvelopeOverheadBytes};
  pid_t parent_ = 0;  // of the namespace's PID 1; passes its status on
  pid_t host_ = 0;
  std::uint64_t last_hook_call_ = 0;
};

}  // namespace kai::test
