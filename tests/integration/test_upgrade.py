"""Upgrades that succeed: each language, softly, hard and back, while a client keeps sending; what goes over from one version
to the next, and what is on record."""

import itertools
import json
import os
import sys
import unittest

import control_client
import harness
import upgrade_agents
from upgrade_case import UpgradeTest

HOOKS = ["onInit", "restoreState", "onUpgrade {}", "onStart"]


class Languages(UpgradeTest):
    """No message is lost or answered twice, and each version has what the one before knew."""

    def check(self, language):
        agent = self.begin(f"{language}Agent", language)
        self.send(agent, "connect", {})
        connection = self.gate.wait("kept")
        first = self.process(agent)
        with self.client(agent) as client:
            def settled(number, came_from, process=None):
                """This version serves, and went through its hooks in the order of the contract."""
                client.wait_for_answers(client.THREADS + 1)
                self.check_serves(agent, number)
                report = self.report(agent)
                self.assertEqual(report["hooks"], [hook.format(came_from) for hook in HOOKS])
                self.assertEqual(report["loaded"], 1, "the new version has variables of its own")
                self.assertEqual(report["doubled"], [])
                if process is not None:
                    self.assertEqual(self.process(agent), process, "it is the same process")
                return self.process(agent)

            client.wait_for_answers(20)
            result = self.upgrade(agent, self.version(agent, "1.1.0", language))
            self.assertEqual((result["type"], result["from"], result["to"]), ("soft", "1.0.0", "1.1.0"))
            self.assertTrue(result["rollbackAvailable"])
            settled("1.1.0", "1.0.0", first)
            self.assertEqual(self.rollback(agent)["to"], "1.0.0")
            settled("1.0.0", "1.1.0", first)
            self.assertTrue(upgrade_agents.is_open(connection), "what the process has open stays open")

            result = self.upgrade(agent, "1.1.0", "hard")
            self.assertEqual((result["type"], result["from"], result["to"]), ("hard", "1.0.0", "1.1.0"))
            second = settled("1.1.0", "1.0.0")
            self.assertFalse(set(first) & set(second), "host and runner are others")
            harness.wait_until(lambda: not upgrade_agents.is_open(connection), "the old process to end")
            self.assertEqual(self.rollback(agent)["to"], "1.0.0")
            settled("1.0.0", "1.1.0")
        self.check_counts(agent, client)
        self.check_store(agent)
        print(f"{language}: {client}", file=sys.stderr)

    def test_python(self):
        self.check("python")

    def test_node(self):
        self.check("node")

    def test_typescript(self):
        self.check("typescript")

    def test_cpp(self):
        self.check("cpp")


class Story(UpgradeTest):
    """What an operator sees of an upgrade, and what it leaves."""

    MORE_POLICIES = """- name: few
  agentId: "few*"
  upgrade: {probation: 1h, maxSoftSwaps: 2}
"""

    def test_steps_follow_the_order_and_the_old_one_serves_until_it_is_drained(self):
        agent = self.begin("ordered", acts=("saveState=gate",))
        new = self.version(agent, "1.1.0", acts=("onInit=gate", "onStart=gate"))
        upgrade = self.upgrade_in_background(agent, new)
        saving = self.gate.wait("saveState 1.0.0")
        self.assertEqual((self.daemon.status(agent)["state"], self.daemon.status(agent)["status"]), ("upgrading", "active"))
        self.assertEqual(self.daemon.status(agent)["version"], "1.0.0")
        with self.client(agent) as client:
            harness.wait_until(lambda: client.sent == client.THREADS, "messages to wait")
            self.daemon.wait_for_state(agent, "upgrading")  # whatever was sent before is there before this
            saving.close()
            self.gate.open("onInit 1.1.0")
            self.gate.wait("onStart 1.1.0").close()
            self.assertEqual(upgrade.wait().code, 0, upgrade.outcome)
            client.wait_for_answers(client.THREADS)
        self.check_counts(agent, client)
        held = [answer["version"] for number, answer, _ in client.answers if number <= client.THREADS]
        self.assertEqual(held, ["1.1.0"] * client.THREADS, "what waited is answered by the new version")
        result = self.result(upgrade.outcome.document, agent)
        self.assertEqual(result["messagesHeld"], client.THREADS)
        self.assertGreater(result["pauseMs"], 0)

    def test_what_is_in_flight_is_answered_by_the_version_that_got_it(self):
        for kind in ("soft", "hard"):
            with self.subTest(kind=kind):
                agent = self.begin(f"busy-{kind}")
                asked = self.ask_in_background(agent, "wait", {"name": kind})
                waiting = self.gate.wait(kind)
                upgrade = self.upgrade_in_background(agent, self.version(agent, "1.1.0"), kind)
                self.daemon.wait_for_state(agent, "upgrading")
                later = self.ask_in_background(agent, "report", {})
                self.assertFalse(upgrade.ended)
                waiting.close()
                self.assertEqual(asked.wait().document["payload"], {"version": "1.0.0"})
                self.assertEqual(upgrade.wait().code, 0, upgrade.outcome)
                # Until the new one is loaded the old one still takes requests.
                self.assertIn(later.wait().document["payload"]["version"], ("1.0.0", "1.1.0"))

    def test_log_and_audit_tell_it_as_one_story(self):
        agent = self.begin("told")
        soft = self.upgrade(agent, self.version(agent, "1.1.0"))
        hard = self.upgrade(agent, self.version(agent, "1.2.0"), "hard")
        back = self.rollback(agent, "1.0.0")
        records = self.upgrades(agent)
        self.assertEqual([(each["from"], each["to"], each["type"], each["success"]) for each in records],
                         [("1.0.0", "1.1.0", "soft", True), ("1.1.0", "1.2.0", "hard", True), ("1.2.0", "1.0.0", "rollback", True)])
        for record, result in zip(records, (soft, hard, back)):
            self.assertEqual(record["steps"], result["steps"])
            self.assertEqual(record["messagesHeld"], result["messagesHeld"])
            self.assertEqual(record["operatorUid"], os.geteuid())
        logged = [each["message"] for each in self.ok("logs", agent).records if each["event"] == "upgraded"]
        self.assertEqual(len(logged), 3)
        for message, (before, after) in zip(logged, (("1.0.0", "1.1.0"), ("1.1.0", "1.2.0"), ("1.2.0", "1.0.0"))):
            self.assertIn(f"from {before} to {after}", message)
        events = [each for each in self.ok("events", agent).records if each["event"] == "upgraded"]
        self.assertEqual(len(events), 3)
        self.assertEqual(self.ok("audit", "verify").document["findings"], [])

    def test_on_shutdown_is_for_the_process_that_ends(self):
        agent = self.begin("ends")
        def ends():
            return [each["message"] for each in self.ok("logs", agent).records if "onShutdown" in each["message"]]
        self.upgrade(agent, self.version(agent, "1.1.0"))
        self.rollback(agent)
        self.assertEqual(ends(), [], "a soft upgrade ends nothing")
        self.upgrade(agent, "1.1.0", "hard")
        harness.wait_until(lambda: ends() == ["onShutdown of 1.0.0"], "the old one to be shut down")

    def test_after_so_many_soft_ones_comes_a_hard_one(self):
        agent = self.begin("fewAgent")
        process = self.process(agent)
        packages = [self.version(agent, f"1.{number}.0") for number in range(1, 5)]
        types = [self.upgrade(agent, package)["type"] for package in packages]
        self.assertEqual(types, ["soft", "soft", "hard", "soft"])
        self.assertNotEqual(self.process(agent), process)
        self.assertRegex(json.dumps(self.upgrades(agent)[2]), "maxSoftSwaps")


class Calendar(UpgradeTest):
    """The example, from 1.0.3 to 1.1.0 and back, with its modules and its memory."""

    def calendar(self, number):
        return upgrade_agents.calendar(self.scratch, number)

    def test_it_keeps_its_events_through_all(self):
        agent = self.begin_with("calendarAgent", self.calendar(upgrade_agents.CALENDAR))
        day = {"from": "2026-05-04T00:00:00.000Z", "to": "2026-05-05T00:00:00.000Z"}
        hours, ids = itertools.count(1), []

        def schedule():
            hour = next(hours)
            event = {"title": f"Event {hour}", "start": f"2026-05-04T{hour:02}:00:00.000Z", "end": f"2026-05-04T{hour:02}:30:00.000Z"}
            ids.append(self.send(agent, "scheduleEvent", event)["id"])

        def check(number):
            self.assertEqual(self.active(agent), number)
            busy = self.send(agent, "queryAvailability", day)["busy"]
            self.assertEqual([event["id"] for event in busy], ids)
            schedule()

        schedule()
        first = ids[0]
        client = control_client.SteadyClient(self.daemon.socket, agent, "queryAvailability", lambda number: day)
        with client:
            client.wait_for_answers(10)
            process = self.process(agent)
            self.upgrade(agent, self.calendar("1.1.0"))
            self.assertEqual(self.process(agent), process)
            check("1.1.0")
            cancelled = self.send(agent, "scheduleEvent", {"title": "Never", "start": "2026-05-05T01:00:00Z", "end": "2026-05-05T02:00:00Z"})
            self.send(agent, "cancelEvent", {"id": cancelled["id"]})
            for change, number in ((lambda: self.upgrade(agent, self.calendar("1.1.1"), "hard"), "1.1.1"),
                                   (lambda: self.rollback(agent), "1.1.0")):
                change()
                listed = self.send(agent, "listEvents", {})
                self.assertEqual([event["id"] for event in listed["events"]], ids)
                self.assertEqual(listed["cancelled"], [cancelled], "what saveState gave")
                check(number)
            self.rollback(agent, "1.0.3")
            check("1.0.3")
            self.upgrade(agent, "1.1.0", "hard")
            check("1.1.0")
            self.rollback(agent)
            check("1.0.3")
            client.wait_for_answers(client.THREADS + 1)
        self.assertEqual(([str(said) for _, said in client.errors], client.unknown), ([], []))
        self.assertEqual(len(client.answers), client.sent)
        for _, answer, _ in client.answers:
            self.assertEqual(answer["busy"][0]["id"], first)
        print(f"calendar: {client}", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
