// Agents' private data (PRIVATE mounts): as root one ext4 file system an agent, in a sparse file below STATE/disks, so
// that size and number of files are exact; where the machine cannot, a plain directory below STATE/data that is
// measured from time to time.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"
#include "proto/starter.pb.h"
#include "supervisor/keeper/directory_usage.h"

namespace kai::keeper {

/// What a start gets of its agent's private data.
struct PrivateData {
  starter::PrivateData kind = starter::NONE;
  Fd fd;        ///< of that kind, for the starter
  Fd readable;  ///< DIRECTORY: the same, to be measured
};

class Disks {
 public:
  Disks(std::string state_dir, bool root);

  /// Whether there are file systems of their own (root, loop devices, mke2fs, ext4); else `why_not` says what is
  /// missing.
  [[nodiscard]] bool exact() const { return why_not_.empty(); }
  [[nodiscard]] const std::string& why_not() const { return why_not_; }

  /// The agent's data, made when it is not there. A changed size is followed where nothing of it is in use; to make it
  /// smaller, or to change the number of inodes, is refused.
  Result<PrivateData> open(const std::string& agent_id, const spec::Disk& limit);
  /// Of an exact one: how full it is; nullopt: not opened since kaid began, or not exact. One statfs.
  struct Space {
    std::uint64_t bytes = 0, free_bytes = 0, inodes = 0, free_inodes = 0;
  };
  [[nodiscard]] std::optional<Space> space(const std::string& agent_id) const;
  /// A file system that was used, kept mounted so that the next start is quick.
  struct Mounted {
    Fd mount;
    std::string device;  ///< /dev/loopN, attached as long as the mount is there
  };
  [[nodiscard]] const std::map<std::string, Mounted, std::less<>>& kept() const { return kept_; }
  /// One that the kaid before kept.
  void keep(const std::string& agent_id, Mounted mounted) { kept_.insert_or_assign(agent_id, std::move(mounted)); }
  /// One that an agent uses, of a kaid that was killed.
  Result<> keep_attached(const std::string& agent_id);
  /// Removes the data; no instance of the agent may run. None there: fine.
  Result<> drop(const std::string& agent_id);

 private:
  Result<Fd> directory(const char* name) const;
  Result<PrivateData> open_image(const std::string& agent_id, const spec::Disk& limit);
  Result<PrivateData> open_directory(const std::string& agent_id) const;
  Result<> fit(const Fd& disks, const std::string& agent_id, const spec::Disk& limit);
  static Result<Mounted> mount_image(const Fd& disks, const std::string& name);

  std::string state_dir_;
  std::string why_not_;
  std::map<std::string, Mounted, std::less<>> kept_;
};

}  // namespace kai::keeper
