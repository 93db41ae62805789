#include "supervisor/control/output.h"

#include <algorithm>

namespace kai {
namespace {

constexpr std::int64_t kReportEveryMs = 1000;

std::string_view without_cr(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

/// At most `at`, and not inside a UTF-8 character if one ends or begins nearby.
std::size_t character_boundary(std::string_view bytes, std::size_t at) {
  const auto inside = [&](std::size_t place) { return (static_cast<unsigned char>(bytes[place]) & 0xC0) == 0x80; };
  std::size_t cut = at;
  while (cut > 0 && at - cut < 3 && inside(cut)) --cut;
  return inside(cut) ? at : cut;
}

}  // namespace

std::uint64_t LineSplitter::feed(std::string_view bytes, const Sink& sink) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    if (skipping_) {
      if (end == std::string_view::npos) return 0;
      skipping_ = false;
      bytes.remove_prefix(end + 1);
      continue;
    }
    const std::size_t length = std::min(end, bytes.size());
    const std::size_t room = limit_ - pending_.size();
    bool wanted = true;
    if (length > room) {
      const std::size_t cut = character_boundary(bytes, room);
      wanted = give(bytes.substr(0, cut), true, sink);
      bytes.remove_prefix(cut);
      skipping_ = !wanted;
    } else if (end == std::string_view::npos) {
      pending_ += bytes;
      return 0;
    } else {
      wanted = give(bytes.substr(0, length), false, sink);
      bytes.remove_prefix(length + 1);
    }
    if (!wanted) return 1 + skip(bytes);
  }
  return 0;
}

std::uint64_t LineSplitter::finish(const Sink& sink) {
  skipping_ = false;
  if (pending_.empty()) return 0;
  return give({}, false, sink) ? 0 : 1;
}

bool LineSplitter::give(std::string_view line, bool continues, const Sink& sink) {
  if (pending_.empty()) return sink(continues ? line : without_cr(line), continues);
  pending_ += line;
  const bool wanted = sink(continues ? std::string_view(pending_) : without_cr(pending_), continues);
  pending_.clear();
  return wanted;
}

/// Counts the lines that begin in `bytes`, of which the last may go on in the next bytes.
std::uint64_t LineSplitter::skip(std::string_view bytes) {
  if (bytes.empty()) return 0;
  auto ends = static_cast<std::uint64_t>(std::count(bytes.begin(), bytes.end(), '\n'));
  const bool was_inside = std::exchange(skipping_, bytes.back() != '\n');
  if (skipping_) ++ends;
  return was_inside ? ends - 1 : ends;
}

bool LogBudget::take(std::int64_t now_ms) {
  const double gained = static_cast<double>(std::max<std::int64_t>(0, now_ms - filled_at_)) * per_second_ / 1000;
  tokens_ = std::min<double>(at_once_, tokens_ + gained);
  filled_at_ = now_ms;
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

std::optional<std::uint64_t> LogBudget::report(std::int64_t now_ms, bool at_end) {
  if (dropped_ == 0 || (!at_end && now_ms - reported_at_ < kReportEveryMs)) return std::nullopt;
  reported_at_ = now_ms;
  return std::exchange(dropped_, 0);
}

AgentOutput::AgentOutput(Log& log, std::string agent, std::uint32_t lines_per_second, std::int64_t now_ms)
    : log_(log), agent_(std::move(agent)), budget_(lines_per_second, now_ms) {}

void AgentOutput::feed(Stream stream, std::string_view bytes, std::int64_t now_ms) {
  LineSplitter& splitter = stream == Stream::kStdout ? stdout_ : stderr_;
  budget_.drop(splitter.feed(
      bytes, [&](std::string_view line, bool continues) { return write_line(stream, line, continues, now_ms); }));
  report(now_ms, false);
}

void AgentOutput::log(LogLevel level, std::string_view message, std::string_view fields_json, std::int64_t now_ms) {
  if (!budget_.take(now_ms)) {
    budget_.drop(1);
  } else if (fields_json.empty()) {
    log_.write(level, agent_, "log", message);
  } else {
    log_.write(level, agent_, "log", message, {{"fields", fields_json}});
  }
  report(now_ms, false);
}

void AgentOutput::tick(std::int64_t now_ms) {
  report(now_ms, false);
}

void AgentOutput::finish(std::int64_t now_ms) {
  for (const Stream stream : {Stream::kStdout, Stream::kStderr}) {
    LineSplitter& splitter = stream == Stream::kStdout ? stdout_ : stderr_;
    budget_.drop(splitter.finish(
        [&](std::string_view line, bool continues) { return write_line(stream, line, continues, now_ms); }));
  }
  report(now_ms, true);
}

bool AgentOutput::write_line(Stream stream, std::string_view line, bool continues, std::int64_t now_ms) {
  if (!budget_.take(now_ms)) return false;
  const std::string_view event = stream == Stream::kStdout ? "stdout" : "stderr";
  if (continues) {
    log_.write(LogLevel::kInfo, agent_, event, line, {{"continues", true}});
  } else {
    log_.write(LogLevel::kInfo, agent_, event, line);
  }
  return true;
}

void AgentOutput::report(std::int64_t now_ms, bool at_end) {
  const auto dropped = budget_.report(now_ms, at_end);
  if (!dropped) return;
  const std::string limit = std::to_string(budget_.per_second());
  log_.write(
      LogLevel::kWarn, agent_, "log.dropped",
      "dropped " + std::to_string(*dropped) + (*dropped == 1 ? " line" : " lines") + " (log limit " + limit + "/s)",
      {{"dropped", *dropped}, {"limit", budget_.per_second()}});
}

}  // namespace kai
