// agent-host between a control and a runner that do anything in any order: the state machine whole, on socket pairs
// whose other ends are read here. Whatever comes: each hook call is answered once, at the latest by the next one, one
// version is loaded at a time, the runner gets JSON lines and nothing before it may, and Resume names the version that
// serves.
#include "agent-host/bridge.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/json_check.h"
#include "base/text.h"
#include "base/unix.h"

namespace {

using namespace kai;
using Hook = klp::HookCall;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  [[nodiscard]] bool empty() const { return left_ == 0; }
  std::uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  std::string bytes() {
    const std::size_t count = std::min<std::size_t>(byte(), left_);
    std::string taken(reinterpret_cast<const char*>(data_), count);
    data_ += count;
    left_ -= count;
    return taken;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

std::string read_all(const Fd& fd) {
  std::string all;
  std::array<char, 65536> bytes;
  for (ssize_t count; (count = recv(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0;) {
    all.append(bytes.data(), static_cast<std::size_t>(count));
  }
  return all;
}

std::pair<Fd, Fd> sockets() {
  auto pair = socket_pair(SOCK_STREAM);
  require(pair.has_value());
  return std::move(*pair);
}

class World {
 public:
  explicit World(bool runner_protocol)
      : control_ends_(sockets()),
        runner_ends_(sockets()),
        link_(std::move(control_ends_.first)),
        channel_(runner_protocol ? std::move(runner_ends_.first) : Fd()),
        bridge_(spec(), key_, link_, channel_, kNobody) {}

  [[nodiscard]] bool over() const { return bridge_.kill_now(); }

  void step(Input& input) {
    switch (input.byte() % 10) {
      case 0:
      case 1:
        hook_call(input);
        break;
      case 2:
        answer_control(input.byte());
        break;
      case 3:
      case 4:
        answer_runner(input);
        break;
      case 5:
        tell_anything(input.bytes());
        break;
      case 6:
        lose_control();
        break;
      case 7:
        request_or_health(input.byte());
        break;
      case 8:
        stop(input.byte());
        break;
      default:
        now_ += input.byte() * 1000;
        bridge_.on_time(now_);
    }
    settle();
    require(over() || open_hooks_.size() <= 1);
  }

 private:
  static constexpr pid_t kNobody = INT_MAX;  // beyond every pid: what is sent to its group reaches nobody

  static const spec::SandboxSpec& spec() {
    static const spec::SandboxSpec made = [] {
      spec::SandboxSpec spec;
      spec.set_agent_id("agent");
      spec.set_agent_version("0");
      spec.set_manifest_json("{\"id\":\"agent\",\n\"name\":\"A\"}");
      return spec;
    }();
    return made;
  }

  void say(const klp::Envelope& envelope) { bridge_.on_envelope(envelope); }
  void tell(std::string_view line) {
    if (channel_.open() && bridge_.listens_to_runner()) bridge_.on_line(line);
  }

  void tell_anything(std::string line) {
    line.resize(std::min(line.size(), line.find('\n')));
    const auto message = parse_rpc(line);
    // Answers come by answer_runner(), which keeps count of them.
    if (!message || message->kind == RpcMessage::Kind::kRequest || message->kind == RpcMessage::Kind::kNotification) {
      tell(line);
    }
  }

  void answer_control(std::uint8_t how) {
    if (!waits_) return;
    klp::Envelope envelope;
    if (said_resume_) {
      envelope.mutable_resumed();
    } else if (!answered_) {
      envelope.mutable_accepted()->set_held(how % 2 != 0);
      held_ = how % 2 != 0;
    } else {
      return;
    }
    waits_ = false;
    answered_ = true;
    say(envelope);
  }

  void hook_call(Input& input) {
    if (waits_) return;  // its place in the protocol is the unit tests'
    klp::Envelope envelope;
    Hook& call = *envelope.mutable_hook_call();
    const std::uint8_t what = input.byte();
    call.set_id(++last_hook_);
    call.set_hook(static_cast<Hook::Hook>(what % 11));
    if (call.hook() == Hook::LOAD && what < 128) {
      call.mutable_load()->set_root("/kai/versions/" + std::to_string(last_hook_));
      call.mutable_load()->set_entry("main");
      call.mutable_load()->set_version(std::to_string(last_hook_));
      call.mutable_load()->set_manifest_json(input.bytes());
    }
    if (call.hook() == Hook::RESTORE_STATE) call.set_state(input.bytes());
    open_hooks_.insert(last_hook_);
    may_be_asked_ = true;
    say(envelope);
  }

  /// The runner answers one of what it was asked, or the same again.
  void answer_runner(Input& input) {
    if (asked_.empty()) return;
    const std::size_t at = input.byte() % asked_.size();
    const std::uint8_t how = input.byte();
    const std::string id = asked_[at];
    if (how < 192) asked_.erase(asked_.begin() + static_cast<std::ptrdiff_t>(at));
    static constexpr std::array<std::string_view, 8> kAnswers = {
        R"("result":{})",
        R"("result":{"state":[1, 2]})",
        R"("result":null)",
        R"("result":{"status":"critical","errors":7})",
        R"("result":{"payload":1})",
        R"("result":{})",
        R"("error":{"code":-32000,"message":"x","data":{"code":"AGENT_ERROR","name":"E","stack":"s"}})",
        R"("error":{"code":-32601,"message":"none"})"};
    const std::string_view answer = kAnswers[how % kAnswers.size()];
    if (id == loaded_ && loading_ && answer.starts_with("\"error\"")) loaded_.clear();
    if (id == loaded_) loading_ = false;
    tell("{\"jsonrpc\":\"2.0\",\"id\":" + id + "," + std::string(answer) + "}");
  }

  void lose_control() {
    auto ends = sockets();
    bridge_.on_reconnect(std::move(ends.first));
    settle();  // on the old one: nothing comes any more, the runner has heard what it has to
    control_ends_.second = std::move(ends.second);
    frames_ = FrameDecoder(kMaxFrameBytes + kEnvelopeOverheadBytes);
    open_hooks_.clear();
    waits_ = true;
  }

  void request_or_health(std::uint8_t which) {
    if (waits_) return;
    klp::Envelope envelope;
    if (which % 2 != 0) {
      envelope.mutable_health_request()->set_sequence(which);
    } else {
      klp::Message message;
      message.set_id("m");
      message.set_from("operator");
      message.set_type(klp::REQUEST);
      message.set_payload("1");
      envelope.set_message(message.SerializeAsString());
    }
    say(envelope);
  }

  void stop(std::uint8_t grace_s) {
    klp::Envelope envelope;
    envelope.mutable_stop()->set_grace_ms(std::uint32_t{grace_s} * 1000);
    may_be_asked_ = true;
    say(envelope);
  }

  void settle() {
    do {
      channel_.flush();
      link_.flush();
      hear();
      read_frames();
    } while (channel_.queued() > 0 || link_.queued() > 0);
  }

  void hear() {
    lines_.feed(read_all(runner_ends_.second));
    while (const auto line = lines_.next()) {
      require(is_json_object(*line));
      const auto message = parse_rpc(*line);
      require(message.has_value());
      if (message->kind != RpcMessage::Kind::kRequest) continue;
      require(!held_ || may_be_asked_);
      asked_.emplace_back(message->id);
      check_order(*message);
    }
  }

  void check_order(const RpcMessage& message) {
    const auto root = message.content->member("root");
    if (message.content->member("next")) require(!loaded_.empty());
    if (message.method == "load" && root) {
      require(loaded_.empty());
      loaded_ = message.id;
      loading_ = true;
      loaded_version_ = root->string().value().substr(sizeof "/kai/versions/" - 1);
    }
    if (message.method == "discard") loaded_.clear();
    if (message.method == "commit") {
      require(!loaded_.empty());
      loaded_.clear();
      ++commits_;
      version_ = loaded_version_;
    }
  }

  void read_frames() {
    frames_.feed(read_all(control_ends_.second));
    for (;;) {
      const auto frame = frames_.next();
      require(frame.has_value());
      if (!*frame) return;
      klp::Envelope envelope;
      require(envelope.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())));
      check_word(envelope);
    }
  }

  void check_word(const klp::Envelope& envelope) {
    if (envelope.has_hook_done()) {
      require(open_hooks_.erase(envelope.hook_done().id()) == 1);
      const klp::ErrorBody& error = envelope.hook_done().error();
      require(!envelope.hook_done().has_error() || (!error.code().empty() && !error.message().empty()));
      require(error.details_json().empty() || is_json_object(error.details_json()));
      require(envelope.hook_done().state().empty() || is_json(envelope.hook_done().state()));
    }
    if (envelope.has_started()) require(!held_);
    said_resume_ = said_resume_ || envelope.has_resume();
    if (!envelope.has_resume()) return;
    require(loaded_.empty());
    require(envelope.resume().soft_swaps() == commits_);
    require(envelope.resume().hello().version() == version_);
  }

  std::pair<Fd, Fd> control_ends_, runner_ends_;  // ours are the second ones
  SigningKey key_;
  KlpLink link_;
  RpcChannel channel_;
  Bridge bridge_;
  FrameDecoder frames_{kMaxFrameBytes + kEnvelopeOverheadBytes};
  LineDecoder lines_;
  std::int64_t now_ = monotonic_ms();

  // What ought to hold.
  bool waits_ = true;  // the host has said hello or resume and is to be answered
  bool answered_ = false, said_resume_ = false, held_ = false;
  bool may_be_asked_ = false;
  std::uint64_t last_hook_ = 0;
  std::set<std::uint64_t> open_hooks_;
  std::deque<std::string> asked_;  // the runner, by JSON-RPC id
  std::string loaded_;             // id of the load of the version beside the one that serves
  std::string loaded_version_;
  bool loading_ = false;  // that load was not answered
  std::string version_ = "0";
  std::uint32_t commits_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, std::min<std::size_t>(size, 4096));
  World world(input.byte() % 8 != 7);
  while (!input.empty() && !world.over()) world.step(input);
  return 0;
}
