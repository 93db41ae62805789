// manifest ∩ operator policy → SandboxSpec. Pure: same input, same output, no I/O.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "policies/manifest.h"
#include "policies/policy.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

/// What became of one thing that the manifest asked for: for the log, register's answer and policy check.
struct Verdict {
  enum class Kind { kGranted, kTrimmed, kRefused };

  std::string pointer;  ///< into the manifest
  std::string asked;
  std::string reason;  ///< one sentence for the operator, with what to do
  std::string rule;    ///< what decides: "10-calendar.yaml:14", "builtin", or a JSON Pointer: the manifest itself does
  Kind kind = Kind::kTrimmed;
};

struct Compiled {
  spec::SandboxSpec spec;
  std::vector<Verdict> trimmed;     ///< what was asked and not given, or given in another way
  std::vector<Verdict> granted;     ///< the rest of what was asked
  std::vector<std::string> grants;  ///< the powers of the policy's grants that this sandbox uses: logged at each start
  std::vector<Permission> permissions;  ///< granted; labels of the manifest that no rule governs are told as they are
};

/// Where the program of an instance comes from.
struct Package {
  std::string directory;       ///< name below STATE/packages/ID; empty: none (kaictl run)
  std::string entry_override;  ///< what is run instead of entry, inside the package: ".kai/main.mjs" for TypeScript
  bool ephemeral = false;      ///< kaictl run: what would be private data is memory, and goes with the instance
};

/// An error only where the start has to be refused (sandbox: false without leave).
Result<Compiled> compile(const Manifest& manifest, const Policy& policy, const Package& package);

/// The spec of `kaictl run` and of kAI's own jobs (esbuild): no package; argv is run as it is. The caller adds mounts.
spec::SandboxSpec compile_run(const std::string& id, const Policy& policy, const std::vector<std::string>& argv,
                              const std::vector<std::string>& env);

/// The grants of `policy` that `spec` makes use of, in its words: what Compiled.grants has, for compile_run's specs
/// too.
std::vector<std::string> used_grants(const spec::SandboxSpec& spec, const Policy& policy);

/// Sets NAME=VALUE, in place of the same NAME: twice would mean one thing to getenv and another to a shell.
void set_variable(spec::SandboxSpec& spec, const std::string& variable);

}  // namespace kai
