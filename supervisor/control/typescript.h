// TypeScript is compiled once, at registration, by esbuild in a sandbox of its own: the package is a stranger's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/control/environment.h"
#include "supervisor/control/failure.h"

namespace kai {

/// Whether `entry` is compiled: .ts and .mts.
bool is_typescript(std::string_view entry);
/// Where the result stands in the package.
inline constexpr std::string_view kCompiledEntry = ".kai/main.mjs";

/// Compiles `entry` of the package whose root `package` is (borrowed for the call). `done` gets the bundle, or why
/// there is none: the compiler's own messages.
void compile_typescript(Environment& environment, int package, const std::string& entry,
                        std::function<void(Outcome<std::string>)> done);

}  // namespace kai
