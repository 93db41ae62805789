// The one script that carries out everything in redis: what one run does is atomic, whoever else uses the server.
#pragma once

#include <string_view>

namespace kai {

/// Lua 5.1, as redis has it. Its arguments and answers: redis_script.cc.
extern const std::string_view kRedisScript;

}  // namespace kai
