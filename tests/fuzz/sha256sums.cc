// SHA256SUMS of a package that nobody has signed yet: never a crash, only paths below the root, and what was read is
// written so that it reads the same.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "package/sums.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kai::package;
  const auto sums = parse_sums(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!sums) {
    if (sums.error().what.empty()) __builtin_trap();
    return 0;
  }
  const auto check_path = [](std::string_view path) {
    if (path.empty() || path.starts_with('/') || path == ".." || path.starts_with("../") || path.ends_with("/..") ||
        path.find("/../") != std::string::npos || path == kSumsFile || path == kSignatureFile) {
      __builtin_trap();
    }
  };
  for (const auto& [path, sum] : sums->files) check_path(path);
  for (const auto& [path, target] : sums->symlinks) {
    check_path(path);
    if (target.empty()) __builtin_trap();
  }
  const auto again = parse_sums(format_sums(*sums));
  if (!again || *again != *sums || !check_sums(*sums, *again)) __builtin_trap();
  return 0;
}
