"""New versions that are bad: whatever they do, and at whatever step, the version before goes on with all that it knew, the
client that keeps sending notices nothing, and the record says what happened."""

import sys
import unittest

import harness
from upgrade_case import UpgradeTest

NEW_HOOKS = ["onInit", "restoreState", "onUpgrade", "onStart"]


class BeforeCommit(UpgradeTest):
    """What fails before it serves."""

    def check_fails(self, agent, language, kind, acts, code, says, same_process=True):
        """The upgrade of a running agent at 1.0.0, under load, to a version that acts so."""
        process = self.process(agent)
        with self.client(agent) as client:
            client.wait_for_answers(3)
            new = self.version(agent, "1.1.0", language, acts)
            exit_code = 7 if code == "TIMEOUT" else 1
            error = self.fails_to_upgrade(agent, new, kind, exit_code=exit_code, code=code)
            self.assertRegex(error["message"], says)
            client.wait_for_answers(client.THREADS + 1)
        self.check_counts(agent, client)
        self.check_serves(agent, "1.0.0")
        if same_process:
            self.assertEqual(self.process(agent), process, "the old one never stopped")
            self.assertEqual(self.report(agent)["hooks"], ["onInit", "onStart", "saveState"])
        record = self.upgrades(agent)[-1]
        self.assertEqual((record["success"], record["from"], record["to"], record["code"]), (False, "1.0.0", "1.1.0", code))
        self.assertRegex(record["error"], says)
        self.assertEqual(record["steps"], error["details"]["steps"])
        self.check_store(agent)
        print(f"{language}, {kind}, {acts}: {client}", file=sys.stderr)
        return error

    def test_each_hook_that_throws(self):
        for kind in ("soft", "hard"):
            for hook in NEW_HOOKS:
                with self.subTest(kind=kind, hook=hook):
                    agent = self.begin(f"throws-{kind}-{hook}")
                    self.check_fails(agent, "python", kind, [f"{hook}=throw"], "AGENT_ERROR", f"{hook} of 1.1.0 is bad")

    def test_on_upgrade_throws_in_each_language(self):
        for language in ("node", "typescript", "cpp"):
            with self.subTest(language=language):
                agent = self.begin(f"throws-{language}", language)
                self.check_fails(agent, language, "soft", ["onUpgrade=throw"], "AGENT_ERROR", "onUpgrade of 1.1.0 is bad")

    def test_it_says_that_it_is_critical(self):
        for language, kind in (("python", "soft"), ("python", "hard"), ("node", "soft"), ("cpp", "soft")):
            with self.subTest(language=language, kind=kind):
                agent = self.begin(f"critical-{language}-{kind}", language)
                self.check_fails(agent, language, kind, ["health=critical"], "AGENT_ERROR", "critical")

    def test_save_state_of_the_old_one_throws(self):
        for kind in ("soft", "hard"):
            with self.subTest(kind=kind):
                agent = self.begin(f"unsaved-{kind}", acts=["saveState=throw"])
                self.check_fails(agent, "python", kind, [], "AGENT_ERROR", "saveState of 1.0.0 is bad")

    def test_code_that_cannot_be_loaded(self):
        programs = {"python": "import nothing_of_the_kind\n", "node": 'import "./nothing-of-the-kind.mjs";\n'}
        for language, program in programs.items():
            for kind in ("soft", "hard"):
                with self.subTest(language=language, kind=kind):
                    agent = self.begin(f"unloadable-{language}-{kind}", language)
                    process = self.process(agent)
                    new = self.version(agent, "1.1.0", language, program=program)
                    self.assertRegex(self.fails_to_upgrade(agent, new, kind)["message"], "nothing.of.the.kind")
                    self.check_serves(agent, "1.0.0")
                    self.assertEqual(self.process(agent), process)
                    self.assertEqual(self.report(agent)["hooks"], ["onInit", "onStart"], "it was not even asked for its state")

    def test_on_upgrade_hangs_and_the_event_loop_goes_on(self):
        for language, kind in (("python", "soft"), ("node", "soft"), ("python", "hard")):
            with self.subTest(language=language, kind=kind):
                agent = self.begin(f"hasty-hangs-{language}-{kind}", language)
                self.check_fails(agent, language, kind, ["onUpgrade=hang"], "TIMEOUT", "onUpgrade|UPGRADE|upgrade")

    def test_on_upgrade_hangs_and_the_process_with_it(self):
        for language, kind in (("python", "soft"), ("node", "soft"), ("cpp", "soft"), ("cpp", "hard")):
            with self.subTest(language=language, kind=kind):
                agent = self.begin(f"hasty-blocks-{language}-{kind}", language)
                self.check_fails(agent, language, kind, ["onUpgrade=block"], "TIMEOUT", "onUpgrade|UPGRADE|upgrade",
                                 same_process=kind == "hard")

    def test_on_upgrade_ends_the_process(self):
        for language, kind in (("python", "soft"), ("cpp", "soft"), ("python", "hard")):
            with self.subTest(language=language, kind=kind):
                agent = self.begin(f"exits-{language}-{kind}", language)
                code = "AGENT_CRASHED" if kind == "soft" else "AGENT_ERROR"
                self.check_fails(agent, language, kind, ["onUpgrade=exit"], code, "ended", same_process=kind == "hard")

    def test_a_bad_version_is_not_tried_again_until_its_bytes_change(self):
        agent = self.begin("marked")
        bad = self.version(agent, "1.1.0", acts=["onUpgrade=throw"])
        self.fails_to_upgrade(agent, bad)
        self.assertNotIn("bad", self.versions(agent)["1.1.0"])  # in a process that it shared: nothing is proven
        self.fails_to_upgrade(agent, bad, "hard")
        self.assertRegex(self.versions(agent)["1.1.0"]["bad"], "onUpgrade of 1.1.0 is bad")
        for what in (bad, "1.1.0"):
            error = self.fails_to_upgrade(agent, what, exit_code=5, code="DENIED")
            self.assertIn("onUpgrade of 1.1.0 is bad", str(error))
        self.check_serves(agent, "1.0.0")
        self.upgrade(agent, self.version(agent, "1.1.0"))
        self.check_serves(agent, "1.1.0")
        self.assertNotIn("bad", self.versions(agent)["1.1.0"])


class Probation(UpgradeTest):
    """What fails when it serves."""

    MORE_POLICIES = """- name: sure
  agentId: "sure*"
  backoff: {initial: 0s, base: 5ms, max: 20ms}
  upgrade: {probation: 10ms, maxSoftSwaps: 20}
"""

    def check_goes_back(self, kind, fail, says):
        agent = self.begin(f"back-{fail.__name__}-{kind}")
        for number in range(3):
            self.send(agent, "count", {"number": number})
        new = self.version(agent, "1.1.0")
        self.assertEqual(self.upgrade(agent, new, kind)["probationMs"], 3600 * 1000)
        self.send(agent, "count", {"number": 3})
        fail(agent)
        harness.wait_until(lambda: self.daemon.status(agent)["version"] == "1.0.0", "the version before to be active")
        self.check_serves(agent, "1.0.0")
        self.assertGreaterEqual(self.report(agent)["counted"], 3, "what the old one knew when it was upgraded")
        self.assertRegex(self.versions(agent)["1.1.0"]["bad"], says)
        record = self.upgrades(agent)[-1]
        self.assertEqual((record["type"], record["from"], record["to"], record["success"]), ("rollback", "1.1.0", "1.0.0", True))
        self.assertNotIn("operatorUid", record, "nobody asked for it")
        self.assertRegex(record["reason"], says)
        self.fails_to_upgrade(agent, new, kind, exit_code=5, code="DENIED")
        self.upgrade(agent, self.version(agent, "1.1.0", name="Mended"), kind)
        self.check_serves(agent, "1.1.0")

    def crashes(self, agent):
        self.fails(1, "AGENT_CRASHED", "send", agent, "exit", '{"code":3}')

    def turns_critical(self, agent):
        self.send(agent, "sick", {})

    def test_a_crash(self):
        for kind in ("soft", "hard"):
            with self.subTest(kind=kind):
                self.check_goes_back(kind, self.crashes, "3|crash")

    def test_critical_health(self):
        for kind in ("soft", "hard"):
            with self.subTest(kind=kind):
                self.check_goes_back(kind, self.turns_critical, "critical")

    def test_a_crash_after_it_is_a_crash_like_any_other(self):
        agent = self.begin("sureAgent")
        self.upgrade(agent, self.version(agent, "1.1.0"))
        before = self.process(agent)
        harness.wait_until(lambda: self.upgrade_is_settled(agent), "the probation to be over")
        self.crashes(agent)
        harness.wait_until(lambda: self.daemon.status(agent).get("pid", before[0][0]) != before[0][0], "another process")
        self.check_serves(agent, "1.1.0")
        self.assertNotIn("bad", self.versions(agent)["1.1.0"])

    def upgrade_is_settled(self, agent):
        return "probation" not in self.daemon.status(agent)

    def test_a_restart_of_the_operators_is_no_failure(self):
        agent = self.begin("restarted")
        self.upgrade(agent, self.version(agent, "1.1.0"))
        self.ok("restart", agent)
        self.check_serves(agent, "1.1.0")
        self.ok("stop", agent)
        self.ok("start", agent)
        self.check_serves(agent, "1.1.0")
        self.crashes(agent)
        harness.wait_until(lambda: self.daemon.status(agent)["version"] == "1.0.0", "the version before: it is on probation still")
        self.check_serves(agent, "1.0.0")

    def test_it_outlives_control(self):
        agent = self.begin("watched")
        self.upgrade(agent, self.version(agent, "1.1.0"))
        self.daemon.kill_control()
        self.check_serves(agent, "1.1.0")
        self.crashes(agent)
        harness.wait_until(lambda: self.daemon.status(agent)["version"] == "1.0.0", "the version before to be active")
        self.check_serves(agent, "1.0.0")


if __name__ == "__main__":
    unittest.main()
