// A manifest's text, JSON or YAML, as one JSON document: strict, and bounded in size, depth and work whatever the text
// is. Internal to policies/manifest*.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policies/manifest_fields.h"

namespace kai::manifest {

/// nullopt, and a fault, where there is no document. Keys that come twice are faults too, but the document is there.
std::optional<Json> read_document(std::string_view text, Faults& faults);

/// Builds the document from a parser's events. A function that returns false has added a fault: parsing stops.
class DocumentBuilder {
 public:
  explicit DocumentBuilder(Faults& faults);

  bool value(Json value);
  bool start(Json::value_t container);
  bool key(std::string name);
  bool end();
  /// Adds a fault at the value that comes next. Always false.
  bool stop(std::string message);

  Json take() { return std::move(root_); }

 private:
  static constexpr std::size_t kMostFields = 256;  ///< in one object; ordered_json searches them in line

  struct Frame {
    Json* container = nullptr;
    Json* slot = nullptr;  ///< where the value of the last key goes
    std::string key;
    Json discarded;  ///< the slot of a key that came before
  };
  [[nodiscard]] std::string pointer() const;
  [[nodiscard]] std::vector<std::size_t> order() const;
  Json* place(Json value);

  Faults& faults_;
  Json root_;
  std::vector<Frame> stack_;  // its frames do not move: reserved for the greatest depth
};

/// The parsers: false, and a fault, where the text is no document.
bool parse_json(std::string_view text, DocumentBuilder& builder, Faults& faults);
bool parse_yaml(std::string_view text, DocumentBuilder& builder, Faults& faults);

}  // namespace kai::manifest
