"""A disk that is full, and agents that crash without end: the service says so, goes on, and grows nowhere."""

import collections
import errno
import os
import pathlib
import signal
import unittest

import harness
import packages


class DiskFull(unittest.TestCase):
    """STATE is a small tmpfs that only this kaid sees."""

    def setUp(self):
        self.daemon = harness.Daemon()
        self.addCleanup(self.daemon.clean_up)
        self.daemon.state.mkdir()
        holder = self.daemon.directory / "holder"
        ordinary = [] if harness.IS_ROOT else ["unshare", "--user", f"--map-user={os.geteuid()}",
                                               f"--map-group={os.getegid()}", "--"]
        # The holder keeps a way into the mount namespace: kaid lets nobody look at what it sees.
        script = (f'mount -t tmpfs -o size=24m,mode=755 none "{self.daemon.state}" && '
                  f'{{ sleep infinity >/dev/null 2>&1 & echo $! > "{holder}"; }} && exec "$@"')
        self.daemon.prefix = (["unshare", "--mount"] if harness.IS_ROOT else ["unshare", "--map-root-user", "--mount"])
        self.daemon.prefix += ["--", "/bin/sh", "-c", script, "sh"] + ordinary
        self.daemon.start()
        self.holder = int(holder.read_text())
        self.addCleanup(os.kill, self.holder, signal.SIGKILL)
        self.state = pathlib.Path(f"/proc/{self.holder}/root{self.daemon.state}")

    def fill(self):
        with open(self.state / "filler", "ab", buffering=0) as filler:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        filler.write(b"x" * size)
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)

    def ok(self, *arguments):
        outcome = self.daemon.ctl(*arguments)
        self.assertEqual(outcome.code, 0, f"{outcome}\nlog:\n{self.daemon.log[-4000:]}")
        return outcome

    def refused(self, *arguments):
        """Why, when it is refused as it must be: a clear error that may be tried again."""
        outcome = self.daemon.ctl(*arguments)
        self.assertEqual((outcome.code, outcome.stdout), (1, ""), f"{outcome}\nlog:\n{self.daemon.log[-4000:]}")
        self.assertEqual((outcome.error["code"], outcome.error["retryable"]), ("UNAVAILABLE", True), outcome)
        self.assertRegex(outcome.error["message"], "(?i)no space|full|disk", outcome)
        self.assertTrue(outcome.error["hint"], outcome)

    def test_what_is_new_is_refused_until_there_is_space_again(self):
        for agent in ("runs", "waits"):
            self.ok("register", packages.probe(self.daemon.directory / "prepared", agent))
        self.ok("start", "runs")
        pid = self.daemon.status("runs")["pid"]
        self.fill()
        acknowledged = []

        def send_is_refused():
            outcome = self.daemon.ctl("send", "runs", "echo", "1")
            if outcome.code == 0:
                acknowledged.append(outcome.document["correlationId"])
            return outcome.code != 0
        # What fits into the pages that the database has already is taken.
        harness.wait_until(send_is_refused, "a send to be refused")
        self.refused("send", "runs", "echo", "2")
        self.refused("start", "waits")
        self.refused("register", packages.probe(self.daemon.directory / "prepared", "late"))
        self.assertEqual(self.daemon.status("runs")["pid"], pid, "what runs is left alone")
        self.daemon.ctl("stop", "runs")  # it is done, whether it could be recorded or not
        self.assertEqual(self.daemon.wait_for_state("runs", "stopped")["desired"], "stopped")
        self.assertFalse(pathlib.Path(f"/proc/{pid}").exists())

        (self.state / "filler").unlink()
        harness.wait_until(lambda: self.daemon.ctl("start", "waits").code == 0, "a start, now that there is space")
        self.ok("start", "runs")
        self.ok("send", "runs", "echo", "3")
        self.ok("register", packages.probe(self.daemon.directory / "later", "late"))
        self.check_records(acknowledged)
        self.daemon.kill_control()
        self.check_records(acknowledged)
        self.assertEqual(self.daemon.wait_for_state("runs", "running")["desired"], "running")
        self.assertEqual(self.daemon.terminate(), 0, self.daemon.log[-4000:])

    def check_records(self, acknowledged):
        self.assertEqual(self.ok("audit", "verify").document["findings"], [])
        events = collections.defaultdict(list)
        for record in self.ok("audit", "list", "runs").records:
            metadata = record["metadata"]
            events[metadata.get("correlationId") or metadata.get("messageId")].append(record["event"])
        for request in acknowledged:
            self.assertEqual(events[request], ["message_received", "message_sent"])


class Soak(harness.DaemonTest):
    AGENTS = ["crashes-a", "crashes-b", "crashes-c"]
    WARM_UP, RESTARTS = 60, 400
    SPARE = 4  # of a moment: a connection, a log that is being rotated

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.daemon.write_policies(**{"10-tests": "policies:\n- {name: tireless, agentId: '*', maxCrashes: 1000, "
                                                 "crashWindow: 1s, backoff: {initial: 0s, base: 1ms, max: 1ms}}\n"})
        cls.daemon.start()
        for agent in cls.AGENTS:
            path = packages.script(cls.daemon.directory / "prepared", agent, "echo gone again; exit 3\n")
            outcome = cls.daemon.ctl("register", path)
            assert outcome.code == 0, outcome

    def crash_until(self, restarts):
        for agent in self.AGENTS:
            self.daemon.ctl("start", agent)
        def counts():
            return [agent["restarts"] for agent in self.ok("list").document["agents"]]
        harness.wait_until(lambda: sum(counts()) >= restarts, f"{restarts} restarts")
        for agent in self.AGENTS:
            self.ok("stop", agent)

    def processes(self):
        return {"kaid": self.daemon.process.pid, "control": self.daemon.control_pid()}

    def memory(self):
        return {name: int(harness.status_of(pid)["VmRSS"].split()[0]) for name, pid in self.processes().items()}

    def descriptors(self):
        return {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in self.processes().items()}

    def test_crash_loops_cost_neither_descriptors_nor_memory(self):
        # An ordinary user may not look at kaid's descriptors; the root run does.
        idle = self.descriptors() if harness.IS_ROOT else None
        self.crash_until(self.WARM_UP)
        before = self.memory()
        self.crash_until(self.WARM_UP + self.RESTARTS)
        # What the databases' page caches and the allocator come to hold. A leak of 10 KB a restart shows.
        # A sanitizer keeps what was freed for a while, up to 256 MB.
        allowed = 320 << 10 if harness.SANITIZED else 4096
        for name, kilobytes in self.memory().items():
            self.assertLessEqual(kilobytes - before[name], allowed, f"{name}: {before} → {self.memory()}")
        if idle is not None:
            # kaid keeps the pipes of what ended for some seconds, for a control that dies meanwhile, and forgets
            # them when it has something to do.
            def few_again():
                self.ok("reload")
                return all(count <= idle[name] + self.SPARE for name, count in self.descriptors().items())
            harness.wait_until(few_again, f"descriptors to be as few as at first, {idle}")


if __name__ == "__main__":
    unittest.main()
