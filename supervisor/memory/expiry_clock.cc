#include "supervisor/memory/expiry_clock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/json_check.h"
#include "base/text.h"
#include "base/unix.h"

namespace kai {
namespace {

constexpr std::size_t kMaxFileBytes = 4096;
// Over 100,000 years: sums of such numbers never overflow.
constexpr std::int64_t kMaxTimeMs = std::numeric_limits<std::int64_t>::max() / 4;

struct Kept {
  MachineTime machine;
  std::int64_t shown_ms = 0;
};

std::int64_t since_boot_ms() {
  timespec time{};
  clock_gettime(CLOCK_BOOTTIME, &time);
  return std::int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

std::optional<std::int64_t> time_in(const nlohmann::json& document, const char* name) {
  if (!document.contains(name) || !document[name].is_number_unsigned()) return std::nullopt;
  const auto ms = document[name].get<std::uint64_t>();
  if (ms > static_cast<std::uint64_t>(kMaxTimeMs)) return std::nullopt;
  return static_cast<std::int64_t>(ms);
}

std::optional<Kept> parse(std::string_view text) {
  if (!is_json_object(text)) return std::nullopt;
  const auto document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("bootId") || !document["bootId"].is_string()) return std::nullopt;
  const auto since_boot = time_in(document, "sinceBootMs");
  const auto wall = time_in(document, "wallMs");
  const auto shown = time_in(document, "shownMs");
  if (!since_boot || !wall || !shown) return std::nullopt;
  return Kept{{document["bootId"], *since_boot, *wall}, *shown};
}

std::string format(const Kept& kept) {
  std::string text = R"({"bootId":)";
  append_json_string(text, kept.machine.boot_id);
  return text.append(",\"sinceBootMs\":" + std::to_string(kept.machine.since_boot_ms))
      .append(",\"wallMs\":" + std::to_string(std::max<std::int64_t>(0, kept.machine.wall_ms)))
      .append(",\"shownMs\":" + std::to_string(kept.shown_ms) + "}\n");
}

tl::unexpected<Error> damaged(const std::string& path) {
  return failure("read the clock of agents' memory",
                 path +
                     ": it is damaged, so nobody knows which keys have expired. Put a copy of it from a backup in its "
                     "place; or delete it: then this clock begins anew, and keys that have a ttl now live longer by "
                     "all the time that it had shown");
}

/// How long it has been since `kept`, as far as anything can tell.
std::int64_t elapsed_ms(const Kept& kept, const MachineTime& now) {
  const bool same_boot = kept.machine.boot_id == now.boot_id;
  return std::max<std::int64_t>(
      0, same_boot ? now.since_boot_ms - kept.machine.since_boot_ms : now.wall_ms - kept.machine.wall_ms);
}

}  // namespace

Result<MachineTime> machine_time() {
  auto boot_id = read_file("/proc/sys/kernel/random/boot_id", 64);
  // Of root's kaid, control has no /proc/sys; the keeper shows it the file here (supervisor/keeper/control_process.cc).
  if (!boot_id && boot_id.error().error_number == ENOENT) boot_id = read_file("/boot_id", 64);
  if (!boot_id) return tl::unexpected(boot_id.error());
  while (!boot_id->empty() && boot_id->back() == '\n') boot_id->pop_back();
  return MachineTime{std::move(*boot_id), since_boot_ms(), unix_ms()};
}

Result<ExpiryClock> ExpiryClock::load(std::string path, const MachineTime& now) {
  std::int64_t shown_ms = 1;
  const auto text = read_file(path, kMaxFileBytes);
  if (text) {
    const auto kept = parse(*text);
    if (!kept) return damaged(path);
    shown_ms = std::min(kept->shown_ms + elapsed_ms(*kept, now), kMaxTimeMs);
  } else if (text.error().error_number == EFBIG) {
    return damaged(path);
  } else if (text.error().error_number != ENOENT) {
    return tl::unexpected(text.error());
  }
  ExpiryClock clock(std::move(path), shown_ms - now.since_boot_ms);
  // At once: from here on this boot's own clock counts, also for the next who loads it, whatever the wall clock does.
  if (auto saved = clock.save(now); !saved) return tl::unexpected(saved.error());
  return clock;
}

std::int64_t ExpiryClock::now_ms() const {
  return at(since_boot_ms());
}

std::int64_t ExpiryClock::at(std::int64_t since_boot_ms) const {
  return since_boot_ms + offset_ms_;
}

Result<> ExpiryClock::save(const MachineTime& now) const {
  const std::string fresh = path_ + ".new";
  unlink(fresh.c_str());
  const Fd file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return errno_failure("open", fresh);
  if (auto written = write_all(file.get(), format({now, at(now.since_boot_ms)})); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  if (rename(fresh.c_str(), path_.c_str()) < 0) return errno_failure("rename", path_);
  const Fd directory(open(path_.substr(0, path_.rfind('/') + 1).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) < 0) return errno_failure("fsync the directory of", path_);
  return {};
}

}  // namespace kai
