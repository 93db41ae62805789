// `kaictl logs`: what the files hold, in pieces that the client has read before the next is fetched, then what comes.
#include <deque>

#include "supervisor/control/requests.h"

namespace kai {
namespace {

constexpr std::size_t kRecordsAtOnce = 256;
// The client is read from disk for only while it keeps up.
constexpr std::size_t kQueueBytes = 256 << 10;
// Records that came while the older ones were still being read.
constexpr std::size_t kMaxHeld = 16384;

class LogSession : public std::enable_shared_from_this<LogSession> {
 public:
  LogSession(Operations& operations, LogReader reader, const control::Logs& request, Responder responder)
      : environment_(operations.environment),
        agents_(operations.agents),
        reader_(std::move(reader)),
        request_(request),
        responder_(std::move(responder)) {}

  ~LogSession() {
    if (observer_ != 0) environment_.log.remove_observer(observer_);
  }

  // The request holds the session: it goes when the client does, or when everything is said.
  void begin() {
    if (request_.follow()) {
      observer_ = environment_.log.add_observer([this](const LogEvent& event) { observe(event); });
    }
    responder_.on_gone([self = shared_from_this()] {});
    responder_.on_drained([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->pump();
    });
    pump();
  }

 private:
  void pump() {
    if (reading_ || history_done_ || responder_.queued_bytes() > kQueueBytes) return;
    reading_ = true;
    const auto batch = std::make_shared<Result<LogReader::Batch>>();
    environment_.loop.work([self = shared_from_this(), batch] { *batch = self->reader_.next(kRecordsAtOnce); },
                           [self = shared_from_this(), batch] { self->deliver(*batch); });
  }

  void deliver(const Result<LogReader::Batch>& batch) {
    reading_ = false;
    if (!responder_.open()) return;
    if (!batch)
      return responder_.fail({"INTERNAL", "the log cannot be read: " + batch.error().message(), {}, {}, false});
    any_ |= !batch->records.empty();
    for (const std::string& record : batch->records) responder_.record(record);
    if (batch->done) return finish_history();
    // What was sent asks for more when it is written.
    if (batch->records.empty()) pump();
  }

  void finish_history() {
    history_done_ = true;
    const std::string& id = request_.id();
    if (!any_ && held_.empty() && !id.empty() && request_.since_unix_ms() == 0 && agents_.find(id) == nullptr) {
      return responder_.fail(not_registered(id));
    }
    if (!request_.follow()) return responder_.done();
    for (const std::string& record : std::exchange(held_, {})) responder_.record(record);
  }

  void observe(const LogEvent& event) {
    if (!request_.id().empty() && event.agent != request_.id()) return;
    if (event.unix_ms < request_.since_unix_ms()) return;
    if (history_done_) {
      responder_.record(event.json);
    } else if (held_.size() < kMaxHeld) {
      held_.emplace_back(event.json);
    } else {
      const auto self = shared_from_this();  // the request lets go of it
      responder_.fail(
          {"BUSY", "the log is written faster than this client reads it", "Ask for fewer records with -n", {}, true});
    }
  }

  Environment& environment_;
  Agents& agents_;
  LogReader reader_;
  control::Logs request_;
  Responder responder_;
  Log::ObserverId observer_ = 0;
  bool reading_ = false, history_done_ = false;
  bool any_ = false;  // there was a record
  std::deque<std::string> held_;
};

}  // namespace

void handle_logs(Operations& operations, const control::Logs& request, const Responder& responder) {
  LogFilter filter;
  filter.agent = request.id();
  filter.since_unix_ms = request.since_unix_ms();
  if (request.has_lines()) filter.last = request.lines();
  auto reader = LogReader::open(operations.log_directory, filter);
  if (!reader) {
    return responder.fail({"INTERNAL", "the log cannot be read: " + reader.error().message(), {}, {}, false});
  }
  std::make_shared<LogSession>(operations, std::move(*reader), request, responder)->begin();
}

}  // namespace kai
