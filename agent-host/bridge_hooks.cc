// HookCall and HookDone: the agent's hooks one by one, as control asks for them. Of the only version, in a start that
// is held; or of another one that is loaded beside the version that serves (docs/runner-protocol.md, load …).
//
// Control may die at every step, and the Resume that follows has to name the version that serves. Up to COMMIT that is
// the one before: what was loaded is discarded. From the moment in which `commit` is on its way to the runner it is the
// loaded one, answered or not: lines reach the runner in the order in which they were sent, so that whatever the next
// control asks for finds the commit done. Waiting for the answer would add nothing but a runner that keeps the host
// from its Resume. `commit` has no way to fail: a runner that says so is killed, as nobody knows what it serves.
#include <array>

#include "agent-host/bridge.h"
#include "agent-host/json_text.h"

namespace kai {
namespace {

using Hook = klp::HookCall;

std::string_view method_of(klp::HookCall::Hook hook) {
  static constexpr std::array<std::string_view, 10> kMethods = {
      "", "load", "saveState", "init", "restoreState", "upgrade", "start", "health", "commit", "discard"};
  return kMethods[static_cast<std::size_t>(hook)];
}

/// The hooks that the loaded version has too, by the same method with `next`.
bool may_be_of_next(klp::HookCall::Hook hook) {
  return hook == Hook::INIT || hook == Hook::RESTORE_STATE || hook == Hook::UPGRADE || hook == Hook::START ||
         hook == Hook::HEALTH;
}

KlpError invalid(std::string why) {
  return {"INVALID", std::move(why), {}, false};
}

KlpError taken_back() {
  return {"CONFLICT", "it was taken back before it had returned", {}, false};
}

KlpError no_second_version() {
  return {"UNAVAILABLE",
          "its runner cannot load another version beside the one that serves (runner protocol `load`): upgrade it with "
          "--type hard",
          {},
          false};
}

KlpError too_large_state(std::size_t bytes) {
  return {"TOO_LARGE",
          "the agent's state has " + std::to_string(bytes) + " bytes as JSON, and " + std::to_string(kMaxStateBytes) +
              " may be handed over: keep what is large in the agent's memory (memory.*), which stays",
          {},
          false};
}

std::optional<KlpError> state_fault(const std::string& state) {
  if (state.size() > kMaxStateBytes) return too_large_state(state.size());
  if (!JsonView::parse(state)) {
    return invalid("the state is not JSON, or is nested deeper than " + std::to_string(kMaxJsonDepth));
  }
  return std::nullopt;
}

/// Libraries of a C++ SDK from before `load` refuse whatever comes before init; their INIT loads them.
bool knows_init_only(const JsonView& error) {
  const auto code = error.member("code");
  return code && code->text() == std::to_string(static_cast<int>(RpcCode::kInvalidRequest));
}

/// The result of saveState: {state}. An agent without the hook gives none.
void take_state(klp::HookDone& done, const JsonView& result) {
  const auto state = result.member("state");
  if (state && state->text().size() > kMaxStateBytes) {
    *done.mutable_error() = error_body(too_large_state(state->text().size()));
  } else {
    done.set_state(state ? std::string(state->text()) : "null");
  }
}

}  // namespace

void Bridge::on_hook_call(const klp::HookCall& asked) {
  if (const auto error = out_of_place(asked)) return hook_failed(asked.id(), *error);
  if (asked.hook() == Hook::DISCARD) return discard(asked);
  if (asked.hook() == Hook::COMMIT && phase_ == Phase::kHeld) return serve_held(asked.id());
  if (!channel_.open()) return without_runner(asked);
  if (asked.hook() == Hook::RESTORE_STATE) {
    if (const auto fault = state_fault(asked.state())) return hook_failed(asked.id(), *fault);
  }
  if (!ask_runner(asked, hook_params(asked))) return;
  if (asked.has_load()) next_ = asked.load();
  if (asked.hook() == Hook::COMMIT) commit_call_ = open_hook_->rpc_id;
}

std::optional<KlpError> Bridge::out_of_place(const klp::HookCall& asked) const {
  const bool held = phase_ == Phase::kHeld;
  if (phase_ == Phase::kStopping) return KlpError{"NOT_RUNNING", "the agent is stopping", {}, false};
  if (!held && phase_ != Phase::kServing) return invalid("the agent is starting by itself: its start was not held");
  if (asked.has_load() && asked.hook() != Hook::LOAD) return invalid("a version is named by LOAD alone");
  switch (asked.hook()) {
    case Hook::DISCARD:
      if (committing()) return invalid("COMMIT is on its way to the runner and cannot be taken back");
      return std::nullopt;
    case Hook::LOAD:
      if (next_) return invalid("another version is loaded already, or being loaded: discard it first");
      if (held == asked.has_load()) return invalid("LOAD names a version beside one that serves, and only there");
      break;
    case Hook::SAVE_STATE:
      if (held) return invalid("an agent whose start is held has no state to save");
      break;
    case Hook::INIT:
    case Hook::RESTORE_STATE:
    case Hook::UPGRADE:
    case Hook::START:
    case Hook::HEALTH:
    case Hook::COMMIT:
      if (!held && !next_) return invalid("no version is loaded beside the one that serves");
      if (asked.hook() == Hook::COMMIT && !ready_)
        return invalid("a version whose START has not returned cannot serve");
      break;
    default:
      return invalid("there is no hook " + std::to_string(asked.hook()));
  }
  if (open_hook_) {
    return KlpError{
        "BUSY", "the agent's " + std::string(method_of(open_hook_->hook)) + " has not returned yet", {}, true};
  }
  return std::nullopt;
}

void Bridge::without_runner(const klp::HookCall& asked) {
  klp::HookDone done;
  done.set_id(asked.id());
  switch (asked.hook()) {
    case Hook::LOAD:
      if (asked.has_load()) return hook_failed(asked.id(), no_second_version());
      break;
    case Hook::SAVE_STATE:
      done.set_state("null");
      break;
    case Hook::START:
      ready_ = true;
      break;
    case Hook::HEALTH:
      if (stopped()) return hook_failed(asked.id(), {"UNAVAILABLE", "a signal has stopped the program", {}, true});
      *done.mutable_health() = basic_health(health_basis());
      break;
    default:
      break;  // no hooks, nothing to be called
  }
  hook_done(done);
}

std::string Bridge::hook_params(const klp::HookCall& asked) const {
  std::string json = "{";
  switch (asked.hook()) {
    case Hook::LOAD:
      if (!asked.has_load()) break;
      append_name(json, "root");
      append_json_string(json, asked.load().root());
      append_name(json, "entry");
      append_json_string(json, asked.load().entry());
      break;
    case Hook::INIT:
      if (next_) {
        append_init_members(json, *next_, next_->manifest_json());
      } else {
        append_init_members(json, serving_, spec_.manifest_json());
      }
      break;
    case Hook::RESTORE_STATE:
      append_name(json, "state");
      append_json_on_one_line(json, asked.state());
      break;
    case Hook::UPGRADE:
      append_name(json, "oldVersion");
      append_json_string(json, asked.old_version());
      break;
    default:
      break;
  }
  if (next_ && may_be_of_next(asked.hook())) {
    append_name(json, "next");
    json += "true";
  }
  json += '}';
  return json;
}

bool Bridge::ask_runner(const klp::HookCall& asked, std::string_view params_json) {
  const std::string_view method = method_of(asked.hook());
  if (params_json.size() + kMaxNameBytes > kMaxLineBytes) {
    hook_failed(asked.id(), {"TOO_LARGE",
                             "what " + std::string(method) + " has to say to the runner (the manifest, a path) has " +
                                 std::to_string(params_json.size()) + " bytes, and a line has " +
                                 std::to_string(kMaxLineBytes) + " at most",
                             {},
                             false});
    return false;
  }
  const std::uint64_t rpc_id = call(method, params_json, kMaxQueuedRunnerBytes);
  if (rpc_id == 0) {
    hook_failed(asked.id(), {"BUSY", "the agent does not read what it is sent, and its queue is full", {}, true});
    return false;
  }
  open_hook_ = OpenHookCall{asked.id(), asked.hook(), rpc_id};
  return true;
}

void Bridge::serve_held(std::uint64_t id) {
  phase_ = Phase::kServing;
  ready_ = false;
  klp::HookDone done;
  done.set_id(id);
  hook_done(done);
}

void Bridge::discard(const klp::HookCall& asked) {
  if (open_hook_) hook_failed(open_hook_->id, taken_back());
  if (open_hook_ && open_hook_->hook == Hook::DISCARD) {
    open_hook_->id = asked.id();  // asked for again: the runner has not answered the first yet
    return;
  }
  open_hook_.reset();
  klp::HookDone done;
  done.set_id(asked.id());
  if (!next_) return hook_done(done);
  next_.reset();
  ready_ = false;
  if (!ask_runner(asked, "{}"))
    violation("the runner does not read descriptor 3, nor that it has to discard a version");
}

void Bridge::on_hook_returned(const RpcMessage& message) {
  const OpenHookCall open = *open_hook_;
  open_hook_.reset();
  klp::HookDone done;
  done.set_id(open.id);
  const auto error = hook_error(open.hook, message);
  if (error) *done.mutable_error() = error_body(*error);
  if (open.hook == Hook::LOAD && error) next_.reset();
  if (open.hook == Hook::SAVE_STATE && !error) take_state(done, *message.content);
  if (open.hook == Hook::START) ready_ = !error;
  if (open.hook == Hook::HEALTH) {
    FailedChecks none;  // in a row: of what serves
    *done.mutable_health() = health_said(message, none);
  }
  if (open.hook == Hook::COMMIT && !error) serve_next();
  hook_done(done);
  if (open.hook == Hook::COMMIT) on_commit_answer(message);
}

std::optional<KlpError> Bridge::hook_error(klp::HookCall::Hook hook, const RpcMessage& message) const {
  if (message.kind == RpcMessage::Kind::kResult) return std::nullopt;
  if (hook == Hook::LOAD && !next_ && knows_init_only(*message.content)) return std::nullopt;
  if (!is_method_not_found(*message.content)) return error_of_hook(*message.content);
  switch (hook) {
    case Hook::LOAD:  // of the only version: its INIT loads it
      return next_ ? std::optional(no_second_version()) : std::nullopt;
    case Hook::SAVE_STATE:
    case Hook::RESTORE_STATE:
    case Hook::UPGRADE:
    case Hook::HEALTH:  // the agent has no such hook
      return std::nullopt;
    default:
      return error_of_hook(*message.content);
  }
}

void Bridge::on_commit_answer(const RpcMessage& message) {
  commit_call_ = 0;
  if (message.kind != RpcMessage::Kind::kError) return;
  violation("the runner refused to commit the version that it had loaded (" + error_of_hook(*message.content).message +
            ")");
}

void Bridge::hook_done(const klp::HookDone& done) {
  klp::Envelope envelope;
  *envelope.mutable_hook_done() = done;
  control_.send(envelope);
}

void Bridge::hook_failed(std::uint64_t id, const KlpError& error) {
  klp::HookDone done;
  done.set_id(id);
  *done.mutable_error() = error_body(error);
  hook_done(done);
}

bool Bridge::committing() const {
  return open_hook_ && open_hook_->hook == Hook::COMMIT;
}

void Bridge::serve_next() {
  serving_ = std::move(*next_);
  serving_.clear_manifest_json();  // was told
  next_.reset();
  ready_ = false;
  ++soft_swaps_;
  failed_checks_ = {};
}

void Bridge::drop_next() {
  if (!next_ || committing()) return;
  if (open_hook_) hook_failed(open_hook_->id, taken_back());
  open_hook_.reset();
  next_.reset();
  ready_ = false;
  if (!channel_.open() || channel_.ended() || call("discard", "{}", kMaxQueuedRunnerBytes) != 0) return;
  violation("the runner does not read descriptor 3, nor that it has to discard a version");
}

void Bridge::forget_hook_call() {
  if (committing()) serve_next();
  open_hook_.reset();
  drop_next();
}

}  // namespace kai
