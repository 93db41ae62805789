#include "audit/report.h"

#include <nlohmann/json.hpp>

namespace kai::audit {

void Report::add(Finding finding) {
  if (findings.size() < kMaxFindings) {
    findings.push_back(std::move(finding));
  } else {
    ++omitted;
  }
}

std::string Report::json() const {
  nlohmann::ordered_json document = {{"valid", valid()}, {"records", records}, {"checkpoints", checkpoints}};
  auto& list = document["findings"] = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    nlohmann::ordered_json item = nlohmann::ordered_json::object();
    if (finding.seq != 0) item["seq"] = finding.seq;
    if (!finding.agent_id.empty()) item["agentId"] = finding.agent_id;
    if (!finding.event.empty()) item["event"] = finding.event;
    item["problem"] = finding.problem;
    list.push_back(std::move(item));
  }
  if (omitted > 0) document["findingsOmitted"] = omitted;
  if (!remarks.empty()) document["remarks"] = remarks;
  if (!checkpoint.empty()) document["checkpoint"] = checkpoint;
  // Bytes that are not UTF-8 come from files that somebody else made.
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string describe(const Finding& finding) {
  std::string line;
  if (finding.seq != 0) line = "record " + std::to_string(finding.seq);
  if (!finding.agent_id.empty()) {
    line += " (" + finding.agent_id + (finding.event.empty() ? "" : ", " + finding.event) + ")";
  }
  return line.empty() ? finding.problem : line + ": " + finding.problem;
}

std::string Report::text() const {
  const std::string seen = std::to_string(records) + (records == 1 ? " record, " : " records, ") +
                           std::to_string(checkpoints) + (checkpoints == 1 ? " checkpoint" : " checkpoints");
  std::string text = (valid() ? "the audit holds: " : "the audit does not hold: ") + seen + "\n";
  for (const Finding& finding : findings) text += describe(finding) + "\n";
  if (omitted > 0) text += "and " + std::to_string(omitted) + " more\n";
  for (const std::string& remark : remarks) text += remark + "\n";
  return text;
}

}  // namespace kai::audit
