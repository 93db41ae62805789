// `kaictl events`: the audit's records, those that are there and those that come, in the shape of contracts.md.
#include <nlohmann/json.hpp>

#include "supervisor/control/audit_log.h"
#include "supervisor/control/audit_reader.h"
#include "supervisor/control/record_stream.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

constexpr std::size_t kRecordsAtOnce = 256;

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

/// What was recorded when it was asked for; later ones are observed. On the thread pool.
class RecordedEvents {
 public:
  RecordedEvents(std::unique_ptr<AuditReader> reader, const control::Events& request, std::uint64_t up_to)
      : reader_(std::move(reader)), request_(request), up_to_(up_to) {}

  Result<RecordStream::Piece> next() {
    if (!begun_ && request_.has_lines()) {
      const auto last = reader_->last(request_.id(), up_to_);
      if (!last) return tl::unexpected(last.error());
      after_ = *last > request_.lines() ? *last - request_.lines() : 0;
    }
    begun_ = true;
    auto records = reader_->records(request_.id(), after_, up_to_, kRecordsAtOnce);
    if (!records) return tl::unexpected(records.error());
    RecordStream::Piece piece;
    for (const AuditReader::Stored& record : *records) {
      after_ = request_.id().empty() ? record.seq : record.agent_seq;
      if (auto event = event_document(record.body); !event.empty()) piece.records.push_back(std::move(event));
    }
    piece.done = records->size() < kRecordsAtOnce;
    return piece;
  }

 private:
  std::unique_ptr<AuditReader> reader_;
  control::Events request_;
  std::uint64_t up_to_;
  std::uint64_t after_ = 0;  // told up to here
  bool begun_ = false;
};

auto following(AuditLog& audit, const std::string& id) {
  return [&audit, id](const std::shared_ptr<RecordStream>& stream) {
    const auto observe = [id, weak = std::weak_ptr(stream)](std::string_view agent, std::string_view record) {
      if (!id.empty() && agent != id) return;
      std::string event = event_document(record);
      const auto live = weak.lock();
      if (live && !event.empty()) live->add(std::move(event));
    };
    return [&audit, observer = audit.add_observer(observe)] { audit.remove_observer(observer); };
  };
}

}  // namespace

void handle_events(Operations& operations, const control::Events& request, const Responder& responder) {
  AuditLog& audit = operations.environment.audit;
  audit.flush();
  auto reader = AuditReader::open(audit.head().directory);
  if (!reader) return responder.fail(audit_unreadable(reader.error()));
  // One that was unregistered has its events still.
  const auto known = audit_knows(operations, **reader, request.id());
  if (!known) return responder.fail(audit_unreadable(known.error()));
  if (!*known) return responder.fail(not_registered(request.id()));
  RecordStream::Source source;
  source.next = [events = std::make_shared<RecordedEvents>(std::move(*reader), request, audit.last_seq())] {
    return events->next();
  };
  source.unreadable = audit_unreadable;
  source.too_fast = "events come faster than this client reads them";
  if (request.follow()) source.follow = following(audit, request.id());
  RecordStream::begin(operations.environment.loop, std::move(source), responder);
}

}  // namespace kai
