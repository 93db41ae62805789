// Words of others in messages to an operator, and the word that was probably meant.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kai {

/// `text` in quotes for a message: escaped, and cut after 64 characters.
std::string shown(std::string_view text);
/// Characters (code points) of valid UTF-8.
std::size_t length_of(std::string_view text);
/// C0, DEL and C1; `may_have_lines`: tab and line ends are none.
bool has_control_character(std::string_view text, bool may_have_lines = false);
/// The one of `words` that `word` was probably meant to be: one letter off, two neighbours swapped, or another case.
std::optional<std::string_view> suggestion(std::string_view word, std::span<const std::string_view> words);

}  // namespace kai
