// parse_audit_record against hostile text: whatever a process is called, and whatever its files are called, stands in
// there. It never crashes, and what it takes out is bounded.
#include "supervisor/keeper/audit_record.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::uint16_t type :
       {kai::keeper::kAuditSyscall, kai::keeper::kAuditLandlockAccess, kai::keeper::kAuditLandlockDomain}) {
    const auto record = kai::keeper::parse_audit_record(type, text);
    if (!record) continue;
    if (record->path.size() > 4096 || record->comm.size() > 4096 || record->blockers.size() > 256) __builtin_trap();
    if (type == kai::keeper::kAuditSyscall ? record->pid <= 0 : record->domain == 0) __builtin_trap();
  }
  return 0;
}
