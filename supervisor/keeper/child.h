// Children of the keeper, waited for in bounded time: one that the kernel holds (a hung disk, a file system of somebody
// who does not answer) ends no sooner for SIGKILL, and the keeper serves every other agent meanwhile.
#pragma once

#include <chrono>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

/// Never blocks. True: the child is gone, or was never one.
bool reap(const Fd& pidfd);

/// The same, after a wait for its end of at most `patience`.
bool reap_within(const Fd& pidfd, std::chrono::milliseconds patience);

/// Runs a program in `directory` until its end; its last words are the error. After `patience` it is killed and not
/// waited for: what is left of it then is reaped by who comes after the keeper. `environment` is an environ(7); null:
/// an empty one.
Result<> run_tool(const char* program, std::vector<const char*> arguments, int directory,
                  std::chrono::milliseconds patience, char* const* environment = nullptr);

}  // namespace kai::keeper
