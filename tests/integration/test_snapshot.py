"""kaictl snapshot and restore: all of an agent in one file, brought back here and on another kaid, and never half."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import threading
import unittest

import harness
import packages
from memory_agents import TIRELESS, config

EXAMPLES = harness.SOURCE / "examples"
POLICY = "policies:\n" + TIRELESS
NEVER_UNSIGNED = 'policies:\n- name: never\n  agentId: "never-*"\n  allowUnsigned: never\n'

# Its state is how often it was asked since it began; its memory has the same number.
COUNTER = '''
from kai import Agent

class Counter(Agent):
    async def on_init(self):
        self.count, self.restored = 0, False

    async def save_state(self):
        return {"count": self.count}

    async def restore_state(self, state):
        self.count, self.restored = state["count"], True

    async def on_message(self, msg):
        if msg.capability == "count":
            self.count += 1
            await self.memory.set("count", self.count)
        return {"count": self.count, "kept": await self.memory.get("count"), "restored": self.restored}
'''


def counter(directory, agent, **changes):
    return packages.package(directory, agent, "main.py", COUNTER, 0o644, capabilities=["count", "look"],
                            runtime={"kind": "python"}, memory=config("sqlite"), **changes)


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() if member.isfile() else None for member in tar}


def write_tar(path, content):
    """A snapshot of these members in their order, whose SHA256SUMS fits them."""
    content = {name: data for name, data in content.items() if name != "SHA256SUMS"}
    content["SHA256SUMS"] = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items())
                                    if data is not None).encode()
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.mode, info.size = 0o755 if data is None else 0o644, len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))


class Snapshots(harness.DaemonTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.daemon.write_policies(**{"10-tests": POLICY})
        cls.daemon.start()

    def begin(self, root):
        agent = json.loads((root / "manifest.json").read_text())["id"]
        self.ok("register", root)
        self.ok("start", agent)

    def take(self, agent, name="agent.kai"):
        path = self.scratch / name
        document = self.ok("snapshot", agent, "--file", path).document
        self.assertEqual(document["id"], agent)
        self.assertEqual(document["bytes"], path.stat().st_size)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600, "it has an agent's memory")
        return path

    def begin_counter(self, agent, counts=3):
        self.begin(counter(self.scratch, agent))
        for _ in range(counts):
            self.send(agent, "count")
        return agent

    def look(self, agent):
        answer = self.send(agent, "look")
        return answer["count"], answer["kept"], answer["restored"]

    def forget(self, agent):
        self.ok("stop", agent)
        self.ok("unregister", agent)

    def test_the_calendar_keeps_its_events_through_unregister(self):
        self.begin(EXAMPLES / "calendar")
        event = {"title": "review", "start": "2026-05-04T13:00:00Z", "end": "2026-05-04T14:00:00Z"}
        asked = {"from": "2026-05-04T00:00:00Z", "to": "2026-05-05T00:00:00Z"}
        identity = self.send("calendarAgent", "scheduleEvent", event)["id"]
        path = self.take("calendarAgent")
        self.assertEqual(self.daemon.status("calendarAgent")["state"], "running")
        self.forget("calendarAgent")
        document = self.ok("restore", path).document
        self.assertEqual((document["id"], document["version"]), ("calendarAgent", "1.0.3"))
        self.assertNotEqual(self.daemon.status("calendarAgent")["state"], "running")
        self.ok("start", "calendarAgent")
        busy = self.send("calendarAgent", "queryAvailability", asked)["busy"]
        self.assertEqual([each["id"] for each in busy], [identity])

    def test_state_and_memory_are_of_one_moment(self):
        agent = self.begin_counter("moment", counts=0)
        stop = threading.Event()
        answers = []

        def keep_asking():
            while not stop.is_set():
                answers.append(self.send(agent, "count")["count"])
        client = threading.Thread(target=keep_asking)
        client.start()
        try:
            harness.wait_until(lambda: len(answers) > 3, "the client to be answered")
            paths = [self.take(agent, f"moment-{number}.kai") for number in range(3)]
        finally:
            stop.set()
            client.join()
        self.assertEqual(answers, list(range(1, len(answers) + 1)), "every request was answered once")
        for path in paths:
            content = members(path)
            count = json.loads(content["state.json"])["count"]
            kept = [json.loads(line) for line in content["memory.jsonl"].splitlines()]
            self.assertEqual([entry["value"] for entry in kept if entry.get("key") == "count"], [count])
            self.assertGreater(count, 0)

    def test_state_and_memory_come_back_after_a_purge(self):
        agent = self.begin_counter("purged")
        self.assertEqual(self.look(agent), (3, 3, False))
        path = self.take(agent)
        self.send(agent, "count")
        self.ok("terminate", agent, "--purge")
        document = self.ok("restore", path).document
        self.assertEqual((document["memoryEntries"], document["state"]), (1, True))
        self.ok("start", agent)
        self.assertEqual(self.look(agent), (3, 3, True))
        # The state is of the next start alone; what the agent keeps is in its memory.
        self.ok("restart", agent)
        self.assertEqual(self.look(agent), (0, 3, False))
        audited = {record["event"]: record for record in self.ok("audit", "list", agent).records}
        self.assertTrue(audited["kai.exported"]["metadata"]["snapshot"])
        self.assertEqual(audited["kai.exported"]["metadata"]["operatorUid"], os.getuid())
        self.assertTrue(audited["registered"]["metadata"]["restored"])

    def test_an_agent_at_rest(self):
        agent = self.begin_counter("resting")
        self.ok("stop", agent)
        path = self.take(agent)
        self.assertNotIn("state.json", members(path))
        self.ok("unregister", agent)
        self.assertFalse(self.ok("restore", path).document["state"])
        self.ok("start", agent)
        self.assertEqual(self.look(agent), (0, 3, False))

    def test_one_that_runs_is_not_restored(self):
        agent = self.begin_counter("busy")
        path = self.take(agent)
        self.send(agent, "count")
        error = self.fails(1, "CONFLICT", "restore", path)
        self.assertIn("kaictl stop", error["hint"])
        self.assertEqual(self.look(agent), (4, 4, False))

    def test_tools_of_the_system_can_look_into_it(self):
        agent = self.begin_counter("open")
        path = self.take(agent)
        directory = self.scratch / "unpacked"
        directory.mkdir()
        unpacked = subprocess.run(["tar", "xf", path, "-C", directory], capture_output=True, text=True)
        self.assertEqual((unpacked.returncode, unpacked.stderr), (0, ""))
        checked = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=directory, capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertEqual((directory / "package/main.py").read_text(), COUNTER)
        header = json.loads((directory / "snapshot.json").read_text())
        self.assertEqual((header["format"], header["id"], header["hasState"]), (1, agent, True))
        json.loads((directory / "policy.yaml").read_text())

    def refused(self, path, words, code="INVALID"):
        error = self.fails(5, code, "restore", path)
        self.assertIn(words, error["message"])

    def test_damage_changes_nothing(self):
        agent = self.begin_counter("damaged")
        path = self.take(agent)
        self.send(agent, "count")
        self.ok("stop", agent)
        whole = path.read_bytes()
        for part in (b"class Counter", b'"count"', b'"createdAt"', b"kai-memory/1"):
            at = whole.index(part) + 1
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            self.refused(path, "nothing was changed")
        for length in (0, 100, len(whole) // 2):
            path.write_bytes(whole[:length])
            self.refused(path, "nothing was changed")
        self.ok("start", agent)
        self.assertEqual(self.look(agent)[1], 4)
        self.assertEqual(list((self.daemon.state / "backups").iterdir()), [])

    def test_hostile_files_are_refused(self):
        agent = self.begin_counter("hostile")
        path = self.take(agent)
        self.ok("stop", agent)
        good = members(path)

        def with_member(name, data):
            bad = self.scratch / "bad.kai"
            write_tar(bad, {**good, name: data})
            return bad
        write_tar(path, good)
        self.ok("restore", path)
        self.refused(with_member("package/../../../etc/cron.d/kai", b"x"), "leaves the package")
        self.refused(with_member("/etc/cron.d/kai", b"x"), "absolute")
        self.refused(with_member("package/.kai/main.mjs", b"x"), ".kai")
        self.refused(with_member("more", b"x"), "no part of a snapshot")
        other = json.loads(good["snapshot.json"])
        other["id"] = "somebody-else"
        self.refused(with_member("snapshot.json", json.dumps(other).encode()), "memory")
        self.refused(with_member("memory.jsonl", b"{}\n"), "memory.jsonl")
        manifest = json.loads(good["package/manifest.json"])
        manifest["id"] = "somebody-else"
        self.refused(with_member("package/manifest.json", json.dumps(manifest).encode()), "its package is somebody-else")
        self.assertEqual(self.daemon.status("somebody-else")["status"], "not_found")
        bad = self.scratch / "bad.kai"
        with tarfile.open(bad, "w") as tar:
            info = tarfile.TarInfo("snapshot.json")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"
            tar.addfile(info)
        self.refused(bad, "no regular file")
        self.refused(pathlib.Path(__file__), "cannot be read as a tar")
        self.fails(4, "NOT_FOUND", "restore", self.scratch / "missing")
        self.fails(4, "NOT_FOUND", "snapshot", "nobody", "--file", self.scratch / "none")
        self.assertFalse((self.scratch / "none").exists())
        self.ok("start", agent)
        self.assertEqual(self.look(agent)[1], 3)

    def test_a_policy_that_refuses_unsigned_packages_takes_what_is_in_the_archive_alone(self):
        agent = self.begin_counter("never-unsigned")
        path = self.take(agent)
        self.ok("stop", agent)
        self.daemon.write_policies(**{"05-never": NEVER_UNSIGNED})
        try:
            self.ok("reload")
            self.ok("restore", path)
            self.ok("unregister", agent)
            self.refused(path, "signed", "DENIED")
        finally:
            self.daemon.write_policies(**{"05-never": None})
            self.ok("reload")


class AnotherKaid(unittest.TestCase):
    """One after the other: what a kaid leaves on the machine is looked for when it ends."""

    def daemon(self):
        daemon = harness.Daemon()
        self.addCleanup(daemon.clean_up)
        daemon.start()
        return daemon

    def ok(self, daemon, *arguments):
        outcome = daemon.ctl(*arguments)
        self.assertEqual(outcome.code, 0, f"{outcome}\nlog:\n{daemon.log[-3000:]}")
        return outcome.document

    def test_a_snapshot_is_all_that_it_needs(self):
        first = self.daemon()
        path = first.directory / "moved.kai"
        self.ok(first, "register", counter(first.directory / "packages", "moved"))
        self.ok(first, "start", "moved")
        for _ in range(3):
            self.ok(first, "send", "moved", "count")
        self.ok(first, "snapshot", "moved", "--file", path)
        first.stop()
        second = self.daemon()
        self.assertEqual(self.ok(second, "restore", path)["memoryEntries"], 1)
        self.assertEqual(self.ok(second, "list")["agents"][0]["desired"], "stopped")
        self.ok(second, "start", "moved")
        answer = self.ok(second, "send", "moved", "look")["payload"]
        self.assertEqual((answer["count"], answer["kept"], answer["restored"]), (3, 3, True))
        second.stop()


if __name__ == "__main__":
    unittest.main()
