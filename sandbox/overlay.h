// Hiding where on the host something lies. A bind mount tells in the agent's /proc/PID/mountinfo the path of its
// source; an overlay (Documentation/filesystems/overlayfs.rst) of the same directory tells descriptor numbers of a
// process that is gone.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace kai::sandbox {

/// For a starter, in its own mount namespace.
class OverlayMaker {
 public:
  /// Covers /sys there with an empty directory, which the kernel wants as a second layer.
  static Result<OverlayMaker> create();

  /// A detached, read-only mount that shows what the O_PATH descriptor `directory` stands for, without what is mounted
  /// beneath. Its files are looked up with the rights of this process.
  [[nodiscard]] Result<Fd> of_directory(const Fd& directory) const;
  /// The same of one file: `name` in the O_PATH descriptor `directory` of its directory. It is an error where the name
  /// does not stand for `file` any more.
  [[nodiscard]] Result<Fd> of_file(const Fd& directory, const std::string& name, const Fd& file) const;

 private:
  explicit OverlayMaker(Fd empty) : empty_(std::move(empty)) {}
  Fd empty_;
};

}  // namespace kai::sandbox
