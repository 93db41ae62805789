#include "kaictl/arguments.h"

#include <string_view>

namespace kai {
namespace {

bool takes_value(std::string_view word) {
  return word == "--socket" || word == "-o" || word == "--output";
}

}  // namespace

Arguments look_through(std::span<const char* const> words) {
  Arguments arguments;
  for (std::size_t at = 0; at < words.size(); ++at) {
    const std::string_view word = words[at];
    if (word == "--" && arguments.command == "run") {
      arguments.program.assign(words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
      break;
    }
    arguments.options.emplace_back(word);
    if (word == "-ojson" || word == "--output=json") arguments.format = OutputFormat::kJson;
    if (takes_value(word) && at + 1 < words.size()) {
      const std::string_view value = words[++at];
      if (word != "--socket" && value == "json") arguments.format = OutputFormat::kJson;
      arguments.options.emplace_back(value);
    } else if (arguments.command.empty() && !word.starts_with('-')) {
      arguments.command = word;
    }
  }
  return arguments;
}

}  // namespace kai
