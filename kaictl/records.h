// Answers that are many records: the log, events, the audit.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "kaictl/commands.h"

namespace kai {

/// What has come of an answer so far. It is not printed before all of it came, because a failure leaves standard output
/// empty, and it may be larger than memory: beyond 1 MiB it is in a file.
class Spool {
 public:
  /// The file is without a name, in TMPDIR or /tmp.
  Spool() = default;
  /// The file is the caller's, and empty.
  explicit Spool(Fd file) : file_(std::move(file)) {}

  Result<> add(std::string_view bytes);
  /// Writes what is still in memory to the file.
  Result<> flush();
  /// All of it, in order.
  Result<> copy_to(int fd);
  [[nodiscard]] int file() const { return file_.get(); }

 private:
  std::string pending_;
  Fd file_;
};

/// What `tail -f` shows before it follows.
inline constexpr std::uint32_t kFollowLines = 10;

struct RecordsOptions {
  std::string activity;
  bool follow = false;  ///< each record is printed as it comes, until a signal, which ends the command well
  /// One record as a line for a person, with its LF. In JSON mode records are printed as they came.
  std::function<std::string(std::string_view record, bool colour)> render;
};

/// Asks for records and prints them. Done has what kaid said besides.
Outcome<control::Done> print_records(const Context& context, const control::Request& request,
                                     const RecordsOptions& options);

/// Asks for records and keeps each, with an LF, in `spool`.
Outcome<control::Done> spool_records(const Context& context, const control::Request& request,
                                     const std::string& activity, Spool& spool);

}  // namespace kai
