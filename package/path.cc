#include "package/path.h"

#include <algorithm>

#include "base/text.h"

namespace kai::package {
namespace {

bool has_control_character(std::string_view text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x20 || byte == 0x7F) return true;
    if (byte == 0xC2 && at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) < 0xA0) return true;  // C1
  }
  return false;
}

}  // namespace

tl::unexpected<Error> refused(std::string_view member, std::string_view why) {
  constexpr std::size_t kShown = 200;
  std::string name = escape_for_terminal(member.substr(0, kShown));
  if (member.size() > kShown) name += "...";
  return failure("the package is refused: " + name + ": " + std::string(why));
}

bool is_bomb(std::uint64_t packed, std::uint64_t unpacked) {
  return unpacked > kRatioFrom && unpacked / kMaxRatio > packed;
}

Result<std::string> member_path(std::string_view name, std::size_t max_depth) {
  if (name.empty()) return refused("(no name)", "a member of the tar has no name");
  if (name.starts_with('/')) {
    return refused(name, "the name is absolute; make the tar with names relative to the package");
  }
  if (!is_utf8(name)) return refused(name, "the name is not UTF-8");
  if (has_control_character(name)) return refused(name, "the name has a control character");
  std::string path;
  std::size_t depth = 0;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return refused(name, "the name leaves the package (..)");
    if (part.size() > kMaxName) return refused(name, "a name is longer than 255 bytes");
    if (++depth > max_depth) return refused(name, "directories are nested deeper than " + std::to_string(max_depth));
    if (!path.empty()) path += '/';
    path += part;
  }
  if (path.size() > kMaxPath) return refused(name, "the path is longer than 1024 bytes");
  return path;
}

Result<> check_symlink(std::string_view path, std::string_view target) {
  if (target.empty()) return refused(path, "is a symlink to nothing");
  if (target.starts_with('/')) return refused(path, "is a symlink with an absolute target; make it relative");
  if (target.size() > kMaxPath || !is_utf8(target) || has_control_character(target)) {
    return refused(path, "is a symlink whose target is over 1024 bytes, not UTF-8, or has a control character");
  }
  auto above = std::count(path.begin(), path.end(), '/');
  bool named = false;
  for (std::size_t begin = 0; begin <= target.size();) {
    const std::size_t end = std::min(target.find('/', begin), target.size());
    const std::string_view part = target.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      named = true;
    } else if (named) {
      return refused(path, "is a symlink whose target has .. after a name; write it without");
    } else if (--above < 0) {
      return refused(path, "is a symlink that leaves the package");
    }
  }
  return {};
}

}  // namespace kai::package
