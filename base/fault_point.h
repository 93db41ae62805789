// Places at which a test ends the process, to see what the next one makes of what is left (tests/fault). No program
// that is installed sets the hook.
#pragma once

namespace kai {

using FaultHook = void (*)(const char* point);
inline FaultHook fault_hook = nullptr;

inline void fault_point(const char* point) {
  if (fault_hook != nullptr) fault_hook(point);
}

}  // namespace kai
