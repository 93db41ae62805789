// Manifests for the tests: the specification's own example, and documents that differ from it in one place.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "policies/manifest.h"

namespace kai::testing {

using Json = nlohmann::ordered_json;

/// The example of ../shared/spec/agent-lifecycle.md, as it stands there.
inline constexpr const char* kExample = R"({
  "id": "calendarAgent",
  "name": "Personal Calendar Assistant",
  "version": "1.0.3",
  "entry": "main.ts",
  "persona": "assistant",
  "capabilities": ["scheduleEvent", "cancelEvent", "queryAvailability"],
  "memory": {
    "type": "persistent",
    "backend": "indexeddb",
    "ttl": 86400,
    "maxSize": 50,
    "persistent": true
  },
  "security": {
    "sandbox": true,
    "permissions": [
      {
        "resource": "calendar",
        "actions": ["read", "write"]
      }
    ],
    "crypto": "ed25519",
    "networkAccess": {
      "allowOutbound": true,
      "allowedDomains": ["calendar.google.com", "outlook.office.com"]
    },
    "fileAccess": {
      "allowedPaths": ["/tmp/calendar-cache"],
      "readOnly": false,
      "tempFileAccess": true
    }
  },
  "dependencies": [
    {
      "name": "date-fns",
      "version": "^2.29.0",
      "type": "module",
      "required": true
    }
  ],
  "metadata": {
    "author": "kOS Team",
    "description": "Manages calendar events and scheduling",
    "license": "MIT",
    "tags": ["productivity", "calendar", "scheduling"],
    "created": "2024-01-15T10:00:00Z",
    "updated": "2024-03-20T14:30:00Z"
  }
})";

inline Json example() {
  return Json::parse(kExample);
}

/// The example with the value at `pointer` replaced, or added.
inline std::string with(const char* pointer, Json value) {
  Json document = example();
  document[Json::json_pointer(pointer)] = std::move(value);
  return document.dump();
}

/// The example without the field at `pointer`.
inline std::string without(const std::string& pointer) {
  Json document = example();
  const std::size_t slash = pointer.rfind('/');
  document[Json::json_pointer(pointer.substr(0, slash))].erase(pointer.substr(slash + 1));
  return document.dump();
}

/// The pointers of the errors, in order.
inline std::vector<std::string> pointers(std::string_view text) {
  std::vector<std::string> found;
  for (const ManifestError& error : parse_manifest(text).errors) found.push_back(error.pointer);
  return found;
}

/// "pointer: message" of each error, a line each.
inline std::string errors(std::string_view text) {
  std::string lines;
  for (const ManifestError& error : parse_manifest(text).errors) lines += error.pointer + ": " + error.message + "\n";
  return lines;
}

/// One changed place, and whether the manifest is still good with it.
struct Case {
  const char* pointer;
  Json value;
  bool good;
};
/// The table that the validator and the JSON Schema must agree on.
std::vector<Case> common_cases();

}  // namespace kai::testing
