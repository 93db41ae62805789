// A file with these bytes, for tests.
#pragma once

#include <fstream>
#include <string>
#include <string_view>

namespace kai {

inline void put_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace kai
