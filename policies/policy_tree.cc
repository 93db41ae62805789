#include "policies/policy_tree.h"

#include <algorithm>
#include <sstream>

#include <yaml-cpp/emitterstyle.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include "base/text.h"
#include "policies/wording.h"

namespace kai::policy_file {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// yaml-cpp counts bytes; an operator's editor counts characters.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (text[at] == '\n') starts_.push_back(at + 1);
    }
  }
  [[nodiscard]] Place place(std::size_t line, std::size_t byte) const {
    line = std::min(line, starts_.size() - 1);
    return {static_cast<int>(line) + 1, static_cast<int>(length_of(text_.substr(starts_[line]).substr(0, byte))) + 1};
  }
  [[nodiscard]] Place place(const YAML::Mark& mark) const {
    if (mark.line < 0 || mark.column < 0) return {};
    return place(static_cast<std::size_t>(mark.line), static_cast<std::size_t>(mark.column));
  }
  [[nodiscard]] Place place(std::size_t byte) const {
    const auto next = std::upper_bound(starts_.begin(), starts_.end(), byte);
    const auto line = static_cast<std::size_t>(next - starts_.begin()) - 1;
    return place(line, byte - starts_[line]);
  }
  /// Where the alias begins that was being read at `mark`: yaml-cpp has gone on already.
  [[nodiscard]] Place alias_place(const YAML::Mark& mark) const {
    const std::size_t end = std::min(static_cast<std::size_t>(std::max(mark.pos, 0)), text_.size());
    for (std::size_t at = end; at > 1; --at) {
      const bool begins =
          text_[at - 1] == '*' && std::string_view(" \t\n[{,").find(text_[at - 2]) != std::string_view::npos;
      if (begins) return place(at - 1);
    }
    return place(mark);
  }

 private:
  std::string_view text_;
  std::vector<std::size_t> starts_ = {0};
};

/// The first byte of `text` that is not UTF-8, or that no policy has: control characters other than tab and line ends.
std::optional<Fault> bad_byte(std::string_view text, const Lines& lines) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 1;
    while (length <= 4 && !is_utf8(text.substr(at, length))) ++length;
    if (length > 4) return Fault{lines.place(at), "is not UTF-8 here: save the file as UTF-8"};
    const bool line_end = text[at] == '\r' && text.substr(at + 1, 1) == "\n";
    const bool fine = text[at] == '\n' || text[at] == '\t' || line_end;
    if (!fine && has_control_character(text.substr(at, length))) {
      return Fault{lines.place(at), "has a control character here: " + shown(text.substr(at, length))};
    }
    at += length;
  }
  return std::nullopt;
}

/// Thrown out of a handler to stop the parser; TreeBuilder has the fault.
struct Stopped {};

class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const Lines& lines) : lines_(lines) { stack_.reserve(kMaxDepth); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    stop(mark, "anchors (&name) are not accepted: write the value out");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    stop(mark, "aliases (*name) are not accepted: write the value out; a pattern that begins with * needs quotes");
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (expects_key()) stop(mark, "a key must be text");
    Node& node = add(mark, false);  // yaml-cpp's mark of nothing is what comes after it
    node.kind = Node::Kind::kNothing;
    value_done();
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& text) override {
    constexpr std::string_view kPlain = "?";  // yaml-cpp's tag of a scalar without quotes
    check_tag(mark, tag);
    // The file was clean, but escapes in double quotes can make something else of it.
    if (!is_utf8(text)) stop(mark, "an escape makes something that is not UTF-8");
    if (has_control_character(text)) stop(mark, "has a control character: " + shown(text));
    if (expects_key()) return key(mark, text);
    Node& node = add(mark, true);
    node.kind = Node::Kind::kScalar;
    node.plain = tag == kPlain;
    node.text = text;
    value_done();
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value style) override {
    start(mark, tag, style, Node::Kind::kList);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value style) override {
    start(mark, tag, style, Node::Kind::kMapping);
  }
  void OnMapEnd() override { end(); }

  std::optional<Fault> fault;
  Node root;

 private:
  struct Frame {
    Node* node = nullptr;  // does not move: its parent gets no further child while it is open
    bool key_next = true;
  };

  [[noreturn]] void stop(const YAML::Mark& mark, std::string message) {
    fault = Fault{lines_.place(mark), std::move(message)};
    throw Stopped{};
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag != "?" && tag != "!" && !tag.empty()) stop(mark, "tags (!name) are not accepted");
  }

  [[nodiscard]] bool expects_key() const {
    return !stack_.empty() && stack_.back().node->kind == Node::Kind::kMapping && stack_.back().key_next;
  }

  void value_done() {
    if (!stack_.empty()) stack_.back().key_next = true;
  }

  void key(const YAML::Mark& mark, const std::string& text) {
    if (text == "<<") stop(mark, "merge keys (<<) are not accepted: write the keys out");
    Node& mapping = *stack_.back().node;
    if (mapping.children.size() == kMaxKeys) {
      stop(mark, "is one key more than the " + std::to_string(kMaxKeys) + " that a mapping may have");
    }
    const auto same = std::find_if(mapping.children.begin(), mapping.children.end(),
                                   [&](const Node& child) { return child.key == text; });
    if (same != mapping.children.end()) {
      stop(mark, shown(text) + " comes twice; the first is in line " + std::to_string(same->key_place.line));
    }
    Node& child = mapping.children.emplace_back();
    child.key = text;
    child.place = child.key_place = lines_.place(mark);
    stack_.back().key_next = false;
  }

  /// The node of the next value. `own_place`: it has one, else that of its key.
  Node& add(const YAML::Mark& mark, bool own_place) {
    if (++nodes_ > kMaxNodes) stop(mark, "is one value more than the " + std::to_string(kMaxNodes) + " of a file");
    Node* node = &root;
    if (!stack_.empty()) {
      Node& parent = *stack_.back().node;
      if (parent.kind == Node::Kind::kList) parent.children.emplace_back().place = lines_.place(mark);
      node = &parent.children.back();
    }
    if (own_place || stack_.empty()) node->place = lines_.place(mark);
    return *node;
  }

  void start(const YAML::Mark& mark, const std::string& tag, YAML::EmitterStyle::value style, Node::Kind kind) {
    check_tag(mark, tag);
    if (expects_key()) stop(mark, "a key must be text");
    if (stack_.size() == kMaxDepth) stop(mark, "is nested deeper than " + std::to_string(kMaxDepth) + " levels");
    Node& node = add(mark, style == YAML::EmitterStyle::Flow);
    node.kind = kind;
    stack_.push_back({&node});
  }

  void end() {
    stack_.pop_back();
    value_done();
  }

  const Lines& lines_;
  std::vector<Frame> stack_;
  std::size_t nodes_ = 0;
};

Fault yaml_fault(const YAML::Exception& error, const Lines& lines) {
  // To YAML *.example.com is an alias with a strange name, and * one without.
  if (error.msg.find("alias") != std::string::npos || error.msg.find("referenced anchor") != std::string::npos) {
    return {lines.alias_place(error.mark), "a pattern that begins with * needs quotes"};
  }
  return {lines.place(error.mark), "is not YAML: " + escape_for_terminal(error.msg)};
}

}  // namespace

Tree read_tree(std::string_view text) {
  if (text.size() > kMaxPolicyFileBytes) {
    return {Fault{{},
                  "has " + std::to_string(text.size()) + " bytes, at most " + std::to_string(kMaxPolicyFileBytes) +
                      " are allowed: split it over several files"},
            {}};
  }
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const Lines lines(text);
  if (auto fault = bad_byte(text, lines)) return {std::move(fault), {}};
  std::istringstream stream{std::string(text)};
  TreeBuilder builder(lines);
  try {
    YAML::Parser parser(stream);
    if (parser.HandleNextDocument(builder) && parser) {
      return {Fault{builder.root.place, "the file has more than one YAML document: make one list of it, or two files"},
              {}};
    }
  } catch (const Stopped&) {
    // The builder has the fault.
  } catch (const YAML::Exception& error) {
    return {yaml_fault(error, lines), {}};
  }
  return {std::move(builder.fault), std::move(builder.root)};
}

}  // namespace kai::policy_file
