#include "supervisor/control/connection.h"

#include "base/unix.h"

namespace kai {
namespace {

// From the connection, or the end of the last request, to a whole request.
constexpr std::chrono::milliseconds kIdleDeadline{10'000};
constexpr std::size_t kMaxRequests = 256;  // in progress on one connection

StreamLimits connection_limits() {
  StreamLimits limits;
  limits.descriptors = kMaxPacketFds;
  limits.frame_deadline = kIdleDeadline;
  // An operator that follows the log may fall this far behind.
  limits.queue_bytes = 16U << 20;
  limits.queue_messages = 65536;
  return limits;
}

}  // namespace

Connection::Connection(EventLoop& loop, Fd socket, std::uint32_t uid, Handlers handlers)
    : loop_(loop),
      uid_(uid),
      handlers_(std::move(handlers)),
      last_used_(loop.now_ms()),
      idle_timer_(loop),
      stream_(loop, std::move(socket), connection_limits(),
              {.frame = [this](std::string_view body) { receive(body); },
               .closed = [this](const std::string& reason, bool) { on_closed(reason); },
               .drained =
                   [this] {
                     if (drain_watched_) on_drained();
                   }}) {
  arm_idle_timer();
}

void Connection::arm_idle_timer() {
  idle_timer_.start(kIdleDeadline, [this] { evict("no request within 10 s"); });
}

void Connection::evict(const std::string& reason) {
  if (!stream_.open()) return;
  stream_.close();
  on_closed(reason);
}

void Connection::on_closed(const std::string& reason) {
  const auto self = shared_from_this();
  idle_timer_.stop();
  for (auto& [id, open] : std::exchange(requests_, {})) {
    if (open.gone) open.gone();
  }
  handlers_.closed(reason);
}

void Connection::on_drained() {
  const auto self = shared_from_this();
  for (const auto& [id, open] : std::map(requests_)) {
    if (open.drained) open.drained();
  }
}

void Connection::receive(std::string_view body) {
  const auto self = shared_from_this();
  control::Request request;
  if (!request.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return refuse({"INVALID", "the request cannot be read", "Use a kaictl of the same version as kaid", {}, false});
  }
  last_used_ = loop_.now_ms();
  if (requests_.size() >= kMaxRequests || !requests_.try_emplace(request.id()).second) {
    return refuse({"BUSY", "too many requests on one connection, or two with one id", {}, {}, true});
  }
  idle_timer_.stop();
  // Only these carry descriptors; a frame of another request may have been read together with theirs.
  const bool takes = request.has_register_() || request.has_run() || request.has_audit_verify() ||
                     request.has_audit_prove() || request.has_memory_export() || request.has_memory_import() ||
                     request.has_upgrade() || request.has_snapshot() || request.has_restore();
  handlers_.request(request, takes ? stream_.take_descriptors() : std::vector<Fd>{},
                    Responder(weak_from_this(), request.id(), uid_));
}

void Connection::refuse(const Failure& failure) {
  control::Response response;
  response.mutable_failed()->set_code(failure.code);
  response.mutable_failed()->set_message(failure.message);
  response.mutable_failed()->set_hint(failure.hint);
  response.mutable_failed()->set_retryable(failure.retryable);
  send(std::move(response), 0);
  stream_.finish();
}

void Connection::send(control::Response response, std::uint64_t id) {
  response.set_id(id);
  stream_.send(response.SerializeAsString());
}

void Connection::finish(std::uint64_t id) {
  requests_.erase(id);
  last_used_ = loop_.now_ms();
  if (requests_.empty() && stream_.open()) arm_idle_timer();
}

std::shared_ptr<Connection> Responder::live() const {
  auto connection = connection_.lock();
  return connection && connection->requests_.contains(id_) ? connection : nullptr;
}

void Responder::done(std::string json, const std::vector<std::string>& warnings, std::string text) const {
  const auto connection = live();
  if (!connection) return;
  control::Response response;
  response.mutable_done()->set_json(std::move(json));
  for (const std::string& warning : warnings) response.mutable_done()->add_warnings(warning);
  response.mutable_done()->set_text(std::move(text));
  connection->finish(id_);
  connection->send(std::move(response), id_);
}

void fill_in(const Failure& failure, control::Failed& failed) {
  failed.set_code(failure.code);
  failed.set_message(failure.message);
  failed.set_hint(failure.hint);
  failed.set_details_json(failure.details_json);
  failed.set_retryable(failure.retryable);
}

void Responder::fail(const Failure& failure, std::string document) const {
  const auto connection = live();
  if (!connection) return;
  control::Response response;
  control::Failed& failed = *response.mutable_failed();
  fill_in(failure, failed);
  failed.set_document(std::move(document));
  connection->finish(id_);
  connection->send(std::move(response), id_);
}

void Responder::run_exited(bool signaled, int code, const std::string& message) const {
  const auto connection = live();
  if (!connection) return;
  control::Response response;
  response.mutable_run_exited()->set_signaled(signaled);
  response.mutable_run_exited()->set_code(code);
  response.mutable_run_exited()->set_message(message);
  connection->finish(id_);
  connection->send(std::move(response), id_);
}

void Responder::record(std::string_view json) const {
  const auto connection = live();
  if (!connection) return;
  control::Response response;
  response.set_record(json.data(), json.size());
  connection->send(std::move(response), id_);
}

void Responder::run_started(int pid) const {
  const auto connection = live();
  if (!connection) return;
  control::Response response;
  response.mutable_run_started()->set_pid(pid);
  connection->send(std::move(response), id_);
}

void Responder::progress(const std::string& text) const {
  const auto connection = live();
  if (!connection) return;
  control::Response response;
  response.mutable_progress()->set_text(text);
  connection->send(std::move(response), id_);
}

void Responder::on_gone(std::function<void()> action) const {
  if (const auto connection = live()) connection->requests_[id_].gone = std::move(action);
}

void Responder::on_drained(std::function<void()> action) const {
  const auto connection = live();
  if (!connection) return;
  connection->requests_[id_].drained = std::move(action);
  connection->drain_watched_ = true;
}

bool Responder::open() const {
  return live() != nullptr;
}

std::size_t Responder::queued_bytes() const {
  const auto connection = live();
  return connection ? connection->stream_.queued_bytes() : 0;
}

}  // namespace kai
