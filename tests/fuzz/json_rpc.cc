// The runner's lines: any bytes, cut anywhere, through every reader that agent-host has for them. What the reader by
// views says has to be what a JSON library says of the same line.
#include "agent-host/json_rpc.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "agent-host/health.h"
#include "agent-host/klp_message.h"
#include "agent-host/limits.h"
#include "base/json_check.h"
#include "base/text.h"

namespace {

using Json = nlohmann::json;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

/// Where the two differ on purpose: ours has a limit of depth and takes no NUL and no byte order mark; the library also
/// refuses halves of surrogate pairs and numbers beyond double.
bool ours_is_stricter(std::string_view line) {
  return line.find('\0') != std::string_view::npos || line.starts_with('\xEF') ||
         std::count(line.begin(), line.end(), '[') + std::count(line.begin(), line.end(), '{') > kai::kMaxJsonDepth;
}
bool library_is_stricter(std::string_view line) {
  return line.find("\\u") != std::string_view::npos || line.find_first_of("eE") != std::string_view::npos ||
         line.size() > 300;
}

void check_view(std::string_view line) {
  const auto view = kai::JsonView::parse(line);
  const Json tree = Json::parse(line, nullptr, false);
  if (!view) return require(tree.is_discarded() || ours_is_stricter(line));
  if (tree.is_discarded()) return require(library_is_stricter(line));
  require(Json::parse(view->text(), nullptr, false) == tree);
  std::size_t items = 0;
  for (kai::JsonView::Items walk(*view); walk.next(); ++items) {
    const Json item = Json::parse(walk.value().text(), nullptr, false);
    require(!item.is_discarded());
    if (tree.is_array()) require(tree[items] == item);
  }
  if (!tree.is_object()) return;
  require(items >= tree.size());
  for (const auto& [name, value] : tree.items()) {
    const auto member = view->member(name);
    require(member.has_value() && Json::parse(member->text(), nullptr, false) == value);
    if (value.is_string()) require(member->string() == value.get<std::string>());
  }
}

void check_answers(const kai::RpcMessage& message) {
  const kai::Correspondent to{"id", "operator"};
  if (!message.content) return;
  if (message.kind == kai::RpcMessage::Kind::kError) {
    const kai::KlpError error = kai::error_of_hook(*message.content);
    require(error.details_json.empty() || kai::is_json_object(error.details_json));
    return;
  }
  if (const auto response = kai::response_message(*message.content, to, "agent")) {
    if (response->content_type().empty()) require(kai::is_json(response->payload()));
    require(kai::message_json(*response).has_value());
  }
  (void)kai::send_request(*message.content, "agent");
  const kai::klp::HealthReport health = kai::rebuilt_health(*message.content, {1, 2});
  require(health.status() != kai::klp::HealthReport::UNSPECIFIED);
  for (const auto& error : health.errors()) require(kai::is_utf8(error.type()) && kai::is_utf8(error.message()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece = 1 + data[0] % 64;  // the first byte says how the stream is cut
  kai::LineDecoder decoder;
  std::string again;
  for (std::size_t at = 0; at < stream.size(); at += piece) {
    decoder.feed(stream.substr(at, piece));
    while (const auto line = decoder.next()) {
      again += *line;
      again += '\n';
      check_view(*line);
      const auto message = kai::parse_rpc(*line);
      if (message) {
        check_answers(*message);
      } else if (!message.error().id.empty()) {
        const std::string told = kai::rpc_error(message.error().id, message.error().code, {"INVALID", "x", {}, false});
        require(told.find('\n') == told.size() - 1 && kai::is_json(told));
      }
    }
  }
  require(stream.substr(0, again.size()) == again);
  return 0;
}
