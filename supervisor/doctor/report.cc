#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "supervisor/doctor/check.h"

namespace kai::doctor {

const char* status_name(Status status) {
  static constexpr std::array<const char*, 3> kNames = {"ok", "degraded", "missing"};
  return kNames[static_cast<std::size_t>(status)];
}

Status result_of(const Checks& checks) {
  Status worst = Status::kOk;
  for (const Check& check : checks) worst = std::max(worst, check.status);
  return worst;
}

std::string as_text(const Checks& checks) {
  std::size_t name_width = 0;
  for (const Check& check : checks) name_width = std::max(name_width, check.name.size());
  constexpr std::size_t kStatusWidth = 8;  // of "degraded"
  std::string text;
  for (const Check& check : checks) {
    const std::string status = status_name(check.status);
    text += status + std::string(kStatusWidth - status.size() + 2, ' ') + check.name +
            std::string(name_width - check.name.size() + 2, ' ') + escape_for_terminal(check.detail) + "\n";
    if (!check.remedy.empty()) {
      text += std::string(kStatusWidth + name_width + 4, ' ') + "remedy: " + check.remedy + "\n";
    }
  }
  switch (result_of(checks)) {
    case Status::kOk:
      return text + "result: ok, agents can run here\n";
    case Status::kDegraded:
      return text + "result: degraded, agents can run here, with what is named above missing\n";
    case Status::kMissing:
      break;
  }
  return text + "result: missing, no agent starts here under the default policy\n";
}

std::string as_json(const Checks& checks) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Check& check : checks) {
    nlohmann::ordered_json item = {
        {"name", check.name}, {"status", status_name(check.status)}, {"detail", check.detail}};
    if (!check.remedy.empty()) item["remedy"] = check.remedy;
    list.push_back(std::move(item));
  }
  const nlohmann::ordered_json document = {{"result", status_name(result_of(checks))}, {"checks", std::move(list)}};
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace kai::doctor
