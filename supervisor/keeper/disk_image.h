// ext4 file systems in sparse files, made and grown by the system's own programs, mounted without a place in any
// namespace.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::keeper {

/// Bytes of the file whose file system has `limit.size_bytes` for files and directories: df shows just that as its
/// size. Two percent of it, at most 16 MiB, ext4 keeps for itself.
std::uint64_t image_bytes(const spec::Disk& limit);

/// Makes `name` in the directory, whole or not at all. Takes some milliseconds.
Result<> make_image(int directory, const std::string& name, const spec::Disk& limit);

/// For how many files it was made (limits.inodes).
Result<std::uint64_t> image_inodes(int image);

/// Makes it larger; nothing of it may be mounted. The inodes that come with it are spare ones.
Result<> grow_image(int directory, const std::string& name, std::uint64_t bytes);

/// A new mount of the file system on a block device, attached nowhere. The same device again gives the same file
/// system: what one mount writes, the other sees.
Result<Fd> mount_ext4(const std::string& device);

/// Takes what the file system has of inodes beyond `inodes`, as they come in whole blocks in each group: empty files at
/// its top, where no agent's directory is. At most some thousands; what is there already is counted.
Result<> take_spare_inodes(int mount, std::uint64_t inodes);

}  // namespace kai::keeper
