#include "policies/manifest_text.h"

#include "base/text.h"

namespace kai::manifest {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// nlohmann's parser keeps its own stack on the heap: depth costs nothing before DocumentBuilder refuses it.
class JsonEvents final : public nlohmann::json_sax<Json> {
 public:
  JsonEvents(std::string_view text, DocumentBuilder& builder, Faults& faults)
      : text_(text), builder_(builder), faults_(faults) {}

  bool null() override { return builder_.value(nullptr); }
  bool boolean(bool value) override { return builder_.value(value); }
  bool number_integer(number_integer_t value) override { return builder_.value(value); }
  bool number_unsigned(number_unsigned_t value) override { return builder_.value(value); }
  bool number_float(number_float_t value, const string_t&) override { return builder_.value(value); }
  bool string(string_t& value) override { return builder_.value(std::move(value)); }
  bool binary(binary_t&) override { return builder_.stop("binary data"); }
  bool start_object(std::size_t) override { return builder_.start(Json::value_t::object); }
  bool key(string_t& name) override { return builder_.key(std::move(name)); }
  bool end_object() override { return builder_.end(); }
  bool start_array(std::size_t) override { return builder_.start(Json::value_t::array); }
  bool end_array() override { return builder_.end(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    faults_.add("", {}, "is not valid JSON at " + line_and_column(position) + ": " + reason(error.what()));
    return false;
  }

 private:
  [[nodiscard]] std::string line_and_column(std::size_t position) const {
    const std::string_view before = text_.substr(0, std::min(position > 0 ? position - 1 : 0, text_.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const std::size_t start = before.rfind('\n');
    const std::size_t column = length_of(start == std::string_view::npos ? before : before.substr(start + 1)) + 1;
    return "line " + std::to_string(line) + ", column " + std::to_string(column);
  }

  /// The library's message without its prefix and without what it read last, which can be a megabyte long.
  static std::string reason(std::string_view message) {
    if (message.find("out_of_range") != std::string_view::npos) return "a number is too large";
    if (const auto at = message.find("while parsing "); at != std::string_view::npos) message = message.substr(at);
    std::string expected;
    if (const auto at = message.rfind("; expected "); at != std::string_view::npos) expected = message.substr(at);
    constexpr std::size_t kLongestReason = 160;
    message = message.substr(0, std::min(message.find("; last read"), message.find("; expected ")));
    return escape_for_terminal(message.substr(0, kLongestReason)) +
           escape_for_terminal(std::string_view(expected).substr(0, kLongestReason));
  }

  std::string_view text_;
  DocumentBuilder& builder_;
  Faults& faults_;
};

/// The first byte of `text` that is not UTF-8.
std::size_t first_bad_byte(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t length = 1;
    while (length <= 4 && !is_utf8(text.substr(at, length))) ++length;
    if (length > 4) break;
    at += length;
  }
  return at;
}

}  // namespace

DocumentBuilder::DocumentBuilder(Faults& faults) : faults_(faults) {
  stack_.reserve(static_cast<std::size_t>(kMaxManifestDepth));
}

Json* DocumentBuilder::place(Json value) {
  if (stack_.empty()) {
    root_ = std::move(value);
    return &root_;
  }
  Frame& frame = stack_.back();
  if (frame.container->is_array()) {
    frame.container->push_back(std::move(value));
    return &frame.container->back();
  }
  *frame.slot = std::move(value);
  return frame.slot;
}

bool DocumentBuilder::value(Json value) {
  place(std::move(value));
  return true;
}

bool DocumentBuilder::start(Json::value_t container) {
  if (stack_.size() == static_cast<std::size_t>(kMaxManifestDepth)) {
    return stop("is nested deeper than " + std::to_string(kMaxManifestDepth) + " levels");
  }
  Json* placed = place(container);
  stack_.emplace_back().container = placed;
  return true;
}

bool DocumentBuilder::key(std::string name) {
  Frame& frame = stack_.back();
  frame.key = std::move(name);
  if (frame.container->size() == kMostFields) {
    return stop("is one field more than the " + std::to_string(kMostFields) + " that an object may have");
  }
  if (frame.container->contains(frame.key)) {
    faults_.add(pointer(), order(), "comes twice: " + shown(frame.key));
    frame.slot = &frame.discarded;  // the first stays
  } else {
    frame.slot = &(*frame.container)[frame.key];
  }
  return true;
}

bool DocumentBuilder::end() {
  stack_.pop_back();
  return true;
}

bool DocumentBuilder::stop(std::string message) {
  faults_.add(pointer(), order(), std::move(message));
  return false;
}

std::string DocumentBuilder::pointer() const {
  std::string text;
  for (const Frame& frame : stack_) {
    const bool array = frame.container->is_array();
    text = child_pointer(text, array ? std::to_string(frame.container->size()) : frame.key);
  }
  return text;
}

std::vector<std::size_t> DocumentBuilder::order() const {
  std::vector<std::size_t> positions;
  for (const Frame& frame : stack_) positions.push_back(frame.container->size());
  return positions;
}

bool parse_json(std::string_view text, DocumentBuilder& builder, Faults& faults) {
  JsonEvents events(text, builder, faults);
  return Json::sax_parse(text.begin(), text.end(), &events);
}

std::optional<Json> read_document(std::string_view text, Faults& faults) {
  if (text.size() > kMaxManifestBytes) {
    faults.add(
        "", {},
        "has " + std::to_string(text.size()) + " bytes, at most " + std::to_string(kMaxManifestBytes) + " are allowed");
    return std::nullopt;
  }
  if (!is_utf8(text)) {
    faults.add("", {}, "is not UTF-8: see byte " + std::to_string(first_bad_byte(text)));
    return std::nullopt;
  }
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) {
    faults.add("", {}, "is empty");
    return std::nullopt;
  }
  DocumentBuilder builder(faults);
  const bool json = text[start] == '{' || text[start] == '[';
  if (!(json ? parse_json(text, builder, faults) : parse_yaml(text, builder, faults))) return std::nullopt;
  return builder.take();
}

}  // namespace kai::manifest
