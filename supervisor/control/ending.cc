#include "supervisor/control/ending.h"

#include <csignal>
#include <cstring>

#include "base/text.h"

namespace kai {
namespace {

End with_status(Cause cause, bool signaled, int code, std::string message) {
  End end;
  end.cause = cause;
  (signaled ? end.signal : end.exit_code) = code;
  end.message = std::move(message);
  return end;
}

std::string describe(bool signaled, int code) {
  return signaled ? "ended by " + signal_name(code) : "exited with status " + std::to_string(code);
}

End setup_end(const keeper::Failed& failed) {
  End end;
  end.cause = Cause::kSetup;
  end.message = "setting up its sandbox failed at step " + failed.step();
  if (!failed.detail().empty()) end.message += ": " + failed.detail();
  if (failed.errno_value() != 0) end.message += std::string(": ") + std::strerror(failed.errno_value());
  return end;
}

End start_failed_end(const EndFacts& facts, bool signaled, int code) {
  const klp::StartFailed& failed = *facts.start_failed;
  if (failed.step() == "exec") {
    End end;
    end.cause = Cause::kSetup;
    end.message = "its program could not be run: " + failed.message();
    if (failed.errno_value() != 0) end.message += std::string(": ") + std::strerror(failed.errno_value());
    return end;
  }
  const std::string hook = failed.step() == "init" ? "onInit" : failed.step() == "start" ? "onStart" : failed.step();
  // A signal would be of our own cleaning up.
  End end;
  end.cause = Cause::kExit;
  if (!signaled) end.exit_code = code;
  end.message = hook + " failed: " + failed.message();
  return end;
}

}  // namespace

std::string_view to_string(Cause cause) {
  switch (cause) {
    case Cause::kExit:
      return "exit";
    case Cause::kSignal:
      return "signal";
    case Cause::kOom:
      return "oom";
    case Cause::kPids:
      return "pids";
    case Cause::kSeccomp:
      return "seccomp";
    case Cause::kHung:
      return "hung";
    case Cause::kSetup:
      return "setup";
    case Cause::kHelloRefused:
      return "hello_refused";
    case Cause::kHelloTimeout:
      return "hello_timeout";
    case Cause::kStopped:
      return "stopped";
  }
  return "?";
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

std::string to_json(const End& end) {
  std::string json = R"({"cause":")" + std::string(to_string(end.cause)) + '"';
  if (end.exit_code) json += R"(,"exitCode":)" + std::to_string(*end.exit_code);
  if (end.signal) json += R"(,"signal":")" + signal_name(*end.signal) + '"';
  json += R"(,"message":)";
  append_json_string(json, end.message);
  return json + '}';
}

namespace {

End classify_whole(const EndFacts& facts) {
  if (facts.setup) return setup_end(*facts.setup);
  const bool signaled = facts.runner ? facts.runner->signaled() : facts.tree.signaled();
  const int code = facts.runner ? facts.runner->code() : facts.tree.code();
  const auto end = [&](Cause cause, const std::string& message) { return with_status(cause, signaled, code, message); };

  if (facts.refused) return end(Cause::kHelloRefused, "its hello was refused: " + *facts.refused);
  if (facts.hello_timeout) return end(Cause::kHelloTimeout, *facts.hello_timeout);
  if (facts.hung) return end(Cause::kHung, *facts.hung);
  if (facts.broken)
    return end(Cause::kSignal, "kaid killed it because its agent-host broke the protocol: " + *facts.broken);
  if (facts.unhealthy) return end(Cause::kSignal, "kaid killed it because " + *facts.unhealthy);
  if (facts.over_limit) {
    End killed = end(Cause::kSignal, "kaid killed it because " + *facts.over_limit +
                                         "; raise the limit, or remove the data with terminate --purge");
    killed.hopeless = true;
    killed.over_disk = true;
    return killed;
  }
  if (facts.stop_requested) return end(Cause::kStopped, "stopped as asked, " + describe(signaled, code));
  if (facts.start_failed) return start_failed_end(facts, signaled, code);

  if (facts.tree.unknown() && !facts.runner) {
    End unseen;
    unseen.cause = Cause::kSignal;
    unseen.message = "it ended after kaid itself had been started again, and nobody saw how";
    return unseen;
  }
  const bool clean = !signaled && code == 0;
  if (!clean && facts.tree.oom_kills() > 0) {
    return end(Cause::kOom, "out of memory: its processes needed more than its limit of " +
                                std::to_string(facts.memory_limit_mb) + " MB, and the kernel killed them");
  }
  if (signaled && code == SIGSYS) {
    return end(Cause::kSeccomp,
               "killed by its seccomp filter: it made a system call of another architecture (i386 or x32), which no "
               "agent may");
  }
  if (!clean && facts.tree.pids_refused() > 0) {
    return end(Cause::kPids, describe(signaled, code) + " after its limit of " + std::to_string(facts.process_limit) +
                                 " processes refused it " + std::to_string(facts.tree.pids_refused()) + " more");
  }
  return end(signaled ? Cause::kSignal : Cause::kExit, describe(signaled, code));
}

}  // namespace

// What an agent says of itself is part of it, and the sentence goes to others: whoever waits for its answer, too.
End classify(const EndFacts& facts) {
  constexpr std::size_t kMaxMessageBytes = 2048;
  End end = classify_whole(facts);
  end.message.resize(clip_utf8(end.message, kMaxMessageBytes).size());
  return end;
}

}  // namespace kai
