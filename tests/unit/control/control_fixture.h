// A whole control in one process: real registry, packages, log and socket in a temporary directory, a fake keeper, and
// operators that connect to kaid.sock.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "proto/control.pb.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/control.h"
#include "supervisor/control/memory_manager.h"
#include "tests/unit/control/fake_keeper.h"
#include "tests/unit/control/temp_directory.h"

namespace kai::test {

/// Runs the loop until `met`; fails the test if that takes longer than any machine needs.
void run_until(EventLoop& loop, const std::function<bool()>& met);

/// A raw connection, to send whatever one likes.
Fd connect_to(const std::string& path);

class OperatorClient {
 public:
  OperatorClient(EventLoop& loop, const std::string& path);

  std::uint64_t send(control::Request request, const std::vector<int>& descriptors = {});
  /// The last word on request `id`; runs the loop.
  control::Response wait(std::uint64_t id);
  control::Response call(control::Request request, const std::vector<int>& descriptors = {}) {
    return wait(send(std::move(request), descriptors));
  }
  void hang_up() { stream_->close(); }

  std::vector<control::Response> responses;  ///< all, in order
  bool closed = false;

 private:
  EventLoop& loop_;
  std::unique_ptr<FrameStream> stream_;
  std::uint64_t last_id_ = 0;
};

struct ControlFixture {
  explicit ControlFixture(const Policy& chosen = builtin_policy(true));
  ~ControlFixture();

  /// (Re)starts control on the same directory, as after a crash or a restart of kaid.
  void start();
  void end();

  control::Response call(control::Request request, const std::vector<int>& descriptors = {});
  /// Registers an exec agent, or whatever the manifest says, from a tar made here.
  control::Response add(const nlohmann::json& manifest, const std::string& entry = "#!/bin/sh\n");
  nlohmann::json status(const std::string& id);
  std::string log_text();
  [[nodiscard]] std::string socket() const { return directory / "run/kaid.sock"; }
  void until(const std::function<bool()>& met) { run_until(loop, met); }

  TempDirectory directory;
  Policies policies;
  keeper::Hello hello;
  EventLoop loop;
  std::unique_ptr<Log> log;
  std::optional<Registry> registry;
  std::optional<PackageStore> packages;
  std::unique_ptr<AuditLog> audit;
  std::unique_ptr<MemoryManager> memory;
  std::unique_ptr<FakeKeeper> keeper;
  std::unique_ptr<KeeperClient> client;
  std::unique_ptr<Control> control;
  std::string log_directory;
  std::unique_ptr<OperatorClient> operator_;
  std::vector<KeeperClient::Adoption> adoptions;  ///< for the next start()
};

/// A valid manifest of an agent with the runner protocol and the capability `echo`.
nlohmann::json manifest_of(const std::string& id);

control::Request start_of(const std::string& id);
control::Request stop_of(const std::string& id);
control::Request send_of(const std::string& id, const std::string& capability, const std::string& payload,
                         std::uint32_t timeout_ms = 0);
/// The document of a Done; fails the test for anything else.
nlohmann::json document(const control::Response& response);
/// The code of a Failed; "done" for a Done.
std::string code(const control::Response& response);

}  // namespace kai::test
