// The agent's private data, as the keeper handed it over: where PRIVATE mounts find their directories.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/starter.pb.h"
#include "sandbox/idmap.h"

namespace kai::sandbox {

/// Where on this host it lies, as /proc/self/fd says it.

/// Where on this host it lies, as /proc/self/fd says it.
Result<std::string> path_of(const Fd& fd);
/// The file that `given` stands for, opened again by its path in this mount namespace: a descriptor of another one
/// cannot be copied by open_tree(2). Fails where the path leads to another file by now.
Result<Fd> reopen_here(const Fd& given, int flags);

class PrivateData {
 public:
  /// None: every directory() is an error.
  PrivateData() = default;

  /// For the starter, in its own mount namespace. MOUNT: attaches the detached mount over /sys, which only this
  /// namespace sees and the agent's root leaves behind. DIRECTORY: the same directory, by its path here.
  static Result<PrivateData> open(starter::PrivateData kind, const Fd& given, Owner agent);

  /// The directory `name`, made for the agent alone (0700) when it is missing; no link on the way is followed.
  [[nodiscard]] Result<Fd> directory(const std::string& name) const;

 private:
  Fd root_;
  Owner agent_;
  bool give_away_ = false;  // as root the agent's ids are not the caller's
};

}  // namespace kai::sandbox
