#include "base/log_line.h"

#include <array>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"debug", "info", "warn", "error"};

// ANSI SGR: the level by how much it matters, what repeats in every line dim.
constexpr std::array<std::string_view, 4> kLevelColours = {"\033[2m", "\033[32m", "\033[33m", "\033[1;31m"};
constexpr std::string_view kDim = "\033[2m";
constexpr std::string_view kBold = "\033[1m";
constexpr std::string_view kPlain = "\033[0m";

// Columns that line up for reading; what is longer shifts the rest of its own line only.
constexpr std::size_t kLevelWidth = 5;
constexpr std::size_t kAgentWidth = 14;
constexpr std::size_t kEventWidth = 16;

void append_column(std::string& out, std::string_view text, std::size_t width, std::string_view colour) {
  if (!out.empty()) out += ' ';
  const std::string safe = escape_for_terminal(text);
  out += colour;
  out += safe;
  if (!colour.empty()) out += kPlain;
  if (safe.size() < width) out.append(width - safe.size(), ' ');
}

void append_value(std::string& out, std::string_view text) {
  const std::string safe = escape_for_terminal(text);
  if (!safe.empty() && safe.find_first_of(" \"=") == std::string::npos) {
    out += safe;
    return;
  }
  out += '"';
  for (const char c : safe) {
    if (c == '"') out += '\\';
    out += c;
  }
  out += '"';
}

}  // namespace

std::string_view log_level_name(LogLevel level) {
  return kNames[static_cast<std::size_t>(level)];
}

std::optional<LogLevel> parse_log_level(std::string_view name) {
  for (std::size_t at = 0; at < kNames.size(); ++at) {
    if (kNames[at] == name) return static_cast<LogLevel>(at);
  }
  return std::nullopt;
}

void append_log_line(std::string& out, const LogRecord& record, bool colour) {
  const auto in_colour = [colour](std::string_view code) { return colour ? code : std::string_view(); };
  std::string line;
  line.reserve(128 + record.message.size());
  if (!record.time.empty()) append_column(line, record.time, 0, in_colour(kDim));
  append_column(line, log_level_name(record.level), kLevelWidth,
                in_colour(kLevelColours[static_cast<std::size_t>(record.level)]));
  append_column(line, record.agent, kAgentWidth, in_colour(kBold));
  append_column(line, record.event, kEventWidth, {});
  for (const auto& [key, value] : record.fields) {
    line += ' ';
    line += in_colour(kDim);
    append_value(line, key);
    line += '=';
    line += in_colour(kPlain);
    append_value(line, value);
  }
  if (!record.message.empty()) append_column(line, record.message, 0, {});
  while (line.ends_with(' ')) line.pop_back();
  out += line;
}

}  // namespace kai
