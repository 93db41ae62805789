#include "agent-host/members.h"

#include "base/base64.h"

namespace kai {

Members::Members(const JsonView& object, std::span<const std::string_view> names, std::string_view where)
    : names_(names), where_(where), values_(names.size()) {
  for (JsonView::Items items(object); items.next();) {
    for (std::size_t at = 0; at < names.size(); ++at) {
      if (items.name_is(names[at])) values_[at] = items.value();
    }
  }
}

std::optional<JsonView> Members::given_or_null(std::string_view name) const {
  for (std::size_t at = 0; at < names_.size(); ++at) {
    if (names_[at] == name) return values_[at];
  }
  return std::nullopt;
}

std::optional<JsonView> Members::given(std::string_view name) const {
  auto value = given_or_null(name);
  return value && !value->is_null() ? value : std::nullopt;
}

void Members::fail(std::string_view name, std::string_view rule) {
  if (fault_) return;
  std::string message(where_);
  message += ": `";
  message += name;
  message += "` has to be ";
  message += rule;
  fault_ = KlpError{"INVALID", std::move(message), {}, false};
}

std::optional<std::string> Members::optional_text(std::string_view name) {
  const auto value = given(name);
  if (!value) return std::nullopt;
  auto text = value->string();
  if (!text) fail(name, "a string that UTF-8 can say");
  return text;
}

std::optional<std::string> Members::optional_bytes(std::string_view name) {
  const auto value = given(name);
  if (!value) return std::nullopt;
  const auto text = value->string();
  auto bytes = text ? decode_base64(*text) : std::nullopt;
  if (!bytes) fail(name, "bytes in base64 with padding");
  return bytes;
}

std::optional<std::uint64_t> Members::optional_integer(std::string_view name) {
  const auto value = given(name);
  if (!value) return std::nullopt;
  const auto integer = value->unsigned_integer();
  if (!integer) fail(name, "a whole number");
  return integer;
}

std::optional<std::uint32_t> Members::optional_id(std::string_view name) {
  const auto integer = optional_integer(name);
  if (!integer) return std::nullopt;
  if (*integer <= UINT32_MAX) return static_cast<std::uint32_t>(*integer);
  fail(name, "at most 4294967295");
  return std::nullopt;
}

std::string Members::text(std::string_view name) {
  if (!given(name)) fail(name, "there, a string");
  return optional_text(name).value_or("");
}

std::string Members::bytes(std::string_view name) {
  if (!given(name)) fail(name, "there, bytes in base64");
  return optional_bytes(name).value_or("");
}

std::uint32_t Members::id(std::string_view name) {
  if (!given(name)) fail(name, "there, a whole number");
  return optional_id(name).value_or(0);
}

bool Members::flag(std::string_view name) {
  const auto value = given(name);
  if (!value) return false;
  const auto said = value->boolean();
  if (!said) fail(name, "true or false");
  return said.value_or(false);
}

}  // namespace kai
