// Runtimes of agents, and kAI's own parts. A runtime that is missing stops only the agents that need it.
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

struct Runtime {
  const char* name;
  const char* path;
  int major, minor;  // the oldest that will do
  const char* package;
  const char* needed_by;
};

constexpr std::array<Runtime, 3> kRuntimes = {{
    {"node", "/usr/bin/node", 18, 0, "nodejs", "agents in JavaScript and TypeScript"},
    {"python3", "/usr/bin/python3", 3, 9, "python3", "agents in Python"},
    {"esbuild", "/usr/bin/esbuild", 0, 12, "esbuild", "agents in TypeScript"},
}};

/// The first two numbers of "v20.11.0", "Python 3.11.2".
std::pair<int, int> version_of(const std::string& line) {
  std::pair<int, int> version{-1, 0};
  const std::size_t at = line.find_first_of("0123456789");
  if (at == std::string::npos) return version;
  const char* const end = line.data() + line.size();
  const auto major = std::from_chars(line.data() + at, end, version.first);
  if (major.ptr != end && *major.ptr == '.') std::from_chars(major.ptr + 1, end, version.second);
  return version;
}

void check_runtime(Checks& checks, const Runtime& runtime) {
  const auto line = first_line_of(runtime.path, "--version");
  const std::string install = std::string("apt install ") + runtime.package;
  Check check{runtime.name, Status::kOk, "", ""};
  if (!line) {
    check = {runtime.name, Status::kDegraded, line.error().message() + "; needed by " + runtime.needed_by, install};
  } else if (version_of(*line) < std::pair(runtime.major, runtime.minor)) {
    check = {runtime.name, Status::kDegraded,
             std::string(runtime.path) + " is " + escape_for_terminal(*line) + ", older than " +
                 std::to_string(runtime.major) + "." + std::to_string(runtime.minor) + "; needed by " +
                 runtime.needed_by,
             install};
  } else {
    check.detail = std::string(runtime.path) + ", " + escape_for_terminal(*line);
  }
  checks.push_back(std::move(check));
}

/// The first of `candidates` that is there; "": none.
std::string first_there(const std::vector<std::string>& candidates, int mode) {
  for (const std::string& path : candidates) {
    if (access(path.c_str(), mode) == 0) return path;
  }
  return {};
}

struct Part {
  const char* name;
  Status without;
  const char* needed_by;
};

// In a build tree all stand beside each other in bin, with the SDKs in ../sdk; installed, in PREFIX/bin,
// PREFIX/lib/kai and PREFIX/share/kai/sdk.
constexpr std::array<Part, 5> kParts = {{
    {"kaid", Status::kMissing, "everything"},
    {"kai-control", Status::kMissing, "kaid"},
    {"kai-egress", Status::kDegraded, "agents that may reach somebody"},
    {"kai-agent-host", Status::kMissing, "every agent"},
    {"kai-native-runner", Status::kDegraded, "native agents"},
}};

void check_parts(Checks& checks) {
  const auto own = program_directory();
  const std::string here = own ? *own : ".";
  const std::string remedy = "install kAI whole: cmake --install, or build all targets";
  for (const Part& part : kParts) {
    std::vector<std::string> candidates;
    for (const char* const place : {"/", "/../../bin/", "/../bin/", "/../lib/kai/", "/../../lib/kai/"}) {
      candidates.push_back(here);
      candidates.back().append(place).append(part.name);
    }
    const auto found = first_there(candidates, X_OK);
    checks.push_back(found.empty() ? Check{part.name, part.without,
                                           std::string("not beside kai-doctor; needed by ") + part.needed_by, remedy}
                                   : Check{part.name, Status::kOk, found, ""});
  }
  const auto sdk = first_there(
      {here + "/../sdk/node", here + "/../share/kai/sdk/node", here + "/../../share/kai/sdk/node"}, R_OK | X_OK);
  checks.push_back(sdk.empty() ? Check{"sdk", Status::kDegraded,
                                       "the SDK directory is missing; needed by agents in "
                                       "JavaScript, TypeScript and Python",
                                       remedy}
                               : Check{"sdk", Status::kOk, sdk.substr(0, sdk.rfind('/')), ""});
}

}  // namespace

void check_programs(Checks& checks) {
  for (const Runtime& runtime : kRuntimes) check_runtime(checks, runtime);
  check_parts(checks);
}

}  // namespace kai::doctor
