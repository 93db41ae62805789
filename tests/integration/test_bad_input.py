"""Bad input: each gets a clear error to the one who asked, and costs no other agent anything."""

import json
import os
import resource
import socket
import struct
import unittest

import harness
import packages


class Manifests(harness.DaemonTest):
    def refused(self, agent, text=None, **changes):
        """Registers a package whose manifest is broken in one way; the error as text."""
        path = packages.script(self.scratch, agent, "exit 0\n", **changes)
        if text is not None:
            (path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        error = self.fails(5, "INVALID", "register", path)
        self.assertEqual(self.daemon.ctl("status", agent).code, 4, "nothing of it is registered")
        return json.dumps(error, ensure_ascii=False)

    def with_entry(self, name, entry):
        return json.dumps(packages.manifest(name, entry))

    def test_wrong_types_are_all_named_at_once_with_their_pointers(self):
        security = packages.CORRECT["security"] | {"sandbox": "yes", "crypto": "rot13"}
        said = self.refused("types", name=7, capabilities="echo", security=security, persona="villain")
        for pointer in ("/name", "/capabilities", "/security/sandbox", "/security/crypto", "/persona"):
            self.assertIn(pointer, said)

    def test_unknown_fields_are_errors_with_a_suggestion(self):
        said = self.refused("unknown", versoin="1.0.0")
        self.assertIn("/versoin", said)
        self.assertIn("version", said)

    def test_missing_fields(self):
        said = self.refused("missing", text=json.dumps({"id": "missing", "name": "x"}))
        for field in ("version", "entry", "persona", "security", "metadata"):
            self.assertIn(field, said)

    def test_ids(self):
        for number, agent in enumerate(("kaid", "operator", "topic", "../up", "a/b", "", "x" * 65, "a b", "ü")):
            with self.subTest(agent=agent):
                self.assertIn("/id", self.refused(f"ids{number}", text=json.dumps(packages.manifest(agent, "main.sh"))))

    def test_entries_outside_the_package(self):
        for number, entry in enumerate(("../main.sh", "/bin/sh", "a/../../main.sh", "./main.sh/..", "")):
            with self.subTest(entry=entry):
                self.assertIn("/entry", self.refused(f"outside{number}", text=self.with_entry(f"outside{number}", entry)))

    def test_an_entry_that_is_missing_a_directory_or_a_link_out(self):
        for name, make in (("gone", lambda path: path.unlink()),
                           ("directory", lambda path: (path.unlink(), path.mkdir())),
                           ("linkout", lambda path: (path.unlink(), path.symlink_to("/bin/sh"))),
                           ("linkup", lambda path: (path.unlink(), path.symlink_to("../../../../bin/sh")))):
            with self.subTest(name=name):
                path = packages.script(self.scratch, name, "exit 0\n")
                make(path / "main.sh")
                outcome = self.daemon.ctl("register", path)
                self.assertEqual((outcome.code, outcome.stdout), (5, ""), outcome)
                self.assertEqual(len(outcome.stderr.splitlines()), 1, outcome)
                self.assertIn("main.sh", outcome.stderr)

    def test_no_manifest_at_all(self):
        path = self.scratch / "empty"
        path.mkdir()
        outcome = self.daemon.ctl("register", path)
        self.assertNotEqual(outcome.code, 0)
        self.assertIn("manifest.json", outcome.stderr)

    def test_a_package_that_is_not_there(self):
        outcome = self.daemon.ctl("register", self.scratch / "nowhere")
        self.assertNotEqual(outcome.code, 0)
        self.assertEqual(len(outcome.stderr.splitlines()), 1, outcome)

    def test_one_megabyte_strings(self):
        self.refused("long", name="x" * (1 << 20))

    def test_deep_nesting(self):
        self.refused("deep", text='{"id":' + "[" * 100_000 + "]" * 100_000 + "}")

    def test_duplicate_keys(self):
        text = json.dumps(packages.manifest("double", "main.sh"))
        said = self.refused("double", text=text[:-1] + ', "entry": "other.sh"}')
        self.assertIn("entry", said)

    def test_not_utf_8(self):
        self.refused("bytes", text=json.dumps(packages.manifest("bytes", "main.sh")).encode().replace(b"A test", b"\xff\xfe"))

    def test_not_json(self):
        for number, text in enumerate(("", "{", "[]", '"text"', "{} {}", "\0")):
            with self.subTest(text=text):
                self.refused(f"broken{number}", text=text)

    def test_sandbox_false_is_refused(self):
        path = packages.script(self.scratch, "unsandboxed", "exit 0\n",
                               security=packages.CORRECT["security"] | {"sandbox": False})
        outcome = self.daemon.ctl("register", path)
        self.assertEqual((outcome.code, outcome.stdout), (5, ""), outcome)
        self.assertIn("sandbox", outcome.stderr)


class ControlSocket(harness.DaemonTest):
    VERSION = b"\x08\x01\x72\x00"  # Request {id: 1, version: {}}
    LIST = b"\x08\x01\x1a\x00"     # Request {id: 1, list: {}}

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(harness.PATIENCE)
        connection.connect(str(self.daemon.socket))
        return connection

    def answered(self):
        self.assertEqual(self.daemon.ctl("version").code, 0)

    def closed(self, connection):
        """Reads until the daemon closes the connection."""
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
        return received

    def test_a_correct_request_by_hand_is_answered(self):
        connection = self.connect()
        connection.sendall(struct.pack(">I", len(self.VERSION)) + self.VERSION)
        length = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))[0]
        self.assertIn(b"version", connection.recv(length, socket.MSG_WAITALL))

    def test_garbage_costs_the_connection_and_nothing_else(self):
        connection = self.connect()
        try:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(4096))
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.closed(connection)
        self.answered()

    def test_a_frame_that_is_no_message(self):
        connection = self.connect()
        connection.sendall(struct.pack(">I", 64) + b"\xff" * 64)
        self.closed(connection)
        self.answered()

    def test_lying_lengths(self):
        for length in (0xFFFFFFFF, 0x7FFFFFFF, 64 << 20):
            with self.subTest(length=length):
                connection = self.connect()
                connection.sendall(struct.pack(">I", length) + b"x")
                self.closed(connection)
        self.answered()

    def test_an_empty_frame(self):
        connection = self.connect()
        connection.sendall(struct.pack(">I", 0))
        connection.shutdown(socket.SHUT_WR)
        self.closed(connection)
        self.answered()

    def test_half_a_frame_waits_alone_and_not_for_ever(self):
        connection = self.connect()
        connection.sendall(struct.pack(">I", 1000) + b"half")
        self.answered()
        self.closed(connection)
        self.answered()

    def test_a_client_that_never_reads(self):
        connection = self.connect()
        connection.setblocking(False)
        frame = struct.pack(">I", len(self.LIST)) + self.LIST
        sent = 0
        try:
            while sent < 64 << 20:
                sent += connection.send(frame * 4096)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass  # it stopped reading, or it hung up: both are an end
        self.answered()
        held = int(harness.status_of(self.daemon.control_pid())["VmRSS"].split()[0])
        self.assertLess(held, (600 if harness.SANITIZED else 150) << 10, "KiB in control's memory")

    def test_descriptors_that_nobody_asked_for_are_closed(self):
        before = len(os.listdir(f"/proc/{self.daemon.control_pid()}/fd")) if harness.IS_ROOT else None
        for _ in range(20):
            connection = self.connect()
            with open("/dev/null", "rb") as file:
                descriptors = [file.fileno()] * 16
                socket.send_fds(connection, [struct.pack(">I", len(self.VERSION)) + self.VERSION], descriptors)
            connection.shutdown(socket.SHUT_WR)
            self.closed(connection)
        self.answered()
        if before is not None:
            harness.wait_until(lambda: len(os.listdir(f"/proc/{self.daemon.control_pid()}/fd")) <= before + 2,
                               "control to close the descriptors")

    def test_a_thousand_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        connections = []
        try:
            for _ in range(1000):
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(harness.PATIENCE)
                connections.append(connection)
                connection.connect(str(self.daemon.socket))
            self.answered()
        finally:
            for connection in connections:
                connection.close()
        self.answered()


class Programs(harness.DaemonTest):
    @classmethod
    def prepare(cls):
        path = packages.probe(cls.daemon.directory / "prepared", "bystander")
        for command in (["register", path], ["start", "bystander"]):
            outcome = cls.daemon.ctl(*command)
            assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"
        cls.bystander = cls.daemon.status("bystander")["pid"]

    def tearDown(self):
        self.assertEqual(self.daemon.status("bystander")["pid"], self.bystander)
        self.assertEqual(self.send("bystander", "echo", "still here"), "still here")

    def start_fails(self, agent, code=1):
        outcome = self.daemon.ctl("start", agent)
        self.assertEqual((outcome.code, outcome.stdout), (code, ""), f"{outcome}\nlog:\n{self.daemon.log[-3000:]}")
        self.assertEqual(len(outcome.stderr.splitlines()), 1, outcome)
        status = self.daemon.status(agent)
        self.ok("stop", agent)  # no more attempts
        return outcome.error["message"], status

    def test_a_missing_interpreter_is_named(self):
        self.ok("register", packages.package(self.scratch, "interpreter", "main.sh", "#!/no/such/interpreter\n"))
        message, status = self.start_fails("interpreter")
        self.assertRegex(message, "exec|interpreter")
        self.assertIn("No such file", message)
        self.assertEqual(status["lastEnd"]["cause"], "setup", status)

    def test_a_runner_that_exits_at_once(self):
        self.ok("register", packages.script(self.scratch, "hasty", "exit 3\n",
                                            runtime={"kind": "exec", "protocol": "runner"}))
        message, status = self.start_fails("hasty")
        self.assertTrue(message)
        self.assertEqual((status["lastEnd"]["cause"], status["lastEnd"]["exitCode"]), ("exit", 3), status)

    def test_a_runner_that_never_says_hello(self):
        self.ok("register", packages.script(self.scratch, "silent", "while :; do sleep 1000; done\n",
                                            runtime={"kind": "exec", "protocol": "runner"}))
        message, status = self.start_fails("silent", code=7)
        self.assertRegex(message, "hello")
        self.assertEqual(status["lastEnd"]["cause"], "hello_timeout", status)

    def test_a_runner_that_speaks_garbage(self):
        self.ok("register", packages.script(self.scratch, "babbler",
                                            "head -c 3000000 /dev/urandom >&3\nwhile :; do sleep 1000; done\n",
                                            runtime={"kind": "exec", "protocol": "runner"}))
        message, _ = self.start_fails("babbler")
        self.assertTrue(message)

    def test_a_module_that_does_not_load(self):
        self.ok("register", packages.package(self.scratch, "syntax", "main.py", "this is no python\n", mode=0o644))
        message, _ = self.start_fails("syntax")
        self.assertIn("invalid syntax (main.py, line 1)", message)

    def test_a_hook_that_throws_at_start(self):
        self.ok("register", packages.package(self.scratch, "thrower", "main.py", '''
from kai import Agent
class Thrower(Agent):
    def on_init(self):
        raise RuntimeError("cannot begin")
    def on_message(self, msg):
        return {}
''', mode=0o644))
        message, _ = self.start_fails("thrower")
        self.assertIn("cannot begin", message)


if __name__ == "__main__":
    unittest.main()
