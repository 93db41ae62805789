"""What the tests of egress share: test hosts, a kaid on their machine, agents that use the network, and how a test reads
what came of it.
"""

import pathlib
import sys

import harness
import hosts
import network_agents

# A refusal is fast: less than this, in the client's own measure. A sanitizer and a loaded machine cost a factor of ten.
FAST = 10 if harness.SANITIZED else 1


class NetworkTest(harness.DaemonTest):
    """One world and one kaid for all tests of a class."""

    NAMES = {}        # of the world's DNS (network_dns.Zone)
    CERTIFIED = ()    # more names of the certificate
    POLICIES = ""
    SETTINGS = ""     # of kaid.yaml
    AGENTS = {}       # id → the names that its manifest asks for

    @classmethod
    def setUpClass(cls):
        scratch = harness.Daemon()  # for its directory alone
        cls.addClassCleanup(scratch.clean_up)
        cls.hosts = hosts.Hosts(scratch.directory, cls.NAMES, cls.CERTIFIED)
        cls.addClassCleanup(cls.hosts.close)
        cls.daemon = cls.hosts.daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.daemon.settings += cls.SETTINGS
        cls.daemon.write_policies(**{"10-tests": cls.POLICIES})
        cls.daemon.start()
        for agent, names in cls.AGENTS.items():
            cls.begin(agent, names)

    @classmethod
    def begin(cls, agent, names, **changes):
        package = network_agents.client(cls.daemon.directory / "prepared", agent, cls.hosts.ca, names, **changes)
        for command in (["register", package], ["start", agent]):
            outcome = cls.daemon.ctl(*command)
            assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    @classmethod
    def rule(cls, text):
        """Where `text` stands in the policies, as denials say it."""
        lines = [number for number, line in enumerate(cls.POLICIES.splitlines(), start=1) if text in line]
        assert len(lines) == 1, f"{text!r} is on the lines {lines} of the policies"
        return f"10-tests.yaml:{lines[0]}"

    def setUp(self):
        self.hosts.clear()

    def ask(self, agent, what, **asked):
        return self.send(agent, what, asked)

    def get(self, agent, host, port=80, path="/", name=None, **asked):
        """A GET by a plain socket."""
        meant = (host if name is None else name) + ("" if port in (80, 443) else f":{port}")
        return self.ask(agent, "talk", host=host, port=port, send=[network_agents.request(meant, path)], **asked)

    def assert_reached(self, said, what=""):
        self.assertNotIn("error", said, what)
        self.assertTrue(said["answers"] and "200 OK" in said["answers"][0], f"{what}: {said}")

    def assert_refused(self, said, what="", errors=None):
        """Refused, at once; `errors`: with one of these errno names."""
        self.assertTrue("error" in said or not "".join(said.get("answers", [])), f"{what} was answered: {said}")
        self.assertLess(said["seconds"], FAST, f"{what}: {said}")
        if errors:
            self.assertIn(said.get("error"), errors, f"{what}: {said}")

    def egress_pids(self):
        found = harness.descendants(self.daemon.process.pid)
        return {pid for pid, command in found.items() if pathlib.Path(command.split()[0]).name == "kai-egress"}

    def egress_pid(self):
        pids = self.egress_pids()
        self.assertEqual(len(pids), 1, harness.descendants(self.daemon.process.pid))
        return pids.pop()

    def records(self, agent, event):
        return [record for record in self.ok("logs", agent, "-n", "1000").records if record["event"] == event]

    def denials(self, agent):
        return self.records(agent, "kai.denied")

    def wait_for_denial(self, agent, *words, again=None):
        """The first denial whose record has all of these words in it. `again`: what brings it about, as of a flood of
        denials not every one has a line."""
        def found():
            if again:
                again()
            return [record for record in self.denials(agent) if all(word in str(record) for word in words)]
        return harness.wait_until(found, f"a denial of {agent} with {words}; there are {self.denials(agent)[-5:]}")[0]

    def wait_for_end(self, seconds=harness.PATIENCE, **wanted):
        """When the world saw the end of the one connection that is meant, by the monotonic clock."""
        def ended():
            found = self.hosts.connections(**wanted)
            return found and all(entry["closed"] for entry in found) and found
        return harness.wait_until(ended, f"the world to see the end of {wanted}", seconds)[-1]["closed"]

    @staticmethod
    def say(text):
        """A figure that was measured, for whoever reads the run."""
        print(f"    {text}", file=sys.stderr)
