#include <doctest/doctest.h>

#include "tests/unit/memory/conformance.h"

namespace kai {
namespace {

MachineTime machine(const std::string& boot, std::int64_t ahead_ms) {
  MachineTime time = machine_time().value();
  time.boot_id = boot;
  time.since_boot_ms += ahead_ms;
  time.wall_ms = 1'777'000'000'000;  // stands still: a boot in between takes no time
  return time;
}

}  // namespace

TestClock::TestClock() {
  auto loaded = ExpiryClock::load(path(), machine("boot 0", 0));
  REQUIRE(loaded);
  clock_ = std::make_unique<ExpiryClock>(*std::move(loaded));
}

void TestClock::advance(std::chrono::milliseconds by) {
  // As if the machine had been up for so long, and was then started anew.
  REQUIRE(clock_->save(machine("boot " + std::to_string(boots_), by.count())));
  ++boots_;
  auto loaded = ExpiryClock::load(path(), machine("boot " + std::to_string(boots_), 0));
  REQUIRE(loaded);
  *clock_ = *std::move(loaded);
}

MemoryClient::MemoryClient(const MemoryBackend& backend, std::uint64_t max_bytes, std::uint64_t default_ttl_ms)
    : MemoryClient(backend, MemoryTerms{"conformer", max_bytes, default_ttl_ms, {}}) {}

MemoryClient::MemoryClient(const MemoryBackend& backend, MemoryTerms terms)
    : backend_(backend), terms_(std::move(terms)) {
  REQUIRE(reopen());
  REQUIRE(clear());
}

MemoryOutcome<> MemoryClient::wait(const std::function<void(MemoryStore::Done)>& start) {
  std::optional<MemoryOutcome<>> outcome;
  start([&](MemoryOutcome<>&& done) { outcome = std::move(done); });
  CHECK_MESSAGE(!outcome, "answered from within the call");
  loop_.run_until([&] { return outcome.has_value(); });
  return *outcome;
}

MemoryOutcome<> MemoryClient::reopen() {
  store_.reset();
  loop_.finish_work();
  store_ = backend_.make(loop_, clock_.get(), terms_);
  return wait([this](auto done) { store_->open(std::move(done)); });
}

MemoryOutcome<> MemoryClient::clear() {
  return wait([this](auto done) { store_->clear(std::move(done)); });
}

std::vector<klp::MemoryAnswer> MemoryClient::ask_all(std::vector<klp::MemoryRequest> requests) {
  std::vector<klp::MemoryAnswer> answers(requests.size());
  std::size_t answered = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].set_id(i + 1);
    store_->perform(std::move(requests[i]), [&, i](klp::MemoryAnswer&& answer) {
      CHECK(answer.id() == i + 1);
      answers[i] = std::move(answer);
      ++answered;
    });
  }
  CHECK_MESSAGE(answered == 0, "answered from within the call");
  loop_.run_until([&] { return answered == answers.size(); });
  return answers;
}

klp::MemoryAnswer MemoryClient::ask(klp::MemoryRequest request) {
  std::vector<klp::MemoryRequest> one;
  one.push_back(std::move(request));
  return ask_all(std::move(one)).front();
}

klp::MemoryAnswer MemoryClient::set(const std::string& key, const std::string& json) {
  return ask(set_request(key, json));
}

klp::MemoryAnswer MemoryClient::set_for(const std::string& key, const std::string& json, std::uint64_t ttl_ms) {
  klp::MemoryRequest request;
  klp::MemoryWrite& write = add_write(request, key, json);
  write.set_has_ttl(true);
  write.set_ttl_ms(ttl_ms);
  return ask(std::move(request));
}

klp::MemoryAnswer MemoryClient::get(const std::string& key) {
  klp::MemoryRequest request;
  request.mutable_get()->add_keys(key);
  return ask(std::move(request));
}

klp::MemoryAnswer MemoryClient::remove(const std::string& key) {
  klp::MemoryRequest request;
  request.mutable_delete_()->set_key(key);
  return ask(std::move(request));
}

klp::MemoryAnswer MemoryClient::list(const std::string& prefix, std::uint32_t limit, const std::string& after) {
  klp::MemoryRequest request;
  request.mutable_list()->set_prefix(prefix);
  request.mutable_list()->set_limit(limit);
  request.mutable_list()->set_after(after);
  return ask(std::move(request));
}

std::string MemoryClient::value(const std::string& key) {
  const klp::MemoryAnswer answer = get(key);
  if (answer.has_error()) return answer.error().code();
  return answer.got().entries().empty() ? "(none)" : answer.got().entries(0).value();
}

klp::MemoryWrite& add_write(klp::MemoryRequest& request, const std::string& key, const std::string& json) {
  klp::MemoryWrite& write = *request.mutable_set()->add_writes();
  write.set_key(key);
  write.set_value(json);
  return write;
}

klp::MemoryRequest set_request(const std::string& key, const std::string& json) {
  klp::MemoryRequest request;
  add_write(request, key, json);
  return request;
}

std::string code_of(const klp::MemoryAnswer& answer) {
  return answer.has_error() ? answer.error().code() : "";
}

}  // namespace kai
