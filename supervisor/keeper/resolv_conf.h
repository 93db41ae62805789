// The host's resolv.conf(5), for kai-egress, which has no files: its text, and whether it is another one now.
#pragma once

#include <sys/stat.h>

#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

class ResolvConf {
 public:
  static constexpr std::size_t kMaxBytes = 64 << 10;  ///< what comes after that is left out

  explicit ResolvConf(std::string path = "/etc/resolv.conf") : path_(std::move(path)) {}

  /// Whether read() would give something else than it did: another file or another time of change.
  [[nodiscard]] bool changed() const;
  /// A sealed memfd with the text; an empty one where there is no such file, or none that can be read.
  Result<Fd> read();

 private:
  std::string path_;
  struct stat seen_ {};  // zero: there was none
};

}  // namespace kai::keeper
