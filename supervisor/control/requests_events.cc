// `kaictl events`: the audit's records, those that are there and those that come, in the shape of contracts.md.
#include <nlohmann/json.hpp>

#include "supervisor/control/audit_log.h"
#include "supervisor/control/audit_reader.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

constexpr std::size_t kRecordsAtOnce = 256;
// The client is read for only while it keeps up.
constexpr std::size_t kQueueBytes = 256 << 10;
// Records that came while the older ones were still being read.
constexpr std::size_t kMaxHeld = 16384;

// Ours, and stored: it parses. What does not is passed over, `audit verify` has more to say about it.
std::string event_document(std::string_view record) {
  using Json = nlohmann::ordered_json;
  Json stored = Json::parse(record, nullptr, false);
  if (!stored.is_object()) return {};
  Json event = {{"seq", stored.value("seq", 0)},
                {"time", stored.value("timestamp", "")},
                {"agentId", stored.value("agentId", "")},
                {"event", stored.value("event", "")}};
  Json metadata = stored.value("metadata", Json::object());
  if (const auto state = metadata.find("state"); state != metadata.end()) {
    event["state"] = *state;
    metadata.erase(state);
  }
  event["metadata"] = std::move(metadata);
  return event.dump(-1, ' ', false, Json::error_handler_t::replace);
}

class EventSession : public std::enable_shared_from_this<EventSession> {
 public:
  EventSession(Environment& environment, std::unique_ptr<AuditReader> reader, const control::Events& request,
               Responder responder)
      : environment_(environment),
        reader_(std::move(reader)),
        request_(request),
        up_to_(environment.audit.last_seq()),
        responder_(std::move(responder)) {}

  ~EventSession() {
    if (observer_ != 0) environment_.audit.remove_observer(observer_);
  }

  // The request holds the session: it goes when the client does, or when everything is said.
  void begin() {
    if (request_.follow()) {
      observer_ = environment_.audit.add_observer(
          [this](std::string_view agent, std::string_view record) { observe(agent, record); });
    }
    responder_.on_gone([self = shared_from_this()] {});
    responder_.on_drained([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->pump();
    });
    pump();
  }

 private:
  struct Piece {
    std::vector<std::string> events;
    bool done = false;
  };

  // On the thread pool, one at a time.
  Result<Piece> read() {
    if (!begun_ && request_.has_lines()) {
      const auto last = reader_->last(request_.id(), up_to_);
      if (!last) return tl::unexpected(last.error());
      after_ = *last > request_.lines() ? *last - request_.lines() : 0;
    }
    begun_ = true;
    auto records = reader_->records(request_.id(), after_, up_to_, kRecordsAtOnce);
    if (!records) return tl::unexpected(records.error());
    Piece piece;
    for (const AuditReader::Stored& record : *records) {
      after_ = request_.id().empty() ? record.seq : record.agent_seq;
      if (auto event = event_document(record.body); !event.empty()) piece.events.push_back(std::move(event));
    }
    piece.done = records->size() < kRecordsAtOnce;
    return piece;
  }

  void pump() {
    if (reading_ || history_done_ || responder_.queued_bytes() > kQueueBytes) return;
    reading_ = true;
    const auto piece = std::make_shared<Result<Piece>>();
    environment_.loop.work([self = shared_from_this(), piece] { *piece = self->read(); },
                           [self = shared_from_this(), piece] { self->deliver(*piece); });
  }

  void deliver(const Result<Piece>& piece) {
    reading_ = false;
    if (!responder_.open()) return;
    if (!piece) {
      return responder_.fail({"INTERNAL",
                              "the audit cannot be read: " + piece.error().message(),
                              "See what 'kaictl audit verify' says",
                              {},
                              false});
    }
    for (const std::string& event : piece->events) responder_.record(event);
    history_done_ = piece->done;
    if (!history_done_) {
      // What was sent asks for more when it is written.
      if (piece->events.empty()) pump();
      return;
    }
    if (!request_.follow()) return responder_.done();
    for (const std::string& event : std::exchange(held_, {})) responder_.record(event);
  }

  void observe(std::string_view agent, std::string_view record) {
    if (!request_.id().empty() && agent != request_.id()) return;
    std::string event = event_document(record);
    if (event.empty()) return;
    if (history_done_) return responder_.record(event);
    if (held_.size() < kMaxHeld) return held_.push_back(std::move(event));
    const auto self = shared_from_this();  // the request lets go of it
    responder_.fail(
        {"BUSY", "events come faster than this client reads them", "Ask for fewer of the old ones with -n", {}, true});
  }

  Environment& environment_;
  std::unique_ptr<AuditReader> reader_;
  control::Events request_;
  std::uint64_t up_to_;      // what was recorded when it was asked for; later ones are observed
  std::uint64_t after_ = 0;  // told up to here
  Responder responder_;
  AuditLog::ObserverId observer_ = 0;
  bool begun_ = false, reading_ = false, history_done_ = false;
  std::vector<std::string> held_;
};

}  // namespace

void handle_events(Operations& operations, const control::Events& request, const Responder& responder) {
  Environment& environment = operations.environment;
  environment.audit.flush();
  auto reader = AuditReader::open(environment.audit.head().directory);
  if (!reader) {
    return responder.fail({"INTERNAL",
                           "the audit cannot be read: " + reader.error().message(),
                           "See what 'kaictl audit verify' says",
                           {},
                           false});
  }
  // One that was unregistered has its events still.
  if (!request.id().empty() && operations.agents.find(request.id()) == nullptr) {
    const auto last = (*reader)->last(request.id(), environment.audit.last_seq());
    if (last && *last == 0) return responder.fail(not_registered(request.id()));
  }
  std::make_shared<EventSession>(environment, std::move(*reader), request, responder)->begin();
}

}  // namespace kai
