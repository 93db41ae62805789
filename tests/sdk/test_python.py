"""What only the Python SDK has to do: plain hooks that wait, finding the class, bounds."""

import itertools
import json
import os
import socket
import subprocess
import sys
import unittest

from host import AGENTS, INIT, PYTHON, SDK, Package, Runner, RunnerError, python_command

ECHO = "from kai import Agent\nclass Echo(Agent):\n    def on_message(self, msg):\n        return msg.payload\n"


class PythonTest(unittest.TestCase):
    def setUp(self):
        self.package = Package()
        self.addCleanup(self.package.cleanup)

    def runner(self, entry):
        runner = Runner(python_command(entry))
        self.addCleanup(runner.__exit__)
        return runner

    def probe(self, **init):
        return self.runner(os.path.join(AGENTS, "probe.py")).start(**init)

    def plain(self):
        return self.runner(os.path.join(AGENTS, "plain.py")).start()

    def init_error(self, text, name="main.py"):
        runner = self.runner(self.package.write(name, text))
        runner.hello()
        with self.assertRaises(RunnerError) as caught:
            runner.call("init", INIT)
        self.assertEqual(caught.exception.data["code"], "AGENT_ERROR")
        return caught.exception

    # ---- plain hooks

    def test_a_plain_hook_waits_for_its_answer(self):
        runner = self.plain()
        runner.answer_calls = lambda method, params: {"payload": params["payload"] + 1}
        self.assertEqual(runner.ask("ask", 1), {"answer": 2})

    def test_a_plain_hook_gets_the_error(self):
        self.assertEqual(self.plain().ask("ask", 1), {"code": "UNAVAILABLE"})

    def test_what_comes_while_a_plain_hook_waits_is_served_after_it_in_order(self):
        runner = self.plain()
        first = runner.request("message", runner.message("ask", payload=0))
        runner.wait_seen(lambda seen: seen["method"] == "klp.send" and "id" in seen)
        # The call was answered UNAVAILABLE when it was seen; a second one is held back by the test.
        runner.answer(first)
        runner.answer_calls = lambda method, params: self.ask_more(runner)
        self.assertEqual(runner.ask("ask", 1), {"answer": "late"})
        for one in self.more:
            runner.answer(one)
        self.assertEqual(runner.ask("order", None), [0, 1, *range(10, 30), None])

    def ask_more(self, runner):
        self.more = [runner.request("message", runner.message("echo", payload=n)) for n in range(10, 30)]
        return {"payload": "late"}

    def test_too_many_requests_while_a_plain_hook_waits_are_refused(self):
        runner = self.plain()
        refused = []

        def flood(method, params):
            for n in range(400):
                refused.append(runner.request("message", runner.message("echo", payload=n)))
            return {"payload": "late"}

        runner.answer_calls = flood
        self.assertEqual(runner.ask("ask", 1), {"answer": "late"})
        codes = []
        for one in refused:
            try:
                runner.answer(one)
            except RunnerError as error:
                codes.append(error.data["code"])
        self.assertTrue(codes)
        self.assertEqual(set(codes), {"BUSY"})

    def answers_while_it_waits(self, on_health_check):
        text = "from kai import Agent\nclass Waits(Agent):\n" + on_health_check
        text += "    def on_message(self, msg):\n"
        text += "        return self.send('other', 'ask', 1) if msg.capability == 'ask' else msg.payload\n"
        runner = self.runner(self.package.write("waits.py", text)).start()
        seen = []

        def answer(method, params):
            if params.get("key") == "k":  # the health check's own question
                return {"found": True, "value": "critical", "version": 1}
            requests = [(f"m{n}", "message", runner.message("echo", payload=n)) for n in range(3)]
            requests.insert(1, ("h", "health", {}))
            documents = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, m, p in requests]
            runner.send_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in documents))
            try:
                seen.append(runner.answer("h")["status"])
            except RunnerError as error:
                seen.append(error.message)
            return {"payload": "late"}

        runner.answer_calls = answer
        self.assertEqual(runner.ask("ask", 1), "late")
        self.assertEqual([runner.answer(f"m{n}")["payload"] for n in range(3)], [0, 1, 2])
        self.assertEqual(runner.call("health")["uptime"] >= 0, True)
        return seen

    def test_health_is_answered_while_a_plain_hook_waits(self):
        self.assertEqual(self.answers_while_it_waits(""), ["healthy"])
        plain = "    def on_health_check(self):\n        return {'status': 'warning'}\n"
        self.assertEqual(self.answers_while_it_waits(plain), ["warning"])
        asks = "    def on_health_check(self):\n        return {'status': self.memory.get('k')}\n"
        self.assertEqual(self.answers_while_it_waits(asks), ["critical"])

    def test_an_async_health_check_cannot_run_while_a_plain_hook_waits(self):
        text = "    async def on_health_check(self):\n        return {'status': 'critical'}\n"
        self.assertEqual(self.answers_while_it_waits(text), ["healthy"])

    def test_memory_in_a_plain_hook(self):
        text = (
            "from kai import Agent\n"
            "class Keeps(Agent):\n"
            "    def on_message(self, msg):\n"
            "        memory = self.memory\n"
            "        many = memory.set_many({'a': 1, 'b': b'\\x00'}, ttl=0.5)\n"
            "        writes = ({'key': key, 'value': None, 'if_absent': True} for key in 'cd')\n"
            "        return [many, memory.set_many(writes, ttl=5), memory.get_entry('c'), memory.get_entry('none')]\n"
        )
        runner = self.runner(self.package.write("main.py", text)).start()
        versions = itertools.count(1)

        def answer(method, params):
            if method == "memory.setMany":
                return {"versions": [next(versions) for _ in params["entries"]]}
            return {"found": True, "value": None, "version": 3} if params["key"] == "c" else {"found": False}

        runner.answer_calls = answer
        written = [[{"version": 1}, {"version": 2}], [{"version": 3}, {"version": 4}]]
        self.assertEqual(runner.ask("x"), [*written, {"value": None, "version": 3}, None])
        asked = [call["params"]["entries"] for call in runner.seen if call["method"] == "memory.setMany"]
        self.assertEqual(asked[0], [{"key": "a", "value": 1, "ttl": 0.5}, {"key": "b", "valueBase64": "AA==", "ttl": 0.5}])
        self.assertEqual(asked[1][1], {"key": "d", "value": None, "ttl": 5, "ifAbsent": True})

    def test_the_host_closes_while_a_plain_hook_waits(self):
        runner = self.plain()
        runner.request("message", runner.message("ask", payload=1))
        document = runner.read_document()
        self.assertEqual(document["method"], "klp.send")
        runner.close()
        self.assertEqual(runner.wait(), 0)

    # ---- entries

    def test_the_entry_has_one_agent(self):
        self.assertIn("found: none", self.init_error("x = 1\n").message)
        two = ECHO + "class Other(Agent):\n    pass\n"
        self.assertIn("found: Echo, Other", self.init_error(two).message)

    def test_an_entry_that_cannot_be_loaded(self):
        self.assertIn("at the top", self.init_error("raise RuntimeError('at the top')\n").message)
        self.assertIn("invalid syntax", self.init_error("this is no Python\n").message)
        self.assertIn("nowhere_to_be_found", self.init_error("import nowhere_to_be_found\n").message)

    def test_the_entry_imports_its_neighbours_and_takes_no_module_away(self):
        self.package.write("helper.py", "def twice(x):\n    return x * 2\n")
        text = "from helper import twice\n" + ECHO.replace("msg.payload", "twice(msg.payload)")
        runner = self.runner(self.package.write("asyncio.py", text)).start()
        self.assertEqual(runner.ask("echo", 2), 4)

    def test_an_agent_without_on_message(self):
        text = "from kai import Agent\nclass Mute(Agent):\n    pass\n"
        runner = self.runner(self.package.write("mute.py", text)).start()
        with self.assertRaises(RunnerError) as caught:
            runner.ask("echo")
        self.assertEqual(caught.exception.data["code"], "UNKNOWN_CAPABILITY")

    def test_a_whole_message_may_be_the_answer(self):
        runner = self.probe()
        answer = runner.call("message", runner.message("whole", payload={"a": 1}))["message"]
        self.assertEqual((answer["payload"], answer["metadata"]), ({"a": 1}, {"priority": "high"}))
        self.assertEqual((answer["type"], answer["from"], answer["to"]), ("response", "probe", "operator"))
        self.assertRegex(answer["id"], r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")

    # ---- concurrency, bounds, ends

    def test_messages_overtake_each_other(self):
        runner = self.probe()
        held = runner.request("message", runner.message("hold", payload="a"))
        self.assertEqual(runner.ask("echo", 1), 1)
        self.assertEqual(runner.call("health")["status"], "healthy")
        runner.ask("release", "a")
        self.assertEqual(runner.answer(held)["payload"], "held a")

    def test_more_messages_than_the_limit_are_refused(self):
        runner = self.probe(limits={"messageMs": 1000, "inFlight": 2, "frameBytes": 1 << 20})
        for n in range(2):
            runner.request("message", runner.message("hold", payload=n))
        with self.assertRaises(RunnerError) as caught:
            runner.ask("echo", 1)
        self.assertEqual((caught.exception.data["code"], caught.exception.data["retryable"]), ("BUSY", True))

    def test_log_records_give_way_when_the_host_does_not_read(self):
        runner = self.probe()
        asked = runner.request("message", runner.message("log-many", payload=50000))  # 50 MB of records
        self.assertEqual(runner.process.stdout.readline(), b"logged\n")  # all said while nothing was read
        runner.answer(asked)
        runner.ask("log", "after")
        dropped = runner.wait_log("log records were dropped")
        self.assertGreater(int(dropped["params"]["message"].split()[0]), 40000)
        self.assertLess(runner.resident_megabytes(), 100)

    def test_answers_that_the_host_does_not_read_cost_bounded_memory(self):
        # 60 MiB of answers: beyond 16 the runner stops reading. The requests that wait then fit the socket's buffer.
        runner = self.probe()
        asked = [runner.request("message", runner.message("make-text", payload=1 << 20)) for _ in range(60)]
        self.assertEqual({len(runner.answer(one)["payload"]) for one in asked}, {1 << 20})
        self.assertLess(runner.resident_megabytes(), 150)

    def test_sys_exit_in_a_hook_ends_the_runner(self):
        text = ECHO.replace("return msg.payload", "raise SystemExit(3)")
        runner = self.runner(self.package.write("main.py", text)).start()
        runner.request("message", runner.message("do"))
        self.assertEqual(runner.wait(), 3)

    def test_values_that_are_no_json(self):
        for value in ("float('nan')", "object()", "'\\ud800'", "{1: {2}}"):
            with self.subTest(value=value):
                text = ECHO.replace("return msg.payload", f"return {value}")
                runner = self.runner(self.package.write("main.py", text)).start()
                with self.assertRaises(RunnerError) as caught:
                    runner.ask("do")
                self.assertEqual(caught.exception.data["code"], "AGENT_ERROR")

    def test_the_programs_that_an_agent_starts_have_no_channel(self):
        text = (
            "import os\nimport subprocess\n"
            "def run(command):\n"
            "    return subprocess.check_output(['/bin/sh', '-c', command], close_fds=False, text=True).strip()\n"
            + ECHO.replace(
                "return msg.payload",
                "return [run('readlink /proc/self/fd/3 || echo none'), run('echo \"$KAI_RUNNER_FD\"')]",
            )
        )
        self.assertEqual(self.runner(self.package.write("main.py", text)).start().ask("child"), ["none", ""])

    # ---- soft upgrades

    def version(self, name, files):
        for file, text in files.items():
            self.package.write(os.path.join(name, file), text)
        return os.path.join(self.package.path, name)

    def begin(self, runner, root):
        runner.call("load", {"root": root, "entry": "main.py"})
        runner.call("init", {**INIT, "next": True})

    def test_an_import_finds_the_modules_of_the_version_that_it_stands_in(self):
        # Threads of both versions import when they are asked to, whichever of the two is active then.
        main = (
            "import os, socket, threading\nfrom kai import Agent\n"
            "def serve(connection):\n"
            "    for n, _ in enumerate(iter(lambda: connection.recv(1), b'')):\n"
            "        if n % 2:\n"
            "            from parts import deep as late\n"
            "        else:\n"
            "            import late\n"
            "        connection.sendall((late.__file__ + '\\n').encode())\n"
            "class Versions(Agent):\n"
            "    def on_init(self):\n"
            "        connection = socket.socket(socket.AF_UNIX)\n"
            f"        connection.connect({self.package.path!r} + '/socket')\n"
            "        threading.Thread(target=serve, args=(connection,), daemon=True).start()\n"
        )
        files = {"main.py": main, "late.py": "", "parts/deep.py": ""}
        old, new = self.version("old", files), self.version("new", files)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.join(self.package.path, "socket"))
            listening.listen()
            runner = Runner(python_command(os.path.join(old, "main.py")), directory=old)
            self.addCleanup(runner.__exit__)
            runner.start()
            asked = {old: listening.accept()[0]}
            self.assert_late_imports(asked)
            runner.call("load", {"root": new, "entry": "main.py"})
            self.assert_late_imports(asked)
            runner.call("init", {**INIT, "next": True})
            asked[new] = listening.accept()[0]
            self.assert_late_imports(asked)
            runner.call("commit")
            self.assert_late_imports(asked)
            runner.call("shutdown")
            for connection in asked.values():
                connection.close()

    def assert_late_imports(self, asked):
        for file in ("late.py", "parts/deep.py"):
            for root, connection in asked.items():
                connection.settimeout(60)
                connection.sendall(b"?")
                self.assertEqual(connection.recv(1000).decode().strip(), os.path.join(root, file))

    def test_a_plain_hook_that_waits_is_discarded(self):
        main = (
            "from kai import Agent\nclass Waits(Agent):\n"
            "    def on_init(self):\n"
            "        if 'waits' in self.manifest:\n"
            "            try:\n"
            "                self.send('other', 'ask')\n"
            "            except Exception:\n"
            "                pass\n"
            "    def on_message(self, msg):\n"
            "        return 'old' if msg.capability == 'which' else None\n"
        )
        old, new = self.version("old", {"main.py": main}), self.version("new", {"main.py": main})
        runner = self.runner(os.path.join(old, "main.py")).start()
        runner.held_calls = []
        runner.call("load", {"root": new, "entry": "main.py"})
        hung = runner.request("init", {**INIT, "manifest": {"waits": True}, "next": True})
        runner.wait_seen(lambda seen: seen["method"] == "klp.send")
        self.assertEqual(runner.call("discard"), {})
        with self.assertRaises(RunnerError) as caught:
            runner.answer(hung)
        self.assertEqual(caught.exception.data["code"], "NOT_RUNNING")
        self.assertEqual(runner.ask("which"), "old")

    def test_a_version_that_cannot_be_loaded_leaves_the_modules_of_the_old_one(self):
        main = ECHO.replace("return msg.payload", "import part; return part.NAME")
        old = self.version("old", {"main.py": main, "part.py": "NAME = 'old'"})
        throws = "import part\nraise RuntimeError('at the top')"
        new = self.version("new", {"main.py": throws, "part.py": "NAME = 'new'"})
        runner = self.runner(os.path.join(old, "main.py")).start()
        for _ in range(2):
            with self.assertRaisesRegex(RunnerError, "at the top"):
                runner.call("load", {"root": new, "entry": "main.py"})
            self.assertEqual(runner.ask("which"), "old")

    def test_directories_that_a_version_adds_to_the_path_are_its_own(self):
        main = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'vendor'))\n"
        main += "import vendored\n" + ECHO.replace("return msg.payload", "return [vendored.NAME, sys.path[:2]]")
        old = self.version("old", {"main.py": main, "vendor/vendored.py": "NAME = 'old'"})
        new = self.version("new", {"main.py": main, "vendor/vendored.py": "NAME = 'new'"})
        runner = self.runner(os.path.join(old, "main.py")).start()
        for which, root in (("old", old), ("new", new)):
            self.assertEqual(runner.ask("which"), [which, [os.path.join(root, "vendor"), root]])
            if which == "old":
                self.begin(runner, new)
                runner.call("discard")
                self.assertEqual(runner.ask("which"), [which, [os.path.join(root, "vendor"), root]])
                self.begin(runner, new)
                runner.call("commit")

    # ---- the package

    def test_imports_stay_light(self):
        heavy = ("asyncio", "typing", "dataclasses", "inspect")
        code = f"import sys; import kai; print([name for name in {heavy} if name in sys.modules])"
        environment = {"PYTHONPATH": os.path.join(SDK, "python")}
        loaded = subprocess.run([PYTHON, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True)
        self.assertEqual(loaded.stdout.strip(), "[]")

    def test_byte_code_is_there(self):
        tag = sys.implementation.cache_tag
        self.assertTrue(os.path.exists(os.path.join(SDK, "python", "kai", "__pycache__", f"_session.{tag}.pyc")))

    def test_the_types_can_be_imported(self):
        code = "import typing, kai.types as t; print(sorted(typing.get_type_hints(t.AgentManifest)))"
        environment = {"PYTHONPATH": os.path.join(SDK, "python")}
        names = subprocess.run([PYTHON, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for name in "id entry persona capabilities memory security dependencies metadata runtime".split():
            self.assertIn(f"'{name}'", names)


if __name__ == "__main__":
    unittest.main()
