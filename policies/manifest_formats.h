// The formats of single manifest fields, as predicates. nullptr: well-formed; else what is wrong, for "must …" or "is
// …". Internal to policies/manifest*.cc.
#pragma once

#include <string_view>

namespace kai::manifest {

/// Semantic Versioning 2.0.0: 1.0.3, 2.0.0-rc.1+build.5.
const char* semver_fault(std::string_view text);
/// ISO 8601 as RFC 3339 profiles it: 2024-01-15T10:00:00Z, with fraction or offset.
const char* timestamp_fault(std::string_view text);
/// A DNS name, `*.name` for its subdomains, either with `:port`.
const char* domain_fault(std::string_view text);
/// Absolute, normalized, and not one of the sandbox's own directories.
const char* allowed_path_fault(std::string_view text);
/// Relative, normalized, inside the package.
const char* entry_fault(std::string_view text);
/// Starts with a letter, digit or `_`; then also . _ : / -
const char* capability_fault(std::string_view text);
/// npm, PyPI, service and agent names.
const char* dependency_name_fault(std::string_view text);
/// A name that the environment of the agent may have.
const char* variable_fault(std::string_view text);

}  // namespace kai::manifest
