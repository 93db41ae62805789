// Whether one version of an agent may take the place of another, and how. Pure: no I/O.
#pragma once

#include <string>
#include <vector>

#include "policies/compile.h"
#include "policies/manifest.h"
#include "policies/policy.h"

namespace kai {

/// One version of an agent.
struct UpgradeSide {
  const Manifest* manifest = nullptr;
  std::string package;  ///< hash of its content
  std::string signer;   ///< minisign public key; empty: it is not signed
};
/// Another agent that counts on this one.
struct UpgradeDependent {
  std::string id;
  std::string range;  ///< of versions, as its manifest's dependency has it; empty: any
};

struct UpgradeFinding {
  enum class Kind { kVersion, kIdentity, kSigner, kBad, kCapability, kDependency, kWidened, kMemory };
  enum class Weight { kNote, kNeedsForce, kRefused };  ///< kNote: told, stops nothing; kRefused: --force does not help
  Kind kind = Kind::kVersion;
  Weight weight = Weight::kNote;
  std::string pointer;  ///< into the new manifest, where there is one
  std::string message;  ///< one sentence for the operator
  std::string rule;     ///< what decides: "10-calendar.yaml:14", "builtin"; may be empty
};
std::string_view to_string(UpgradeFinding::Kind kind);      ///< version identity signer bad capability …
std::string_view to_string(UpgradeFinding::Weight weight);  ///< note needs_force refused

struct UpgradePath {
  const UpgradeSide& from;
  const UpgradeSide& to;
  const Policy& policy;
  const std::vector<UpgradeDependent>& dependents;
  bool rollback = false;  ///< the way back: an older version is what is asked for
  std::string bad;        ///< why the new version was taken back before; empty: it was not
};
/// In the order of Kind. Empty: nothing to say. What the new manifest asks beyond the old one is kNote where the policy
/// gives it and kNeedsForce where it does not; another signer is kRefused but for the grant signerChange, with which it
/// is a kNote.
std::vector<UpgradeFinding> check_upgrade_path(const UpgradePath& path);

/// Why `to` cannot run in the process of `from` (another runtime, another sandbox, no runner protocol, …), one
/// sentence; empty: it can.
std::string needs_new_process(const Manifest& from, const Compiled& from_compiled, const Manifest& to,
                              const Compiled& to_compiled);

}  // namespace kai
