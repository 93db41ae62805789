// What control keeps of a context on redis that is to last: its generation, in a file of this machine. Whether redis
// has lost all of it is known by that, after control began anew too.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace kai {

/// nullopt: there is none. All of these wait for the disk: on a worker thread.
Result<std::optional<std::string>> load_redis_generation(const std::string& path);
/// On the disk when it returns.
Result<> save_redis_generation(const std::string& path, const std::string& generation);
/// It may be gone already.
Result<> remove_redis_generation(const std::string& path);

}  // namespace kai
