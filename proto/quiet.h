// The protobuf library complains on standard error about bytes that are not what they should be. Who sends such bytes is
// hostile and shall not write into an operator's log: a parse that fails is our error to report.
#pragma once

#include <google/protobuf/stubs/logging.h>

namespace kai {

/// For each program's main: protobuf says nothing by itself any more.
inline void silence_protobuf() { google::protobuf::SetLogHandler(nullptr); }

}  // namespace kai
