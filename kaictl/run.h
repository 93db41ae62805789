// kaictl run: an ephemeral agent in the foreground.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "kaictl/failure.h"
#include "proto/control.pb.h"

namespace kai {

struct RunOptions {
  std::string socket;
  std::string manifest;             ///< path; empty: none
  std::string policy;               ///< name; empty: the first that matches
  std::vector<std::string> env;     ///< NAME=VALUE
  std::vector<std::string> mounts;  ///< SRC[:DST][:rw]
  std::vector<std::string> argv;    ///< PROGRAM and its arguments
};

/// --mount taken apart. An empty target: the source's own absolute path.
struct MountOption {
  std::string source;
  std::string target;
  bool read_write = false;
};
Outcome<MountOption> parse_mount(std::string_view text);

/// PROGRAM as a file of the host: 127 where there is none, 126 where it cannot be run or read.
Outcome<Fd> open_program(const std::string& path);

/// Runs to the end. The program's exit status, 128+N for a signal; kai's own failures are 125, 126 or 127.
Outcome<int> run(const RunOptions& options);

}  // namespace kai
