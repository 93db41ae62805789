#include "supervisor/control/audit_log.h"

namespace kai {
namespace {

/// Numbers records and keeps none: until the store of STATE/audit takes its place in this branch.
class Unstored : public AuditLog {
 public:
  explicit Unstored(EventLoop& loop) : loop_(loop) {}
  void append(std::string_view, std::string_view, std::string_view) override { ++seq_; }
  void flush() override {}
  void when_durable(Durable done) override {
    loop_.defer([done = std::move(done)] { done({}); });
  }
  std::optional<Failure> refusal() const override { return std::nullopt; }
  ObserverId add_observer(Observer) override { return 1; }
  void remove_observer(ObserverId) override {}
  std::uint64_t last_seq() const override { return seq_; }

 private:
  EventLoop& loop_;
  std::uint64_t seq_ = 0;
};

}  // namespace

Result<std::unique_ptr<AuditLog>> AuditLog::open(EventLoop& loop, Log&, const std::string&) {
  return std::make_unique<Unstored>(loop);
}

}  // namespace kai
