#include "kaictl/terminal_filter.h"

#include <algorithm>
#include <cstdint>

#include "base/text.h"

namespace kai {
namespace {

/// How many bytes at the end may be the beginning of a UTF-8 character that is not whole.
std::size_t unfinished_tail(std::string_view bytes) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, bytes.size()); ++back) {
    const auto byte = static_cast<std::uint8_t>(bytes[bytes.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // not the first byte of its character
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

std::string escape_lines(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t end = std::min(bytes.find_first_of("\n\t"), bytes.size());
    text += escape_for_terminal(bytes.substr(0, end));
    if (end < bytes.size()) text += bytes[end];
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
  return text;
}

}  // namespace

std::string TerminalFilter::feed(std::string_view bytes) {
  waiting_ += bytes;
  const std::size_t tail = unfinished_tail(waiting_);
  std::string text = escape_lines(std::string_view(waiting_).substr(0, waiting_.size() - tail));
  waiting_.erase(0, waiting_.size() - tail);
  return text;
}

std::string TerminalFilter::finish() {
  std::string text = escape_lines(waiting_);
  waiting_.clear();
  return text;
}

}  // namespace kai
