// Writing JSON by hand, as this folder does it: each function appends to `out`, and what it appends is valid JSON
// without a line feed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/text.h"  // append_json_string

namespace kai {

/// A finite number, in the shortest form with up to 15 digits.
void append_json_number(std::string& out, double value);
void append_decimal(std::string& out, std::uint64_t value);
/// Valid JSON, with the line breaks between its tokens made spaces: the runner protocol is one message a line.
void append_json_on_one_line(std::string& out, std::string_view json);
/// `,"name":` or, first in its object, `"name":`. `name` is one of ours and needs no escapes.
void append_name(std::string& out, std::string_view name);

}  // namespace kai
