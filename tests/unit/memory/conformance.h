// What every backend of agents' memory does alike, as seen through MemoryStore: each backend's tests run all of it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/loop/event_loop.h"
#include "supervisor/memory/expiry_clock.h"
#include "supervisor/memory/store.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {

/// An ExpiryClock that a test sets forward; only while no request is under way.
class TestClock {
 public:
  TestClock();
  void advance(std::chrono::milliseconds by);
  [[nodiscard]] const ExpiryClock& get() const { return *clock_; }

 private:
  [[nodiscard]] std::string path() const { return directory_ / "clock"; }
  TempDirectory directory_;
  std::unique_ptr<ExpiryClock> clock_;
  int boots_ = 0;
};

/// A backend as the conformance tests make it.
struct MemoryBackend {
  /// A store for the context `terms.agent_id`; called again with the same id, one over the same content.
  std::function<std::unique_ptr<MemoryStore>(EventLoop&, const ExpiryClock&, const MemoryTerms&)> make;
  /// What was written is there for the store that is made after it.
  bool outlives_store = true;
};

/// One store with a loop of its own, asked and waited for.
class MemoryClient {
 public:
  explicit MemoryClient(const MemoryBackend& backend, std::uint64_t max_bytes = 1 << 20,
                        std::uint64_t default_ttl_ms = 0);
  MemoryClient(const MemoryBackend& backend, MemoryTerms terms);

  klp::MemoryAnswer ask(klp::MemoryRequest request);
  /// All at once; the answers in the order of the requests.
  std::vector<klp::MemoryAnswer> ask_all(std::vector<klp::MemoryRequest> requests);

  klp::MemoryAnswer set(const std::string& key, const std::string& json);
  klp::MemoryAnswer set_for(const std::string& key, const std::string& json, std::uint64_t ttl_ms);
  klp::MemoryAnswer get(const std::string& key);
  klp::MemoryAnswer remove(const std::string& key);
  klp::MemoryAnswer list(const std::string& prefix = {}, std::uint32_t limit = 0, const std::string& after = {});
  /// The JSON text or bytes of a key; "(none)" where it is not there, and the code of an error.
  std::string value(const std::string& key);
  /// Ends the store and makes another over the same content.
  MemoryOutcome<> reopen();
  MemoryOutcome<> clear();
  MemoryOutcome<> wait(const std::function<void(MemoryStore::Done)>& start);

  [[nodiscard]] TestClock& clock() { return clock_; }
  [[nodiscard]] EventLoop& loop() { return loop_; }
  [[nodiscard]] MemoryStore& store() { return *store_; }

 private:
  const MemoryBackend& backend_;
  MemoryTerms terms_;
  TestClock clock_;
  EventLoop loop_;
  std::unique_ptr<MemoryStore> store_;
};

klp::MemoryRequest set_request(const std::string& key, const std::string& json);
/// Adds one write to a set.
klp::MemoryWrite& add_write(klp::MemoryRequest& request, const std::string& key, const std::string& json);
/// The code of an error, "" where it is none.
std::string code_of(const klp::MemoryAnswer& answer);

/// All behaviours, as SUBCASEs of the test case that calls it. Each begins with an empty context.
void check_conformance(const MemoryBackend& backend);

}  // namespace kai
