// YAML as far as it says what JSON can say: no anchors, aliases, tags or merge keys, so a document is never larger than
// its text. Plain scalars are read by the YAML 1.2 JSON schema: null, true, false, JSON's numbers; everything else is
// text.
#include <array>
#include <sstream>

#include <yaml-cpp/emitterstyle.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include "base/text.h"
#include "policies/manifest_text.h"

namespace kai::manifest {
namespace {

// A manifest has a few KB. The bound keeps what yaml-cpp makes of the most hostile text that was tried below 100 ms.
constexpr std::size_t kMaxYamlBytes = 64 << 10;

/// Thrown out of a handler to stop the parser; the fault has been added.
struct Stopped {};

class YamlEvents final : public YAML::EventHandler {
 public:
  YamlEvents(DocumentBuilder& builder, Faults& faults) : builder_(builder), faults_(faults) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse(mark, "anchors are not accepted"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "aliases are not accepted"); }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, "?", anchor);
    if (expects_key()) refuse(mark, "a key must be text");
    emit(nullptr);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    check(mark, tag, anchor);
    // The text was UTF-8, but \xNN and \uD800 in double quotes can make something else of it.
    if (!is_utf8(text)) refuse(mark, "an escape makes something that is not UTF-8");
    if (expects_key()) {
      if (!builder_.key(text)) throw Stopped{};
      key_next_.back() = false;
      return;
    }
    constexpr const char* kPlain = "?";  // yaml-cpp's tag of a scalar without quotes
    emit(tag == kPlain ? plain(text) : Json(text));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    start(mark, tag, anchor, Json::value_t::array);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    start(mark, tag, anchor, Json::value_t::object);
  }
  void OnMapEnd() override { end(); }

 private:
  enum class In { kSequence, kMap };

  [[noreturn]] void refuse(const YAML::Mark& mark, const char* why) {
    faults_.add("", {},
                "line " + std::to_string(mark.line + 1) + ", column " + std::to_string(mark.column + 1) + ": " + why);
    throw Stopped{};
  }

  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "anchors are not accepted");
    if (tag != "?" && tag != "!" && !tag.empty()) refuse(mark, "tags are not accepted");
  }

  [[nodiscard]] bool expects_key() const { return !in_.empty() && in_.back() == In::kMap && key_next_.back(); }

  void value_done() {
    if (!in_.empty()) key_next_.back() = true;
  }

  void emit(Json value) {
    if (!builder_.value(std::move(value))) throw Stopped{};
    value_done();
  }

  void start(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Json::value_t container) {
    check(mark, tag, anchor);
    if (expects_key()) refuse(mark, "a key must be text");
    if (!builder_.start(container)) throw Stopped{};
    in_.push_back(container == Json::value_t::object ? In::kMap : In::kSequence);
    key_next_.push_back(true);
  }

  void end() {
    builder_.end();
    in_.pop_back();
    key_next_.pop_back();
    value_done();
  }

  static Json plain(const std::string& text) {
    constexpr std::size_t kLongestNumber = 32;
    if (text == "true") return true;
    if (text == "false") return false;
    const bool may_be_number = !text.empty() && text.size() <= kLongestNumber &&
                               text.find_first_not_of("0123456789+-.eE") == std::string::npos;
    if (may_be_number) {
      Json number = Json::parse(text, nullptr, false);
      if (number.is_number()) return number;
    }
    return text;
  }

  DocumentBuilder& builder_;
  Faults& faults_;
  std::vector<In> in_;
  std::vector<bool> key_next_;
};

}  // namespace

bool parse_yaml(std::string_view text, DocumentBuilder& builder, Faults& faults) {
  if (text.size() > kMaxYamlBytes) {
    faults.add("", {},
               "has " + std::to_string(text.size()) + " bytes of YAML, at most " + std::to_string(kMaxYamlBytes) +
                   " are allowed: write it as JSON");
    return false;
  }
  std::istringstream stream{std::string(text)};
  YamlEvents events(builder, faults);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(events)) {
      faults.add("", {}, "is empty");
      return false;
    }
    if (!parser) return true;
    faults.add("", {}, "has more than one YAML document");
  } catch (const Stopped&) {
    // The fault has been added.
  } catch (const YAML::Exception& error) {
    faults.add("", {},
               "is not valid YAML at line " + std::to_string(error.mark.line + 1) + ", column " +
                   std::to_string(error.mark.column + 1) + ": " + shown(error.msg));
  }
  return false;
}

}  // namespace kai::manifest
