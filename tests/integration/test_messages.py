"""Messages: the example agents as the issue describes them, and what goes wrong between sender and agent."""

import json
import unittest

import harness
import packages

EXAMPLES = harness.SOURCE / "examples"


class Examples(harness.DaemonTest):
    @classmethod
    def prepare(cls):
        cls.packages = {
            "calendarAgent": EXAMPLES / "calendar",
            "echoPython": EXAMPLES / "echo-python",
            "echoCpp": harness.BIN.parent / "examples" / "echo-cpp",
        }
        for agent, path in cls.packages.items():
            for command in (["register", path], ["start", agent]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    def test_calendar(self):
        def at(hour):
            return f"2026-05-04T{hour:02}:00:00.000Z"

        first = self.send("calendarAgent", "scheduleEvent", {"title": "Planning", "start": at(9), "end": at(10)})
        self.assertEqual((first["title"], first["start"], first["end"]), ("Planning", at(9), at(10)))
        self.assertTrue(first["id"])
        self.assertEqual(set(first), {"id", "title", "start", "end"})

        overlapping = {"title": "Dentist", "start": "2026-05-04T09:30:00.000Z", "end": at(11)}
        error = self.fails(1, "AGENT_ERROR", "send", "calendarAgent", "scheduleEvent", json.dumps(overlapping))
        self.assertIn("conflict", error["message"])
        self.assertIn("Planning", error["message"])

        touching = self.send("calendarAgent", "scheduleEvent", {"title": "Review", "start": at(10), "end": at(11)})
        availability = self.send("calendarAgent", "queryAvailability", {"from": at(8), "to": at(12)})
        self.assertEqual(availability["busy"], [{"id": first["id"], "start": at(9), "end": at(10)},
                                                {"id": touching["id"], "start": at(10), "end": at(11)}])
        self.assertEqual(availability["free"], [{"start": at(8), "end": at(9)}, {"start": at(11), "end": at(12)}])

        self.assertEqual(self.send("calendarAgent", "cancelEvent", {"id": first["id"]}), {"cancelled": True})
        self.assertEqual(self.send("calendarAgent", "cancelEvent", {"id": touching["id"]}), {"cancelled": True})
        availability = self.send("calendarAgent", "queryAvailability", {"from": at(8), "to": at(12)})
        self.assertEqual(availability, {"busy": [], "free": [{"start": at(8), "end": at(12)}]})

    def test_echo_in_python_and_cpp_gives_any_json_back(self):
        payloads = [{}, {"text": "grüß Gott \U0001F600", "n": [1, 2.5, None, True]}, [], "plain", {"deep": {"a": {"b": [[]]}}}]
        for agent in ("echoPython", "echoCpp"):
            for payload in payloads:
                with self.subTest(agent=agent, payload=payload):
                    self.assertEqual(self.send(agent, "echo", payload), payload)

    def test_the_answer_is_a_klp_message(self):
        answer = self.ok("send", "echoPython", "echo", '{"a":1}').document
        self.assertEqual((answer["protocol"], answer["from"], answer["to"], answer["type"]),
                         ("klp/1.0", "echoPython", "operator", "response"))
        self.assertRegex(answer["id"], "^[0-9a-f]{8}-[0-9a-f]{4}-7")
        self.assertRegex(answer["correlationId"], "^[0-9a-f]{8}-[0-9a-f]{4}-7")
        self.assertNotEqual(answer["id"], answer["correlationId"])
        self.assertRegex(answer["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_text_mode_prints_the_payload(self):
        outcome = self.daemon.ctl("send", "echoCpp", "echo", '{"a":"b"}', text_mode=True)
        self.assertEqual((outcome.code, json.loads(outcome.stdout)), (0, {"a": "b"}))

    def test_payload_from_standard_input(self):
        self.assertEqual(self.ok("send", "echoCpp", "echo", "-", stdin='{"from":"stdin"}').document["payload"],
                         {"from": "stdin"})

    def test_without_a_payload_an_empty_object_is_sent(self):
        self.assertEqual(self.send("echoPython", "echo"), {})


class Faults(harness.DaemonTest):
    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        for path in (packages.probe(directory), packages.script(directory, "mute", "while :; do sleep 1000; done\n")):
            for command in (["register", path], ["start", path.name]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    def test_a_hook_that_throws_is_an_agent_error_and_the_agent_lives_on(self):
        before = self.daemon.status("probe")["pid"]
        error = self.fails(1, "AGENT_ERROR", "send", "probe", "fail", '{"message":"no such room"}')
        self.assertIn("no such room", error["message"])
        self.assertFalse(error["retryable"])
        seen = self.send("probe", "seen")
        self.assertEqual(seen["hooks"][:2], ["on_init", "on_start"])
        self.assertTrue(any("no such room" in line for line in seen["errors"]), seen)
        self.assertEqual(self.daemon.status("probe")["pid"], before)

    def test_unknown_capability(self):
        self.fails(5, "UNKNOWN_CAPABILITY", "send", "probe", "noSuchThing")

    def test_a_program_without_the_runner_protocol_takes_no_messages(self):
        self.fails(5, "UNKNOWN_CAPABILITY", "send", "mute", "echo")

    def test_timeout(self):
        error = self.fails(7, "TIMEOUT", "send", "probe", "never", "--timeout", "1")
        self.assertTrue(error["retryable"])
        self.assertEqual(self.send("probe", "echo", [1]), [1], "the agent answers others meanwhile")

    def test_a_payload_over_the_frame_limit_is_too_large(self):
        self.fails(5, "TOO_LARGE", "send", "probe", "echo", "-", stdin=json.dumps("x" * (1 << 20)))
        self.assertEqual(len(self.send_large(900_000)), 900_000)

    def send_large(self, size):
        return self.ok("send", "probe", "echo", "-", stdin=json.dumps("x" * size)).document["payload"]

    def test_an_answer_over_the_frame_limit_is_an_error_of_the_one_who_asked(self):
        outcome = self.daemon.ctl("send", "probe", "big", json.dumps({"bytes": 3 << 20}))
        self.assertNotEqual(outcome.code, 0)
        self.assertIn(outcome.error["code"], ("TOO_LARGE", "AGENT_ERROR"), outcome)
        self.assertEqual(self.send("probe", "echo", [2]), [2])

    def test_a_payload_that_is_not_json_is_refused_before_it_is_sent(self):
        outcome = self.daemon.ctl("send", "probe", "echo", "{not json")
        self.assertIn(outcome.code, (2, 5), outcome)
        self.assertEqual(outcome.stdout, "")

    def test_an_agent_reaches_its_memory(self):
        self.assertEqual(self.send("probe", "memory", {}), {"kept": 1})

    def test_many_at_once_are_all_answered(self):
        running = [self.daemon.ctl_process("-o", "json", "send", "probe", "echo", str(n)) for n in range(30)]
        for number, process in enumerate(running):
            out, err = process.communicate(timeout=harness.PATIENCE)
            self.assertEqual(process.returncode, 0, err)
            self.assertEqual(json.loads(out)["payload"], number)


if __name__ == "__main__":
    unittest.main()
