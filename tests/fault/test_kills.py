"""kill -9 of anything, at any time, under message load: control, agent-hosts, runners, and kaid itself.

The victims follow from a seed, which is printed; KAI_FAULT_SEED=N makes the same choices again.
"""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import unittest

import harness
import packages

KILLS = 200
AGENTS = ["first", "second", "third"]
LOADERS = 4
SEND_TIMEOUT = 10
# Of klp.md. What an answer that is not retryable may say: whoever was killed was not there when it was asked.
NOT_RETRYABLE = {"NOT_RUNNING"}
POLICIES = """policies:
- name: tireless
  agentId: "*"
  maxCrashes: 1000
  backoff: {initial: 0s, base: 5ms, max: 20ms, jitter: 0.5, resetAfter: 1s}
"""


class Load:
    """Threads that send all the time, each over a kaictl of its own, and remember how each send ended."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.over = threading.Event()
        self.sends = []  # (agent, number, Outcome or None where it was silent, seconds)
        self.ended = threading.Condition()
        self.threads = [threading.Thread(target=self.send_on, args=(number,)) for number in range(LOADERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def send_on(self, loader):
        choice = random.Random(loader)
        number = loader
        while not self.over.is_set():
            number += LOADERS
            agent = choice.choice(AGENTS)
            began = time.monotonic()
            try:
                outcome = self.daemon.ctl("send", agent, "echo", str(number), "--timeout", str(SEND_TIMEOUT),
                                          timeout=SEND_TIMEOUT + harness.PATIENCE)
            except subprocess.TimeoutExpired:
                outcome = None
            with self.ended:
                self.sends.append((agent, number, outcome, time.monotonic() - began))
                self.ended.notify_all()

    def wait_for_answers(self, count):
        """Until so many more sends were answered by their agent."""
        with self.ended:
            before = self.answered()
            if not self.ended.wait_for(lambda: self.answered() >= before + count, harness.PATIENCE):
                raise AssertionError(f"no agent answers any more; the last sends: {[str(s[2]) for s in self.sends[-4:]]}")

    def answered(self):
        return sum(outcome is not None and outcome.code == 0 for _, _, outcome, _ in self.sends)


class Kills(harness.DaemonTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.daemon.write_policies(**{"10-tests": POLICIES})
        cls.daemon.start()
        for agent in AGENTS:
            for command in (["register", packages.probe(cls.daemon.directory / "prepared", agent)], ["start", agent]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    def processes(self):
        """kind → living processes below kaid, by age."""
        found = collections.defaultdict(list)
        for pid, command in sorted(harness.descendants(self.daemon.process.pid).items()):
            name = pathlib.Path(command.split()[0]).name
            kind = {"kai-control": "control", "kai-agent-host": "host"}.get(name)
            if kind or "kai.runner" in command:
                found[kind or "runner"].append(pid)
        return found

    def all_running(self):
        """agent → pid, once every one runs."""
        def pids():
            listed = self.daemon.ctl("list")
            if listed.code != 0 or any(agent["state"] != "running" for agent in listed.document["agents"]):
                return None
            found = {agent: self.daemon.ctl("status", agent).document.get("pid") for agent in AGENTS}
            # One that was killed a moment ago may not be known to be dead yet.
            living = self.processes()  # starters are hosts too
            whole = set(found.values()) <= set(living["host"]) and len(living["runner"]) == len(AGENTS)
            return found if whole else None
        return harness.wait_until(pids, f"all agents to run; kaid's log:\n{self.daemon.log[-4000:]}")

    def kill_one(self, kind, place):
        """false: there is none of the kind just now, or it ended by itself."""
        victims = self.processes()[kind]
        if not victims:
            return False
        try:
            os.kill(victims[place % len(victims)], signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def kill_control_among_running(self):
        before = self.all_running()
        self.daemon.kill_control()
        self.assertEqual(self.all_running(), before, "the agents live on, and control knows them")

    def test_anything_killed_at_any_time_costs_no_acknowledged_message_and_leaves_nothing(self):
        choice = random.Random(harness.seed())
        killed = collections.Counter()
        with Load(self.daemon) as load:
            while sum(killed.values()) < KILLS:
                kind = choice.choices(["control", "host", "runner"], [20, 40, 40])[0]
                place, after, settled = choice.randrange(64), choice.choice([0, 0, 1, 3]), choice.random() < 0.3
                if kind == "control" and settled:
                    self.kill_control_among_running()
                    killed[kind] += 1
                else:
                    harness.wait_until(lambda: self.kill_one(kind, place), f"a {kind} to kill")
                    killed[kind] += 1
                load.wait_for_answers(after)
            load.wait_for_answers(LOADERS)
        print(f"killed {dict(killed)}, {len(load.sends)} sends, {load.answered()} answered", file=sys.stderr)
        self.check_sends(load.sends)
        self.check_audit(load.sends)
        self.check_reality()

    def check_sends(self, sends):
        for agent, number, outcome, seconds in sends:
            self.assertIsNotNone(outcome, f"send {number} to {agent}: silence")
            self.assertLess(seconds, SEND_TIMEOUT + harness.PATIENCE / 2, outcome)
            if outcome.code == 0:
                self.assertEqual(outcome.document["payload"], number)
            else:
                self.assertEqual(len(outcome.stderr.splitlines()), 1, outcome)
                self.assertTrue(outcome.error["retryable"] or outcome.error["code"] in NOT_RETRYABLE, outcome)

    def check_audit(self, sends):
        self.assertEqual(self.ok("audit", "verify").document["findings"], [])
        records = self.ok("audit", "list").records
        received = collections.Counter(r["metadata"]["messageId"] for r in records if r["event"] == "message_received")
        sent = collections.Counter(r["metadata"]["correlationId"] for r in records if r["event"] == "message_sent")
        for _, number, outcome, _ in sends:
            if outcome.code == 0:
                request = outcome.document["correlationId"]
                self.assertEqual((received[request], sent[request]), (1, 1), f"records of send {number}, {request}")
        numbers = collections.defaultdict(list)
        for record in records:
            numbers[record["agentId"]].append(record["agentSeq"])
        for agent, found in numbers.items():
            self.assertEqual(found, list(range(1, len(found) + 1)), agent)

    def check_reality(self):
        """Processes and groups are those of the agents that are listed as running."""
        pids = self.all_running()
        def runners_of(pid):
            return [child for child, command in harness.descendants(pid).items() if "kai.runner" in command]
        runners = [runner for pid in pids.values() for runner in runners_of(pid)]
        self.assertEqual(len(runners), len(AGENTS))
        harness.wait_until(lambda: sorted(self.processes()["runner"]) == sorted(runners), "no other runner to be there")
        self.assertEqual(len(self.processes()["control"]), 1)

    @staticmethod
    def names(groups):
        return {pathlib.Path(group).name for group in groups}

    def test_kaid_killed_again_and_again_leaves_no_orphan_and_starts_what_is_desired(self):
        choice = random.Random(harness.seed())
        self.ok("stop", AGENTS[-1])
        first_groups = self.daemon.traces.own
        for _ in range(10):
            load = Load(self.daemon)
            with load:
                load.wait_for_answers(choice.randrange(1, 4))
                self.daemon.process.kill()
            self.daemon.process.wait()
            # With everything below it: its death is theirs.
            harness.wait_until(lambda: not harness.descendants(os.getpid()), "every process to end with kaid")
            mounts, groups = self.daemon.traces.mounts, self.daemon.traces.own
            self.daemon.start()
            self.assertEqual(self.daemon.traces._mounts() - mounts, set())
            self.daemon.traces.own |= groups | first_groups
            for agent in AGENTS[:-1]:
                self.daemon.wait_for_state(agent, "running")
                self.assertEqual(self.send(agent, "echo", 1), 1)
            self.assertEqual(self.daemon.status(AGENTS[-1])["state"], "stopped")
            for _, _, outcome, _ in load.sends:
                self.assertIsNotNone(outcome)
        self.assertEqual(self.ok("audit", "verify").document["findings"], [])
        self.ok("start", AGENTS[-1])
        # What is left of all of them is looked for when the last one ended (DaemonTest.tearDownClass).
        self.daemon.traces.mounts = set()


if __name__ == "__main__":
    unittest.main()
