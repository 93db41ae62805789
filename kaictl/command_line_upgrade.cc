// Versions of an agent: upgrade, rollback, the archive, snapshots.
#include "kaictl/command_line.h"

namespace kai {

void Commands::define_upgrade() {
  using Asked = const Context&;
  CommandLine& line = line_;
  auto* upgrade = command(
      "upgrade", "put another version of an agent in the place of the one that serves, without losing a message",
      [&line](Asked context) { return kai::upgrade(context, line.id, line.path, line.upgrade); });
  add_id(upgrade);
  upgrade
      ->add_option("PATH|VERSION", line.path,
                   "package: a directory or .tar.gz; or a version that kaid has already (see: kaictl versions)")
      ->required();
  upgrade
      ->add_option("--type", line.upgrade.type,
                   "soft: in the process that runs, or hard: in a new one beside it (soft)")
      ->check(CLI::IsMember({"soft", "hard"}))
      ->type_name("soft|hard");
  upgrade->add_flag("--force", line.upgrade.force, "in spite of what needs force; the audit has who asked");
  upgrade->add_flag("--no-backup", line.upgrade.no_backup, "make no snapshot of the agent before");
  upgrade->add_flag("--dry-run", line.upgrade.dry_run, "only say what would be done, and what stands in the way");
  add_timeout(upgrade, "how long kaid may be silent (300)");
  auto* rollback = command("rollback", "go back to the version before, or to another of the archive",
                           [&line](Asked context) { return kai::rollback(context, line.id, line.version); });
  add_id(rollback);
  rollback->add_option("VERSION", line.version, "one that kaictl versions lists (the one before the active one)");
  add_timeout(rollback, "how long kaid may be silent (300)");
  auto* versions = command("versions", "list the versions of an agent that kaid has",
                           [&line](Asked context) { return kai::versions(context, line.id); });
  add_id(versions);
  add_timeout(versions, "how long to wait (10)");
  auto* prune = command("prune", "remove versions of an agent, but for the active one and the one before it",
                        [&line](Asked context) { return kai::prune(context, line.id, line.keep); });
  add_id(prune);
  prune->add_option("--keep", line.keep, "leave so many more, the newest (0)")
      ->check(CLI::Range(0, 1'000'000))
      ->type_name("N");
  add_timeout(prune, "how long to wait (120)");
}

void Commands::define_snapshot() {
  using Asked = const Context&;
  CommandLine& line = line_;
  auto* snapshot = command("snapshot", "write all that an agent is to one file: package, memory, state, policy",
                           [&line](Asked context) { return kai::snapshot(context, line.id, line.snapshot); });
  add_id(snapshot);
  snapshot->add_option("--file", line.snapshot.file, "its name (ID-VERSION-TIME.kai)")->type_name("FILE");
  snapshot->add_flag("--overwrite", line.snapshot.overwrite,
                     "replace FILE where it is there, once the snapshot is whole");
  add_timeout(snapshot, "how long kaid may be silent (600)");
  auto* restore = command("restore", "make an agent what a snapshot or backup of it has",
                          [&line](Asked context) { return kai::restore(context, line.path); });
  restore->add_option("FILE", line.path, "made by snapshot, or by an upgrade as its backup")->required();
  add_timeout(restore, "how long kaid may be silent (600)");
}

}  // namespace kai
