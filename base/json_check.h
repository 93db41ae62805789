// Whether text that somebody hostile calls JSON is JSON, for those who pass it on byte for byte: what is no single
// whole value could pass for fields of ours. It only looks: nothing is built, nothing is recursive.
#pragma once

#include <string_view>

namespace kai {

inline constexpr unsigned kMaxCheckedJsonDepth = 128;

/// One RFC 8259 value in UTF-8, at most kMaxCheckedJsonDepth deep, with nothing but white space around it.
bool is_json(std::string_view text);
/// The same, and it is an object.
bool is_json_object(std::string_view text);

}  // namespace kai
