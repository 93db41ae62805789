"""What every SDK does the same in upgrades: load, the hooks of the next version, commit and discard. A part of
test_conformance.py."""

import os
import shutil
import socket
import tempfile

from host import INIT, Package, Runner, RunnerError

OLD = {**INIT, "manifest": {"id": "probe", "version": "1.0.0"}}


def init_of(version, **manifest):
    return {**INIT, "manifest": {"id": "probe", "version": version, **manifest}}


class Upgrades:
    """The mixin; a class an SDK says how its agent of agents/versions is made and run."""

    async_hooks = True  # a hook may wait without the thread
    entry = None  # the agent's entry, below its root

    def make_version(self, root):
        """Puts the agent of agents/versions in the directory `root`, which is there."""
        raise NotImplementedError

    def version_command(self, path):
        raise NotImplementedError

    # ---- scene

    def roots(self, *names):
        """A directory a version, as /kai/versions/HASH is."""
        package = Package()
        self.addCleanup(package.cleanup)
        made = []
        for name in names:
            root = os.path.realpath(os.path.join(package.name, "kai", "versions", name))
            os.makedirs(root)
            self.make_version(root)
            made.append(root)
        return made

    def old_version(self, root):
        runner = Runner(self.version_command(os.path.join(root, self.entry)), directory=root)
        self.addCleanup(runner.__exit__)
        runner.hello()
        runner.call("init", OLD)
        runner.call("start")
        return runner

    def load(self, runner, root):
        self.assertEqual(runner.call("load", {"root": root, "entry": self.entry}), {})

    def begin(self, runner, root, version, **manifest):
        """Up to the health check of the next version."""
        state = runner.call("saveState")
        self.load(runner, root)
        self.assertEqual(runner.call("init", {**init_of(version, **manifest), "next": True}), {})
        self.assertEqual(runner.call("restoreState", {**state, "next": True}), {})
        self.assertEqual(runner.call("upgrade", {"oldVersion": "1.0.0", "next": True}), {})
        self.assertEqual(runner.call("start", {"next": True}), {})
        return runner.call("health", {"next": True})

    def swap(self, runner, root, version):
        self.assertEqual(self.begin(runner, root, version)["status"], "healthy")
        self.assertEqual(runner.call("commit"), {})
        self.assertEqual(runner.ask("version"), version)

    def refused(self, runner, method, params=None):
        with self.assertRaises(RunnerError) as caught:
            runner.call(method, params)
        return caught.exception

    def assert_old_serves(self, runner, calls=None):
        self.assertEqual(runner.ask("version"), "1.0.0")
        self.assertEqual(runner.ask("calls"), calls or ["constructor", "onInit", "onStart"])
        self.assertEqual(runner.call("health")["status"], "healthy")

    def listening(self):
        directory = tempfile.mkdtemp(prefix="kai-sdk-test.")
        self.addCleanup(shutil.rmtree, directory)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(os.path.join(directory, "socket"))
        listening.listen()
        listening.settimeout(60)
        return listening

    def assert_context_is_closed(self, runner, connection):
        """As the version says that holds the other end."""
        connection.settimeout(60)
        connection.sendall(b"?")
        self.assertEqual(connection.recv(100), b"NOT_RUNNING NOT_RUNNING NOT_RUNNING\n")
        runner.call("health")
        self.assertEqual(runner.seen, [])  # neither a call nor a log record of it

    # ---- its own code

    def test_the_code_may_be_loaded_before_init(self):
        (root,) = self.roots("old")
        runner = Runner(self.version_command(os.path.join(root, self.entry)), directory=root)
        self.addCleanup(runner.__exit__)
        runner.hello()
        self.assertEqual(runner.call("load"), {})
        self.assertEqual(runner.call("load"), {})
        self.assertEqual(self.refused(runner, "health").data["code"], "NOT_RUNNING")
        runner.call("init", OLD)
        runner.call("start")
        self.assert_old_serves(runner)
        self.assertEqual(self.refused(runner, "load").code, -32600)

    # ---- a soft upgrade

    def test_a_version_takes_over_from_another(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        runner.ask("set", {"n": [1, None, "ž"]})
        self.assertEqual(len(set(runner.ask("count"))), 1)
        self.begin(runner, new, "1.1.0")
        self.assertEqual(runner.call("commit"), {})
        self.assertEqual(runner.ask("version"), "1.1.0")
        expected = ["constructor", "onInit", "restoreState", "onUpgrade 1.0.0", "onStart", "onHealthCheck"]
        self.assertEqual(runner.ask("calls"), expected)
        self.assertEqual(runner.call("saveState"), {"state": {"n": [1, None, "ž"]}})
        self.assertEqual(set(runner.ask("count")), {1})
        for path in runner.ask("where"):
            self.assertEqual(os.path.commonpath([path, new]), new)
        self.assertEqual(runner.ask("directory"), new)
        self.assertIsNone(runner.process.poll())

    def test_the_serving_version_answers_while_another_is_loaded(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        runner.ask("count")
        asked = runner.request("load", {"root": new, "entry": self.entry})
        messages = [runner.request("message", runner.message("version")) for _ in range(20)]
        self.assertEqual([runner.answer(one)["payload"] for one in messages], ["1.0.0"] * 20)
        self.assertEqual(runner.answer(asked), {})
        self.assertEqual(set(runner.ask("count")), {2})
        self.assertEqual(runner.ask("directory"), old)
        self.assertTrue(runner.ask("where")[-1].startswith(old))
        self.assert_old_serves(runner)
        self.assertEqual(runner.call("discard"), {})

    def test_what_is_loaded_is_fresh_each_time(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        for version, root in (("1.1.0", new), ("1.0.1", old), ("1.1.1", new), ("1.0.2", old), ("1.1.2", new)):
            self.swap(runner, root, version)
            self.assertEqual(set(runner.ask("count")), {1})
            self.assertEqual(set(runner.ask("count")), {2})
            self.assertTrue(all(path.startswith(root) for path in runner.ask("where")))
        self.assertIsNone(runner.process.poll())

    def test_what_is_loaded_again_after_a_discard_is_fresh(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        for version in ("1.1.0", "1.1.1"):
            self.begin(runner, new, version)
            runner.call("discard")
            self.assertEqual(runner.ask("version"), "1.0.0")
        self.swap(runner, new, "1.1.2")
        self.assertEqual(set(runner.ask("count")), {1})

    def test_events_come_to_the_version_that_serves(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        for version in ("1.0.0", "1.1.0"):
            runner.notify("message", runner.message("event", type="event"))
            runner.wait_log(f"event of {version}")
            if version == "1.0.0":
                self.swap(runner, new, "1.1.0")

    def test_a_socket_that_the_old_version_holds_stays_open_and_its_context_is_closed(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        with self.listening() as listening:
            runner.ask("connect", listening.getsockname())
            connection = listening.accept()[0]
        self.addCleanup(connection.close)
        self.swap(runner, new, "1.1.0")
        self.assert_context_is_closed(runner, connection)

    def test_what_a_discarded_version_holds_stays_open_and_its_context_is_closed(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        self.load(runner, new)
        with self.listening() as listening:
            runner.call("init", {**init_of("1.1.0", connect=listening.getsockname()), "next": True})
            connection = listening.accept()[0]
        self.addCleanup(connection.close)
        runner.call("discard")
        self.assert_old_serves(runner)
        self.assert_context_is_closed(runner, connection)

    def test_on_shutdown_is_the_new_ones_alone(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        self.swap(runner, new, "1.1.0")
        self.assertEqual(runner.call("shutdown"), {})
        self.assertEqual(runner.wait(), 0)

    def test_errors_are_counted_for_the_version_that_made_them(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        self.refused(runner, "message", runner.message("throw", payload="old"))
        self.assertEqual(self.begin(runner, new, "1.1.0")["errors"], [])
        runner.call("commit")
        self.refused(runner, "message", runner.message("throw", payload="new"))
        self.assertEqual([error["message"] for error in runner.call("health")["errors"]], ["new"])
        self.assertNotIn("onError old", runner.ask("calls"))

    def test_the_next_version_answers_its_own_health_check(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        uptime = runner.call("health")["uptime"]
        health = self.begin(runner, new, "1.1.0", status="critical")
        self.assertEqual(health["status"], "critical")
        self.assertGreaterEqual(health["uptime"], uptime)
        self.assertEqual(runner.call("health")["status"], "healthy")  # without next: the serving one's

    # ---- what goes wrong

    def test_every_hook_of_the_next_version_may_throw(self):
        old, new = self.roots("old", "new")
        for hook, last in (
            ("onInit", "init"),
            ("restoreState", "restoreState"),
            ("onUpgrade", "upgrade"),
            ("onStart", "start"),
            ("onHealthCheck", "health"),
        ):
            with self.subTest(hook=hook):
                runner = self.old_version(old)
                self.load(runner, new)
                for method, params in (
                    ("init", init_of("1.1.0", throwIn=hook)),
                    ("restoreState", {"state": 1}),
                    ("upgrade", {"oldVersion": "1.0.0"}),
                    ("start", {}),
                    ("health", {}),
                ):
                    if method == last:
                        error = self.refused(runner, method, {**params, "next": True})
                        self.assertEqual((error.data["code"], error.message), ("AGENT_ERROR", f"thrown in {hook}"))
                        break
                    runner.call(method, {**params, "next": True})
                self.assertEqual(runner.call("discard"), {})
                self.assert_old_serves(runner)
                self.swap(runner, new, "1.1.1")

    def test_code_that_cannot_be_loaded(self):
        (old,) = self.roots("old")
        runner = self.old_version(old)
        error = self.refused(runner, "load", {"root": os.path.join(old, "nowhere"), "entry": self.entry})
        self.assertEqual(error.data["code"], "AGENT_ERROR")
        self.assertIn("nowhere", error.message)
        self.assertEqual(runner.call("discard"), {})
        self.assert_old_serves(runner)

    def test_a_hook_that_waits_for_the_host_is_discarded(self):
        self.discards_while_it_waits("askIn")

    def test_a_hook_that_never_returns_is_discarded(self):
        if self.async_hooks:  # where hooks have the thread, nobody reads: the host ends the process
            self.discards_while_it_waits("hangIn")

    def discards_while_it_waits(self, how):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        runner.held_calls = []
        for version, hook in (("1.1.0", "onInit"), ("1.1.1", "onHealthCheck")):
            self.load(runner, new)
            hung = runner.request("init", {**init_of(version, **{how: hook}), "next": True})
            if hook != "onInit":
                runner.answer(hung)
                hung = runner.request("health", {"next": True})
            discarded = runner.request("discard")
            self.assertEqual(runner.answer(discarded), {})
            with self.assertRaises(RunnerError) as caught:
                runner.answer(hung)
            self.assertEqual(caught.exception.data["code"], "NOT_RUNNING", caught.exception)
            self.assertEqual(runner.ask("version"), "1.0.0")
        for call in runner.held_calls:  # an answer that nobody waits for any more
            runner.send({"jsonrpc": "2.0", "id": call["id"], "result": {"payload": None}})
        self.swap(runner, new, "1.1.2")

    def test_requests_out_of_their_order(self):
        old, new = self.roots("old", "new")
        runner = self.old_version(old)
        self.assertEqual(runner.call("discard"), {})
        self.assertEqual(self.refused(runner, "commit").data["code"], "NOT_RUNNING")
        for method in ("init", "restoreState", "upgrade", "start", "health"):
            self.assertEqual(self.refused(runner, method, {**OLD, "next": True}).data["code"], "NOT_RUNNING", method)
        for params in ({"root": new}, {"entry": self.entry}, {"root": 1, "entry": 2}):
            self.assertEqual(self.refused(runner, "load", params).code, -32602)
        self.load(runner, new)
        self.assertEqual(self.refused(runner, "load", {"root": new, "entry": self.entry}).data["code"], "CONFLICT")
        self.assertEqual(self.refused(runner, "start", {"next": True}).data["code"], "NOT_RUNNING")
        self.assertEqual(self.refused(runner, "commit").data["code"], "NOT_RUNNING")
        self.assertEqual(self.refused(runner, "init", OLD).code, -32600)
        self.assert_old_serves(runner)
        runner.call("discard")
        self.swap(runner, new, "1.1.0")

    def test_another_version_is_not_loaded_before_init(self):
        old, new = self.roots("old", "new")
        runner = Runner(self.version_command(os.path.join(old, self.entry)), directory=old)
        self.addCleanup(runner.__exit__)
        runner.hello()
        error = self.refused(runner, "load", {"root": new, "entry": self.entry})
        self.assertEqual(error.data["code"], "NOT_RUNNING")

    def test_a_state_that_does_not_fit_a_line(self):
        (old,) = self.roots("old")
        runner = self.old_version(old)
        runner.ask("set-long", 2 << 20)
        error = self.refused(runner, "saveState")
        self.assertEqual((error.code, error.data["code"]), (-32000, "TOO_LARGE"))
        self.assertIn("saveState", error.message)
        self.assert_old_serves(runner)
