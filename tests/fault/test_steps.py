"""Control dies at each step of a transition: before and after the record, the commit, the effect. Whatever it was in the
middle of, afterwards record, registry and what runs agree, and nobody had to help."""

import json
import os
import shutil
import unittest

import harness
import packages

POINTS = ["before audit", "after audit", "before commit", "after commit", "before effect", "after effect"]
# The last of these in an agent's records says what it is.
MEANING = {"registered": "registered", "started": "running", "recovered": "running", "kai.stopped": "stopped",
           "quarantined": "quarantined"}
POLICIES = """policies:
- name: tireless
  agentId: "*"
  maxCrashes: 1000
  backoff: {initial: 0s, base: 5ms, max: 20ms}
  quarantine: {maxRetries: {medium: 1000}}
"""


class Steps(harness.DaemonTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        programs = cls.daemon.directory / "bin"
        programs.mkdir()
        # Copies: a program finds its siblings beside itself, and a link leads away.
        for name in ("kaid", "kaictl", "kai-agent-host", "kai-native-runner", "kai-doctor"):
            shutil.copy(harness.BIN / name, programs)
        shutil.copy(harness.BIN / "fault" / "kai-control", programs)
        (cls.daemon.directory / "sdk").symlink_to(harness.BIN.parent / "sdk")
        cls.daemon.bin = programs
        cls.file = cls.daemon.state / "audit" / "crash-at"
        cls.daemon.write_policies(**{"10-tests": POLICIES})
        os.environ["KAI_CRASH_FILE"] = str(cls.file)
        try:
            cls.daemon.start()
        finally:
            del os.environ["KAI_CRASH_FILE"]
        outcome = cls.daemon.ctl("register", packages.probe(cls.daemon.directory / "prepared", "agent"))
        assert outcome.code == 0, outcome

    def settled(self, state):
        if self.daemon.status("agent")["state"] == "quarantined" and state != "quarantined":
            self.ok("recover", "agent")
        if state == "quarantined":
            self.daemon.ctl("quarantine", "agent", "--reason", "a test's")
        else:
            self.ok("start" if state == "running" else "stop", "agent")
        self.daemon.wait_for_state("agent", state)

    def crash_during(self, point, *command):
        """Control is another afterwards, and kaid as well as nothing else was told what happened."""
        before = self.daemon.control_pid()
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{point}:1")
        fresh.chmod(0o644)
        fresh.rename(self.file)
        outcome = self.daemon.ctl(*command)
        # Not every request reaches the step before it is answered; what it set going does.
        harness.wait_until(lambda: not self.file.exists(), f"control to come to '{point}'; {outcome}")
        self.daemon.wait_for_another_control(before)
        return outcome

    def check_agreement(self, what):
        def agrees():
            answer = self.daemon.ctl("status", "agent")
            if answer.code != 0:
                return False  # kaid is between two controls
            status = answer.document
            wanted = "quarantined" if status["state"] == "quarantined" else {"running": "running"}.get(status["desired"], "stopped")
            records = self.ok("audit", "list", "agent").records
            said = [MEANING[record["event"]] for record in records if record["event"] in MEANING]
            runners = [c for c in harness.descendants(self.daemon.process.pid).values() if "kai.runner" in c]
            self.seen = (f"state {status['state']}, desired {status['desired']}, recorded {said[-1]}, {len(runners)} runners, "
                         f"last records {[record['event'] for record in records[-8:]]}")
            if said[-1] != status["state"] or status["state"] not in (wanted, "registered"):
                return False
            # What is quarantined is frozen or, where the machine cannot, ended.
            return len(runners) == (1 if "pid" in status else 0) and ("pid" in status or status["state"] != "running")
        self.seen = ""
        try:
            harness.wait_until(agrees, "agreement")
        except AssertionError:
            self.fail(f"{what}: {self.seen}")
        self.assertEqual(self.ok("audit", "verify").document["findings"], [], what)

    def check_each_point(self, state, *command):
        for point in POINTS:
            with self.subTest(point=point):
                self.settled(state)
                outcome = self.crash_during(point, *command)
                self.check_agreement(f"{command[0]}, {point}: {outcome}")
                if outcome.code != 0:
                    self.assertTrue(outcome.error["retryable"] or outcome.error["code"] == "AGENT_CRASHED", outcome)

    def test_start(self):
        self.check_each_point("stopped", "start", "agent")

    def test_stop(self):
        self.check_each_point("running", "stop", "agent")

    def test_crash(self):
        self.check_each_point("running", "send", "agent", "exit", json.dumps({"code": 3}))

    def test_quarantine(self):
        self.check_each_point("running", "quarantine", "agent", "--reason", "odd")

    def test_recover(self):
        self.check_each_point("quarantined", "recover", "agent")


if __name__ == "__main__":
    unittest.main()
