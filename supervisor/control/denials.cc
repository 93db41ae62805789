#include "supervisor/control/denials.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.h"
#include "supervisor/control/connection_log.h"

namespace kai {
namespace {

constexpr std::uint32_t kLinesPerSecond = 10;
constexpr std::uint32_t kLinesAtOnce = 100;  // as many as quarantine by default: what led to one is on record whole
constexpr std::chrono::milliseconds kReportInterval{1'000};

const char* kind_name(Denial::Kind kind) {
  switch (kind) {
    case Denial::Kind::kSyscall:
      return "syscall";
    case Denial::Kind::kFile:
      return "file";
    case Denial::Kind::kLimit:
      return "limit";
    case Denial::Kind::kMessage:
      return "message";
    case Denial::Kind::kNetwork:
      return "network";
  }
  return "?";
}

struct LimitWords {
  const char* limit;  // as the keeper names it
  const char* key;    // of the policy
  std::uint64_t of;   // bytes, where the policy says MB
  const char* unit;
  const char* reason;
};
constexpr std::uint64_t kMegabyte = 1 << 20;
constexpr std::array kLimits = {
    LimitWords{"memory", "memoryLimit", kMegabyte, "MB of memory",
               "its processes needed more, and the kernel ended what did; raise memoryLimit if it is meant to"},
    LimitWords{"pids", "limits.processes", 1, "processes",
               "it could not start another; raise limits.processes if it is meant to"},
    LimitWords{"disk", "limits.disk", kMegabyte, "MB of private data", "what it writes there fails with ENOSPC"},
    LimitWords{"inodes", "limits.inodes", 1, "files of private data", "making another fails with ENOSPC"},
    LimitWords{"nofile", "limits.openFiles", 1, "open files in one process", "opening another fails with EMFILE"},
};

}  // namespace

Denial limit_denial(const keeper::LimitHit& hit, const Policy& policy) {
  Denial denial;
  denial.kind = Denial::Kind::kLimit;
  denial.what = hit.limit();
  const auto words =
      std::find_if(kLimits.begin(), kLimits.end(), [&](const auto& each) { return each.limit == hit.limit(); });
  if (words != kLimits.end()) {
    denial.what = words->key;
    denial.detail = "its limit of " + std::to_string(hit.value() / words->of) + " " + words->unit;
    if (hit.count() > 1) denial.detail += " (" + std::to_string(hit.count()) + " times so far)";
    denial.reason = words->reason;
    denial.rule = policy.rule(words->key);
  }
  denial.process = hit.process();
  denial.pid = hit.pid();
  return denial;
}

Denial network_denial(const egress::Refused& refused) {
  Denial denial;
  denial.kind = Denial::Kind::kNetwork;
  denial.what = endpoint_text(refused.name(), refused.address(), refused.port());
  switch (refused.kind()) {
    case egress::Refused::LOOKUP:
      denial.detail = "DNS lookup of " + denial.what;
      denial.error = "REFUSED";
      break;
    case egress::Refused::DATAGRAM:
      denial.detail = "UDP to " + denial.what;
      denial.error = "ECONNREFUSED";
      break;
    case egress::Refused::PORT:
      denial.detail = "connection to " + denial.what;
      denial.error = "ECONNREFUSED";
      break;
    default:
      denial.detail = "connection to " + denial.what;
      denial.error = "ECONNRESET";
  }
  denial.name = refused.name();
  denial.address = refused.address();
  denial.port = refused.port();
  denial.reason = refused.reason();
  denial.rule = refused.rule();
  denial.more = refused.more();
  return denial;
}

DenialLog::DenialLog(EventLoop& loop, Log& log, AuditLog& audit, std::string agent, Threshold threshold)
    : log_(log),
      audit_(audit),
      agent_(std::move(agent)),
      threshold_(std::move(threshold)),
      budget_(kLinesPerSecond, monotonic_ms(), kLinesAtOnce),
      report_timer_(loop) {}

void DenialLog::use(PolicyRef policy) {
  policy_ = std::move(policy);
  window_count_ = window_limits_ = 0;
  window_began_ = monotonic_ms();
}

void DenialLog::write(const Denial& denial) {
  note(1 + denial.more, denial.kind);
  if (budget_.take(monotonic_ms())) return tell(denial);
  drop(1 + denial.more);
}

void DenialLog::write_reserved(const Denial& denial) {
  note(1, denial.kind);
  tell(denial);
}

void DenialLog::count(std::uint64_t denials) {
  note(denials, Denial::Kind::kSyscall);
  drop(denials);
}

void DenialLog::drop(std::uint64_t denials) {
  budget_.drop(denials);
  if (!report_timer_.active()) report_timer_.start(kReportInterval, [this] { report(false); });
}

void DenialLog::note(std::uint64_t denials, Denial::Kind kind) {
  total_ += denials;
  if (policy_ == nullptr || policy_->quarantine.denials == 0) return;
  const std::int64_t now = monotonic_ms();
  if (now - window_began_ >= policy_->quarantine.denial_window.count()) {
    window_began_ = now;
    window_count_ = 0;
    window_limits_ = 0;
  }
  if (kind == Denial::Kind::kLimit) window_limits_ += denials;
  // Once a window: whoever is called writes to the log too.
  const bool met_before = window_count_ >= policy_->quarantine.denials;
  window_count_ += denials;
  if (!met_before && window_count_ >= policy_->quarantine.denials && threshold_) {
    threshold_(window_limits_ * 2 > window_count_);
  }
}

void DenialLog::tell(const Denial& denial) {
  const bool network = denial.kind == Denial::Kind::kNetwork;  // has fields of its own for that
  std::vector<LogField> fields = {{"kind", kind_name(denial.kind)}};
  if (!network) fields.emplace_back("what", denial.what);
  if (!network && !denial.detail.empty()) fields.emplace_back("detail", denial.detail);
  if (!denial.name.empty()) fields.emplace_back("name", denial.name);
  if (!denial.address.empty()) fields.emplace_back("address", denial.address);
  if (denial.port != 0) fields.emplace_back("port", denial.port);
  if (network) fields.emplace_back("verdict", "refused");
  if (!denial.error.empty()) fields.emplace_back("error", denial.error);
  if (!denial.process.empty()) fields.emplace_back("process", denial.process);
  if (denial.pid != 0) fields.emplace_back("pid", denial.pid);
  if (denial.more != 0) fields.emplace_back("more", denial.more);
  if (!denial.rule.empty()) fields.emplace_back("rule", denial.rule);
  const std::string& subject = denial.detail.empty() ? denial.what : denial.detail;
  const char* verb = denial.kind == Denial::Kind::kLimit ? " reached: " : " refused: ";
  const std::string more = denial.more == 0 ? "" : "; and " + std::to_string(denial.more) + " more like it";
  const std::string message = subject + verb + denial.reason + more;
  log_.write(LogLevel::kWarn, agent_, "kai.denied", message, fields);
  const std::string metadata = fields_json(message, fields);
  audit_.append(agent_, "kai.denied", metadata);
  recent_.push_back(metadata);
  if (recent_.size() > kRecent) recent_.pop_front();
}

void DenialLog::report(bool at_end) {
  const auto dropped = budget_.report(monotonic_ms(), at_end);
  if (dropped) {
    const std::string message = std::to_string(*dropped) + " more refusals are not shown (at most " +
                                std::to_string(kLinesPerSecond) + " lines a second)";
    const std::array fields = {LogField("dropped", *dropped)};
    log_.write(LogLevel::kWarn, agent_, "kai.denied", message, fields);
    audit_.append(agent_, "kai.denied", fields_json(message, fields));
  }
  if (!at_end && budget_.owes_report()) report_timer_.start(kReportInterval, [this] { report(false); });
}

void DenialLog::finish() {
  report_timer_.stop();
  report(true);
}

}  // namespace kai
