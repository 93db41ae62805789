"""What else an operator does while an upgrade is under way, and with the versions that there are."""

import pathlib
import unittest

import harness
from upgrade_case import UpgradeTest

STEPS = {  # where the upgrade of a Python agent is held: the versions' acts, and who comes to the gate
    "saveState": (["saveState=gate"], [], "saveState 1.0.0"),
    "onInit": ([], ["onInit=gate"], "onInit 1.1.0"),
    "onStart": ([], ["onStart=gate"], "onStart 1.1.0"),
}


class Held(UpgradeTest):
    """One upgrade, held at a step, and something that comes in between."""

    def hold(self, agent, step, kind, **changes):
        """An upgrade that waits at that step, and what it waits on."""
        old, new, name = STEPS[step]
        self.begin(agent, acts=old, **changes)
        for number in range(3):
            self.send(agent, "count", {"number": number})
        upgrade = self.upgrade_in_background(agent, self.version(agent, "1.1.0", acts=new, **changes), kind)
        waiting = self.gate.wait(name)
        self.assertEqual(self.daemon.status(agent)["state"], "upgrading")
        return upgrade, waiting

    def at_each(self, name, check):
        """check(agent, upgrade), for an upgrade of each kind that is held at each step."""
        for kind in ("soft", "hard"):
            for step in STEPS:
                with self.subTest(kind=kind, step=step):
                    agent = f"{name}-{kind}-{step}"
                    upgrade, waiting = self.hold(agent, step, kind)
                    check(agent, upgrade)
                    waiting.close()

    def check_failed(self, upgrade, agent):
        """It was told that it failed, with a reason, and is on record as such."""
        outcome = upgrade.wait()
        self.assertEqual((outcome.code, outcome.stdout), (1, ""), outcome)
        self.assertEqual(outcome.error["details"]["success"], False)
        self.assertEqual([each["success"] for each in self.upgrades(agent)], [False])
        self.assertNotIn("bad", self.versions(agent).get("1.1.0", {}), "it was not the new version's fault")
        return outcome.error

    def test_a_second_upgrade_is_refused(self):
        for kind in ("soft", "hard"):
            with self.subTest(kind=kind):
                agent = f"twice-{kind}"
                upgrade, waiting = self.hold(agent, "onStart", kind)
                third = self.version(agent, "1.2.0")
                for command in (["upgrade", agent, third], ["upgrade", agent, third, "--type", "hard", "--force"],
                                ["rollback", agent], ["upgrade", agent, "1.1.0"]):
                    error = self.fails(1, "UPGRADING", *command)
                    self.assertTrue(error["retryable"])
                waiting.close()
                self.assertEqual(upgrade.wait().code, 0, upgrade.outcome)
                self.check_serves(agent, "1.1.0")
                self.assertEqual(len(self.upgrades(agent)), 1)
                self.upgrade(agent, third)
                self.check_serves(agent, "1.2.0")

    def test_two_at_the_same_moment(self):
        agent = self.begin("moment", acts=["saveState=gate"])
        upgrades = [self.upgrade_in_background(agent, self.version(agent, f"1.{number}.0")) for number in (1, 2)]
        waiting = self.gate.wait("saveState 1.0.0")
        harness.wait_until(lambda: any(each.ended for each in upgrades), "one of them to be refused")
        refused = next(each for each in upgrades if each.ended)
        self.assertEqual(refused.outcome.error["code"], "UPGRADING", refused.outcome)
        waiting.close()
        done = next(each for each in upgrades if each is not refused)
        self.assertEqual(done.wait().code, 0, done.outcome)
        self.check_serves(agent, done.outcome.document["to"])

    def test_stop(self):
        def check(agent, upgrade):
            self.ok("stop", agent)
            self.check_failed(upgrade, agent)
            self.assertEqual(self.daemon.status(agent)["state"], "stopped")
            self.assertEqual(self.active(agent), "1.0.0")
            self.ok("start", agent)
            self.check_serves(agent, "1.0.0")
        self.at_each("stopped", check)

    def test_terminate(self):
        def check(agent, upgrade):
            asked = self.ask_in_background(agent, "report", {})
            self.ok("terminate", agent)
            self.check_failed(upgrade, agent)
            asked.wait()
            self.assertEqual(self.daemon.status(agent)["state"], "terminated")
            self.ok("start", agent)
            self.check_serves(agent, "1.0.0")
        self.at_each("terminated", check)

    def test_quarantine(self):
        def check(agent, upgrade):
            asked = self.ask_in_background(agent, "report", {})
            self.ok("quarantine", agent, "--reason", "odd")
            self.check_failed(upgrade, agent)
            asked.wait()
            self.assertEqual(self.active(agent), "1.0.0")
            self.assertEqual(self.daemon.status(agent)["state"], "quarantined")
            self.upgrade(agent, self.version(agent, "1.2.0"))  # what makes it fit to be recovered
            self.assertEqual(self.daemon.status(agent)["state"], "quarantined")
            self.ok("recover", agent)
            self.check_serves(agent, "1.2.0")
        self.at_each("quarantined", check)

    def test_unregister_waits_for_its_turn(self):
        upgrade, waiting = self.hold("listed", "onInit", "soft")
        self.assertEqual(self.daemon.ctl("unregister", "listed").code, 1)
        waiting.close()
        self.assertEqual(upgrade.wait().code, 0, upgrade.outcome)
        self.check_serves("listed", "1.1.0")

    def test_an_operator_who_goes_away_changes_nothing(self):
        agent = self.begin("gone", acts=["saveState=gate"])
        process = self.daemon.ctl_process("upgrade", agent, self.version(agent, "1.1.0"), "--no-backup")
        waiting = self.gate.wait("saveState 1.0.0")
        process.kill()
        process.communicate()
        waiting.close()
        self.daemon.wait_for_state(agent, "running")
        self.check_serves(agent, "1.1.0")
        self.assertEqual([each["success"] for each in self.upgrades(agent)], [True])


class Versions(UpgradeTest):
    # While a version is on probation nothing is pruned.
    MORE_POLICIES = """- name: sure
  agentId: "sure*"
  upgrade: {probation: 0s, maxSoftSwaps: 20}
"""

    def test_a_stopped_agent(self):
        agent = self.begin("resting")
        self.ok("stop", agent)
        result = self.upgrade(agent, self.version(agent, "1.1.0"))
        self.assertEqual((result["from"], result["to"], result["messagesHeld"]), ("1.0.0", "1.1.0", 0))
        self.assertEqual((self.active(agent), self.daemon.status(agent)["state"]), ("1.1.0", "stopped"))
        self.ok("start", agent)
        self.check_serves(agent, "1.1.0")
        self.ok("stop", agent)
        self.rollback(agent)
        self.ok("start", agent)
        self.check_serves(agent, "1.0.0")

    def test_the_archive_and_prune(self):
        agent = self.begin("sureArchive")
        for number in range(1, 5):
            self.upgrade(agent, self.version(agent, f"1.{number}.0"))
        listed = self.versions(agent)
        self.assertEqual(list(listed), [f"1.{number}.0" for number in range(5)])
        self.assertEqual([number for number, each in listed.items() if each["previous"]], ["1.3.0"])
        self.rollback(agent, "1.1.0")
        self.upgrade(agent, "1.4.0")
        self.assertEqual(set(self.versions(agent)), set(listed))
        nothing = self.ok("prune", agent, text_mode=True)
        self.assertIn("restart", nothing.stdout + nothing.stderr, "its process began with one of them")
        self.ok("restart", agent)
        pruned = self.ok("prune", agent).document
        kept = {number for number, each in self.versions(agent).items() if each["active"] or each["previous"]}
        self.assertEqual(set(self.versions(agent)), kept)
        self.assertEqual(kept, {"1.1.0", "1.4.0"})
        self.assertEqual(len(pruned["removed"]), 3)
        self.assertGreater(pruned["freedBytes"], 0)
        self.check_store(agent)
        self.check_serves(agent, "1.4.0")
        self.fails(4, "NOT_FOUND", "rollback", agent, "1.0.0")
        self.rollback(agent)
        self.check_serves(agent, "1.1.0")

    def test_the_same_bytes_are_stored_once(self):
        agent = self.begin("once")
        package = self.version(agent, "1.1.0")
        self.upgrade(agent, package)
        self.rollback(agent)
        self.upgrade(agent, package, "hard")
        self.assertEqual(len(self.stored(agent)), 2)
        self.check_store(agent)

    def test_what_was_refused_stays_nowhere(self):
        agent = self.begin("clean")
        before = self.stored(agent)
        self.fails(5, "INVALID", "upgrade", agent, self.version(agent, "0.1.0"))
        self.ok("upgrade", agent, self.version(agent, "1.1.0"), "--dry-run")
        self.assertEqual(self.stored(agent), before)

    def test_a_backup_is_made_before_and_can_be_restored(self):
        memory = {"type": "persistent", "backend": "sqlite", "persistent": True}
        agent = self.begin("safe", memory=memory)
        self.send(agent, "count", {"number": 1})
        result = self.upgrade(agent, self.version(agent, "1.1.0", memory=memory))
        backup = pathlib.Path(result["backup"])
        self.assertTrue(backup.is_file())
        self.assertEqual(backup.parent, self.daemon.state / "backups" / agent)
        self.assertEqual(backup.stat().st_mode & 0o777, 0o600)
        self.ok("stop", agent)
        self.assertEqual(self.ok("restore", backup).document["version"], "1.0.0")
        self.ok("start", agent)
        self.check_serves(agent, "1.0.0")
        self.assertEqual(self.report(agent)["counted"], 1)
        without = self.upgrade(agent, self.version(agent, "1.2.0", memory=memory), "soft", "--no-backup")
        self.assertNotIn("backup", without)

    def test_a_thousand_files_more_go_the_same_way(self):
        agent = self.begin("large")
        package = self.version(agent, "1.1.0")
        (package / "data").mkdir()
        for number in range(1000):
            (package / "data" / f"{number}.txt").write_text(str(number))
        self.upgrade(agent, package)
        self.check_serves(agent, "1.1.0")
        self.assertGreater(self.versions(agent)["1.1.0"]["bytes"], self.versions(agent)["1.0.0"]["bytes"])


class Sigterm(UpgradeTest):
    def test_sigterm_during_an_upgrade(self):
        for kind in ("soft", "hard"):
            for step, (old, new, name) in STEPS.items():
                with self.subTest(kind=kind, step=step):
                    agent = self.begin(f"ended-{kind}-{step}", acts=old)
                    upgrade = self.upgrade_in_background(agent, self.version(agent, "1.1.0", acts=new), kind)
                    waiting = self.gate.wait(name)
                    asked = self.ask_in_background(agent, "report", {})
                    self.daemon.stop()
                    waiting.close()
                    self.assertNotEqual(upgrade.wait().code, 0)
                    asked.wait()
                    self.daemon.start()
                    self.daemon.wait_for_state(agent, "running")
                    self.check_serves(agent, "1.0.0")
                    self.check_store(agent)
                    self.assertEqual([each["success"] for each in self.upgrades(agent)], [False])
                    self.assertEqual(self.ok("audit", "verify").document["findings"], [])
        self.daemon.traces.mounts = set()


if __name__ == "__main__":
    unittest.main()
