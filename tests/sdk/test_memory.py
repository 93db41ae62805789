"""memory.* of every SDK against the real store (memory_host): the same behaviours in all three languages."""

import base64
import json
import os
import tempfile
import unittest

from host import AGENTS, BUILT_AGENTS, MemoryHost, Package, Runner, native_command, node_command, python_command


class Memory:
    """The mixin; one class an SDK below says how its probe agent is run."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="kai-sdk-test.")
        self.addCleanup(self.directory.cleanup)

    def command(self):
        raise NotImplementedError

    def open(self, *options):
        """A started probe with a memory in this test's directory."""
        memory = MemoryHost(self.directory.name, *options)
        self.addCleanup(lambda: memory.process.poll() is None and memory.kill())
        runner = Runner(self.command())
        self.addCleanup(runner.__exit__)
        runner.memory = memory
        return runner.start()

    def do(self, runner, call, key="", **members):
        answer = runner.ask("memory-do", {"call": call, "key": key, **members})
        self.assertIn("result", answer, answer)
        return answer["result"]

    def set(self, runner, key, value, **options):
        return self.do(runner, "set", key, entries=[{"key": key, "value": value}], options=options)["version"]

    def refused(self, runner, call, key="", **members):
        answer = runner.ask("memory-do", {"call": call, "key": key, **members})
        self.assertNotIn("result", answer)
        return answer["code"]

    # ---- values

    def test_json_and_bytes_come_back_as_they_were(self):
        runner = self.open()
        values = [None, True, 0, -1.5, "", "žluť \U0001f4c5\n\u0000", [], {}, {"a": [1, {"b": None}]}, 2**53 - 1]
        for value in values:
            with self.subTest(value=value):
                self.set(runner, "k", value)
                self.assertEqual(self.do(runner, "get", "k"), value)
        for octets in ([], [0], list(range(256))):
            with self.subTest(octets=len(octets)):
                self.set(runner, "k", {"bytes": octets})
                self.assertEqual(self.do(runner, "get", "k"), {"bytes": octets})
                self.assertEqual(self.do(runner, "getEntry", "k")["value"], {"bytes": octets})
                self.assertEqual(self.do(runner, "getMany", keys=["k"]), {"k": {"bytes": octets}})

    def test_keys_that_are_not_there(self):
        runner = self.open()
        self.assertIsNone(self.do(runner, "get", "none"))
        self.assertIsNone(self.do(runner, "getEntry", "none"))
        self.assertEqual(self.do(runner, "getMany", keys=["none", "nor this"]), {})
        self.assertIs(self.do(runner, "delete", "none"), False)
        self.assertEqual(self.do(runner, "list"), {"keys": []})

    def test_delete(self):
        runner = self.open()
        self.set(runner, "k", 1)
        self.assertIs(self.do(runner, "delete", "k"), True)
        self.assertIs(self.do(runner, "delete", "k"), False)
        self.assertIsNone(self.do(runner, "get", "k"))

    # ---- versions and conditions

    def test_versions_grow_and_conditions_hold(self):
        runner = self.open()
        first = self.set(runner, "k", "a", ifAbsent=True)
        self.assertEqual(self.do(runner, "getEntry", "k"), {"value": "a", "version": first})
        second = self.set(runner, "k", "b", ifVersion=first)
        self.assertGreater(second, first)
        write = [{"key": "k", "value": "c"}]
        self.assertEqual(self.refused(runner, "set", "k", entries=write, options={"ifVersion": first}), "CONFLICT")
        self.assertEqual(self.refused(runner, "set", "k", entries=write, options={"ifAbsent": True}), "CONFLICT")
        self.assertEqual(self.do(runner, "getEntry", "k"), {"value": "b", "version": second})
        self.do(runner, "delete", "k")
        # A version is never used again: what was deleted and made anew is another.
        self.assertGreater(self.set(runner, "k", "d"), second)
        self.assertEqual(self.refused(runner, "set", "k", entries=write, options={"ifVersion": second}), "CONFLICT")

    def test_counters_of_many_at_once_lose_nothing(self):
        runner = self.open()
        asked = [runner.request("message", runner.message("memory-count", payload=5)) for _ in range(16)]
        for one in asked:
            runner.answer(one)
        self.assertEqual(self.do(runner, "get", "count"), 80)

    def test_many_at_once_are_all_or_none(self):
        runner = self.open()
        entries = [{"key": "a", "value": 1}, {"key": "b", "value": {"bytes": [0, 255]}, "ttl": 0, "ifAbsent": True}]
        versions = self.do(runner, "setMany", entries=entries)
        self.assertEqual([sorted(one) for one in versions], [["version"], ["version"]])
        self.assertEqual(self.do(runner, "getMany", keys=["b", "none", "a"]), {"a": 1, "b": {"bytes": [0, 255]}})
        self.assertEqual(self.do(runner, "getEntry", "b")["version"], versions[1]["version"])
        # The second one's condition does not hold: the first is not written either.
        entries = [{"key": "a", "value": 2}, {"key": "b", "value": 2, "ifVersion": versions[0]["version"] + 1000}]
        self.assertEqual(self.refused(runner, "setMany", entries=entries), "CONFLICT")
        self.assertEqual(self.do(runner, "get", "a"), 1)

    def test_a_key_with_a_short_ttl_expires(self):
        runner = self.open()
        self.set(runner, "short", 1, ttl=0.001)
        self.set(runner, "never", 1, ttl=0)
        while self.do(runner, "get", "short") is not None:
            pass
        self.assertEqual(self.do(runner, "list"), {"keys": ["never"]})

    def test_the_default_ttl_and_a_key_of_its_own(self):
        runner = self.open("--ttl-ms", "1")
        self.set(runner, "default", 1)
        self.set(runner, "never", 1, ttl=0)
        entries = [{"key": "long", "value": 1, "ttl": 3600}, {"key": "gone", "value": 1}]
        self.do(runner, "setMany", entries=entries)
        while self.do(runner, "getMany", keys=["default", "gone"]):
            pass
        self.assertEqual(self.do(runner, "list"), {"keys": ["long", "never"]})

    # ---- list

    def test_list_in_the_order_of_bytes_page_by_page(self):
        runner = self.open()
        keys = ["a", "a/1", "a/10", "a/2", "a/ž", "b", "\U0001f4c5"]
        self.do(runner, "setMany", entries=[{"key": key, "value": 0} for key in reversed(keys)])
        self.assertEqual(self.do(runner, "list"), {"keys": keys})
        self.assertEqual(self.do(runner, "list", options={"prefix": "a/"}), {"keys": keys[1:5]})
        pages, cursor = [], {}
        while True:
            page = self.do(runner, "list", options={"prefix": "a/", "limit": 2, **cursor})
            pages.append(page["keys"])
            if "cursor" not in page:
                break
            cursor = {"cursor": page["cursor"]}
        self.assertEqual(pages, [keys[1:3], keys[3:5]])

    # ---- limits and errors

    def test_a_write_over_the_quota_changes_nothing_and_says_used_and_limit(self):
        runner = self.open("--max-bytes", "1000")
        self.set(runner, "k", "x" * 400)
        members = {"entries": [{"key": "k", "value": "x" * 2000}], "options": {}}
        answer = runner.ask("memory-do", {"call": "set", "key": "k", **members})
        self.assertEqual((answer["code"], answer["retryable"]), ("QUOTA_EXCEEDED", False))
        self.assertEqual(answer["details"]["limit"], 1000)
        self.assertEqual(answer["details"]["used"], 1 + 402)
        self.assertEqual(self.do(runner, "get", "k"), "x" * 400)
        self.set(runner, "k", "y" * 400)

    def test_requests_that_are_wrong(self):
        runner = self.open()
        write = {"entries": [{"key": "", "value": 1}], "options": {}}
        self.assertEqual(self.refused(runner, "set", "", **write), "INVALID")
        self.assertEqual(self.refused(runner, "set", "nul\u0000", **write), "INVALID")
        self.assertEqual(self.refused(runner, "set", "k", entries=write["entries"], options={"ttl": -1}), "INVALID")
        self.assertEqual(self.refused(runner, "set", "x" * 513, **write), "INVALID")
        twice = [{"key": "k", "value": 1}, {"key": "k", "value": 2}]
        self.assertEqual(self.refused(runner, "setMany", entries=twice), "INVALID")
        self.assertEqual(self.refused(runner, "getMany", keys=["k"] * 1001), "TOO_LARGE")
        self.assertEqual(self.refused(runner, "get", "k", options={"agent": "other"}), "DENIED")
        self.assertEqual(self.refused(runner, "getMany", keys=["k"], options={"agent": "other"}), "DENIED")
        self.assertEqual(self.refused(runner, "list", options={"agent": "other"}), "DENIED")
        self.assertEqual(self.do(runner, "list"), {"keys": []})

    # ---- what stays

    def test_what_was_acknowledged_outlives_kill_9_of_the_store(self):
        runner = self.open()
        version = self.set(runner, "k", {"title": "standup"})
        runner.memory.kill()
        runner = self.open()
        self.assertEqual(self.do(runner, "getEntry", "k"), {"value": {"title": "standup"}, "version": version})
        self.assertGreater(self.set(runner, "k", 2), version)


class IndexedDbProtocol(unittest.TestCase):
    """memory.indexedDb as docs/runner-protocol.md has it, without an SDK between."""

    KEY, OTHER = "MGYyAA==", "MGYzAA=="  # the strings "e1" and "e2"

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="kai-sdk-test.")
        self.addCleanup(self.directory.cleanup)
        self.memory = self.open()

    def open(self):
        memory = MemoryHost(self.directory.name, "--indexeddb")
        self.addCleanup(lambda: memory.process.poll() is None and memory.kill())
        return memory

    def answer(self, op, **params):
        self.memory.ask({"jsonrpc": "2.0", "id": 1, "method": "memory.indexedDb", "params": {"op": op, **params}})
        lines = []
        while not lines:
            lines = self.memory.lines()
        self.assertEqual(len(lines), 1)
        return json.loads(lines[0])

    def do(self, op, **params):
        answer = self.answer(op, **params)
        self.assertIn("result", answer, answer)
        return answer["result"]

    def refused(self, op, **params):
        return self.answer(op, **params)["error"]["data"]["code"]

    def make(self):
        """(store, index): a database of version 1."""
        began = self.do("begin", database="calendar", mode="versionchange", version=1)
        here = {"transaction": began["transaction"]}
        store = self.do("createStore", name="events", keyPath="id", autoIncrement=True, **here)["id"]
        made = {"name": "title", "keyPath": ["title"], "unique": True}
        index = self.do("createIndex", store=store, **made, **here)["id"]
        self.assertEqual(self.do("commit", **here), {})
        return store, index

    def test_databases_stores_and_indexes(self):
        none = {"name": "calendar", "version": 0, "stores": []}
        self.assertEqual(self.do("databases"), {"databases": []})
        self.assertEqual(self.do("describe", name="calendar"), {"database": none})
        store, index = self.make()
        self.assertEqual(self.do("databases"), {"databases": [{"name": "calendar", "version": 1}]})
        title = {"id": index, "name": "title", "keyPath": ["title"], "unique": True, "multiEntry": False}
        events = {"id": store, "name": "events", "keyPath": "id", "autoIncrement": True, "nextKey": 1, "indexes": [title]}
        there = {"name": "calendar", "version": 1, "stores": [events]}
        self.assertEqual(self.do("describe", name="calendar"), {"database": there})
        began = self.do("begin", database="calendar", mode="versionchange", version=2)
        self.assertEqual(began["database"]["stores"], [events])
        here = {"transaction": began["transaction"], "store": store}
        self.assertEqual(self.do("renameStore", name="old", **here), {})
        self.assertEqual(self.do("renameIndex", index=index, name="by title", **here), {})
        self.assertEqual(self.do("deleteIndex", index=index, **here), {})
        self.assertEqual(self.do("deleteStore", **here), {})
        self.assertEqual(self.do("abort", transaction=here["transaction"]), {})
        self.assertEqual(self.do("deleteDatabase", name="calendar"), {"database": there})
        self.assertEqual(self.do("describe", name="calendar"), {"database": none})

    def test_records(self):
        store, index = self.make()
        began = self.do("begin", database="calendar", mode="readwrite", scope=[store])
        here = {"transaction": began["transaction"], "store": store}
        title = [{"index": index, "key": self.OTHER}]
        self.assertEqual(self.do("put", key=self.KEY, value="AP8=", indexKeys=title, nextKey=5, **here), {})
        self.assertEqual(self.do("put", key=self.OTHER, value="AQ==", noOverwrite=True, **here), {})
        self.assertEqual(self.refused("put", key=self.OTHER, value="AQ==", noOverwrite=True, **here), "CONFLICT")
        self.assertEqual(self.refused("put", key="MGY0AA==", value="AQ==", indexKeys=title, **here), "CONFLICT")
        first, second = {"key": self.KEY, "value": "AP8="}, {"key": self.OTHER, "value": "AQ=="}
        self.assertEqual(self.do("read", **here), {"records": [first, second], "more": False})
        self.assertEqual(self.do("read", limit=1, direction="prev", **here), {"records": [second], "more": True})
        self.assertEqual(self.do("read", key=self.KEY, **here), {"records": [second], "more": False})
        self.assertEqual(self.do("read", upper=self.KEY, keysOnly=True, **here)["records"], [{"key": self.KEY}])
        found = [{"key": self.OTHER, "primaryKey": self.KEY, "value": "AP8="}]
        self.assertEqual(self.do("read", index=index, **here)["records"], found)
        self.assertEqual(self.do("count", **here), {"count": 2})
        self.assertEqual(self.do("count", lower=self.KEY, lowerOpen=True, **here), {"count": 1})
        self.assertEqual(self.do("remove", lower=self.OTHER, **here), {})
        self.assertEqual(self.do("commit", transaction=here["transaction"]), {})
        # What was acknowledged is on the disk.
        self.memory.kill()
        self.memory = self.open()
        began = self.do("begin", database="calendar", scope=[store])
        self.assertEqual(began["database"]["stores"][0]["nextKey"], 5)
        here = {"transaction": began["transaction"], "store": store}
        self.assertEqual(self.do("read", **here), {"records": [first], "more": False})
        self.assertNotEqual(self.answer("clear", **here).get("error"), None)  # readonly

    def test_records_larger_than_a_line_come_in_parts(self):
        store, _ = self.make()
        began = self.do("begin", database="calendar", mode="readwrite", scope=[store])
        here = {"transaction": began["transaction"], "store": store}
        value = base64.b64encode(bytes(700_000)).decode()
        keys = [base64.b64encode(b"\x30" + bytes([0x66, 0x32 + n, 0])).decode() for n in range(3)]
        for key in keys:
            self.do("put", key=key, value=value, **here)
        seen, position = [], {}
        while True:
            part = self.do("read", **position, **here)
            seen += [(record["key"], record["value"] == value) for record in part["records"]]
            if not part["more"]:
                break
            position = {"key": seen[-1][0]}
        self.assertEqual(seen, [(key, True) for key in keys])

    def test_a_transaction_that_waits_its_turn(self):
        store, _ = self.make()
        ids = [self.do("begin", database="calendar", mode="readwrite", scope=[store])["transaction"]]
        begin = {"op": "begin", "database": "calendar", "mode": "readwrite", "scope": [store]}
        self.memory.ask({"jsonrpc": "2.0", "id": "second", "method": "memory.indexedDb", "params": begin})
        # Others are answered meanwhile, and the second when the first is done.
        self.assertEqual(self.do("put", transaction=ids[0], store=store, key=self.KEY, value=""), {})
        commit = {"op": "commit", "transaction": ids[0]}
        self.memory.ask({"jsonrpc": "2.0", "id": "first", "method": "memory.indexedDb", "params": commit})
        answers = {}
        while len(answers) < 2:
            answers.update({answer["id"]: answer for answer in map(json.loads, self.memory.lines())})
        self.assertEqual(answers["first"]["result"], {})
        self.assertNotEqual(answers["second"]["result"]["transaction"], ids[0])


class NodeMemory(Memory, unittest.TestCase):
    def command(self):
        root = Package()
        self.addCleanup(root.cleanup)
        return node_command(root.copy(os.path.join(AGENTS, "probe.mjs")))


class PythonMemory(Memory, unittest.TestCase):
    def command(self):
        return python_command(os.path.join(AGENTS, "probe.py"))


class CppMemory(Memory, unittest.TestCase):
    def command(self):
        return native_command(os.path.join(BUILT_AGENTS, "libsdk_probe.so"))


if __name__ == "__main__":
    unittest.main()
