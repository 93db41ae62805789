// Who vouches for a package: its SHA256SUMS, the signature of that, and what the operator's policy says of both. Blocks
// while SHA256SUMS is read; on any thread.
#pragma once

#include <cstdint>
#include <string>

#include "policies/policy.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/packages.h"

namespace kai {

/// The key of `policy` (trustedKeys) that signed the package, as the policy has it; "": the package is not signed. What
/// is refused: a signature that is none, does not hold, or is by another key, and a SHA256SUMS, signed or not, that is
/// not exactly what is in the package: the files and, if it is signed, the symlinks. To be asked before anything is
/// added to the package.
Outcome<std::string> find_signer(const StagedPackage& package, const Policy& policy);

/// Who brings a package that is not signed.
struct UnsignedSource {
  bool local_directory = false;  ///< an unpacked directory, not an archive that came from somewhere
  std::uint32_t uid = 0;         ///< of the operator
  std::uint32_t owner = 0;       ///< of kaid's state directory
};
/// Whether `policy` (allowUnsigned) lets it in.
Outcome<> may_be_unsigned(const Policy& policy, const UnsignedSource& source);

/// Whether a version signed by `to` may follow one that is signed by `from` ("": not signed): the same key, or from
/// unsigned to signed, or by the grant signerChange.
Outcome<> may_change_signer(const std::string& id, const std::string& from, const std::string& to,
                            const Policy& policy);

}  // namespace kai
