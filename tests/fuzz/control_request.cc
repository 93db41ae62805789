// A whole control against a hostile client of kaid.sock, in one process, with the keeper of the unit tests: each input
// is one connection. Whatever is asked, control answers with what proto/control.proto promises, lives on, and still
// serves the next operator.
//
// The first byte of an input: bits 0 to 2, how many descriptors are sent along (each a package's tar); bit 3: the rest
// is the connection's bytes as they are, otherwise it is one request that gets its frame here.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "proto/control.pb.h"
#include "proto/frame.h"
#include "proto/quiet.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/control.h"
#include "supervisor/control/memory_manager.h"
#include "tests/unit/control/fake_keeper.h"
#include "tests/unit/control/tar_builder.h"
#include "tests/unit/control/temp_directory.h"

namespace kai::test {
namespace {

constexpr std::size_t kMaxInput = 64 << 10;         // it goes into a socket's buffer whole
constexpr std::chrono::milliseconds kPatience{50};  // for an answer, before the client hangs up
constexpr std::chrono::seconds kHang{20};
constexpr int kInputsPerControl = 200;

constexpr std::string_view kManifest = R"({"id":"a1","name":"A","version":"1.0.0","entry":"main.sh","persona":"utility",
  "capabilities":["echo"],"memory":{"type":"volatile","backend":"memory","persistent":false},
  "security":{"sandbox":true,"permissions":[],"crypto":"none","networkAccess":{"allowOutbound":false},
  "fileAccess":{"allowedPaths":[],"readOnly":true,"tempFileAccess":false}},"dependencies":[],
  "metadata":{"author":"a","description":"d","license":"MIT","tags":[],"created":"2026-01-01T00:00:00Z",
  "updated":"2026-01-01T00:00:00Z"},"runtime":{"kind":"exec","protocol":"runner"}})";

bool is_last(const control::Response& response) {
  return response.has_done() || response.has_failed() || response.has_run_exited();
}

/// What every answer promises, whoever asked for what.
void check(const control::Response& response) {
  const auto is_json = [](const std::string& text) { return text.empty() || nlohmann::json::accept(text); };
  switch (response.result_case()) {
    case control::Response::kDone:
      if (!is_json(response.done().json())) __builtin_trap();
      break;
    case control::Response::kFailed:
      if (response.failed().code().empty() || response.failed().message().empty()) __builtin_trap();
      if (!is_json(response.failed().details_json()) || !is_json(response.failed().document())) __builtin_trap();
      break;
    case control::Response::kRecord:
      // A line: of audit_export not always a document of its own.
      if (!is_utf8(response.record()) || response.record().find('\n') != std::string::npos) __builtin_trap();
      break;
    case control::Response::kRunStarted:
    case control::Response::kRunExited:
    case control::Response::kProgress:
      break;
    case control::Response::RESULT_NOT_SET:
      __builtin_trap();
  }
}

/// One connection of an operator.
class Client {
 public:
  Client(EventLoop& loop, const std::string& path) : loop_(loop) {
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) std::abort();
    StreamLimits limits;
    limits.frame_bytes = 32 << 20;
    stream_ = std::make_unique<FrameStream>(
        loop_, std::move(socket), limits,
        FrameStream::Handlers{.frame = [this](std::string_view body) { take(body); },
                              .closed = [this](const std::string&, bool) { closed_ = true; }});
  }

  void send(const std::string& bytes, const std::vector<int>& descriptors) {
    if (!bytes.empty() && !send_packet(stream_->fd(), bytes, descriptors)) std::abort();
  }

  /// Until a last word, the end of the connection, or `patience` is over.
  void wait(std::chrono::milliseconds patience) {
    bool late = false;
    Timer timer(loop_);
    timer.start(patience, [&late] { late = true; });
    loop_.run_until([&] { return late || closed_ || last_; });
  }
  void hang_up() {
    if (!closed_) stream_->close();
  }
  [[nodiscard]] const std::optional<control::Response>& last() const { return last_; }

 private:
  void take(std::string_view body) {
    control::Response response;
    if (!response.ParseFromArray(body.data(), static_cast<int>(body.size()))) __builtin_trap();
    check(response);
    if (is_last(response)) last_ = std::move(response);
  }

  EventLoop& loop_;
  std::unique_ptr<FrameStream> stream_;
  bool closed_ = false;
  std::optional<control::Response> last_;
};

std::string frame_of(const std::string& message) {
  std::string frame;
  append_frame(frame, message);
  return frame;
}

/// A control with one agent, a1, which is registered and does not run.
class Place {
 public:
  Place() : policies_(true), log_directory_(directory_ / "state/log") {
    policies_.use({{builtin_policy(true)}, {}});
    for (const char* part : {"state/log", "state/db", "state/packages", "state/quarantine", "run"}) {
      std::filesystem::create_directories(directory_ / part);
    }
    hello_.set_state_dir(directory_ / "state");
    hello_.set_runtime_dir(directory_ / "run");
    hello_.set_operator_uid(geteuid());
    hello_.set_socket_gid(getegid());
    hello_.set_cgroup_backend("none");
    LogOptions options;
    options.directory = log_directory_;
    options.stream = -1;
    log_ = std::move(*Log::open(options));
    registry_.emplace(std::move(*Registry::open(directory_ / "state/db/registry.db", 1024)));
    packages_.emplace(std::move(*PackageStore::open(directory_ / "state/packages")));
    audit_ = std::move(*AuditLog::open(loop_, *log_, directory_ / "state/audit"));
    auto sockets = std::move(*socket_pair(SOCK_SEQPACKET));
    keeper_ = std::make_unique<FakeKeeper>(loop_, std::move(sockets.first));
    client_ = std::make_unique<KeeperClient>(loop_, std::move(sockets.second));
    memory_ = std::move(*MemoryManager::open(loop_, *client_, *log_, {directory_ / "state", directory_ / "run", {}}));
    control_ = std::make_unique<Control>(
        Environment{loop_, *client_, *log_, *registry_, *packages_, hello_, policies_, *audit_, *memory_},
        log_directory_);
    if (!control_->start()) std::abort();

    TarBuilder tar;
    tar.file("manifest.json", std::string(kManifest)).file("main.sh", "#!/bin/sh\n", 0755);
    tar_ = std::move(*sealed_memfd("tar", tar.bytes()));
    control::Request request;
    request.mutable_register_()->set_label("fuzz");
    request.mutable_register_()->set_directory(true);
    if (!ask(request, {tar_.get()}).has_done()) std::abort();
    at_rest_ = state();
  }

  void connect(std::uint8_t how, const std::string& rest) {
    Client client(loop_, socket());
    const std::vector<int> descriptors(how & 7U, tar_.get());
    client.send((how & 8U) != 0 ? rest : frame_of(rest), descriptors);
    client.wait(kPatience);
    client.hang_up();
  }

  /// Whether control stands where it began. It has to answer in any case.
  [[nodiscard]] bool at_rest() { return keeper_->hosts.empty() && state() == at_rest_; }

 private:
  [[nodiscard]] std::string socket() const { return directory_ / "run/kaid.sock"; }

  control::Response ask(const control::Request& request, const std::vector<int>& descriptors) {
    Client client(loop_, socket());
    client.send(frame_of(request.SerializeAsString()), descriptors);
    client.wait(kHang);
    if (!client.last()) __builtin_trap();
    return *client.last();
  }

  std::string state() {
    control::Request request;
    request.mutable_list();
    return ask(request, {}).done().json();
  }

  TempDirectory directory_;
  Policies policies_;
  keeper::Hello hello_;
  EventLoop loop_;
  std::string log_directory_;
  std::unique_ptr<Log> log_;
  std::optional<Registry> registry_;
  std::optional<PackageStore> packages_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<MemoryManager> memory_;
  std::unique_ptr<FakeKeeper> keeper_;
  std::unique_ptr<KeeperClient> client_;
  std::unique_ptr<Control> control_;
  Fd tar_;
  std::string at_rest_;
};

}  // namespace
}  // namespace kai::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > kai::test::kMaxInput) return 0;
  kai::silence_protobuf();
  // In memory where there is such a place: the databases are written by the thousand.
  if (std::filesystem::is_directory("/dev/shm")) setenv("TMPDIR", "/dev/shm", 0);
  static std::unique_ptr<kai::test::Place> place;
  static int inputs = 0;
  if (!place) place = std::make_unique<kai::test::Place>();
  place->connect(data[0], std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  // An input that changed something is its own whole story; none has to be found in what thousands left behind.
  if (!place->at_rest() || ++inputs % kai::test::kInputsPerControl == 0) place.reset();
  return 0;
}
