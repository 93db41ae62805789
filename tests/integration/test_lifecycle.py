"""Registry and lifecycle through kaictl: states, idempotence, JSON shapes, exit codes, ends and restarts."""

import json
import re
import unittest

import harness
import packages

LIST_KEYS = ["id", "name", "version", "state", "status", "desired", "restarts", "policy"]
STATUS_KEYS = ["id", "status", "state", "desired", "version", "crashes", "policy", "degraded", "grants", "denials"]
STATUS_OPTIONAL = ["restarts", "uptime", "pid", "health", "lastEnd", "exposure", "quarantine"]
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


class Lifecycle(harness.DaemonTest):
    def registered(self, agent, **changes):
        self.ok("register", packages.probe(self.scratch, agent, **changes))
        return agent

    def test_register_then_list_and_status(self):
        agent = self.registered("listed", name="Listed", version="1.2.3")
        entry = next(a for a in self.ok("list").document["agents"] if a["id"] == agent)
        self.assert_keys(entry, LIST_KEYS, ["uptime"])
        self.assertEqual(entry | {"policy": ""}, {
            "id": agent, "name": "Listed", "version": "1.2.3", "state": "registered", "status": "terminated",
            "desired": "stopped", "restarts": 0, "policy": ""} | ({"uptime": 0} if "uptime" in entry else {}))
        status = self.ok("status", agent).document
        self.assert_keys(status, STATUS_KEYS, STATUS_OPTIONAL)
        self.assertEqual((status["state"], status["status"], status["desired"]), ("registered", "terminated", "stopped"))
        self.assertNotIn("pid", status)

    def test_running_status_has_every_key_of_the_contract(self):
        agent = self.registered("shaped")
        self.ok("start", agent)
        status = harness.wait_until(
            lambda: (s := self.daemon.status(agent)).get("health") and s, "the first health report")
        self.assert_keys(status, STATUS_KEYS + ["uptime", "pid", "health"], STATUS_OPTIONAL)
        self.assertEqual((status["state"], status["status"], status["desired"]), ("running", "active", "running"))
        self.assertIsInstance(status["pid"], int)
        self.assertGreaterEqual(status["uptime"], 0)
        self.assertEqual(set(status["crashes"]), {"count", "window"})
        health = status["health"]
        self.assert_keys(health, ["status", "uptime", "memoryUsage", "lastActivity", "errors"], ["cpuUsage"])
        self.assertEqual(health["status"], "healthy")
        self.assertRegex(health["lastActivity"], TIME)
        entry = next(a for a in self.ok("list").document["agents"] if a["id"] == agent)
        self.assert_keys(entry, LIST_KEYS + ["uptime"])

    def test_start_and_stop_are_idempotent_and_set_what_is_desired(self):
        agent = self.registered("idempotent")
        self.ok("start", agent)
        first = self.daemon.status(agent)
        self.ok("start", agent)
        self.assertEqual(self.daemon.status(agent)["pid"], first["pid"], "a second start starts nothing")
        self.ok("stop", agent)
        stopped = self.daemon.status(agent)
        self.assertEqual((stopped["state"], stopped["status"], stopped["desired"]), ("stopped", "terminated", "stopped"))
        self.assertEqual(stopped["lastEnd"]["cause"], "stopped")
        self.ok("stop", agent)
        self.assertFalse(harness.os.path.exists(f"/proc/{first['pid']}"))

    def test_restart_makes_a_new_process(self):
        agent = self.registered("restarted")
        self.ok("start", agent)
        before = self.daemon.status(agent)["pid"]
        self.ok("restart", agent)
        after = self.daemon.status(agent)
        self.assertEqual(after["state"], "running")
        self.assertNotEqual(after["pid"], before)

    def test_terminate_keeps_the_registration_and_start_begins_anew(self):
        agent = self.registered("terminated")
        self.ok("start", agent)
        self.ok("terminate", agent)
        status = self.daemon.status(agent)
        self.assertEqual((status["state"], status["status"], status["desired"]), ("terminated", "terminated", "stopped"))
        self.ok("start", agent)
        self.assertEqual(self.daemon.status(agent)["state"], "running")

    def test_unregister_needs_an_agent_that_does_not_run(self):
        agent = self.registered("unregistered")
        self.ok("start", agent)
        self.fails(1, "CONFLICT", "unregister", agent)
        self.assertEqual(self.daemon.status(agent)["state"], "running")
        self.ok("stop", agent)
        self.ok("unregister", agent)
        gone = self.daemon.ctl("status", agent)
        self.assertEqual(gone.code, 4, gone)
        self.assertEqual(gone.document, {"id": agent, "status": "not_found"})

    def test_unknown_agents_are_not_found_by_every_command(self):
        for command in (["start", "nobody"], ["stop", "nobody"], ["restart", "nobody"], ["terminate", "nobody"],
                        ["unregister", "nobody"], ["send", "nobody", "echo"]):
            with self.subTest(command=command):
                self.fails(4, "NOT_FOUND", *command)

    def test_a_failure_in_text_is_one_line_that_says_what_to_do(self):
        outcome = self.daemon.ctl("start", "nobody", text_mode=True)
        self.assertEqual((outcome.code, outcome.stdout, len(outcome.stderr.splitlines())), (4, "", 1), outcome)
        self.assertIn("nobody", outcome.stderr)

    def test_usage_errors_are_2(self):
        for command in (["start"], ["no-such-command"], ["list", "--no-such-option"], []):
            with self.subTest(command=command):
                self.assertEqual(self.daemon.ctl(*command).code, 2)

    def test_a_running_agent_that_is_not_started_answers_no_message(self):
        agent = self.registered("quiet")
        self.fails(1, "NOT_RUNNING", "send", agent, "echo")

    def test_a_program_that_exits_0_by_itself_is_stopped(self):
        self.ok("register", packages.script(self.scratch, "finishes", "exit 0\n"))
        self.daemon.ctl("start", "finishes")
        status = self.daemon.wait_for_state("finishes", "stopped")
        self.assertEqual((status["lastEnd"]["cause"], status["lastEnd"]["exitCode"]), ("exit", 0))
        self.assertEqual(status["crashes"]["count"], 0)

    def test_a_crash_is_counted_named_and_answered_with_a_restart(self):
        agent = self.registered("crashes")
        self.ok("start", agent)
        before = self.daemon.status(agent)["pid"]
        self.fails(1, "AGENT_CRASHED", "send", agent, "exit", json.dumps({"code": 3}))
        status = harness.wait_until(
            lambda: (s := self.daemon.status(agent)).get("state") == "running" and s.get("pid") != before and s,
            "the restart")
        self.assertEqual(status["crashes"]["count"], 1)
        self.assertEqual((status["lastEnd"]["cause"], status["lastEnd"]["exitCode"]), ("exit", 3))
        self.fails(1, "AGENT_CRASHED", "send", agent, "kill", json.dumps({"signal": 11}))
        status = harness.wait_until(
            lambda: (s := self.daemon.status(agent)).get("state") == "running" and s["crashes"]["count"] == 2 and s,
            "the second restart")
        self.assertEqual((status["lastEnd"]["cause"], status["lastEnd"]["signal"]), ("signal", "SIGSEGV"))
        entry = next(a for a in self.ok("list").document["agents"] if a["id"] == agent)
        self.assertEqual(entry["restarts"], 2)

    def test_another_version_takes_the_place_of_one_that_does_not_run(self):
        agent = self.registered("twice")
        second = packages.probe(self.scratch / "second", agent, version="2.0.0")
        self.ok("start", agent)
        self.fails(1, "CONFLICT", "register", second)
        self.assertEqual(self.daemon.status(agent)["version"], "1.0.0")
        self.ok("stop", agent)
        self.ok("register", second)
        self.ok("start", agent)
        self.assertEqual(self.daemon.status(agent)["version"], "2.0.0")

    def test_an_agent_that_asks_for_outbound_is_warned_that_there_is_none_yet(self):
        path = packages.probe(self.scratch, "asks", security=packages.CORRECT["security"] | {
            "networkAccess": {"allowOutbound": True, "allowedDomains": ["example.org"]}})
        outcome = self.daemon.ctl("register", path, text_mode=True)
        self.assertEqual(outcome.code, 0, outcome)
        said = outcome.stdout + outcome.stderr
        self.assertRegex(said, "(?i)network|outbound")

    def test_a_package_is_a_copy(self):
        path = packages.probe(self.scratch, "copied")
        self.ok("register", path)
        (path / "main.py").write_text("raise SystemExit(9)\n")
        self.ok("start", "copied")
        self.assertEqual(self.send("copied", "echo", {"still": "there"}), {"still": "there"})


class Restarts(harness.DaemonTest):
    """What a daemon's end leaves recorded, and its next start takes up."""

    def test_desired_agents_come_back_and_stopped_ones_do_not(self):
        for agent in ("wanted", "unwanted"):
            self.ok("register", packages.probe(self.scratch, agent))
            self.ok("start", agent)
        self.ok("stop", "unwanted")
        before = self.daemon.status("wanted")["pid"]
        self.daemon.stop()
        self.daemon.start()
        status = self.daemon.wait_for_state("wanted", "running")
        self.assertNotEqual(status["pid"], before)
        self.assertEqual(self.send("wanted", "echo", [1]), [1])
        self.assertEqual(self.daemon.status("unwanted")["state"], "stopped")

    def test_registry_survives_kill_9_and_agents_end_with_their_keeper(self):
        self.ok("register", packages.probe(self.scratch, "survivor", version="3.1.4"))
        self.ok("start", "survivor")
        self.daemon.process.kill()
        self.daemon.process.wait()
        harness.wait_until(lambda: not harness.descendants(harness.os.getpid()), "the agents to end with their keeper")
        self.daemon.start()
        self.assertEqual(self.daemon.wait_for_state("survivor", "running")["version"], "3.1.4")
        self.assertEqual(self.send("survivor", "echo", {}), {})


if __name__ == "__main__":
    unittest.main()
