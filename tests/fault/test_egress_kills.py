"""kill -9 of kai-egress, alone or with control, at any time during the traffic of several agents.

The moments follow from a seed, which is printed; KAI_FAULT_SEED=N makes the same choices again.
"""

import json
import os
import random
import signal
import threading
import unittest

import harness
import network_agents
from hosts import PUBLIC4, PUBLIC6
from network_case import NetworkTest

KILLS = 15  # after the fifth the keeper starts another only once a second
AGENTS = ["first", "second", "third"]
NAME = "good.example.com"
POLICIES = """policies:
- name: busy
  agentId: "*"
  networkLimit: {maxConnections: 1000}
  network: {allowedDomains: [good.example.com]}
"""


class Traffic:
    """A thread for each agent that makes it fetch all the time, and counts what came of it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.over = threading.Event()
        self.changed = threading.Condition()
        self.fetched, self.failed, self.silent = dict.fromkeys(AGENTS, 0), dict.fromkeys(AGENTS, 0), []
        self.threads = [threading.Thread(target=self.fetch_on, args=(agent,)) for agent in AGENTS]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def fetch_on(self, agent):
        asked = json.dumps({"host": NAME, "port": 80, "send": [network_agents.request(NAME, "/bytes/200000")]})
        while not self.over.is_set():
            outcome = self.daemon.ctl("send", agent, "talk", asked, "--timeout", "25")
            with self.changed:
                # Control may be killed too: then nobody can say what became of the fetch.
                reached = outcome.code == 0 and "error" not in outcome.document["payload"]
                (self.fetched if reached else self.failed)[agent] += 1
                if outcome.code == 7:
                    self.silent.append(str(outcome))
                self.changed.notify_all()

    def wait_for_fetches(self, count):
        """Until every agent reached its name so many more times."""
        with self.changed:
            wanted = {agent: done + count for agent, done in self.fetched.items()}
            if not self.changed.wait_for(lambda: all(self.fetched[a] >= wanted[a] for a in AGENTS), harness.PATIENCE):
                raise AssertionError(f"agents reach nothing any more: {self.fetched} of {wanted}, failed {self.failed}; "
                                     f"the log:\n{self.daemon.log[-4000:]}")


class EgressKills(NetworkTest):
    NAMES = {NAME: {"addresses": [PUBLIC4, PUBLIC6]}}
    POLICIES = POLICIES
    AGENTS = {agent: [NAME] for agent in AGENTS}

    def kill(self, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                return True
            except ProcessLookupError:
                continue
        return False

    def test_egress_killed_at_any_time_restarts_no_agent_and_all_reach_their_name_afterwards(self):
        choice = random.Random(harness.seed())
        pids = {agent: self.daemon.status(agent)["pid"] for agent in AGENTS}
        killed = {"egress": 0, "control": 0}
        with Traffic(self.daemon) as traffic:
            traffic.wait_for_fetches(1)
            while killed["egress"] < KILLS:
                after = choice.choice([0, 0, 0, 1, 2])
                with_control = choice.random() < 0.15
                harness.wait_until(lambda: self.kill(self.egress_pids()), "a kai-egress to kill")
                killed["egress"] += 1
                if with_control and self.kill(self.daemon.controls()):
                    killed["control"] += 1
                if after:
                    traffic.wait_for_fetches(after)
            traffic.wait_for_fetches(2)
        self.say(f"killed {killed}; fetched {traffic.fetched}, failed {traffic.failed}")
        self.assertEqual(traffic.silent, [], "a fetch ends, well or not")
        harness.wait_until(lambda: len(self.egress_pids()) == 1, "one kai-egress to be there")
        for agent in AGENTS:
            status = self.daemon.wait_for_state(agent, "running")
            self.assertEqual((status["pid"], status["restarts"]), (pids[agent], 0), agent)
            self.assert_reached(self.get(agent, NAME), agent)
            self.assert_refused(self.get(agent, "other.example.com"), agent)
            harness.wait_until(lambda: self.ok("net", agent).document["open"] == 0, "nothing to be open")
        self.check_descriptors()

    def check_descriptors(self):
        """Neither the keeper nor egress keeps what a dead egress had."""
        if not harness.IS_ROOT:
            return  # /proc/PID/fd of a process that may not be dumped is root's
        for name, pid in (("kaid", self.daemon.process.pid), ("kai-egress", self.egress_pid())):
            count = len(os.listdir(f"/proc/{pid}/fd"))
            self.say(f"{name} has {count} descriptors")
            self.assertLess(count, 200, name)


if __name__ == "__main__":
    unittest.main()
