// What a check of the audit found, for people and as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kai::audit {

struct Finding {
  std::uint64_t seq = 0;  ///< of the record; 0: of none
  std::string agent_id;   ///< empty: not known, as the record is not there or cannot be read
  std::string event;      ///< likewise
  std::string problem;    ///< a sentence without a full stop
  friend bool operator==(const Finding&, const Finding&) = default;
};

struct Report {
  std::uint64_t records = 0;         ///< looked at
  std::uint64_t checkpoints = 0;     ///< whose signature and root were compared
  std::string checkpoint;            ///< the newest that everything was compared with: worth remembering elsewhere
  std::vector<Finding> findings;     ///< at most kMaxFindings
  std::uint64_t omitted = 0;         ///< findings beyond those
  std::vector<std::string> remarks;  ///< what could not be compared, and why; no findings

  static constexpr std::size_t kMaxFindings = 1000;

  void add(Finding finding);
  [[nodiscard]] bool valid() const { return findings.empty(); }

  /// {"valid","records","checkpoints","findings":[{"seq","agentId","event","problem"}],"findingsOmitted","remarks",
  /// "checkpoint"}; what is empty is absent, but for findings.
  [[nodiscard]] std::string json() const;
  /// Lines for a person, not yet escaped for a terminal.
  [[nodiscard]] std::string text() const;
};

/// "record 41 (calendarAgent, started): it was edited …"
std::string describe(const Finding& finding);

}  // namespace kai::audit
