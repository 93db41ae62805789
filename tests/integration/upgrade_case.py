"""What the upgrade tests share: a kaid with the gate mapped into its agents' sandboxes, one agent a test, the ways to
upgrade it, and what must hold whatever came of it."""

import json
import pathlib
import subprocess
import threading

import control_client
import harness
import upgrade_agents
from upgrade_agents import Gate

# Deadlines that hooks are held to: long where a test holds one at the gate, short where one hangs.
POLICIES = """policies:
- name: hasty
  agentId: "hasty*"
  files: {{"{gate}": {{host: {directory}, write: false}}}}
  maxCrashes: 1000
  backoff: {{initial: 0s, base: 5ms, max: 20ms}}
  deadlines: {{hello: 60s, start: 2s, message: 60s, stop: 2s}}
  upgrade: {{probation: 1h, maxSoftSwaps: 20}}
{more}- name: tests
  agentId: "*"
  files: {{"{gate}": {{host: {directory}, write: false}}}}
  maxCrashes: 1000
  backoff: {{initial: 0s, base: 5ms, max: 20ms}}
  deadlines: {{hello: 60s, start: 60s, message: 120s, stop: 60s}}
  health: {{interval: 200ms, misses: 300}}
  upgrade: {{probation: 1h, maxSoftSwaps: 20}}
  quarantine: {{maxRetries: {{medium: 1000}}}}
"""
RESULT = {"success", "type", "rollbackAvailable", "id", "from", "to", "how", "steps", "messagesHeld", "pauseMs", "forced",
          "probationMs"}


class UpgradeTest(harness.DaemonTest):
    """One kaid and one gate for all tests of a class."""

    MORE_POLICIES = ""  # before the last one, which is for every agent

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        scratch = harness.Daemon()  # for its directory alone: the gate is no trace of the daemon
        cls.addClassCleanup(scratch.clean_up)
        cls.gate = Gate(scratch.directory / "gate")
        cls.addClassCleanup(cls.gate.close)
        cls.daemon.write_policies(**{"10-tests": POLICIES.format(
            gate=upgrade_agents.GATE, directory=cls.gate.directory, more=cls.MORE_POLICIES)})
        cls.daemon.start()
        cls.prepare()

    # ---- versions

    def version(self, agent, number, language="python", acts=(), **changes):
        return upgrade_agents.version(self.scratch, agent, number, language, acts, **changes)

    def begin(self, agent, language="python", acts=(), number="1.0.0", **changes):
        """The agent's first version, registered and running; it is gone at the end of the test."""
        return self.begin_with(agent, self.version(agent, number, language, acts, **changes))

    def begin_with(self, agent, package):
        self.ok("register", package)
        self.addCleanup(self.end, agent)
        self.ok("start", agent)
        return agent

    def end(self, agent):
        self.gate.forget(stays_open=True)  # onShutdown may come to it too
        self.ok("terminate", agent)
        self.ok("unregister", agent)
        self.gate.forget()

    # ---- upgrades

    def upgrade(self, agent, what, kind="soft", *options):
        """UpgradeResult of one that must succeed."""
        return self.result(self.ok("upgrade", agent, what, "--type", kind, *options).document, agent)

    def rollback(self, agent, *version):
        result = self.result(self.ok("rollback", agent, *version).document, agent)
        self.assertEqual(result["type"], "rollback")
        return result

    def result(self, document, agent):
        self.assert_keys(document, RESULT, ("backup", "reason", "targetVersion", "warnings"))
        self.assertEqual((document["success"], document["id"]), (True, agent))
        for step in document["steps"]:
            self.assert_keys(step, ("step", "ms"))
        return document

    def fails_to_upgrade(self, agent, what, kind="soft", exit_code=1, code="AGENT_ERROR"):
        """The error of one that must fail; details is the UpgradeResult. Without a backup, which asks for the state too."""
        error = self.fails(exit_code, code, "upgrade", agent, what, "--type", kind, "--no-backup")
        if exit_code != 5:
            self.assertEqual(error["details"]["success"], False, error)
        return error

    def upgrade_in_background(self, agent, what, kind="soft"):
        """One that a test holds at some step: without a backup, which asks for the state too."""
        return Background(self.daemon, "upgrade", agent, what, "--type", kind, "--no-backup")

    def ask_in_background(self, agent, capability, payload):
        return Background(self.daemon, "send", agent, capability, json.dumps(payload))

    # ---- what is there

    def report(self, agent):
        return self.send(agent, "report", {})

    def process(self, agent):
        """pid and start time of the agent's host and of its runner."""
        pid = self.daemon.status(agent)["pid"]
        children = [child for child, command in harness.descendants(pid).items() if "runner" in command]
        self.assertEqual(len(children), 1, harness.descendants(pid))
        return [(each, pathlib.Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[19]) for each in (pid, *children)]

    def versions(self, agent):
        """number → what `versions` says of it."""
        document = self.ok("versions", agent).document
        self.assertEqual(document["id"], agent)
        for each in document["versions"]:
            self.assert_keys(each, ("version", "package", "registeredAt", "active", "previous", "bytes"), ("signer", "bad"))
        return {each["version"]: each for each in document["versions"]}

    def active(self, agent):
        """The version that `versions` and status agree on."""
        found = [number for number, each in self.versions(agent).items() if each["active"]]
        self.assertEqual(len(found), 1, found)
        self.assertEqual(self.daemon.status(agent)["version"], found[0])
        return found[0]

    def upgrades(self, agent):
        """Metadata of the audit's records of upgrades, oldest first."""
        return [each["metadata"] for each in self.ok("audit", "list", agent).records if each["event"] == "upgraded"]

    def check_serves(self, agent, number):
        """Everything says that it is this version."""
        self.assertEqual(self.active(agent), number)
        self.assertEqual(self.daemon.wait_for_state(agent, "running")["version"], number)
        self.assertEqual(self.report(agent)["version"], number)

    def stored(self, agent):
        """Names of what is in the store of this agent: its packages, by their hashes."""
        directory = self.daemon.state / "packages" / agent
        return {path.name for path in directory.iterdir()} if directory.exists() else set()

    def check_store(self, agent):
        """What is stored is what `versions` lists, and nothing is half installed."""
        self.assertEqual(self.stored(agent), {each["package"] for each in self.versions(agent).values()})
        names = {path.name for path in (self.daemon.state / "packages").iterdir()}
        self.assertEqual({name for name in names if name.startswith(".")}, set())

    # ---- messages

    def client(self, agent):
        return control_client.SteadyClient(self.daemon.socket, agent, "count")

    def check_counts(self, agent, client):
        """Every message was answered, and the agent saw each exactly once."""
        self.assertEqual(([str(said) for _, said in client.errors[:5]], client.unknown), ([], []))
        self.assertEqual(len(client.answers), client.sent)
        for number, answer, _ in client.answers:
            self.assertEqual((answer["number"], answer["times"]), (number, 1))
        report = self.report(agent)
        self.assertEqual((report["counted"], report["doubled"]), (client.sent, []))
        return report


class Background:
    """A kaictl of its own thread, for what a test wants to go on meanwhile."""

    def __init__(self, daemon, *arguments):
        self.outcome = None
        self.thread = threading.Thread(target=self._run, args=(daemon, arguments))
        self.thread.start()

    def _run(self, daemon, arguments):
        try:
            self.outcome = daemon.ctl(*arguments)
        except subprocess.TimeoutExpired as silence:
            self.outcome = silence

    @property
    def ended(self):
        return not self.thread.is_alive()

    def wait(self):
        """The outcome; silence is a fault."""
        self.thread.join()
        if isinstance(self.outcome, Exception):
            raise AssertionError(f"no end of kaictl: {self.outcome}")
        return self.outcome
