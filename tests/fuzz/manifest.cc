// parse_manifest against hostile text, JSON and YAML. It never crashes; what it refuses it refuses with errors, each
// fit for a terminal; what it accepts, it accepts again from its own JSON, and that means the same.
#include "policies/manifest.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/text.h"

namespace {

void check_refusal(const kai::ManifestResult& result) {
  if (result.manifest || result.errors.size() > 201) __builtin_trap();
  for (const kai::ManifestError& error : result.errors) {
    if (error.message.empty() || error.message.size() > 1000) __builtin_trap();
    if (kai::escape_for_terminal(error.message) != error.message) __builtin_trap();
    if (!error.pointer.empty() && error.pointer[0] != '/') __builtin_trap();
    if (kai::escape_for_terminal(error.pointer) != error.pointer) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const bool entry_required : {true, false}) {
    const kai::ManifestResult first = kai::parse_manifest(text, entry_required);
    if (!first.errors.empty()) {
      check_refusal(first);
      continue;
    }
    if (!first.manifest) __builtin_trap();
    const kai::ManifestResult again = kai::parse_manifest(first.manifest->json, entry_required);
    if (!again.manifest || !(*again.manifest == *first.manifest)) __builtin_trap();
  }
  return 0;
}
