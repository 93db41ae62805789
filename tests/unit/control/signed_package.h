// Packages with SHA256SUMS and its signature, by keys that `minisign -G -W` made for these tests alone.
#pragma once

#include <sodium.h>

#include <cstdlib>
#include <map>
#include <string>

#include "package/minisign.h"
#include "package/sums.h"
#include "tests/unit/control/tar_builder.h"

namespace kai {

struct TestSigner {
  const char* public_key;
  const char* secret_key;  ///< second line of its file
};
inline constexpr TestSigner kSigner = {
    "RWQizFSiia2FFimDHTG13tvVaiCKknHDRPbj27vAMLW1NvdyWzsSavBB",
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIsxUoomthRZwU5hZGrXNc7paLd4IH6yYMHxaVK/"
    "eLuSf"
    "czYyyWBf+imDHTG13tvVaiCKknHDRPbj27vAMLW1NvdyWzsSavBBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
inline constexpr TestSigner kOtherSigner = {
    "RWRIoT4jzUgd7tOI8WQp0MwedLz3rFyAGQYCNARFV6zRou1d4noTlamE",
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAASKE+"
    "I81IHe4oXMa1l3uxZa3uf5SXLmKYcxIGav79tWb1"
    "zemEKRQIYNOI8WQp0MwedLz3rFyAGQYCNARFV6zRou1d4noTlamEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};

/// Files of a package by their paths; those that end in .sh are executable.
using PackageFiles = std::map<std::string, std::string>;

inline std::string sums_of(const PackageFiles& files) {
  package::Sums sums;
  for (const auto& [path, content] : files) {
    package::Sha256 hash;
    crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(content.data()), content.size());
    sums.files.emplace(path, hash);
  }
  return package::format_sums(sums);
}

inline std::string signature_of(const std::string& sums, const TestSigner& signer) {
  const auto key =
      package::parse_secret_key(std::string("untrusted comment: x\n") + signer.secret_key + "\n", std::string());
  if (!key) std::abort();
  return key->sign(sums, "test");
}

/// With SHA256SUMS of all of them and, if there is a signer, its signature.
inline PackageFiles listed(PackageFiles files, const TestSigner* signer) {
  const std::string sums = sums_of(files);
  files["SHA256SUMS"] = sums;
  if (signer != nullptr) files["SHA256SUMS.minisig"] = signature_of(sums, *signer);
  return files;
}

inline std::string tar_of(const PackageFiles& files) {
  TarBuilder tar;
  for (const auto& [path, content] : files) tar.file(path, content, path.ends_with(".sh") ? 0755 : 0644);
  return tar.bytes();
}

}  // namespace kai
