#include "tests/unit/control/control_fixture.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/unix.h"
#include "tests/unit/control/tar_builder.h"

namespace kai::test {

void run_until(EventLoop& loop, const std::function<bool()>& met) {
  bool late = false;
  Timer guard(loop);
  guard.start(std::chrono::seconds(30), [&late] { late = true; });
  loop.run_until([&] { return late || met(); });
  REQUIRE_FALSE(late);
}

Fd connect_to(const std::string& path) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) return {};
  return socket;
}

OperatorClient::OperatorClient(EventLoop& loop, const std::string& path) : loop_(loop) {
  Fd socket = connect_to(path);
  REQUIRE(socket);
  StreamLimits limits;
  limits.frame_bytes = 16 << 20;
  stream_ = std::make_unique<FrameStream>(
      loop_, std::move(socket), limits,
      FrameStream::Handlers{.frame =
                                [this](std::string_view body) {
                                  control::Response response;
                                  response.ParseFromArray(body.data(), static_cast<int>(body.size()));
                                  responses.push_back(response);
                                },
                            .closed = [this](const std::string&, bool) { closed = true; }});
}

std::uint64_t OperatorClient::send(control::Request request, const std::vector<int>& descriptors) {
  request.set_id(++last_id_);
  if (descriptors.empty()) {
    stream_->send(request.SerializeAsString());
  } else {
    std::string frame;
    append_frame(frame, request.SerializeAsString());
    REQUIRE(send_packet(stream_->fd(), frame, descriptors));
  }
  return last_id_;
}

control::Response OperatorClient::wait(std::uint64_t id) {
  std::optional<control::Response> found;  // a copy: more may come before the loop comes to its end
  run_until(loop_, [&] {
    for (const control::Response& response : responses) {
      const bool last = response.has_done() || response.has_failed() || response.has_run_exited();
      if (last && (response.id() == id || response.id() == 0)) found = response;
    }
    return found.has_value() || closed;
  });
  REQUIRE(found.has_value());
  return *found;
}

ControlFixture::ControlFixture(const Policy& chosen) : policies(true), log_directory(directory / "state/log") {
  policies.use({{chosen}, {}});
  for (const char* part : {"state/log", "state/db", "state/packages", "state/quarantine", "run"}) {
    std::filesystem::create_directories(directory / part);
  }
  hello.set_state_dir(directory / "state");
  hello.set_runtime_dir(directory / "run");
  hello.set_operator_uid(geteuid());
  hello.set_socket_gid(getegid());
  hello.set_cgroup_backend("none");
  start();
}

void ControlFixture::start() {
  LogOptions options;
  options.directory = log_directory;
  options.level = LogLevel::kDebug;
  options.stream = -1;
  log = std::move(*Log::open(options));
  registry.emplace(std::move(*Registry::open(directory / "state/db/registry.db", 1024)));
  packages.emplace(std::move(*PackageStore::open(directory / "state/packages")));
  audit = std::move(*AuditLog::open(loop, *log, directory / "state/audit"));
  auto sockets = std::move(*socket_pair(SOCK_SEQPACKET));
  keeper = std::make_unique<FakeKeeper>(loop, std::move(sockets.first));
  client = std::make_unique<KeeperClient>(loop, std::move(sockets.second));
  auto opened = MemoryManager::open(loop, *client, *log,
                                    {directory / "state", directory / "run", hello.redis_url(), hello.again()});
  REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().message()));
  memory = std::move(*opened);
  control = std::make_unique<Control>(
      Environment{loop, *client, *log, *registry, *packages, hello, policies, *audit, *memory}, log_directory,
      std::exchange(adoptions, {}));
  const auto started = control->start();
  REQUIRE_MESSAGE(started, (started ? "" : started.error().message()));
}

void ControlFixture::end() {
  operator_.reset();
  control.reset();
  memory.reset();
  audit.reset();
  client.reset();
  keeper.reset();
  packages.reset();
  registry.reset();
  log.reset();
}

ControlFixture::~ControlFixture() {
  end();
}

control::Response ControlFixture::call(control::Request request, const std::vector<int>& descriptors) {
  if (!operator_ || operator_->closed) operator_ = std::make_unique<OperatorClient>(loop, socket());
  return operator_->call(std::move(request), descriptors);
}

control::Response ControlFixture::add(const nlohmann::json& manifest, const std::string& entry) {
  TarBuilder tar;
  tar.file("manifest.json", manifest.dump());
  if (manifest.contains("entry")) tar.file(manifest["entry"], entry, 0755);
  const Fd file = std::move(*sealed_memfd("tar", tar.bytes()));
  control::Request request;
  request.mutable_register_()->set_label("test");
  request.mutable_register_()->set_directory(true);
  return call(request, {file.get()});
}

nlohmann::json ControlFixture::status(const std::string& id) {
  control::Request request;
  request.mutable_status()->set_id(id);
  return document(call(request));
}

std::string ControlFixture::log_text() {
  return read_file(log_directory + "/kaid.log", 64 << 20).value_or("");
}

nlohmann::json manifest_of(const std::string& id) {
  return {
      {"id", id},
      {"name", "Test " + id},
      {"version", "1.0.0"},
      {"entry", "main.sh"},
      {"persona", "utility"},
      {"capabilities", {"echo"}},
      {"memory", {{"type", "volatile"}, {"backend", "memory"}, {"persistent", false}}},
      {"security",
       {{"sandbox", true},
        {"permissions", nlohmann::json::array()},
        {"crypto", "none"},
        {"networkAccess", {{"allowOutbound", false}}},
        {"fileAccess", {{"allowedPaths", nlohmann::json::array()}, {"readOnly", true}, {"tempFileAccess", false}}}}},
      {"dependencies", nlohmann::json::array()},
      {"metadata",
       {{"author", "kAI"},
        {"description", "for tests"},
        {"license", "MIT"},
        {"tags", nlohmann::json::array()},
        {"created", "2026-01-01T00:00:00Z"},
        {"updated", "2026-01-01T00:00:00Z"}}},
      {"runtime", {{"kind", "exec"}, {"protocol", "runner"}}}};
}

control::Request start_of(const std::string& id) {
  control::Request request;
  request.mutable_start()->set_id(id);
  return request;
}

control::Request stop_of(const std::string& id) {
  control::Request request;
  request.mutable_stop()->set_id(id);
  return request;
}

control::Request send_of(const std::string& id, const std::string& capability, const std::string& payload,
                         std::uint32_t timeout_ms) {
  control::Request request;
  request.mutable_send()->set_id(id);
  request.mutable_send()->set_capability(capability);
  request.mutable_send()->set_payload(payload);
  request.mutable_send()->set_timeout_ms(timeout_ms);
  return request;
}

nlohmann::json document(const control::Response& response) {
  const std::string why = response.failed().code() + ": " + response.failed().message();
  REQUIRE_MESSAGE(response.has_done(), why);
  return nlohmann::json::parse(response.done().json());
}

std::string code(const control::Response& response) {
  return response.has_failed() ? response.failed().code() : "done";
}

}  // namespace kai::test
