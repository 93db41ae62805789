// Loop devices (loop(4)) without losetup: a file as a block device, let go by the kernel when nobody uses it any more.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

struct LoopDevice {
  Fd fd;  ///< keeps the device attached until something is mounted from it
  std::string path;
};

/// The device that has the file `image` already: two on one file would each write their own idea of it.
Result<std::optional<LoopDevice>> find_loop_device(int image);

/// That one, else a new one (LO_FLAGS_AUTOCLEAR). `image` is open for reading and writing.
Result<LoopDevice> attach_loop_device(int image);

}  // namespace kai::keeper
