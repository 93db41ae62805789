#include "tests/unit/agent-host/host.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>

#include "agent-host/serve.h"
#include "base/text.h"
#include "base/unix.h"
#include "proto/starter.pb.h"

namespace kai::test {
namespace {

constexpr std::int64_t kPatienceMs = 30'000;

constexpr std::string_view kPrelude = R"(
import json, os, signal, socket, sys
s = socket.socket(fileno=3)
f = s.makefile("rb")
def raw(b): s.sendall(b)
def say(o): raw((json.dumps(o) + "\n").encode())
def hear():
    line = f.readline()
    return json.loads(line) if line else None
def answer(m, r): say({"jsonrpc": "2.0", "id": m["id"], "result": r})
def fail(m, message, **data):
    say({"jsonrpc": "2.0", "id": m["id"], "error": {"code": -32000, "message": message, "data": data}})
def note(method, **params): say({"jsonrpc": "2.0", "method": method, "params": params})
def ask(id, method, **params): say({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
def hello(): note("hello", sdk="test/1", protocol=1)
def start():
    hello()
    m = hear(); assert m["method"] == "init", m
    answer(m, {})
    params = m["params"]
    m = hear(); assert m["method"] == "start", m
    answer(m, {})
    return params
def unknown(m): say({"jsonrpc": "2.0", "id": m["id"], "error": {"code": -32601, "message": "no " + m["method"]}})
def serve(**results):
    hello()
    while m := hear():
        print(json.dumps([m["method"], m["params"]]), flush=True)
        result = results.get(m["method"], {})
        if callable(result): result(m)
        else: answer(m, result)
)";

/// The namespace's PID 1: what the starter would have made, a hostile inheritance included.
[[noreturn]] void be_host(const spec::SandboxSpec& spec, SupervisorLinks links, int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  close(output);
  dup2(STDERR_FILENO, 78);  // a descriptor that leaks: without close-on-exec
  signal(SIGPIPE, SIG_IGN);
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr1, nullptr);
  _exit(serve(spec, std::move(links)));
}

[[noreturn]] void be_parent(const spec::SandboxSpec& spec, SupervisorLinks links, int output, int pid_pipe) {
  if (unshare(CLONE_NEWPID) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0) _exit(99);
  const pid_t host = fork();
  if (host == 0) be_host(spec, std::move(links), output);
  links = {};
  close(output);
  if (write(pid_pipe, &host, sizeof host) != sizeof host) _exit(98);
  close(pid_pipe);
  int status = 0;
  waitpid(host, &status, 0);
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 97);
}

void wait_readable(int fd, std::int64_t until) {
  pollfd readable{fd, POLLIN, 0};
  const std::int64_t left = until - monotonic_ms();
  if (left <= 0 || poll(&readable, 1, static_cast<int>(left)) <= 0) throw std::runtime_error("nothing came in time");
}

klp::Envelope accepted_envelope(std::uint32_t in_flight, std::uint32_t deadline_ms) {
  klp::Envelope envelope;
  klp::Accepted& accepted = *envelope.mutable_accepted();
  klp::Permission& permission = *accepted.add_permissions();
  permission.set_resource("calendar");
  permission.add_actions("read");
  accepted.set_max_frame_bytes(kMaxFrameBytes);
  accepted.set_max_in_flight(in_flight);
  accepted.set_message_deadline_ms(deadline_ms);
  return envelope;
}

}  // namespace

spec::SandboxSpec program(std::initializer_list<std::string> argv) {
  spec::SandboxSpec spec;
  spec.set_agent_id("calendarAgent");
  spec.set_agent_version("1.0.3");
  spec.add_capabilities("scheduleEvent");
  spec.add_env("PATH=/usr/bin:/bin");
  spec.set_cwd("/");
  spec.set_manifest_json(R"({"id":"calendarAgent","name":"Personal Calendar Assistant"})");
  for (const std::string& argument : argv) spec.add_argv(argument);
  return spec;
}

spec::SandboxSpec runner(std::string_view script) {
  spec::SandboxSpec spec = program({"/usr/bin/python3", "-S", "-E", "-c", std::string(kPrelude) + std::string(script)});
  spec.set_runner_protocol(true);
  return spec;
}

Host::Host(const spec::SandboxSpec& spec, bool outlives_keeper) {
  auto pair = socket_pair(SOCK_STREAM);
  auto keeper = socket_pair(SOCK_SEQPACKET);
  auto pipe = make_pipe();
  auto pid_pipe = make_pipe();
  if (!pair || !keeper || !pipe || !pid_pipe) throw std::runtime_error("no descriptors");
  parent_ = fork();
  if (parent_ == 0) {
    pair->first.reset();
    keeper->first.reset();
    be_parent(spec, {std::move(pair->second), std::move(keeper->second), outlives_keeper}, pipe->second.get(),
              pid_pipe->second.get());
  }
  klp_ = std::move(pair->first);
  keeper_ = std::move(keeper->first);
  shutdown(keeper_.get(), SHUT_RD);  // as the keeper does: it reads nothing from here on
  output_ = std::move(pipe->first);
  pid_pipe->second.reset();
  if (read(pid_pipe->first.get(), &host_, sizeof host_) != sizeof host_) throw std::runtime_error("no pid namespace");
}

Host::~Host() {
  if (parent_ == 0) return;
  kill(host_, SIGKILL);
  waitpid(parent_, nullptr, 0);
}

void Host::send_bytes(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(klp_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    // A program that ends at once may be gone before it is accepted: what it said is still to be read.
    if (count < 0 && errno == EPIPE) return;
    if (count < 0) throw std::runtime_error("nothing goes to agent-host");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void Host::send(const klp::Envelope& envelope) {
  std::string frame;
  append_frame(frame, envelope.SerializeAsString());
  send_bytes(frame);
}

void Host::hang_up() {
  klp_.reset();
  decoder_ = FrameDecoder(kMaxFrameBytes + kEnvelopeOverheadBytes);
}

std::string Host::receive_bytes() {
  std::array<char, 65536> bytes;
  const ssize_t count = recv(klp_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  return count <= 0 ? "" : std::string(bytes.data(), static_cast<std::size_t>(count));
}

void Host::reconnect() {
  auto pair = socket_pair(SOCK_STREAM);
  if (!pair) throw std::runtime_error("no descriptors");
  old_klp_ = std::move(klp_);
  hang_up();
  klp_ = std::move(pair->first);
  const int theirs = pair->second.get();
  send_to_keeper_channel(starter::Reconnect().SerializeAsString(), std::span(&theirs, 1));
}

klp::Resume Host::resume() {
  reconnect();
  klp::Envelope first = receive();
  if (!first.has_resume()) throw std::runtime_error("not a resume but " + std::to_string(first.kind_case()));
  return std::move(*first.mutable_resume());
}

klp::Resume Host::resumed() {
  klp::Resume said = resume();
  klp::Envelope envelope;
  envelope.mutable_resumed();
  send(envelope);
  return said;
}

void Host::send_to_keeper_channel(std::string_view bytes, std::span<const int> fds) {
  if (!send_packet(keeper_.get(), bytes, fds)) throw std::runtime_error("the keeper's channel has ended");
}

void Host::accept(std::uint32_t in_flight, std::uint32_t deadline_ms) {
  send(accepted_envelope(in_flight, deadline_ms));
}

void Host::accept_held() {
  klp::Envelope envelope = accepted_envelope(64, 20'000);
  envelope.mutable_accepted()->set_held(true);
  send(envelope);
}

std::uint64_t Host::call(klp::HookCall call) {
  call.set_id(++last_hook_call_);
  klp::Envelope envelope;
  *envelope.mutable_hook_call() = std::move(call);
  send(envelope);
  return last_hook_call_;
}

std::uint64_t Host::call(klp::HookCall::Hook hook) {
  klp::HookCall asked;
  asked.set_hook(hook);
  return call(std::move(asked));
}

klp::HookDone Host::done(std::uint64_t id) {
  klp::Envelope envelope = receive();
  if (!envelope.has_hook_done()) throw std::runtime_error("no hook's end but " + std::to_string(envelope.kind_case()));
  if (envelope.hook_done().id() != id) throw std::runtime_error("the end of another hook call");
  return std::move(*envelope.mutable_hook_done());
}

void Host::send_message(const klp::Message& message) {
  klp::Envelope envelope;
  envelope.set_message(message.SerializeAsString());
  send(envelope);
}

void Host::request(const std::string& id, const std::string& capability, const std::string& payload,
                   std::uint32_t deadline_ms) {
  klp::Message message;
  message.set_protocol("klp/1.0");
  message.set_id(id);
  message.set_from("operator");
  message.set_to("calendarAgent");
  message.set_type(klp::REQUEST);
  message.set_capability(capability);
  message.set_timestamp(iso_now());
  message.set_payload(payload);
  message.set_deadline_ms(deadline_ms);
  send_message(message);
}

void Host::stop(std::uint32_t grace_ms) {
  klp::Envelope envelope;
  envelope.mutable_stop()->set_grace_ms(grace_ms);
  send(envelope);
}

klp::Envelope Host::receive() {
  const std::int64_t until = monotonic_ms() + kPatienceMs;
  for (;;) {
    const auto frame = decoder_.next();
    if (!frame) throw std::runtime_error("out of step: " + frame.error().message());
    if (*frame) {
      klp::Envelope envelope;
      if (!envelope.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) {
        throw std::runtime_error("a frame that is no envelope");
      }
      return envelope;
    }
    wait_readable(klp_.get(), until);
    std::array<char, 65536> bytes;
    const ssize_t count = recv(klp_.get(), bytes.data(), bytes.size(), 0);
    if (count <= 0) throw std::runtime_error("the channel ended");
    decoder_.feed(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
  }
}

klp::Envelope Host::receive(klp::Envelope::KindCase kind) {
  for (;;) {
    klp::Envelope envelope = receive();
    if (envelope.kind_case() == kind) return envelope;
  }
}

klp::Message Host::receive_message() {
  const klp::Envelope envelope = receive();
  klp::Message message;
  if (!envelope.has_message() || !message.ParseFromString(envelope.message())) {
    throw std::runtime_error("not a message but " + std::to_string(envelope.kind_case()));
  }
  return message;
}

void Host::start() {
  accept();
  receive(klp::Envelope::kStarted);
}

std::string Host::output() {
  std::string text;
  const std::int64_t until = monotonic_ms() + kPatienceMs;
  for (;;) {
    wait_readable(output_.get(), until);
    std::array<char, 4096> bytes;
    const ssize_t count = read(output_.get(), bytes.data(), bytes.size());
    if (count <= 0) return text;
    text.append(bytes.data(), static_cast<std::size_t>(count));
  }
}

std::string Host::output_line() {
  std::string text;
  const std::int64_t until = monotonic_ms() + kPatienceMs;
  while (text.empty() || text.back() != '\n') {
    wait_readable(output_.get(), until);
    char byte = 0;
    if (read(output_.get(), &byte, 1) <= 0) break;
    text += byte;
  }
  return text;
}

void Host::wait_stopped() const {
  const std::string id = std::to_string(host_);
  const std::int64_t until = monotonic_ms() + kPatienceMs;
  const auto child = read_file("/proc/" + id + "/task/" + id + "/children");
  if (!child) throw std::runtime_error("agent-host has no child");
  const std::string stat = "/proc/" + child->substr(0, child->find(' ')) + "/stat";
  for (;;) {  // nobody but its parent is told
    const auto line = read_file(stat);
    if (line && line->substr(line->rfind(')') + 2, 1) == "T") return;
    if (monotonic_ms() > until) throw std::runtime_error("the runner does not stop");
    sched_yield();
  }
}

int Host::wait() {
  const auto pidfd = open_pidfd(parent_);
  wait_readable(pidfd->get(), monotonic_ms() + kPatienceMs);
  int status = 0;
  waitpid(parent_, &status, 0);
  parent_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace kai::test
