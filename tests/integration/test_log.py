"""The log: followed live, filtered, and nothing that an agent writes can forge a record or drive a terminal."""

import json
import re
import subprocess
import threading
import unittest

import harness
import packages

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


class Follower:
    """kaictl logs -f, read by a thread of its own."""

    def __init__(self, daemon, *arguments):
        self.process = daemon.ctl_process("-o", "json", "logs", "-f", *arguments)
        self.records = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.records.append(json.loads(line))

    def wait_for(self, predicate, what):
        return harness.wait_until(lambda: next((r for r in list(self.records) if predicate(r)), None), what)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=harness.PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.thread.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Log(harness.DaemonTest):
    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        for agent in ("talker", "other"):
            path = packages.probe(directory, agent)
            for command in (["register", path], ["start", agent]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    def say(self, agent, data, stream=1):
        self.ok("send", agent, "print", "-", stdin=json.dumps({"hex": data.hex(), "stream": stream}))

    def test_records_have_the_contracts_keys(self):
        self.say("talker", b"a plain line\n")
        record = harness.wait_until(lambda: next((r for r in self.ok("logs", "talker").records
                                                  if r.get("message") == "a plain line"), None), "the line")
        for key in ("time", "level", "agent", "event", "message"):
            self.assertIn(key, record)
        self.assertRegex(record["time"], TIME)
        self.assertEqual((record["agent"], record["event"], record["level"]), ("talker", "stdout", "info"))

    def test_follow_shows_lines_as_they_come_and_only_of_the_agent_asked_for(self):
        follower = Follower(self.daemon, "talker")
        try:
            self.say("other", b"from the other\n")
            self.say("talker", b"followed out\n")
            self.say("talker", b"followed err\n", stream=2)
            self.assertEqual(follower.wait_for(lambda r: r["message"] == "followed out", "stdout")["event"], "stdout")
            self.assertEqual(follower.wait_for(lambda r: r["message"] == "followed err", "stderr")["event"], "stderr")
            self.assertEqual({r["agent"] for r in follower.records}, {"talker"})
        finally:
            follower.close()

    def test_last_n_lines(self):
        for number in range(5):
            self.say("other", f"numbered {number}\n".encode())
        harness.wait_until(lambda: "numbered 4" in self.ok("logs", "other").stdout, "the last line")
        self.assertEqual(len(self.ok("logs", "-n", "2").records), 2)

    def test_an_agent_cannot_forge_a_record_or_drive_a_terminal(self):
        forged = (b'first\n{"time":"2026-01-01T00:00:00.000Z","level":"error","agent":"other","event":"forged","message":"x"}\n'
                  b"2026-01-01T00:00:00.000Z error other forged\rhidden\x1b[2J\x1b]0;title\x07 \xe2\x80\xaegnp.exe \xff\xfe end\n")
        self.say("talker", forged)
        records = harness.wait_until(
            lambda: (r := self.ok("logs", "talker").records) and any("end" in x["message"] for x in r) and r, "the lines")
        self.assertEqual([r for r in self.ok("logs").records if r["event"] == "forged"], [])
        self.assertTrue(any(r["event"] == "stdout" and '"event":"forged"' in r["message"] for r in records))
        text = self.daemon.ctl("logs", "talker", text_mode=True).stdout
        self.assertNotRegex(text, "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
        self.assertNotIn("\r", text)
        for line in text.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT", "every line begins with the daemon's own time")
        raw = self.daemon.log_path.read_bytes()
        self.assertNotRegex(raw, rb"[\x00-\x08\x0b-\x1f\x7f]")
        for line in raw.decode().splitlines():
            self.assertIsInstance(json.loads(line), dict, "in a pipe or a file the log is JSON, a record a line")

    def test_a_line_without_an_end_and_a_very_long_one_are_records_too(self):
        self.say("talker", b"y" * 100_000 + b"\nafter the long one\n")
        records = harness.wait_until(lambda: (r := self.ok("logs", "talker").records)
                                     and any(x["message"] == "after the long one" for x in r) and r, "the next line")
        self.assertTrue(all(len(r["message"]) <= 100_000 for r in records))

    def test_a_flood_is_dropped_with_a_count_and_costs_no_other_agent_anything(self):
        self.ok("register", packages.script(
            self.scratch, "flooder",
            "head -c 100000000 /dev/zero | tr '\\0' 'x' | fold -w 99\necho flood over\nwhile :; do sleep 1000; done\n"))
        self.ok("start", "flooder")
        for number in range(20):
            self.assertEqual(self.send("other", "echo", number), number)
        self.assertEqual(self.daemon.status("flooder")["state"], "running")
        dropped = harness.wait_until(lambda: [r for r in self.ok("logs", "flooder").records if "dropped" in json.dumps(r)],
                                     "a record that counts what was dropped")
        self.assertTrue(dropped)
        size = sum(path.stat().st_size for path in self.daemon.state.rglob("*") if path.is_file())
        self.assertLess(size, 64 << 20, "100 MB of output do not become 100 MB of log")
        self.ok("stop", "flooder")

    def test_lifecycle_is_in_the_log(self):
        events = [r["event"] for r in self.ok("logs", "talker").records]
        self.assertIn("started", events)


if __name__ == "__main__":
    unittest.main()
