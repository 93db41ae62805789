// How a package comes into the store, whoever brings it: tar → unpacked and checked → signature and policy → TypeScript
// compiled → sealed. register, upgrade and restore begin here. What touches many files runs on a worker thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "policies/manifest.h"
#include "supervisor/control/environment.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/registry.h"

namespace kai {

struct PackageSource {
  Fd tar;                        ///< as PackageStore::stage reads it
  bool local_directory = false;  ///< the operator named a directory, not an archive: what allowUnsigned local means
  std::uint32_t uid = 0;         ///< of the operator
  /// A package that is not signed is taken all the same where the archive has a version of this agent with these very
  /// bytes, which was accepted before (restore, of a file that kaid wrote). That it has is checked here.
  bool known = false;
};

/// A package that is in the store, and nowhere else yet: no row of the registry names it.
struct Intake {
  Manifest manifest;
  RegisteredVersion version;
  std::vector<std::string> warnings;  ///< what policy trims, what is not there, that it is not signed
  bool is_new = false;                ///< the archive has no version of the agent with these bytes
  PackageStore::Hold hold;            ///< kept until the registry names the package, or nobody will let it
};

inline constexpr std::string_view kUnsignedWarning =
    "the package is not signed: nothing tells whether it is what its author made; sign it with: kaictl package sign";

/// `progress` says what is done now; `done` once, never from within. An unsigned package that policy lets in is a
/// warning in `warnings`; the log's line about a refusal is written here.
void take_package(Environment& environment, PackageSource source, std::function<void(std::string)> progress,
                  std::function<void(Outcome<Intake>)> done);

/// `created`, in log and audit, of one that is kept: before the registry names it. Nothing where these bytes were
/// there.
void report_created(Environment& environment, const Intake& intake, std::uint32_t uid);

/// Of an intake that came to nothing (refused, or a dry run): the package goes from the store again, unless the
/// registry names it or somebody else holds it.
void drop_package(Environment& environment, Intake intake);

}  // namespace kai
