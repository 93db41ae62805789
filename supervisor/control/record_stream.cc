#include "supervisor/control/record_stream.h"

namespace kai {
namespace {

// The client is read for only while it keeps up.
constexpr std::size_t kQueueBytes = 256 << 10;
// Records that came while the older ones were still being read.
constexpr std::size_t kMaxHeld = 16384;

}  // namespace

void RecordStream::begin(EventLoop& loop, Source source, const Responder& responder) {
  const std::shared_ptr<RecordStream> stream(new RecordStream(loop, std::move(source), responder));
  // What follows holds it weakly: the request alone keeps it.
  if (stream->source_.follow) stream->unfollow_ = stream->source_.follow(stream);
  responder.on_gone([stream] {});
  responder.on_drained([weak = std::weak_ptr(stream)] {
    if (const auto live = weak.lock()) live->pump();
  });
  stream->pump();
}

RecordStream::~RecordStream() {
  if (unfollow_) unfollow_();
}

void RecordStream::pump() {
  if (reading_ || done_ || responder_.queued_bytes() > kQueueBytes) return;
  reading_ = true;
  const auto piece = std::make_shared<Result<Piece>>();
  loop_.work([self = shared_from_this(), piece] { *piece = self->source_.next(); },
             [self = shared_from_this(), piece] { self->deliver(*piece); });
}

void RecordStream::deliver(Result<Piece>& piece) {
  reading_ = false;
  if (!responder_.open()) return;
  if (!piece) return responder_.fail(source_.unreadable(piece.error()));
  any_ |= !piece->records.empty();
  for (const std::string& record : piece->records) responder_.record(record);
  if (piece->done) return finish();
  // What was sent asks for more when it is written.
  if (piece->records.empty()) pump();
}

void RecordStream::finish() {
  done_ = true;
  if (const auto failed = source_.finish(any_ || !held_.empty())) return responder_.fail(*failed);
  if (!unfollow_) return responder_.done(source_.last_word);
  for (const std::string& record : std::exchange(held_, {})) responder_.record(record);
}

void RecordStream::add(std::string record) {
  if (done_) return responder_.record(record);
  if (held_.size() < kMaxHeld) return held_.push_back(std::move(record));
  const auto self = shared_from_this();  // the request lets go of it
  responder_.fail({"BUSY", source_.too_fast, "Ask for fewer of the old ones with -n", {}, true});
}

}  // namespace kai
