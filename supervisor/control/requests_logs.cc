// `kaictl logs`: what the files hold, then what comes.
#include "supervisor/control/record_stream.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

constexpr std::size_t kRecordsAtOnce = 256;

Failure unreadable(const Error& error) {
  return {"INTERNAL", "the log cannot be read: " + error.message(), {}, {}, false};
}

auto following(Log& log, const control::Logs& request) {
  return [&log, request](const std::shared_ptr<RecordStream>& stream) {
    const auto observe = [request, weak = std::weak_ptr(stream)](const LogEvent& event) {
      if (!request.id().empty() && event.agent != request.id()) return;
      if (event.unix_ms < request.since_unix_ms()) return;
      if (const auto live = weak.lock()) live->add(std::string(event.json));
    };
    return [&log, observer = log.add_observer(observe)] { log.remove_observer(observer); };
  };
}

}  // namespace

void handle_logs(Operations& operations, const control::Logs& request, const Responder& responder) {
  LogFilter filter;
  filter.agent = request.id();
  filter.since_unix_ms = request.since_unix_ms();
  if (request.has_lines()) filter.last = request.lines();
  auto opened = LogReader::open(operations.log_directory, filter);
  if (!opened) return responder.fail(unreadable(opened.error()));
  RecordStream::Source source;
  source.next = [reader = std::make_shared<LogReader>(std::move(*opened))]() -> Result<RecordStream::Piece> {
    auto batch = reader->next(kRecordsAtOnce);
    if (!batch) return tl::unexpected(batch.error());
    return RecordStream::Piece{std::move(batch->records), batch->done};
  };
  source.unreadable = unreadable;
  // One that was unregistered has its log still.
  source.finish = [&agents = operations.agents, request](bool any) -> std::optional<Failure> {
    const bool known =
        any || request.id().empty() || request.since_unix_ms() != 0 || agents.find(request.id()) != nullptr;
    if (known) return std::nullopt;
    return not_registered(request.id());
  };
  source.too_fast = "the log is written faster than this client reads it";
  if (request.follow()) source.follow = following(operations.environment.log, request);
  RecordStream::begin(operations.environment.loop, std::move(source), responder);
}

}  // namespace kai
