#include "kaictl/records.h"

#include <fcntl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>

#include "base/unix.h"
#include "kaictl/ask.h"

namespace kai {
namespace {

constexpr std::size_t kMemoryBytes = std::size_t{1} << 20;

Result<Fd> unnamed_file() {
  const char* const chosen = std::getenv("TMPDIR");
  std::string name = std::string(chosen != nullptr && *chosen == '/' ? chosen : "/tmp") + "/kaictl-XXXXXX";
  Fd file(mkostemp(name.data(), O_CLOEXEC));
  if (!file) return errno_failure("mkostemp", name);
  if (unlink(name.c_str()) < 0) return errno_failure("unlink", name);
  return file;
}

/// Readable once the operator interrupts: following ends then, and with success.
Result<Fd> interruption() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  if (sigprocmask(SIG_BLOCK, &signals, nullptr) < 0) return errno_failure("sigprocmask");
  Fd fd(signalfd(-1, &signals, SFD_CLOEXEC));
  if (!fd) return errno_failure("signalfd");
  return fd;
}

using TakeLine = std::function<Result<>(std::string_view record)>;

/// One call whose records go to `take`; one that cannot be taken ends it.
Outcome<control::Done> collect(const Context& context, const control::Request& request, CallOptions waiting,
                               const std::string& what, const TakeLine& take) {
  std::optional<Error> broken;
  waiting.on_record = [&](std::string_view record) {
    if (auto taken = take(record); !taken) broken = taken.error();
    return !broken.has_value();
  };
  auto done = call(context.socket, request, {}, waiting);
  if (broken) return local_failure("cannot write " + what, *broken);
  return done;
}

}  // namespace

Result<> Spool::add(std::string_view bytes) {
  pending_ += bytes;
  return pending_.size() > kMemoryBytes ? flush() : Result<>();
}

Result<> Spool::flush() {
  if (!file_) {
    auto file = unnamed_file();
    if (!file) return tl::unexpected(file.error());
    file_ = std::move(*file);
  }
  auto written = write_all(file_.get(), pending_);
  pending_.clear();
  return written;
}

Result<> Spool::copy_to(int fd) {
  if (file_ && lseek(file_.get(), 0, SEEK_SET) < 0) return errno_failure("lseek");
  std::array<char, 65536> buffer;
  while (file_) {
    const ssize_t count = read(file_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure("read");
    if (count == 0) break;
    if (auto written = write_all(fd, {buffer.data(), static_cast<std::size_t>(count)}); !written) return written;
  }
  return write_all(fd, pending_);
}

Outcome<control::Done> print_records(const Context& context, const control::Request& request,
                                     const RecordsOptions& options) {
  const bool json = context.format == OutputFormat::kJson;
  const bool colour = !json && isatty(STDOUT_FILENO) == 1;
  auto waiting = call_options(context, options.activity, context.timeout.value_or(kLookUpLimit));
  Fd interrupted;
  if (options.follow) {
    auto fd = interruption();
    if (!fd) return local_failure("cannot watch for signals", fd.error());
    interrupted = std::move(*fd);
    waiting.interrupt_fd = interrupted.get();
    waiting.unlimited = true;
    waiting.show_progress = false;
  }
  Spool spool;
  const auto take = [&](std::string_view record) {
    const std::string line = json ? std::string(record) + "\n" : options.render(record, colour);
    return options.follow ? write_all(STDOUT_FILENO, line) : spool.add(line);
  };
  auto done = collect(context, request, std::move(waiting), options.activity, take);
  if (!done) return done;
  if (auto printed = spool.copy_to(STDOUT_FILENO); !printed) {
    return local_failure("cannot write " + options.activity, printed.error());
  }
  return done;
}

Outcome<control::Done> spool_records(const Context& context, const control::Request& request,
                                     const std::string& activity, Spool& spool) {
  auto waiting = call_options(context, activity, context.timeout.value_or(kLookUpLimit));
  auto done = collect(context, request, std::move(waiting), activity,
                      [&](std::string_view record) { return spool.add(std::string(record) + "\n"); });
  if (!done) return done;
  if (auto flushed = spool.flush(); !flushed) return local_failure("cannot write " + activity, flushed.error());
  return done;
}

}  // namespace kai
