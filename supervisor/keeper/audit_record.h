// Records of the kernel's audit, as text. Paths and names in them were chosen by agents.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kai::keeper {

// <linux/audit.h> of Debian 12 is older than the last two.
inline constexpr std::uint16_t kAuditSyscall = 1300;
inline constexpr std::uint16_t kAuditLandlockAccess = 1423;
inline constexpr std::uint16_t kAuditLandlockDomain = 1424;

struct AuditRecord {
  std::uint16_t type = 0;
  std::uint64_t serial = 0;  ///< records of one event share it
  std::uint64_t domain = 0;  ///< Landlock's number
  bool deallocated = false;  ///< DOMAIN: it has ended
  std::string blockers;      ///< ACCESS: fs.write_file, net.connect_tcp, … with commas between
  std::string path;          ///< ACCESS: of the file, or address and port; raw bytes
  std::string comm;          ///< SYSCALL: raw bytes
  pid_t pid = 0;             ///< SYSCALL: who did it; DOMAIN: who made it
};

/// nullopt: another type, or not in the kernel's form (`audit(1729738800.268:30): key=value …`).
std::optional<AuditRecord> parse_audit_record(std::uint16_t type, std::string_view text);

}  // namespace kai::keeper
