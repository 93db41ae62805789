// kaictl package build, sign, verify. They need no kaid: what they make and check is minisign's and sha256sum's.
#pragma once

#include <string>

#include "kaictl/commands.h"

namespace kai {

/// Writes DIRECTORY/SHA256SUMS, removes a signature that is not of it, and packs everything as `archive`; empty:
/// ID-VERSION.tar.gz in the current directory.
Outcome<Answer> package_build(const Context& context, const std::string& directory, std::string archive);

/// Signs the SHA256SUMS of a directory or .tar.gz (written where there is none) with a key file of minisign.
Outcome<Answer> package_sign(const Context& context, const std::string& path, const std::string& secret_key);

/// Signature, check sums and files of a directory or .tar.gz. `key`: a public key's line, or a .pub file.
Outcome<Answer> package_verify(const Context& context, const std::string& path, const std::string& key);

}  // namespace kai
