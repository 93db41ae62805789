#include "supervisor/keeper/evidence.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "base/unix.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxThreads = 16;  // of one process
constexpr std::size_t kMaxCounted = 65536;
constexpr std::size_t kMaxStack = 8 << 10;
constexpr std::size_t kMaxMaps = 16 << 10;  // some 150 mappings
constexpr std::size_t kMaxSmall = 4 << 10;
constexpr int kExitTruncated = 1;
constexpr std::string_view kProcess = "process ";

constexpr std::array kStatusKeys = {"State:",
                                    "Tgid:",
                                    "NSpid:",
                                    "PPid:",
                                    "Uid:",
                                    "Threads:",
                                    "SigPnd:",
                                    "SigBlk:",
                                    "VmPeak:",
                                    "VmRSS:",
                                    "RssAnon:",
                                    "VmSwap:",
                                    "Seccomp:",
                                    "voluntary_ctxt_switches:",
                                    "nonvoluntary_ctxt_switches:"};

// v2, then what v1 has in their place.
constexpr std::array kCounters = {"cgroup.events",
                                  "memory.current",
                                  "memory.peak",
                                  "memory.max",
                                  "memory.events",
                                  "memory.stat",
                                  "cpu.stat",
                                  "cpu.max",
                                  "pids.current",
                                  "pids.peak",
                                  "pids.max",
                                  "pids.events",
                                  "io.stat",
                                  "memory.usage_in_bytes",
                                  "memory.max_usage_in_bytes",
                                  "memory.limit_in_bytes",
                                  "memory.failcnt",
                                  "memory.oom_control",
                                  "cpuacct.usage",
                                  "cpuacct.stat"};

/// As far as `limit`; what there is to say about why not, where it cannot be read.
std::string read_start(int directory, const char* name, std::size_t limit, bool& truncated) {
  const Fd file(openat(directory, name, O_RDONLY | O_CLOEXEC));
  if (!file) return std::string("(") + strerrordesc_np(errno) + ")";
  std::string text(limit, '\0');
  std::size_t length = 0;
  while (length < limit) {
    const ssize_t got = read(file.get(), text.data() + length, limit - length);
    if (got < 0) return std::string("(") + strerrordesc_np(errno) + ")";
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
  }
  text.resize(length);
  if (length == limit) {
    truncated = true;
    text.resize(text.rfind('\n') == std::string::npos ? length : text.rfind('\n'));
    text += "\n(more is left out)";
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

/// Writes to a memfd, at most kMaxEvidenceBytes.
class Writer {
 public:
  explicit Writer(int fd) : fd_(fd) {}

  /// A line of the keeper's own words.
  void line(const std::string& text) { put(text + "\n"); }
  /// `name: text`; of more lines, each below it. The text is escaped line by line.
  void field(const std::string& indent, const std::string& name, std::string_view text) {
    const bool several = text.find('\n') != std::string_view::npos;
    if (!several) return line(indent + name + ": " + escape_for_terminal(text));
    line(indent + name + ":");
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      line(indent + "  " + escape_for_terminal(text.substr(0, end)));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }
  [[nodiscard]] bool full() const { return full_; }

  bool truncated = false;

 private:
  void put(const std::string& text) {
    if (full_) return;
    if (written_ + text.size() > kMaxEvidenceBytes) {
      full_ = truncated = true;
      return;
    }
    full_ = !write_all(fd_, text);
    truncated = truncated || full_;
    written_ += text.size();
  }

  int fd_;
  std::size_t written_ = 0;
  bool full_ = false;
};

std::size_t count_entries(int process, const char* name) {
  const int fd = openat(process, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(fd < 0 ? nullptr : fdopendir(fd), closedir);
  std::size_t count = 0;
  if (!directory) return count;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] != '.' && ++count >= kMaxCounted) break;
  }
  return count;
}

std::vector<std::string> threads_of(int process) {
  std::vector<std::string> threads;
  const int fd = openat(process, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(fd < 0 ? nullptr : fdopendir(fd), closedir);
  if (!directory) return threads;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] != '.') threads.emplace_back(entry->d_name);
    if (threads.size() > kMaxThreads) break;
  }
  return threads;
}

/// The lines that say something about how it stands.
std::string selected(const std::string& status) {
  std::string lines;
  std::string_view rest = status;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (std::none_of(kStatusKeys.begin(), kStatusKeys.end(), [&](const char* key) { return line.starts_with(key); }))
      continue;
    std::string shown(line);
    std::replace(shown.begin(), shown.end(), '\t', ' ');
    lines += (lines.empty() ? "" : "\n") + shown;
  }
  return lines;
}

std::string inner_pid(std::string_view status) {
  const std::size_t at = status.find("\nNSpid:");
  if (at == std::string_view::npos) return "?";
  const std::string_view line = status.substr(at + 1, status.find('\n', at + 1) - at - 1);
  return std::string(line.substr(line.rfind('\t') + 1));
}

/// A process chooses it, with line feeds in it if it likes.
std::string name_of(int process, const std::string& file, bool& truncated) {
  return escape_for_terminal(read_start(process, file.c_str(), kMaxSmall, truncated));
}

void describe_thread(int process, const std::string& thread, Writer& out) {
  const std::string task = "task/" + thread + "/";
  const auto get = [&](const char* name, std::size_t limit) {
    return read_start(process, (task + name).c_str(), limit, out.truncated);
  };
  out.field("  ", "thread " + thread, name_of(process, task + "comm", out.truncated));
  out.field("    ", "wchan", get("wchan", kMaxSmall));
  out.field("    ", "syscall", get("syscall", kMaxSmall));
  out.field("    ", "stack", get("stack", kMaxStack));
}

void describe_process(pid_t pid, Writer& out) {
  const std::string path = "/proc/" + std::to_string(pid);
  // Everything read through it is of one process, whatever becomes of its number.
  const Fd process(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!process) return;  // it ended meanwhile
  const std::string status = read_start(process.get(), "status", kMaxSmall, out.truncated);
  out.line("");
  out.field("", std::string(kProcess) + std::to_string(pid) + " (" + inner_pid(status) + " inside)",
            name_of(process.get(), "comm", out.truncated));
  out.field("  ", "status", selected(status));
  out.line("  open descriptors: " + std::to_string(count_entries(process.get(), "fd")));
  const auto threads = threads_of(process.get());
  for (std::size_t at = 0; at < std::min(threads.size(), kMaxThreads); ++at) {
    describe_thread(process.get(), threads[at], out);
  }
  if (threads.size() > kMaxThreads) out.line("  (more threads are left out)");
  out.truncated = out.truncated || threads.size() > kMaxThreads;
  out.field("  ", "maps", read_start(process.get(), "maps", kMaxMaps, out.truncated));
}

void describe_group(const std::string& place, Writer& out) {
  const Fd group(open(place.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!group) return;
  out.line("control group " + escape_for_terminal(place));
  for (const char* counter : kCounters) {
    if (faccessat(group.get(), counter, R_OK, 0) < 0) continue;  // not of this kernel or controller
    out.field("  ", counter, read_start(group.get(), counter, kMaxSmall, out.truncated));
  }
}

[[noreturn]] void describe_and_exit(int memfd, const std::vector<pid_t>& processes,
                                    const std::vector<std::string>& places) {
  Writer out(memfd);
  out.line("taken " + iso_now());
  for (const auto& place : places) describe_group(place, out);
  const std::size_t shown = std::min(processes.size(), kMaxEvidenceProcesses);
  for (std::size_t at = 0; at < shown && !out.full(); ++at) describe_process(processes[at], out);
  if (processes.size() > shown) {
    out.line("");
    out.line("(" + std::to_string(processes.size() - shown) + " more processes are left out)");
    out.truncated = true;
  }
  _exit(out.truncated ? kExitTruncated : 0);
}

}  // namespace

Result<EvidenceLook> EvidenceLook::begin(const std::vector<pid_t>& processes, const std::vector<std::string>& places) {
  Fd memfd(memfd_create("evidence", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd) return errno_failure("memfd_create");
  const pid_t keeper = getpid();
  const pid_t child = fork();
  if (child < 0) return errno_failure("fork");
  if (child == 0) {
    constexpr int kMemfd = STDERR_FILENO + 1;
    // What the keeper closes meanwhile shall be closed: a copy here would keep an agent's channel open, and a watch of
    // the keeper's epoll on a number that is another's.
    const bool ready = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == keeper &&
                       dup2(memfd.get(), kMemfd) == kMemfd && close_range(kMemfd + 1, UINT_MAX, 0) == 0;
    if (!ready) _exit(kExitTruncated);
    describe_and_exit(kMemfd, processes, places);
  }
  auto pidfd = open_pidfd(child);
  if (!pidfd) return tl::unexpected(pidfd.error());
  return EvidenceLook(std::move(memfd), std::move(*pidfd));
}

bool EvidenceLook::finished(Clock::time_point now) {
  siginfo_t end{};
  const int waited = waitid(P_PIDFD, static_cast<id_t>(child_.get()), &end, WEXITED | WNOHANG | __WALL);
  if (waited < 0 || end.si_pid != 0) {
    whole_ = waited == 0 && end.si_code == CLD_EXITED && end.si_status == 0;
    child_.reset();
    return true;
  }
  return now >= deadline_;
}

Result<EvidenceLook::Text> EvidenceLook::take() {
  if (child_) (void)signal_pidfd(child_.get(), SIGKILL);
  // It writes no more: what the keeper counts is what control reads.
  if (fcntl(memfd_.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
    return errno_failure("fcntl", "F_ADD_SEALS");
  }
  if (lseek(memfd_.get(), 0, SEEK_SET) < 0) return errno_failure("lseek");
  const auto text = read_all(memfd_.get(), kMaxEvidenceBytes);
  if (!text) return tl::unexpected(text.error());
  if (lseek(memfd_.get(), 0, SEEK_SET) < 0) return errno_failure("lseek");
  Text result{.memfd = std::move(memfd_), .processes = 0, .truncated = !whole_, .child = std::move(child_)};
  const std::string heading = "\n" + std::string(kProcess);  // no escaped text has a line of its own
  for (std::size_t at = text->find(heading); at != std::string::npos; at = text->find(heading, at + 1)) {
    ++result.processes;
  }
  return result;
}

}  // namespace kai::keeper
