// Memory for tests of SDKs, without a sandbox and without kaid: what agent-host and control do with the runner
// protocol's memory.*, straight to a store. Requests come as lines on descriptor 0, answers go as lines to 1 (pipes or
// sockets); it ends when 0 has ended and all is answered.
//
//   memory_host DIRECTORY [--max-bytes N] [--ttl-ms N] [--indexeddb] [--volatile]
//
// The context's file and the clock's are in DIRECTORY, and are found there again. --volatile: as backend memory, which
// does not wait for the disk.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "agent-host/json_rpc.h"
#include "agent-host/memory_json.h"
#include "supervisor/loop/event_loop.h"
#include "supervisor/memory/expiry_clock.h"
#include "supervisor/memory/sqlite_store.h"

namespace kai::test {
namespace {

struct Options {
  std::string directory;
  MemoryTerms terms;
  SqliteFile file;
};

class MemoryHost {
 public:
  MemoryHost(EventLoop& loop, MemoryStore& store) : loop_(loop), store_(store) { input_.watch(UV_READABLE); }

 private:
  void take_input() {
    std::array<char, 65536> bytes;
    const ssize_t count = read(STDIN_FILENO, bytes.data(), bytes.size());
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
      ended_ = true;
      input_.watch(0);
      return end_if_answered();
    }
    decoder_.feed(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
    while (const auto line = decoder_.next()) take_line(*line);
  }

  void take_line(std::string_view line) {
    const auto message = parse_rpc(line);
    if (!message) return say(rpc_error("null", message.error().code, {"INVALID", message.error().message, {}, false}));
    if (message->kind != RpcMessage::Kind::kRequest) return;
    const std::string id(message->id);
    const auto call = memory_call(message->method);
    if (!call || !message->content) {
      const KlpError error{"INVALID", "only memory.* with params is answered here", {}, false};
      return say(rpc_error(id, RpcCode::kMethodNotFound, error));
    }
    auto request = memory_request(*call, *message->content);
    if (!request) return say(rpc_error(id, RpcCode::kInvalidParams, request.error()));
    if (!request->agent().empty()) {
      return say(rpc_error(id, RpcCode::kAgentError, {"DENIED", "there is no other agent here", {}, false}));
    }
    ++open_;
    store_.perform(std::move(*request), [this, id, call = *call](klp::MemoryAnswer&& answer) {
      --open_;
      const auto result = memory_result(call, answer);
      say(result ? rpc_result(id, *result) : rpc_error(id, RpcCode::kAgentError, result.error()));
    });
  }

  void say(const std::string& line) {
    output_ += line;
    write_output();
  }

  void write_output() {
    while (!output_.empty()) {
      const ssize_t count = write(STDOUT_FILENO, output_.data(), output_.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno != EAGAIN) return loop_.stop();  // nobody reads
      if (count < 0) return writable_.watch(UV_WRITABLE);
      output_.erase(0, static_cast<std::size_t>(count));
    }
    writable_.watch(0);
    end_if_answered();
  }

  void end_if_answered() {
    if (ended_ && open_ == 0 && output_.empty()) loop_.stop();
  }

  EventLoop& loop_;
  MemoryStore& store_;
  LineDecoder decoder_;
  std::string output_;
  std::size_t open_ = 0;
  bool ended_ = false;
  Poll input_{loop_, STDIN_FILENO, [this](int) { take_input(); }};
  Poll writable_{loop_, STDOUT_FILENO, [this](int) { write_output(); }};
};

/// Exits with 2 where they are wrong.
Options options_of(int count, char** arguments) {
  Options options;
  options.terms.agent_id = "probe";
  options.terms.max_bytes = 64 << 20;
  for (int at = 1; at < count; ++at) {
    const std::string_view name = arguments[at];
    const bool number = name == "--max-bytes" || name == "--ttl-ms";
    if (number && at + 1 < count) {
      const std::uint64_t value = std::strtoull(arguments[++at], nullptr, 10);
      (name == "--ttl-ms" ? options.terms.default_ttl_ms : options.terms.max_bytes) = value;
    } else if (name == "--indexeddb") {
      options.file.indexed_db = true;
    } else if (name == "--volatile") {
      options.file.durable = false;
    } else if (options.directory.empty() && !name.starts_with("--")) {
      options.directory = name;
    } else {
      options.directory.clear();
      break;
    }
  }
  if (options.directory.empty()) {
    std::fputs("usage: memory_host DIRECTORY [--max-bytes N] [--ttl-ms N] [--indexeddb] [--volatile]\n", stderr);
    std::exit(2);
  }
  options.file.path = options.directory + "/memory.db";
  return options;
}

int run(Options options) {
  const auto now = machine_time();
  auto clock = now ? ExpiryClock::load(options.directory + "/clock", *now) : tl::unexpected(now.error());
  if (!clock) {
    std::fprintf(stderr, "memory_host: %s\n", clock.error().message().c_str());
    return 1;
  }
  fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
  fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
  EventLoop loop;
  auto store = make_sqlite_store(loop, *clock, options.terms, options.file);
  std::optional<MemoryOutcome<>> opened;
  store->open([&](MemoryOutcome<>&& outcome) { opened = std::move(outcome); });
  loop.run_until([&] { return opened.has_value(); });
  if (!*opened) {
    std::fprintf(stderr, "memory_host: %s\n", opened->error().message().c_str());
    return 1;
  }
  {
    const MemoryHost host(loop, *store);
    loop.run();
    store.reset();  // whoever still waits is told; the host is there to hear it
  }
  loop.finish_work();
  const auto end = machine_time();
  return end && clock->save(*end) ? 0 : 1;
}

}  // namespace
}  // namespace kai::test

int main(int count, char** arguments) {
  return kai::test::run(kai::test::options_of(count, arguments));
}
