// The formats of single policy values, as predicates. nullptr: well-formed; else what is wrong, for "must …" or "is …".
// Internal to policies/policy*.cc.
#pragma once

#include <string_view>

namespace kai::policy_file {

/// [A-Za-z0-9][A-Za-z0-9._-]{0,63}, and not builtin.
const char* policy_name_fault(std::string_view text);
/// Characters of agent ids, * and ?.
const char* id_glob_fault(std::string_view text);
/// Whether an agent's id can match the (well-formed) glob at all.
bool can_match_an_id(std::string_view glob);
/// Whether every id that matches `inner` matches `outer`. False where that cannot be told.
bool glob_covers(std::string_view outer, std::string_view inner);
/// Absolute and normalized.
const char* path_fault(std::string_view text);
/// The same, and nothing that a sandbox must not get from the host: /, /proc, /sys, /dev.
const char* host_path_fault(std::string_view text);
const char* host_name_fault(std::string_view text);
const char* address_fault(std::string_view text);
/// unix:/path or tcp:host:port.
const char* service_fault(std::string_view text);
/// 56 characters of base64, as minisign prints them.
const char* public_key_fault(std::string_view text);
const char* resource_fault(std::string_view text);
const char* any_text_fault(std::string_view text);
/// unsandboxed, hostWrite, hostNetwork, hostMounts, signerChange or syscalls:NAME of a system call.
const char* grant_fault(std::string_view text);

}  // namespace kai::policy_file
