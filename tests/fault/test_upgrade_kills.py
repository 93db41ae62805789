"""kill -9 of anything at each step of an upgrade: afterwards one version serves, everything says which, nobody waits for
ever, no message was answered twice, nothing is half installed, and the next upgrade goes as if nothing had been."""

import os
import pathlib
import signal
import sys
import time
import unittest

import harness
from upgrade_case import UpgradeTest

LOAD = '''import socket
gate = socket.socket(socket.AF_UNIX)
gate.connect("/tmp/gate/gate")
gate.sendall(b"load\\n")
gate.recv(1)
'''
# Where an upgrade is held: what the old version and the new one do there, and who comes to the gate.
STEPS = {
    "load": ([], [], "load"),
    "drain": ([], [], "in flight"),
    "saveState": (["saveState=gate"], [], "saveState 1.0.0"),
    "onInit": ([], ["onInit=gate"], "onInit 1.1.0"),
    "restoreState": ([], ["restoreState=gate"], "restoreState 1.1.0"),
    "onUpgrade": ([], ["onUpgrade=gate"], "onUpgrade 1.1.0"),
    "onStart": ([], ["onStart=gate"], "onStart 1.1.0"),
    "onShutdown": (["onShutdown=gate"], [], "onShutdown 1.0.0"),  # of a hard one: the new version serves already
}
SAVED = ["onInit", "restoreState", "onUpgrade", "onStart", "onShutdown"]  # where the old one's state is in safety


def steps_of(kind):
    return [step for step in STEPS if kind == "hard" or step != "onShutdown"]


class Held:
    """An upgrade that waits at a step, under load."""

    def __init__(self, case, agent, kind, step):
        old, new, name = STEPS[step]
        self.case, self.agent, self.kind, self.step = case, agent, kind, step
        self.goes_back = False  # whether the new version crashes when it serves already: it is on probation then
        case.begin(agent, acts=old)
        self.before = case.process(agent)
        self.package = case.version(agent, "1.1.0", acts=new)
        if step == "load":
            program = self.package / "main.py"
            program.write_text(LOAD + program.read_text())
        self.client = case.client(agent).__enter__()
        self.client.wait_for_answers(self.client.THREADS)
        self.asked = case.ask_in_background(agent, "wait", {"name": "in flight"}) if step == "drain" else None
        self.waiting = [case.gate.wait(name)] if step == "drain" else []
        self.upgrade = case.upgrade_in_background(agent, self.package, kind)
        if step == "drain":
            # A request that comes now waits; one before it may be on its way still.
            case.daemon.wait_for_state(agent, "upgrading")
        else:
            self.waiting.append(case.gate.wait(name))

    def let_go(self):
        for connection in self.waiting:
            connection.close()
        self.case.gate.forget(stays_open=True)  # the next upgrade goes through the same hooks

    def check(self, what, keeps_all):
        """One version serves, and all agree on it; `keeps_all`: what was answered is known to it."""
        case, agent = self.case, self.agent
        def settled():
            status = case.daemon.ctl("status", agent)
            return status.code == 0 and status.document["state"] == "running" and "pid" in status.document
        harness.wait_until(settled, f"{agent} to run: {what}; {case.daemon.log[-3000:]}")
        self.let_go()
        outcome = self.upgrade.wait()
        if self.asked:
            self.asked.wait()
        self.client.wait_for_answers(self.client.THREADS + 1)
        self.client.__exit__()
        serving = case.daemon.status(agent)["version"]
        case.check_serves(agent, serving)
        self.check_record(outcome, serving)
        case.check_store(agent)
        self.check_messages(keeps_all)
        harness.wait_until(self.is_alone, f"no other process of {agent} to be there")
        case.assertEqual(case.ok("audit", "verify").document["findings"], [])
        return serving

    def check_record(self, outcome, serving):
        records = self.case.upgrades(self.agent)
        told = [each["to" if each["success"] else "from"] for each in records]
        expected = ["1.1.0", "1.0.0"] if self.goes_back else [serving]
        self.case.assertEqual((told, told[-1]), (expected, serving), f"{records}; {outcome}")
        if outcome.code == 0:
            self.case.assertEqual(outcome.document["to"], told[0])
        else:
            self.case.assertEqual(outcome.stdout, "", outcome)

    def check_messages(self, keeps_all):
        case, client = self.case, self.client
        for number, said in client.errors:
            case.assertTrue(getattr(said, "retryable", False) or getattr(said, "code", "") == "NOT_RUNNING", f"{number}: {said}")
        case.assertEqual(len(client.answers) + len(client.errors) + len(client.unknown), client.sent, "silence")
        case.assertEqual([number for number, answer, _ in client.answers if answer["times"] != 1], [])
        report = case.report(self.agent)
        case.assertEqual(report["doubled"], [])
        if keeps_all:
            case.assertGreaterEqual(report["counted"], len(client.answers))

    def is_alone(self):
        found = harness.descendants(self.case.daemon.process.pid).values()
        return sum("kai.runner" in command for command in found) == 1


class UpgradeKills(UpgradeTest):
    def at_each(self, what, check):
        """check(held), for an upgrade of each kind that is held at each step; then the next upgrade must work."""
        for kind in ("soft", "hard"):
            for step in steps_of(kind):
                with self.subTest(kind=kind, step=step):
                    began = time.monotonic()
                    held = Held(self, f"{what}-{kind}-{step}", kind, step)
                    try:
                        self.then_upgrades(held, check(held))
                    finally:
                        held.client.over.set()
                        self.doCleanups()  # each agent is the only one
                    print(f"{held.agent}: {held.client}; {time.monotonic() - began:.1f} s", file=sys.stderr)

    def runners(self, agent):
        """Of the host that served when the upgrade began, and others: (host, runner) each."""
        found = harness.descendants(self.daemon.process.pid)
        pairs = []
        for pid, command in found.items():
            if "kai.runner" not in command:
                continue
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            pairs.append((parent, pid))
        return sorted(pairs)

    def then_upgrades(self, held, serving):
        """Nothing of the one that was killed is in the way of the next."""
        self.upgrade(held.agent, self.version(held.agent, "1.2.0"), held.kind)
        self.check_serves(held.agent, "1.2.0")
        self.assertEqual(self.rollback(held.agent)["to"], serving)
        self.check_serves(held.agent, serving)

    def test_control(self):
        def check(held):
            self.daemon.kill_control()
            if held.step in ("load", "drain"):
                held.let_go()  # the old version's own event loop, or request, waits there
            return held.check("control killed", keeps_all=True)
        self.at_each("control", check)

    def test_kaid(self):
        def check(held):
            groups, mounts = self.daemon.traces.own, self.daemon.traces.mounts
            self.daemon.process.kill()
            self.daemon.process.wait()
            held.let_go()
            harness.wait_until(lambda: not self.below_kaid(), "every process to end with kaid")
            self.daemon.start()
            self.assertEqual(self.daemon.traces._mounts() - mounts, set())
            self.daemon.traces.own |= groups
            return held.check("kaid killed", keeps_all=False)
        self.at_each("kaid", check)
        self.daemon.traces.mounts = set()

    def below_kaid(self):
        """What a kaid that was killed has left, beside the tests' own kaictls."""
        return [command for command in harness.descendants(os.getpid()).values() if "/kaictl " not in command]

    def check_kill(self, what, choose):
        """`choose(pairs, held)` gives the process to kill; None: there is none at this step."""
        def check(held):
            victim = choose(self.runners(held.agent), held)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
            if held.step in ("load", "drain") or victim is None:
                held.let_go()
            held.goes_back = what.startswith("new") and held.step == "onShutdown"
            kept = not held.goes_back and (what.startswith("new") or held.step in SAVED)
            return held.check(f"{what} killed", keeps_all=kept)
        self.at_each(what, check)

    @staticmethod
    def old(pairs, held):
        return next(pair for pair in pairs if pair[0] == held.before[0][0])

    @staticmethod
    def new(pairs, held):
        return next((pair for pair in pairs if pair[0] != held.before[0][0]), (None, None))

    def test_the_host_of_the_old_version(self):
        self.check_kill("old-host", lambda pairs, held: self.old(pairs, held)[0])

    def test_the_runner_of_the_old_version(self):
        self.check_kill("old-runner", lambda pairs, held: self.old(pairs, held)[1])

    def test_the_host_of_the_new_version(self):
        self.check_kill("new-host", lambda pairs, held: self.new(pairs, held)[0])

    def test_the_runner_of_the_new_version(self):
        self.check_kill("new-runner", lambda pairs, held: self.new(pairs, held)[1])


if __name__ == "__main__":
    unittest.main()
