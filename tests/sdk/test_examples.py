"""The examples, run as the supervisor runs them; and nosy outside of a sandbox, where its attempts must succeed."""

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

from host import BUILD, ESBUILD, SOURCE, MemoryHost, Package, Runner, RunnerError, native_command, node_command, python_command

EXAMPLES = os.path.join(SOURCE, "examples")


def read_manifest(directory):
    with open(os.path.join(directory, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)


class CalendarTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        source = os.path.join(EXAMPLES, "calendar")
        modules = os.path.join(source, "node_modules")
        if not os.path.isdir(modules):
            raise RuntimeError(f"{modules} is missing: run scripts/bootstrap, or `npm ci` in {source}")
        cls.package = Package()
        cls.addClassCleanup(cls.package.cleanup)
        os.symlink(modules, os.path.join(cls.package.path, "node_modules"))
        cls.entry = os.path.join(cls.package.path, ".kai", "main.mjs")
        options = ["--bundle", "--platform=node", "--format=esm", "--packages=external", "--sourcemap=inline"]
        entry = os.path.join(source, read_manifest(source)["entry"])
        options += [f"--outfile={cls.entry}", "--log-level=warning"]
        subprocess.run([ESBUILD, entry, *options], check=True, timeout=60)

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.memory = MemoryHost(directory.name, "--indexeddb", "--volatile")
        self.addCleanup(self.memory.close)
        self.runner = self.started()

    def started(self):
        runner = Runner(node_command(self.entry))
        runner.memory = self.memory
        self.addCleanup(runner.__exit__)
        return runner.start()

    def schedule(self, title, start, end):
        return self.runner.ask("scheduleEvent", {"title": title, "start": start, "end": end})

    def refused(self, capability, payload):
        with self.assertRaises(RunnerError) as caught:
            self.runner.ask(capability, payload)
        self.assertEqual(caught.exception.data["code"], "AGENT_ERROR")
        return caught.exception.message

    def test_the_manifest_is_the_specifications(self):
        with open(os.path.join(EXAMPLES, "calendar", "package.json"), encoding="utf-8") as file:
            package = json.load(file)
        manifest = read_manifest(os.path.join(EXAMPLES, "calendar"))
        self.assertEqual((manifest["id"], manifest["entry"]), ("calendarAgent", "main.ts"))
        self.assertEqual(manifest["capabilities"], ["scheduleEvent", "cancelEvent", "queryAvailability"])
        self.assertEqual(package["dependencies"], {"date-fns": manifest["dependencies"][0]["version"]})
        self.assertEqual(package["version"], manifest["version"])

    def test_the_lock_file_names_no_registry(self):
        with open(os.path.join(EXAMPLES, "calendar", "package-lock.json"), encoding="utf-8") as file:
            self.assertNotIn('"resolved"', file.read())

    def test_schedule_query_cancel(self):
        event = self.schedule("standup", "2026-05-04T13:00:00Z", "2026-05-04T13:30:00Z")
        self.assertEqual(
            {**event, "id": "?"},
            {"id": "?", "title": "standup", "start": "2026-05-04T13:00:00Z", "end": "2026-05-04T13:30:00Z"},
        )
        asked = {"from": "2026-05-04T12:00:00Z", "to": "2026-05-04T15:00:00Z"}
        self.assertEqual(
            self.runner.ask("queryAvailability", asked),
            {
                "busy": [{"id": event["id"], "start": "2026-05-04T13:00:00Z", "end": "2026-05-04T13:30:00Z"}],
                "free": [
                    {"start": "2026-05-04T12:00:00Z", "end": "2026-05-04T13:00:00Z"},
                    {"start": "2026-05-04T13:30:00Z", "end": "2026-05-04T15:00:00Z"},
                ],
            },
        )
        self.assertEqual(self.runner.ask("cancelEvent", {"id": event["id"]}), {"cancelled": True})
        all_free = {"busy": [], "free": [{"start": asked["from"], "end": asked["to"]}]}
        self.assertEqual(self.runner.ask("queryAvailability", asked), all_free)

    def test_a_conflict_names_the_other_event(self):
        event = self.schedule("standup", "2026-05-04T13:00:00Z", "2026-05-04T13:30:00Z")
        overlapping = {"title": "review", "start": "2026-05-04T15:29:00+02:00", "end": "2026-05-04T16:00:00+02:00"}
        message = self.refused("scheduleEvent", overlapping)
        self.assertIn("conflict", message)
        self.assertIn("standup", message)
        self.assertIn(event["id"], message)
        self.runner.wait_log("request failed: conflict")

    def test_an_event_may_begin_when_another_one_ends(self):
        self.schedule("first", "2026-05-04T13:00:00Z", "2026-05-04T13:30:00Z")
        self.schedule("second", "2026-05-04T13:30:00Z", "2026-05-04T14:00:00Z")
        asked = {"from": "2026-05-04T13:10:00Z", "to": "2026-05-04T13:50:00Z"}
        availability = self.runner.ask("queryAvailability", asked)
        self.assertEqual((len(availability["busy"]), availability["free"]), (2, []))

    def test_of_overlapping_events_asked_at_once_one_is_taken(self):
        event = {"title": "race", "start": "2026-05-04T13:00:00Z", "end": "2026-05-04T14:00:00Z"}
        asked = [self.runner.request("message", self.runner.message("scheduleEvent", payload=event)) for _ in range(20)]
        taken = 0
        for one in asked:
            with contextlib.suppress(RunnerError):
                self.runner.answer(one)
                taken += 1
        self.assertEqual(taken, 1)

    def test_bad_requests_are_told_what_is_wrong(self):
        good = {"title": "x", "start": "2026-05-04T13:00:00Z", "end": "2026-05-04T14:00:00Z"}
        for capability, payload, expected in (
            ("scheduleEvent", {**good, "start": "tomorrow"}, 'start must be an ISO 8601 date.*"tomorrow"'),
            ("scheduleEvent", {**good, "end": None}, "end must be an ISO 8601 date"),
            ("scheduleEvent", {**good, "end": "2026-02-30T00:00:00Z"}, "end must be an ISO 8601 date"),
            ("scheduleEvent", {**good, "end": good["start"]}, "end .* must be after start"),
            ("scheduleEvent", {**good, "title": " "}, "title must be a text"),
            ("scheduleEvent", [], "takes a JSON object"),
            ("queryAvailability", {"from": good["end"], "to": good["start"]}, "to .* must be after from"),
            ("cancelEvent", {"id": "nobody"}, 'no event with id "nobody"'),
            ("cancelEvent", {}, "id must be a text"),
            ("fly", {}, "unknown capability fly"),
        ):
            with self.subTest(capability=capability, payload=payload):
                self.assertRegex(self.refused(capability, payload), expected)

    def test_events_outlive_the_process(self):
        event = self.schedule("standup", "2026-05-04T13:00:00Z", "2026-05-04T13:30:00Z")
        self.runner.process.kill()
        self.runner.wait()
        after = self.started()
        self.assertEqual(after.ask("cancelEvent", {"id": event["id"]}), {"cancelled": True})


class EchoTest(unittest.TestCase):
    def check(self, directory, agent_id, command):
        manifest = read_manifest(directory)
        self.assertEqual((manifest["id"], manifest["capabilities"]), (agent_id, ["echo"]))
        with Runner(command(os.path.join(directory, manifest["entry"]))) as runner:
            runner.start()
            self.assertEqual(runner.ask("echo", {"a": [1, None]}), {"a": [1, None]})
            runner.call("shutdown")
            self.assertEqual(runner.wait(), 0)

    def test_python(self):
        self.check(os.path.join(EXAMPLES, "echo-python"), "echoPython", python_command)

    def test_cpp_from_the_build_tree(self):
        package = os.path.join(BUILD, "examples", "echo-cpp")
        self.check(package, "echoCpp", native_command)
        self.assertEqual(sorted(os.listdir(package)), ["libecho.so", "manifest.json"])


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, *_):
        pass


class FetcherTest(unittest.TestCase):
    def test_it_fetches_pages_and_no_files(self):
        directory = os.path.join(EXAMPLES, "fetcher")
        manifest = read_manifest(directory)
        self.assertEqual((manifest["id"], manifest["capabilities"]), ("fetcher", ["fetch"]))
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            runner = stack.enter_context(Runner(python_command(os.path.join(directory, manifest["entry"]))))
            runner.start()
            page = runner.ask("fetch", {"url": f"http://127.0.0.1:{server.server_port}/"})
            self.assertEqual(page, {"status": 200, "body": "a page"})
            with self.assertRaisesRegex(RunnerError, "not an http or https URL"):
                runner.ask("fetch", {"url": f"file://{directory}/manifest.json"})
            runner.call("shutdown")
            self.assertEqual(runner.wait(), 0)


class NosyTest(unittest.TestCase):
    program = os.path.join(EXAMPLES, "nosy", "nosy")

    def run_nosy(self, *arguments, **options):
        command = [self.program, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, **options)
        *lines, summary = ended.stdout.splitlines()
        summary = json.loads(summary)
        self.assertEqual(len(lines), len(summary["attempts"]))
        for line, attempt in zip(lines, summary["attempts"]):
            self.assertEqual(line, f"{attempt['attempt']}: {attempt['outcome']}: {attempt['detail']}")
        return {attempt["attempt"]: attempt for attempt in summary["attempts"]}

    def test_the_manifest(self):
        manifest = read_manifest(os.path.dirname(self.program))
        self.assertEqual((manifest["id"], manifest["entry"]), ("nosy", "nosy"))
        self.assertTrue(os.access(self.program, os.X_OK))

    def test_outside_of_a_sandbox_everything_is_allowed(self):
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="kai-nosy."))
            tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(os.path.join(directory, "s"))
            unix.listen()
            abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
            name = f"kai-nosy-{os.getpid()}"
            abstract.bind(f"\0{name}")
            abstract.listen()
            path = os.path.join(directory, "s")
            private = os.path.join(directory, "private")
            with open(private, "w", encoding="utf-8") as file:
                file.write("secret")
            stack.enter_context(subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE))
            attempts = self.run_nosy(
                "--file", private, "--connect", f"127.0.0.1:{tcp.getsockname()[1]}", "--unix", path,
                "--abstract", name, "--secret", "KAI_SECRET",
                env={**os.environ, "KAI_SECRET": "x"},
            )  # fmt: skip
        if os.geteuid() != 0:
            del attempts["read /etc/shadow"]  # refused to an ordinary user anywhere
        self.assertEqual({name: one["outcome"] for name, one in attempts.items() if one["outcome"] != "allowed"}, {})
        self.assertEqual(attempts["fork without end"]["detail"], "made 200 processes, and stopped there by itself")

    def test_refusals_are_reported_with_their_reason(self):
        attempts = self.run_nosy(
            "--file", "/nowhere", "--connect", "127.0.0.1:1", "--unix", "/nowhere", "--abstract", "kai-nobody-listens",
            env={"PATH": "/usr/bin"},
        )  # fmt: skip
        self.assertEqual(attempts["read /nowhere"]["detail"], "No such file or directory")
        self.assertEqual(attempts["connect to 127.0.0.1:1"]["detail"], "Connection refused")
        self.assertEqual(attempts["connect to /nowhere"]["detail"], "No such file or directory")
        self.assertEqual(attempts["connect to @kai-nobody-listens"]["detail"], "Connection refused")
        self.assertEqual(attempts["find the secret NOSY_SECRET"]["outcome"], "refused")

    def test_a_limit_on_processes_is_reported(self):
        # RLIMIT_NPROC does not hold root, so root tests it as nobody, with a copy that nobody can read.
        with tempfile.TemporaryDirectory(prefix="kai-nosy.") as directory:
            os.chmod(directory, 0o755)
            command = ["prlimit", "--nproc=1", shutil.copy(self.program, directory)]
            if os.geteuid() == 0:
                command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        self.assertRegex(ended.stdout, "fork without end: refused: Resource temporarily unavailable, after 0 processes")


if __name__ == "__main__":
    unittest.main()
