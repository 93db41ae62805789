// `kaictl audit verify --file F --key PUB [--checkpoint F]`: an export file, without a daemon.
#pragma once

#include "audit/report.h"
#include "base/result.h"

namespace kai::audit {

/// Reads from the three descriptors, which stay the caller's; `remembered` may be -1. An error: something cannot be
/// read, or `key` or `remembered` is not what it should be; everything about the export itself is in the report.
Result<Report> verify_file(int file, int key, int remembered = -1);

}  // namespace kai::audit
