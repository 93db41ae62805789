"""Supervision of the real daemon: what hangs, crashes, eats or misbehaves is found, explained, restarted or put into
quarantine; what was quarantined is looked at and recovered; and all of it survives the end of control and of kaid."""

import datetime
import json
import os
import pathlib
import signal
import socket
import unittest

import harness
import packages

POLICIES = """policies:
- name: hung
  agentId: "hung*"
  health: {interval: 500ms, misses: 3}
- name: once
  agentId: "once*"
  autoRestart: false
- name: slow
  agentId: "slow*"
  backoff: {initial: 10m, max: 10m}
- name: growing
  agentId: "growing*"
  backoff: {initial: 0s, base: 20ms, max: 50ms, jitter: 0, resetAfter: 1h}
- name: loop
  agentId: "loop*"
  maxCrashes: 2
  backoff: {initial: 0s, base: 10ms, max: 10ms, jitter: 0}
- name: hoard
  agentId: "hoard*"
  memoryLimit: 64
  maxCrashes: 1
  backoff: {initial: 0s, base: 10ms, max: 10ms, jitter: 0}
- name: nosy
  agentId: "nosy*"
  quarantine: {mode: freeze, denials: 3}
- name: killed
  agentId: "killed*"
  quarantine: {mode: kill}
- name: caller
  agentId: "caller*"
  permissions: [{resource: agent, scope: callee, actions: [execute]}, {resource: topic, scope: caller.news, actions: [write]}]
- name: reader
  agentId: "reader*"
  permissions: [{resource: topic, scope: caller.news, actions: [read]}]
"""

# What a test asks of an agent, by capability. "block" stands still with the thread that answers health checks.
ACTOR = '''
import asyncio, ctypes, os
from kai import Agent

class Actor(Agent):
    async def on_init(self):
        self.events, self.came = [], asyncio.Event()

    async def on_message(self, msg):
        asked = msg.payload
        if msg.type == "event":
            self.events.append({"to": msg.to, "from": msg.from_, "payload": asked})
            return self.came.set()
        if msg.capability == "echo":
            return asked
        if msg.capability == "block":
            while True: pass
        if msg.capability == "exit":
            os._exit(asked["code"])
        if msg.capability == "allocate":
            held = bytearray(asked["mb"] << 20)
            for at in range(0, len(held), 4096): held[at] = 1
        if msg.capability == "refused":
            for _ in range(asked["times"]): ctypes.CDLL(None).unshare(0x10000000)
            return {}
        if msg.capability == "ask":
            try:
                return {"answer": await self.send(asked["to"], "echo", asked["payload"])}
            except Exception as error:
                return {"code": error.code}
        if msg.capability == "publish":
            await self.emit(asked["name"], asked["payload"])
            return {}
        if msg.capability == "read":
            await asyncio.wait_for(self.came.wait(), 50)
            return self.events
'''
CAPABILITIES = ["echo", "block", "exit", "allocate", "refused", "ask", "publish", "read"]


def actor(directory, agent, permissions=(), **changes):
    security = packages.CORRECT["security"] | {"permissions": list(permissions)}
    return packages.package(directory, agent, "main.py", ACTOR, mode=0o644, capabilities=CAPABILITIES,
                            security=security, **changes)


def crash_loop(directory, agent):
    return packages.script(directory, agent, "exit 7\n")


def unix_ms(timestamp):
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() * 1000


class Supervised(harness.DaemonTest):
    """One daemon with the policies above."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.daemon.write_policies(**{"10-tests": POLICIES})
        cls.daemon.start()
        cls.prepare()

    def running(self, agent, **changes):
        self.ok("register", actor(self.scratch, agent, **changes))
        self.ok("start", agent)
        return agent

    def events(self, agent, *names):
        found = self.ok("events", agent).records
        return [event for event in found if not names or event["event"] in names]

    def wait_for_event(self, agent, name, count=1):
        return harness.wait_until(lambda: (found := self.events(agent, name)) and len(found) >= count and found[-1],
                                  f"{count} events {name} of {agent}; there are "
                                  f"{[event['event'] for event in self.events(agent)]}")

    def crash(self, agent, code=3):
        self.fails(1, "AGENT_CRASHED", "send", agent, "exit", json.dumps({"code": code}))

    def quarantined(self, agent, kind, severity):
        status = self.daemon.wait_for_state(agent, "quarantined")
        self.assertEqual((status["status"], status["quarantine"]["reason"]["type"],
                          status["quarantine"]["reason"]["severity"]), ("quarantined", kind, severity), status)
        return status

    def evidence(self, agent):
        """What quarantine show has, once it was collected."""
        return harness.wait_until(
            lambda: (shown := self.ok("quarantine", "show", agent).document).get("evidence") and shown, "the evidence")


class Health(Supervised):
    INTERVAL_MS, MISSES = 500, 3
    # Beyond the three intervals: for a loaded machine to say what happened.
    SLACK_MS = 10_000 if harness.SANITIZED else 1_000

    def check_found(self, agent, before, since_ms):
        crashed = self.wait_for_event(agent, "kai.crashed")
        self.assertEqual(crashed["metadata"]["cause"], "hung", crashed)
        self.assertLess(unix_ms(crashed["time"]) - since_ms, self.INTERVAL_MS * self.MISSES + self.SLACK_MS)
        status = self.daemon.wait_for_state(agent, "running")
        self.assertEqual((status["lastEnd"]["cause"], status["restarts"]), ("hung", 1), status)
        self.assertNotEqual(status["pid"], before)
        self.assertIn("health", status["lastEnd"]["message"])
        self.assertEqual(self.send(agent, "echo", [1]), [1])

    def test_a_blocked_event_loop_is_hung_and_restarted(self):
        agent = self.running("hung-loop")
        before = self.daemon.status(agent)["pid"]
        error = self.fails(1, "AGENT_CRASHED", "send", agent, "block")
        self.assertTrue(error["retryable"], error)
        self.check_found(agent, before, unix_ms(self.events(agent, "message_received")[-1]["time"]))

    def test_a_stopped_runner_is_hung_and_restarted(self):
        agent = self.running("hung-stop")
        before = self.daemon.status(agent)["pid"]
        runner = next(iter(harness.descendants(before)))
        os.kill(runner, signal.SIGSTOP)
        self.check_found(agent, before, datetime.datetime.now(datetime.timezone.utc).timestamp() * 1000)

    def test_a_healthy_agent_is_left_alone(self):
        agent = self.running("hung-not")
        before = self.daemon.status(agent)
        seen = set()

        def checked_often():
            seen.add(self.daemon.status(agent)["health"]["uptime"])
            return len(seen) > 10 and self.daemon.status(agent)["uptime"] > 2 * self.INTERVAL_MS * self.MISSES
        harness.wait_until(checked_often, "many health reports")
        self.assertEqual(self.daemon.status(agent)["pid"], before["pid"])
        self.assertEqual(self.events(agent, "kai.crashed"), [])


class Crashes(Supervised):
    def test_pauses_grow_up_to_the_cap_and_start_at_the_first(self):
        agent = self.running("growing")
        for number in range(1, 5):
            self.crash(agent)
            harness.wait_until(lambda: (s := self.daemon.status(agent))["state"] == "running" and
                               s["crashes"]["count"] == number, f"restart {number}")
        self.assertEqual([event["metadata"]["delayMs"] for event in self.events(agent, "kai.backoff")], [0, 20, 40, 50])

    def test_start_in_backoff_starts_now(self):
        agent = self.running("slow")
        self.crash(agent)
        status = self.daemon.wait_for_state(agent, "backoff")
        self.assertEqual((status["status"], status["desired"]), ("terminated", "running"))
        self.ok("start", agent)
        self.assertEqual(self.send(agent, "echo", 1), 1)

    def test_stop_in_backoff_ends_the_waiting(self):
        agent = self.running("slow-stopped")
        self.crash(agent)
        self.daemon.wait_for_state(agent, "backoff")
        self.ok("stop", agent)
        self.assertEqual(self.daemon.status(agent)["state"], "stopped")

    def test_without_auto_restart_a_crash_is_the_end(self):
        agent = self.running("once")
        self.crash(agent, 9)
        status = self.daemon.wait_for_state(agent, "stopped")
        self.assertEqual((status["lastEnd"]["cause"], status["lastEnd"]["exitCode"], status["desired"]),
                         ("exit", 9, "running"))
        self.ok("start", agent)

    def test_a_crash_loop_ends_in_quarantine(self):
        agent = self.running("loop")
        for _ in range(3):
            harness.wait_until(lambda: self.daemon.status(agent)["state"] == "running", "it to run")
            self.crash(agent, 7)
        status = self.quarantined(agent, "crash", "medium")
        self.assertEqual((status["crashes"]["count"], status["quarantine"]["maxRetries"]), (3, 3), status)
        self.fails(6, "QUARANTINED", "send", agent, "echo")
        self.fails(6, "QUARANTINED", "start", agent)
        self.assertEqual(self.daemon.ctl("status", agent).code, 0)
        shown = self.evidence(agent)
        self.assertIn("exit", json.dumps(shown["evidence"]["lastEnd"]))
        self.ok("recover", agent)
        self.assertEqual(self.daemon.status(agent)["state"], "running")
        self.assertNotIn("quarantine", self.daemon.status(agent))
        recovered = self.events(agent, "recovered")[-1]
        self.assertEqual(recovered["metadata"]["operatorUid"], os.geteuid(), recovered)
        self.assertEqual(self.send(agent, "echo", 1), 1)

    @harness.needs_root
    def test_memory_again_and_again_is_resource_abuse(self):
        agent = self.running("hoard")
        for _ in range(2):
            harness.wait_until(lambda: self.daemon.status(agent)["state"] == "running", "it to run")
            self.fails(1, "AGENT_CRASHED", "send", agent, "allocate", json.dumps({"mb": 100}))
        status = self.quarantined(agent, "resource_abuse", "high")
        self.assertEqual((status["lastEnd"]["cause"], status["quarantine"]["maxRetries"]), ("oom", 1), status)


class Quarantine(Supervised):
    def frozen(self, pid):
        path = next(line.rpartition(":")[2] for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
                    if line.startswith("0::"))
        for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            events = pathlib.Path(root + path, "cgroup.events")
            if events.exists():
                return "frozen 1" in events.read_text()
        raise AssertionError(f"no v2 group {path}")

    def test_denials_beyond_the_threshold_are_a_security_violation(self):
        agent = self.running("nosy")
        self.daemon.ctl("send", agent, "refused", json.dumps({"times": 3}))
        self.quarantined(agent, "security_violation", "high")
        denials = self.evidence(agent)["evidence"]["denials"]
        self.assertTrue(all("unshare" in json.dumps(denial) for denial in denials), denials)
        self.assertEqual(len(denials), 3, denials)

    @harness.needs_root
    def test_frozen_with_evidence_then_recovered_anew(self):
        agent = self.running("frozen")
        self.assertEqual(self.send(agent, "echo", 5), 5)
        before = self.daemon.status(agent)["pid"]
        self.ok("quarantine", agent, "--reason", "looks odd", "--severity", "low")
        status = self.quarantined(agent, "manual", "low")
        self.assertEqual((status["quarantine"]["reason"]["description"], status["quarantine"]["maxRetries"]),
                         ("looks odd", 5), status)
        shown = self.evidence(agent)
        harness.wait_until(lambda: self.frozen(before), "the kernel to say that it is frozen")
        bundle = json.loads((self.daemon.state / "quarantine" / f"{agent}.json").read_text())
        self.assertEqual(bundle, shown["evidence"])
        for part in ("log", "denials", "messages", "processes"):
            self.assertIn(part, bundle)
        self.assertTrue(any(message.get("capability") == "echo" for message in bundle["messages"]), bundle["messages"])
        self.assertIn("memory", bundle["processes"])
        text = self.daemon.ctl("quarantine", "show", agent, text_mode=True)
        self.assertEqual(text.code, 0, text)
        self.assertIn("looks odd", text.stdout)
        self.ok("recover", agent)
        self.assertNotEqual(self.daemon.status(agent)["pid"], before)
        self.assertFalse(pathlib.Path(f"/proc/{before}").exists(), "what was frozen is gone")

    def test_killed_where_policy_says_so(self):
        agent = self.running("killed")
        before = self.daemon.status(agent)["pid"]
        self.ok("quarantine", agent, "--reason", "looks odd")
        self.quarantined(agent, "manual", "medium")
        harness.wait_until(lambda: not pathlib.Path(f"/proc/{before}").exists(), "it to be ended")
        self.assertNotIn("pid", self.daemon.status(agent))
        self.evidence(agent)

    def test_a_recovery_that_fails_counts_and_beyond_the_last_only_force_helps(self):
        self.ok("register", packages.package(self.scratch, "broken", "main.py", "raise SystemExit(4)\n", mode=0o644))
        self.ok("quarantine", "broken", "--reason", "known", "--severity", "high")
        self.fails(1, "AGENT_ERROR", "recover", "broken")
        record = self.daemon.wait_for_state("broken", "quarantined")["quarantine"]
        self.assertEqual((record["retryCount"], record["maxRetries"]), (1, 1))
        error = self.fails(6, "QUARANTINED", "recover", "broken")
        self.assertIn("max_retries_exceeded", error["message"])
        self.assertIn("--force", error["hint"])
        self.assertNotEqual(self.daemon.ctl("recover", "broken", "--force").code, 0)
        self.assertEqual(self.daemon.wait_for_state("broken", "quarantined")["quarantine"]["retryCount"], 2)

    def test_critical_is_recovered_by_force_only_and_the_audit_names_who(self):
        agent = self.running("critical")
        self.ok("quarantine", agent, "--reason", "very odd", "--severity", "critical", "--type", "security_violation")
        self.fails(6, "QUARANTINED", "recover", agent)
        self.ok("recover", agent, "--force")
        records = self.ok("audit", "list", agent).records
        recovered = next(record for record in records if record["event"] == "recovered")
        self.assertEqual((recovered["metadata"]["forced"], recovered["metadata"]["operatorUid"]), (True, os.geteuid()))

    def test_it_survives_control_and_kaid(self):
        agent = self.running("killed-long")
        self.ok("quarantine", agent, "--reason", "for good")
        self.evidence(agent)
        record = self.daemon.status(agent)["quarantine"]
        self.daemon.kill_control()
        self.assertEqual(self.daemon.status(agent)["quarantine"], record)
        self.daemon.stop()
        self.daemon.start()
        status = self.daemon.status(agent)
        self.assertEqual((status["state"], status["quarantine"]), ("quarantined", record))
        self.fails(6, "QUARANTINED", "start", agent)
        self.evidence(agent)
        self.ok("recover", agent)
        self.assertEqual(self.send(agent, "echo", 1), 1)

    @harness.needs_root
    def test_what_is_frozen_stays_frozen_when_control_dies(self):
        agent = self.running("icebound")
        before = self.daemon.status(agent)["pid"]
        self.ok("quarantine", agent, "--reason", "odd")
        self.evidence(agent)
        self.daemon.kill_control()
        self.assertEqual(self.quarantined(agent, "manual", "medium")["pid"], before)
        self.assertTrue(self.frozen(before))
        self.ok("recover", agent)
        self.assertNotEqual(self.daemon.status(agent)["pid"], before)

    def test_terminate_ends_a_quarantine_and_stop_leaves_it(self):
        agent = self.running("terminated")
        self.ok("quarantine", agent, "--reason", "odd")
        self.ok("stop", agent)
        self.quarantined(agent, "manual", "medium")
        self.ok("terminate", agent)
        status = self.daemon.status(agent)
        self.assertEqual((status["state"], "quarantine" in status), ("terminated", False))
        self.ok("start", agent)


class Messages(Supervised):
    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        of = lambda resource, scope, action: {"resource": resource, "scope": scope, "actions": [action]}
        for path in (actor(directory, "callee"),
                     actor(directory, "caller", [of("agent", "callee", "execute"), of("topic", "caller.news", "write")]),
                     actor(directory, "reader", [of("topic", "caller.news", "read")]), actor(directory, "stranger")):
            for command in (["register", path], ["start", path.name]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    def test_agent_to_agent_with_a_grant(self):
        answer = self.send("caller", "ask", {"to": "callee", "payload": {"n": 1}})
        self.assertEqual(answer, {"answer": {"n": 1}})
        received = self.events("callee", "message_received")[-1]
        self.assertEqual(received["metadata"]["from"], "caller", received)

    def test_without_a_grant_it_is_denied_logged_and_counted(self):
        self.assertEqual(self.send("stranger", "ask", {"to": "callee", "payload": 1}), {"code": "DENIED"})
        self.assertEqual(self.send("stranger", "ask", {"to": "nobody", "payload": 1}), {"code": "DENIED"})
        self.assertEqual(self.daemon.status("stranger")["denials"], 2)
        self.assertEqual([event["metadata"]["what"] for event in self.events("stranger", "kai.denied")],
                         ["callee", "nobody"])

    def test_a_topic_reaches_who_may_read_it(self):
        self.send("caller", "publish", {"name": "news", "payload": {"headline": "x"}})
        self.assertEqual(self.send("reader", "read"),
                         [{"to": "topic:caller.news", "from": "caller", "payload": {"headline": "x"}}])


class Events(Supervised):
    def test_the_events_of_a_life(self):
        # "upgraded" comes with its issue.
        agent = "life"
        stream = self.daemon.ctl_process("-o", "json", "events", "-f")
        self.addCleanup(stream.stdout.close)
        self.addCleanup(stream.stderr.close)
        self.addCleanup(stream.wait)
        self.addCleanup(stream.kill)
        self.running(agent)
        self.send(agent, "echo", 1)
        self.crash(agent)
        self.daemon.wait_for_state(agent, "running")
        self.ok("quarantine", agent, "--reason", "odd")
        self.ok("recover", agent)
        self.ok("terminate", agent)
        seen = []
        for line in stream.stdout:
            event = json.loads(line)
            self.assert_keys(event, ["seq", "time", "agentId", "event", "metadata"], ["state"])
            if event["agentId"] == agent:
                seen.append(event["event"])
            if seen and seen[-1] == "terminated":
                break
        lifecycle = [name for name in seen if not name.startswith("kai.")]
        self.assertEqual(lifecycle, [
            "created", "registered", "activated", "started", "message_received", "message_sent",  # a life
            "message_received", "error", "activated", "started",                                  # a crash
            "quarantined", "activated", "started", "recovered", "terminated"], seen)
        # The same as is stored.
        self.assertEqual(seen, [event["event"] for event in self.events(agent)][:len(seen)])


class Services(harness.DaemonTest):
    """A dependency of type service, on a socket that only its owner reaches: control, which is not root, does not."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        directory = cls.daemon.directory / "service"
        directory.mkdir(mode=0o700)
        cls.path = directory / "db.sock"
        cls.daemon.write_policies(**{"10-tests": f"policies:\n- name: db\n  services: {{db: 'unix:{cls.path}'}}\n"})
        cls.daemon.start()

    def test_an_agent_starts_once_its_service_takes_connections(self):
        needed = [{"name": "db", "version": "*", "type": "service", "required": True}]
        self.ok("register", packages.script(self.scratch, "depends", "exec sleep 1000\n", dependencies=needed))
        error = self.fails(1, "UNAVAILABLE", "start", "depends")
        self.assertIn("service 'db' does not answer", error["message"])
        self.assertIn("No such file or directory", error["message"])
        with socket.socket(socket.AF_UNIX) as service:
            service.bind(str(self.path))
            self.assertIn("Connection refused", self.fails(1, "UNAVAILABLE", "start", "depends")["message"])
            service.listen()
            self.ok("start", "depends")
            service.settimeout(harness.PATIENCE)
            connection, _ = service.accept()
            with connection:
                self.assertEqual(connection.recv(1), b"", "tried, and closed at once")
        self.path.unlink()


class Signals(Supervised):
    def test_sighup_reads_the_policies_again_and_keeps_the_old_ones_where_they_are_wrong(self):
        self.ok("register", packages.probe(self.scratch, "hupped"))
        self.daemon.write_policies(**{"20-more": "policies:\n- {name: fresh, agentId: hupped, memoryLimit: 99}\n"})
        self.daemon.process.send_signal(signal.SIGHUP)
        harness.wait_until(lambda: self.daemon.status("hupped")["policy"] == "fresh", "the new policy")
        self.daemon.write_policies(**{"20-more": "policies:\n- {name: fresh, noSuchKey: 1}\n"})
        self.daemon.process.send_signal(signal.SIGHUP)
        harness.wait_until(lambda: "noSuchKey" in self.daemon.log, "kaid to say what is wrong")
        self.assertEqual(self.daemon.status("hupped")["policy"], "fresh")
        self.daemon.write_policies(**{"20-more": None})

    def test_sigusr2_replaces_the_programs_and_agents_live(self):
        agent = self.running("lasting")
        before, control = self.daemon.status(agent)["pid"], self.daemon.control_pid()
        self.daemon.process.send_signal(signal.SIGUSR2)
        self.daemon.wait_for_another_control(control)
        self.assertEqual(self.daemon.wait_for_state(agent, "running")["pid"], before)
        self.assertEqual(self.send(agent, "echo", 2), 2)
        self.assertEqual(self.daemon.status(agent)["restarts"], 0)


if __name__ == "__main__":
    unittest.main()
