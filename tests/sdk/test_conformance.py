"""What every SDK does the same: one set of tests, driven against each real runner."""

import base64
import json
import os
import shutil
import subprocess
import unittest

from host import (
    AGENTS,
    BUILT_AGENTS,
    INIT,
    SDK,
    Package,
    Runner,
    RunnerError,
    native_command,
    node_command,
    python_command,
)
from upgrades import Upgrades

MAX_LINE = (1 << 20) + (64 << 10)


class Conformance(Upgrades):
    """The mixin; one class an SDK below says how its probe agent is run."""

    stacks = True  # errors carry a stack
    names = True  # on_error's exception has the name that the host told

    def runner(self):
        raise NotImplementedError

    def started(self, **init):
        runner = self.runner()
        self.addCleanup(runner.__exit__)
        return runner.start(**init)

    def fresh(self):
        runner = self.runner()
        self.addCleanup(runner.__exit__)
        return runner

    def error_of(self, runner, method, params=None):
        with self.assertRaises(RunnerError) as caught:
            runner.call(method, params)
        return caught.exception

    # ---- life

    def test_hello_is_first(self):
        hello = self.fresh().hello()
        self.assertEqual(hello["method"], "hello")
        self.assertNotIn("id", hello)
        self.assertEqual(hello["params"]["protocol"], 1)
        self.assertRegex(hello["params"]["sdk"], self.sdk)

    def test_hooks_in_the_order_of_the_requests(self):
        runner = self.fresh()
        runner.hello()
        self.assertEqual(runner.call("init", INIT), {})
        self.assertEqual(runner.call("restoreState", {"state": {"n": 1}}), {})
        self.assertEqual(runner.call("upgrade", {"oldVersion": "1.0.0"}), {})
        self.assertEqual(runner.call("start"), {})
        expected = ["constructor", "onInit", "restoreState", "onUpgrade 1.0.0", "onStart"]
        self.assertEqual(runner.ask("calls"), expected)
        self.assertEqual(runner.call("saveState"), {"state": {"n": 1}})

    def test_shutdown_is_answered_and_exits_0(self):
        runner = self.started()
        self.assertEqual(runner.call("shutdown"), {})
        runner.wait_log("bye")
        self.assertEqual(runner.wait(), 0)

    def test_shutdown_that_throws_is_an_error_and_still_the_end(self):
        runner = self.started()
        runner.ask("throw-in", "onShutdown")
        self.assertEqual(self.error_of(runner, "shutdown").data["code"], "AGENT_ERROR")
        self.assertEqual(runner.wait(), 0)

    def test_closed_channel_ends_the_runner(self):
        runner = self.started()
        runner.close()
        self.assertEqual(runner.wait(), 0)

    def test_closed_channel_before_init_ends_the_runner(self):
        runner = self.fresh()
        runner.hello()
        runner.shut_for_writing()
        self.assertEqual(runner.wait(), 0)

    def test_before_init_nothing_is_served(self):
        runner = self.fresh()
        runner.hello()
        error = self.error_of(runner, "message", runner.message("calls"))
        self.assertEqual((error.code, error.data["code"]), (-32600, "NOT_RUNNING"))
        self.assertEqual(runner.call("init", INIT), {})

    def test_init_comes_once_and_in_this_protocol(self):
        runner = self.fresh()
        runner.hello()
        self.assertEqual(self.error_of(runner, "init", {**INIT, "protocol": 2}).code, -32602)
        runner.call("init", INIT)
        self.assertEqual(self.error_of(runner, "init", INIT).code, -32600)

    def test_descriptor_that_is_no_channel(self):
        command = self.command()
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KAI_RUNNER_FD": "0", "PYTHONPATH": os.path.join(SDK, "python")},
        )
        self.assertEqual(ended.returncode, 2)
        self.assertIn("descriptor 0 is not a runner channel", ended.stderr)

    # ---- messages

    def test_payloads_of_every_kind_come_back(self):
        runner = self.started()
        texts = ("", "žluť 🦊\u2028\n\"\\")
        for payload in (None, True, 0, -1.5, *texts, [], {}, [1, [2, {"a": None}]], {"": {"b": [{}]}}):
            with self.subTest(payload=payload):
                self.assertEqual(runner.ask("echo", payload), payload)

    def test_the_fields_of_a_message(self):
        runner = self.started()
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        metadata = {"priority": "high", "ttl": 5, "traceparent": traceparent}
        answer = runner.call("message", runner.message("fields", payload=1, metadata=metadata))
        fields = answer["message"] if "message" in answer else answer["payload"]
        sent = runner.message("fields")["message"]
        for name in ("id", "from", "to", "type", "capability", "timestamp"):
            self.assertEqual(fields[name], sent[name], name)
        self.assertEqual(fields["metadata"], metadata)

    def test_the_context(self):
        runner = self.started()
        context = runner.ask("context")
        self.assertEqual(context, {"agent": "probe", "permissions": INIT["permissions"], "limits": INIT["limits"]})

    def test_a_payload_of_a_mebibyte(self):
        runner = self.started()
        text = "é" * ((1 << 20) // 2)
        self.assertEqual(runner.ask("echo", text), text)

    def test_an_answer_that_does_not_fit_a_line(self):
        runner = self.started()
        error = self.error_of(runner, "message", runner.message("make-text", payload=MAX_LINE))
        self.assertEqual((error.code, error.data["code"]), (-32000, "TOO_LARGE"))
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_an_answer_that_is_no_json(self):
        runner = self.started()
        error = self.error_of(runner, "message", runner.message("not-json"))
        self.assertEqual((error.code, error.data["code"]), (-32000, "AGENT_ERROR"))
        self.assertTrue(any(call.startswith("onError") for call in runner.ask("calls")))

    def test_bytes_both_ways(self):
        runner = self.started()
        every_byte = bytes(range(256)) * 4
        for count in (0, 1, 2, 3, 4, 255, 1024):
            sent = {"payloadBase64": base64.b64encode(every_byte[:count]).decode(), "contentType": "image/png"}
            answer = runner.call("message", runner.message("bytes", **sent))
            self.assertEqual(answer["payload"], {"length": count, "isBytes": True, "type": "image/png"})
            answer = runner.call("message", runner.message("make-bytes", payload=count))
            self.assertEqual(base64.b64decode(answer["payloadBase64"], validate=True), every_byte[:count])
            self.assertEqual(answer["contentType"], "application/octet-stream")

    def test_bytes_of_700_kib(self):
        runner = self.started()
        answer = runner.call("message", runner.message("make-bytes", payload=700 << 10))
        self.assertEqual(len(base64.b64decode(answer["payloadBase64"])), 700 << 10)

    def test_several_in_flight(self):
        runner = self.started()
        asked = {n: runner.request("message", runner.message("echo", payload=n)) for n in range(50)}
        for n in reversed(range(50)):
            self.assertEqual(runner.answer(asked[n])["payload"], n)

    def test_an_event_is_not_answered(self):
        runner = self.started()
        runner.notify("message", runner.message("event", type="event", payload={"a": 1}))
        runner.wait_log("event")
        runner.ask("calls")  # nothing came before its answer but the log record
        self.assertEqual([seen["method"] for seen in runner.seen], ["log"])

    def test_an_event_with_bytes(self):
        runner = self.started()
        event = runner.message("got", type="event", payloadBase64="AP8=", contentType="image/png")
        runner.notify("message", event)
        runner.wait_log("got event 2 image/png")

    def test_an_event_that_throws_is_logged(self):
        runner = self.started()
        runner.notify("message", runner.message("throw", type="event", payload="no use"))
        runner.wait_log("no use")
        self.assertIn("onError", " ".join(runner.ask("calls")))

    # ---- errors

    def test_a_hook_that_throws(self):
        runner = self.started()
        error = self.error_of(runner, "message", runner.message("throw", payload="it broke: ž"))
        self.assertEqual((error.code, error.message), (-32000, "it broke: ž"))
        self.assertEqual(error.data["code"], "AGENT_ERROR")
        self.assertIn(error.data["name"], ("TypeError", "std::invalid_argument"))
        if self.stacks:
            self.assertIn("probe.", error.data["stack"])
        self.assertIn("it broke: ž", " ".join(call for call in runner.ask("calls") if call.startswith("onError")))

    def test_an_agent_error_with_details(self):
        runner = self.started()
        error = self.error_of(runner, "message", runner.message("throw-details"))
        self.assertEqual(error.data["code"], "AGENT_ERROR")
        self.assertEqual(error.data["details"], {"left": 3})
        self.assertIs(error.data["retryable"], True)

    def test_an_error_of_megabytes_fits(self):
        runner = self.started()
        error = self.error_of(runner, "message", runner.message("throw", payload="x" * (1 << 20)))
        self.assertGreater(len(error.message), 1000)
        self.assertLess(len(error.message), 64 << 10)

    def test_on_error_that_throws_is_logged(self):
        runner = self.started()
        self.assertEqual(self.error_of(runner, "message", runner.message("throw", payload="twice")).message, "twice")
        runner.wait_log("and again")
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_every_hook_may_throw(self):
        runner = self.started()
        for method, params, hook in (
            ("start", {}, "onStart"),
            ("upgrade", {"oldVersion": "1"}, "onUpgrade 1"),
            ("health", {}, "onHealthCheck"),
            ("saveState", {}, "saveState"),
            ("restoreState", {"state": 1}, "restoreState"),
        ):
            runner.ask("throw-in", hook)
            error = self.error_of(runner, method, params)
            self.assertEqual((error.data["code"], error.message), ("AGENT_ERROR", f"thrown in {hook}"))
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_an_error_that_the_host_saw(self):
        runner = self.started()
        params = {"name": "OutOfReach", "message": "seen by the host", "stack": "OutOfReach: at host"}
        self.assertEqual(runner.call("error", params), {})
        expected = "onError OutOfReach: seen by the host" if self.names else "onError seen by the host"
        self.assertIn(expected, runner.ask("calls"))
        self.assertEqual(runner.call("health")["errors"][0]["type"], "OutOfReach")

    # ---- health

    def test_health_by_default(self):
        runner = self.started()
        health = runner.call("health")
        self.assertEqual((health["status"], health["errors"]), ("healthy", []))
        self.assertGreater(health["memoryUsage"], 1)
        self.assertGreaterEqual(health["uptime"], 0)
        self.assertGreaterEqual(health["cpuUsage"], 0)
        self.assertRegex(health["lastActivity"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_health_counts_errors_by_type(self):
        runner = self.started()
        for text in ("first", "second"):
            self.error_of(runner, "message", runner.message("throw", payload=text))
        self.error_of(runner, "message", runner.message("throw-details"))
        errors = {error["type"]: error for error in runner.call("health")["errors"]}
        self.assertEqual(sorted(error["count"] for error in errors.values()), [1, 2])
        twice = next(error for error in errors.values() if error["count"] == 2)
        self.assertEqual(twice["message"], "second")
        self.assertRegex(twice["lastOccurrence"], r"Z$")

    def test_health_tells_a_bounded_number_of_types_apart(self):
        runner = self.started()
        for number in range(40):
            runner.call("error", {"name": f"Kind{number}", "message": "m"})
            runner.call("error", {"name": "Always", "message": f"m{number}"})
        errors = {error["type"]: error for error in runner.call("health")["errors"]}
        self.assertEqual(len(errors), 16)  # as many as agent-host takes
        self.assertEqual((errors["Always"]["count"], errors["Always"]["message"]), (40, "m39"))
        self.assertIn("Kind39", errors)
        self.assertNotIn("Kind0", errors)

    def test_health_by_the_agent(self):
        runner = self.started()
        runner.ask("warn")
        health = runner.call("health")
        self.assertEqual(health["status"], "warning")
        self.assertIn("uptime", health)

    def test_health_is_answered_while_the_agent_waits_for_a_send(self):
        runner = self.started()
        answered = []

        def answer(method, params):
            answered.append(runner.call("health")["status"])
            answered.append(runner.call("health")["status"])
            return {"payload": "late"}

        runner.ask("warn")
        runner.answer_calls = answer
        first = runner.request("message", runner.message("send", payload=1))
        after = [runner.request("message", runner.message("echo", payload=n)) for n in range(5)]
        self.assertEqual(runner.answer(first)["payload"], "late")
        self.assertEqual(answered, ["warning", "warning"])
        self.assertEqual([runner.answer(one)["payload"] for one in after], list(range(5)))

    def test_health_that_comes_with_a_message_does_not_wait_for_its_send(self):
        runner = self.started()
        lines = [
            {"jsonrpc": "2.0", "id": "waits", "method": "message", "params": runner.message("send", payload=1)},
            {"jsonrpc": "2.0", "id": "health", "method": "health", "params": {}},
        ]
        runner.answer_calls = lambda method, params: {"payload": runner.answer("health")["status"]}
        runner.send_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self.assertEqual(runner.answer("waits")["payload"], "healthy")

    def test_a_health_check_that_throws_while_the_agent_waits(self):
        runner = self.started()
        runner.ask("throw-in", "onHealthCheck")
        errors = []

        def answer(method, params):
            errors.append(self.error_of(runner, "health").data["code"])
            return {"payload": "late"}

        runner.answer_calls = answer
        self.assertEqual(runner.ask("send", 1), "late")
        self.assertEqual(errors, ["AGENT_ERROR"])
        self.assertIn("thrown in onHealthCheck", " ".join(runner.ask("calls")))

    # ---- what the agent asks of the host

    def test_log_records(self):
        runner = self.started()
        runner.ask("log", "because")
        expected = {"level": "warn", "message": "said", "fields": {"why": "because"}}
        self.assertEqual(runner.wait_log("said")["params"], expected)

    def test_stdout_is_there_line_by_line(self):
        runner = self.started()
        runner.ask("print", "to the log")
        self.assertEqual(runner.process.stdout.readline(), b"to the log\n")

    def test_calls_that_are_not_there_yet(self):
        runner = self.started()
        self.assertEqual(runner.ask("try-send", 1), {"isAgentError": True, "code": "UNAVAILABLE", "retryable": True})
        error = self.error_of(runner, "message", runner.message("send", payload=1))
        self.assertEqual(error.data["code"], "AGENT_ERROR")
        self.assertIn("klp.send is not there", error.message)

    def test_send_and_emit(self):
        runner = self.started()
        runner.answer_calls = lambda method, params: {"payload": {"got": params}} if method == "klp.send" else {}
        sent = {"to": "other", "capability": "ask", "payload": {"q": 1}, "timeoutMs": 500}
        self.assertEqual(runner.ask("send", {"q": 1}), {"got": sent})
        self.assertEqual(runner.ask("emit", [1]), "emitted")
        self.assertEqual(runner.seen[-1]["params"], {"name": "done", "data": [1]})

    def test_metadata_of_send_and_emit(self):
        runner = self.started()
        metadata = {
            "priority": "urgent",
            "ttl": 5,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        runner.answer_calls = lambda method, params: {"payload": params} if method == "klp.send" else {}
        sent = runner.ask("send-with", {**metadata, "timeoutMs": 250})
        expected = {"to": "other", "capability": "ask", "payload": "null", "timeoutMs": 250, "metadata": metadata}
        self.assertEqual(sent, expected)
        runner.ask("emit-with", metadata)
        expected = {
            "name": "done",
            "payloadBase64": "AP8=",
            "contentType": "application/octet-stream",
            "metadata": metadata,
        }
        self.assertEqual(runner.seen[-1]["params"], expected)

    def test_a_call_that_failed_because_kaid_restarts_may_be_tried_again(self):
        runner = self.started()
        answers = iter((False, True))

        def answer(method, params):
            if next(answers):
                return {"payload": "there"}
            data = {"code": "UNAVAILABLE", "retryable": True}
            raise RunnerError({"code": -32000, "message": "kaid is restarting", "data": data})

        runner.answer_calls = answer
        self.assertEqual(runner.ask("try-send", 1), {"isAgentError": True, "code": "UNAVAILABLE", "retryable": True})
        self.assertEqual(runner.ask("try-send", 1), "there")

    def test_memory(self):
        runner = self.started()
        answers = {
            "memory.set": lambda p: {"version": 7},
            "memory.get": lambda p: {
                "k": {"found": True, "value": {"a": 1}, "version": 7},
                "bytes": {"found": True, "valueBase64": "AAEC", "version": 1},
            }.get(p["key"], {"found": False}),
            "memory.getMany": lambda p: {"entries": [{"key": "k", "value": {"a": 1}, "version": 7}]},
            "memory.setMany": lambda p: {"versions": [1, 2]},
            "memory.delete": lambda p: {"deleted": True},
            "memory.list": lambda p: {"keys": ["m"]},
        }
        runner.answer_calls = lambda method, params: answers[method](params)
        self.assertEqual(
            runner.ask("memory"),
            {
                "set": 7,
                "get": {"a": 1},
                "missing": "none",
                "bytes": 3,
                "many": {"k": {"a": 1}},
                "setMany": [1, 2],
                "deleted": True,
                "list": ["m"],
            },
        )
        asked = {call["method"]: call["params"] for call in runner.seen}
        self.assertEqual(asked["memory.set"], {"key": "k", "value": {"a": 1}, "ttl": 5, "ifAbsent": True})
        self.assertEqual(asked["memory.setMany"], {"entries": [{"key": "m", "value": 1}, {"key": "n", "value": 2}]})
        self.assertEqual(asked["memory.list"], {"prefix": "m"})

    def test_requests_that_come_while_the_agent_asks_are_served(self):
        runner = self.started()
        runner.request("message", runner.message("send", payload=1), request_id="asks")
        runner.answer_calls = lambda method, params: {"payload": "answered"}
        asked = [runner.request("message", runner.message("echo", payload=n)) for n in range(20)]
        self.assertEqual(runner.answer("asks")["payload"], "answered")
        self.assertEqual([runner.answer(one)["payload"] for one in asked], list(range(20)))

    # ---- faults of the protocol

    def fault(self, runner, line):
        runner.send_line(line)
        document = runner.read_document()
        self.assertIsNone(document["id"])
        return document["error"]["code"]

    def test_garbage_is_answered_and_survived(self):
        runner = self.started()
        for line, code in (
            (b"garbage", -32700),
            (b"", -32700),
            (b'{"jsonrpc":"2.0","id":1,"method":"health"', -32700),
            (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
            (b'{"a":NaN}', -32700),
            (b"[" * 100000, -32700),
            (b"[]", -32600),
            (b"null", -32600),
            (b"7", -32600),
            (b"{}", -32600),
            (b'{"jsonrpc":"1.0","id":1,"method":"health"}', -32600),
            (b'{"jsonrpc":"2.0","id":{},"method":"health"}', -32600),
            (b'{"jsonrpc":"2.0","id":true,"method":"health"}', -32600),
            (b'{"jsonrpc":"2.0","method":7}', -32600),
        ):
            with self.subTest(line=line[:60]):
                self.assertEqual(self.fault(runner, line), code)
        self.assertEqual(runner.ask("echo", "still here"), "still here")

    def test_a_line_that_is_too_long_is_skipped(self):
        runner = self.started()
        self.assertEqual(self.fault(runner, b'"' + b"x" * (3 * MAX_LINE) + b'"'), -32600)
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_unknown_methods_and_wrong_params(self):
        runner = self.started()
        for name in ("nothing", "constructor", "__proto__", "toString"):
            self.assertEqual(self.error_of(runner, name).code, -32601)
        for params in ({}, {"message": 1}, {"message": None}):
            self.assertEqual(self.error_of(runner, "message", params).code, -32602)
        runner.send({"jsonrpc": "2.0", "id": "list", "method": "health", "params": []})
        with self.assertRaises(RunnerError) as caught:
            runner.answer("list")
        self.assertEqual(caught.exception.code, -32602)

    def test_answers_and_notifications_that_nobody_waits_for(self):
        runner = self.started()
        runner.send({"jsonrpc": "2.0", "id": 12345, "result": {}})
        runner.send({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "x"}})
        runner.notify("unheard", {"a": 1})
        self.assertEqual(runner.ask("echo", 1), 1)
        self.assertEqual(runner.seen, [])

    def test_lines_in_pieces_and_together(self):
        runner = self.started()
        requests = [
            {"jsonrpc": "2.0", "id": n, "method": "message", "params": runner.message("echo", payload=n)}
            for n in ("a", "b", "c")
        ]
        lines = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        for piece in (lines[:1], lines[1:150], lines[150:-1], lines[-1:]):
            runner.send_bytes(piece)
        self.assertEqual([runner.answer(n)["payload"] for n in ("a", "b", "c")], ["a", "b", "c"])


class NodeTest(Conformance, unittest.TestCase):
    sdk = r"^node/\d+\.\d+\.\d+$"
    entry = "main.mjs"
    version_command = staticmethod(node_command)

    def make_version(self, root):
        shutil.copytree(os.path.join(AGENTS, "versions", "node"), root, dirs_exist_ok=True)

    def command(self):
        package = Package()
        self.addCleanup(package.cleanup)
        return node_command(package.copy(os.path.join(AGENTS, "probe.mjs")))

    def runner(self):
        return Runner(self.command())


class PythonTest(Conformance, unittest.TestCase):
    sdk = r"^python/\d+\.\d+\.\d+$"
    entry = "main.py"
    version_command = staticmethod(python_command)

    def make_version(self, root):
        shutil.copytree(os.path.join(AGENTS, "versions", "python"), root, dirs_exist_ok=True)

    def command(self):
        return python_command(os.path.join(AGENTS, "probe.py"))

    def runner(self):
        return Runner(self.command())


class CppTest(Conformance, unittest.TestCase):
    sdk = r"^cpp/\d+\.\d+\.\d+$"
    stacks = False
    names = False
    async_hooks = False
    entry = "libversions.so"
    version_command = staticmethod(native_command)

    def make_version(self, root):
        shutil.copy(os.path.join(BUILT_AGENTS, "libsdk_versions.so"), os.path.join(root, self.entry))

    def command(self):
        return native_command(os.path.join(BUILT_AGENTS, "libsdk_probe.so"))

    def runner(self):
        return Runner(self.command())


if __name__ == "__main__":
    unittest.main()
