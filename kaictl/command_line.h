// The commands of kaictl with their options, as CLI11 reads them and --help shows them; what they do is in the header
// of each topic.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "kaictl/audit.h"
#include "kaictl/commands.h"
#include "kaictl/events.h"
#include "kaictl/logs.h"
#include "kaictl/memory.h"
#include "kaictl/net.h"
#include "kaictl/quarantine.h"
#include "kaictl/run.h"
#include "kaictl/snapshot.h"
#include "kaictl/upgrade.h"
#include "kaictl/versions.h"

namespace kai {

/// What was said on the command line.
struct CommandLine {
  std::string socket;
  std::string output = "text";
  std::optional<double> timeout;
  std::string id, path, capability, payload;
  bool no_wait = false;
  bool purge = false;
  bool force = false;
  LogsOptions logs;
  RunOptions run;
  std::string manifest, subject, connect;
  QuarantineOptions quarantine;
  EventsOptions events;
  AuditListOptions audit_list;
  AuditExportOptions audit_export;
  AuditVerifyOptions audit_verify;
  AuditProveOptions audit_prove;
  std::string key, archive;
  MemoryListOptions memory_list;
  UpgradeOptions upgrade;
  std::string version;
  std::uint32_t keep = 0;
  SnapshotOptions snapshot;
};

class Commands {
 public:
  using Action = std::function<Outcome<Answer>(const Context&)>;

  /// Both are the caller's, and outlive this.
  Commands(CLI::App& app, CommandLine& line) : app_(app), line_(line) {}

  void define();
  /// The action of the command that was given; empty for run and doctor, which have their own way out.
  [[nodiscard]] const Action& action() const { return action_; }

 private:
  /// A command of kaictl itself, or one below `parent`.
  CLI::App* command(const std::string& name, const std::string& description, const Action& action);
  CLI::App* command_below(CLI::App* parent, const std::string& name, const std::string& description,
                          const Action& action);
  void add_id(CLI::App* command) { command->add_option("ID", line_.id, "id of the agent")->required(); }
  void add_timeout(CLI::App* command, const std::string& description);

  // command_line.cc
  void define_agents();
  void define_talk();
  void define_run();
  void define_network();
  void define_policies();
  void define_about();
  // command_line_supervision.cc
  void define_quarantine();
  void define_events();
  void define_audit();
  // command_line_package.cc
  void define_packages();
  // command_line_memory.cc
  void define_memory();
  // command_line_upgrade.cc
  void define_upgrade();
  void define_snapshot();

  CLI::App& app_;
  CommandLine& line_;
  Action action_, action_below_;
};

}  // namespace kai
