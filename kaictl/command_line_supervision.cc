// Quarantine, events and audit.
#include "kaictl/command_line.h"

namespace kai {

void Commands::define_quarantine() {
  using Asked = const Context&;
  CommandLine& line = line_;
  auto* quarantine = command("quarantine", "take an agent out of service and keep the evidence",
                             [&line](Asked context) { return kai::quarantine(context, line.quarantine); });
  // Required, but not where `show` comes instead.
  auto* id = quarantine->add_option("ID", line.quarantine.id, "id of the agent; one that is called show: -- show");
  auto* reason =
      quarantine->add_option("--reason", line.quarantine.reason, "why, for whoever finds the agent later; required");
  reason->type_name("TEXT");
  quarantine->add_option("--type", line.quarantine.type, "what kind of misbehaviour it is (manual)")
      ->check(CLI::IsMember({"crash", "resource_abuse", "security_violation", "manual"}))
      ->type_name("T");
  quarantine
      ->add_option("--severity", line.quarantine.severity,
                   "how bad it is: decides how often recovery may be tried (medium)")
      ->check(CLI::IsMember({"low", "medium", "high", "critical"}))
      ->type_name("S");
  add_timeout(quarantine, "how long it may take (30)");
  auto* show = command_below(quarantine, "show", "show why an agent is in quarantine, and the evidence",
                             [&line](Asked context) { return quarantine_show(context, line.id); });
  add_id(show);
  add_timeout(show, "how long to wait (10)");
  quarantine->parse_complete_callback([show, id, reason] {
    if (show->parsed()) return;
    if (id->empty()) throw CLI::RequiredError("ID");
    if (reason->empty()) throw CLI::RequiredError("--reason");
  });
  auto* recover = command("recover", "start an agent in quarantine anew, and let it out when it runs",
                          [&line](Asked context) { return kai::recover(context, line.id, line.force); });
  add_id(recover);
  recover->add_flag("--force", line.force, "also when no recovery is left; the audit records who did it");
  add_timeout(recover, "how long it may take (30)");
}

void Commands::define_events() {
  CommandLine& line = line_;
  auto* events = command("events", "show what happened to the agents",
                         [&line](const Context& context) { return kai::events(context, line.events); });
  events->add_option("ID", line.events.id, "only this agent's events");
  events->add_flag("-f,--follow", line.events.follow, "go on with new events until interrupted");
  events->add_option("-n,--lines", line.events.lines, "only the last N events")->type_name("N");
  add_timeout(events, "how long to wait for the next event without -f (10)");
}

void Commands::define_audit() {
  using Asked = const Context&;
  CommandLine& line = line_;
  CLI::App* const audit = command("audit", "the records of what happened, and whether they can be believed", Action());
  audit->require_subcommand(1);
  const auto below = [&](const std::string& name, const std::string& description, const Action& action) {
    return command_below(audit, name, description, action);
  };
  auto* list = below("list", "list the records, oldest first",
                     [&line](Asked context) { return audit_list(context, line.audit_list); });
  list->add_option("ID", line.audit_list.id, "only this agent's records");
  list->add_option("-n,--lines", line.audit_list.lines, "only the last N records")->type_name("N");
  add_timeout(list, "how long to wait for the next record (10)");
  auto* exported = below("export", "write an agent's records, or all, as a document that proves itself",
                         [&line](Asked context) { return audit_export(context, line.audit_export); });
  exported->add_option("ID", line.audit_export.id, "only this agent's records");
  exported->add_option("--file", line.audit_export.file, "instead of standard output")->type_name("FILE");
  add_timeout(exported, "how long to wait for the next record (10)");
  auto* verify = below("verify", "look for records that were changed, moved, removed or forged",
                       [&line](Asked context) { return audit_verify(context, line.audit_verify); });
  auto* of = verify->add_option("ID", line.audit_verify.id, "fail where this agent has no record; all is verified");
  auto* file = verify->add_option("--file", line.audit_verify.file, "an export, looked at without kaid");
  auto* key = verify->add_option("--key", line.audit_verify.key, "public key of the audit, for --file");
  file->type_name("FILE")->needs(key)->excludes(of);
  key->type_name("PUB")->needs(file);
  verify->add_option("--checkpoint", line.audit_verify.checkpoint, "a checkpoint that you remembered: finds a rollback")
      ->type_name("FILE");
  add_timeout(verify, "how long kaid may be silent (600)");
  auto* prove = below("prove", "prove that a record is in the log, or that the log only grew",
                      [&line](Asked context) { return audit_prove(context, line.audit_prove); });
  prove
      ->add_option("RECORD", line.audit_prove.record,
                   "an agent's ID (its newest record), or the SEQ of a record: an inclusion proof")
      ->type_name("ID|SEQ");
  prove->add_option("--checkpoint", line.audit_prove.checkpoint, "one that you remembered: a consistency proof")
      ->type_name("FILE");
  add_timeout(prove, "how long kaid may be silent (600)");
  add_timeout(below("checkpoint", "print the signed head of the log, to be remembered",
                    [](Asked context) { return audit_checkpoint(context); }),
              "how long to wait (10)");
  add_timeout(below("rotate-key", "sign with a new key from now on; the old one signs the record that says so",
                    [](Asked context) { return audit_rotate_key(context); }),
              "how long it may take (30)");
}

}  // namespace kai
