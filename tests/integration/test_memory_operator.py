"""What operators do with agents' memory (kaictl memory, terminate, --purge), and who else may read it."""

import json
import pathlib
import unittest

import memory_agents
import packages
from memory_agents import BACKENDS, PERSISTENT, MemoryTest, config


class Commands(MemoryTest):
    def begin_worker(self, agent, memory):
        return self.begin(memory_agents.worker(self.scratch, agent, memory=memory))[0]

    def test_stats_tell_of_each_agent_what_it_keeps(self):
        agents = {self.begin_worker(f"stats-{backend}", config(backend, maxSize=2)): backend for backend in BACKENDS}
        for agent in agents:
            self.done(agent, "set", "key", "value")
        document = self.ok("memory", "stats").document
        self.assert_keys(document, {"totalAllocated", "activeContexts", "contexts"})
        contexts = {context["id"]: context for context in document["contexts"]}
        self.assertLessEqual(set(agents), set(contexts))
        self.assertEqual(document["activeContexts"], len(contexts))
        self.assertAlmostEqual(document["totalAllocated"], sum(context["size"] for context in contexts.values()))
        for agent, backend in agents.items():
            self.assert_keys(contexts[agent], {"id", "type", "backend", "size", "entryCount", "lastAccessed", "limit",
                                               "encrypted"})
            self.assertEqual((contexts[agent]["backend"], contexts[agent]["entryCount"]), (backend, 1))
            self.assertEqual(contexts[agent]["type"], "volatile" if backend == "memory" else "persistent")
            self.assertEqual((round(contexts[agent]["size"] * (1 << 20)), contexts[agent]["limit"]),
                             (len("key") + len('"value"'), 2))
            self.assertRegex(contexts[agent]["lastAccessed"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertFalse(contexts[agent]["encrypted"])
        text = self.ok("memory", "stats", text_mode=True).stdout
        for agent, backend in agents.items():
            self.assertRegex(text, rf"(?m)^{agent} .*{backend}.* 1 ")

    def test_list_and_get(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"look-{backend}", config(backend))
                version = self.done(agent, "set_many", {"a/1": {"b": [1]}, "a/2": 2, "b": "x\x1b[2J", "ä": None})
                self.send(agent, "fill", {"prefix": "bytes", "count": 1, "size": 3})
                self.assertEqual(self.ok("memory", "list", agent).document,
                                 {"keys": ["a/1", "a/2", "b", "bytes0", "ä"]})
                self.assertEqual(self.ok("memory", "list", agent, "--prefix", "a/", "--limit", "1").document,
                                 {"keys": ["a/1"], "cursor": "a/1"})
                self.assertEqual(self.ok("memory", "list", agent, "--cursor", "b", "--prefix", "b").document,
                                 {"keys": ["bytes0"]})
                self.assertEqual(self.ok("memory", "list", agent, text_mode=True).stdout, "a/1\na/2\nb\nbytes0\nä\n")
                self.assertEqual(self.ok("memory", "get", agent, "a/1").document,
                                 {"key": "a/1", "value": {"b": [1]}, "version": version[0]["version"]})
                self.assertEqual(self.ok("memory", "get", agent, "bytes0").document["valueBase64"], "AAAA")
                self.assertEqual(json.loads(self.ok("memory", "get", agent, "a/1", text_mode=True).stdout), {"b": [1]})
                self.assertNotIn("\x1b", self.ok("memory", "get", agent, "b", text_mode=True).stdout)

    def test_what_is_not_there_is_said(self):
        agent = self.begin_worker("little", config("sqlite"))
        for arguments in (["stats"], ["list"], ["get", "key"], ["export", self.scratch / "none"]):
            self.fails(4, "NOT_FOUND", "memory", arguments[0], "nobody", *arguments[1:])
        self.assertFalse((self.scratch / "none").exists(), "a failed export leaves no file")
        error = self.fails(4, "NOT_FOUND", "memory", "get", agent, "no such key")
        self.assertIn("no such key", error["message"])
        self.fails(5, "INVALID", "memory", "get", agent, "x" * 513)
        self.fails(4, "NOT_FOUND", "memory", "import", agent, self.scratch / "missing")
        self.assertEqual(self.daemon.ctl("memory").code, 2)
        self.assertEqual(self.daemon.ctl("memory", "list", agent, "--limit", "0").code, 2)

    def exported(self, agent):
        path = self.scratch / f"{agent}.export"
        self.ok("memory", "export", agent, path)
        return path

    def test_an_export_is_all_of_it_and_an_import_puts_it_back(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"moved-{backend}", config(backend))
                self.done(agent, "set_many", {"json": {"a": [1.5, None]}, "text": "grüß Gott\n"})
                self.done(agent, "set", "ttl", 1, ttl=3600)
                self.send(agent, "fill", {"prefix": "bytes", "count": 3, "size": 1000})
                entries = self.done(agent, "get_entry", "json")
                used = self.used(agent)
                path = self.exported(agent)
                self.assertEqual(path.stat().st_mode & 0o777, 0o600)
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                self.assertEqual((lines[0]["format"], lines[0]["agentId"], lines[0]["backend"]),
                                 ("kai-memory/1", agent, backend))
                self.assertEqual(lines[-1]["entries"], 6)

                self.done(agent, "set", "later", 1)
                error = self.fails(1, "CONFLICT", "memory", "import", agent, path)
                self.assertIn("stop", error["hint"].lower())
                self.ok("stop", agent)
                self.assertEqual(self.ok("memory", "import", agent, path).document,
                                 {"id": agent, "entries": 6, "bytes": used})
                self.ok("start", agent)
                self.assertEqual(self.done(agent, "list")["keys"], ["bytes0", "bytes1", "bytes2", "json", "text", "ttl"])
                self.assertEqual(self.done(agent, "get_entry", "json"), entries)
                self.assertEqual(self.done(agent, "get", "text"), "grüß Gott\n")
                self.assertGreater(self.done(agent, "set", "json", 1)["version"], entries["version"])
                self.assertTrue(self.audited(agent, "kai.purged"), "an import takes what was there away")

    def test_an_export_of_one_backend_goes_into_another(self):
        source = self.begin_worker("source", config("sqlite"))
        self.done(source, "set_many", {"a": 1, "b": [2]})
        path = self.exported(source)
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = memory_agents.worker(self.scratch, f"into-{backend}", memory=config(backend))
                self.ok("register", agent)
                self.ok("memory", "import", agent.name, path)
                self.ok("start", agent.name)
                self.assertEqual(self.done(agent.name, "get_many", ["a", "b"]), {"a": 1, "b": [2]})

    def test_a_damaged_export_changes_nothing(self):
        agent = self.begin_worker("careful", config("sqlite"))
        small = self.begin_worker("small", config("sqlite", maxSize=0.001))
        self.done(agent, "set", "kept", "x" * 2000)
        whole = self.exported(agent).read_bytes()
        self.ok("stop", agent)
        self.ok("stop", small)
        damaged = {"cut": whole[:-20], "changed": whole.replace(b"kept", b"lost"), "empty": b"", "noise": bytes(range(256)) * 9,
                   "more": whole + b"{}\n", "lines": b"\n" * 100}
        for name, content in damaged.items():
            with self.subTest(damage=name):
                path = self.scratch / name
                path.write_bytes(content)
                self.fails(5, "INVALID", "memory", "import", agent, path)
        self.fails(5, "INVALID", "memory", "import", agent, "/dev/null")
        (self.scratch / "whole").write_bytes(whole)
        self.fails(1, "QUOTA_EXCEEDED", "memory", "import", small, self.scratch / "whole")
        self.assertEqual(self.ok("memory", "list", agent).document, {"keys": ["kept"]})
        self.assertEqual(self.ok("memory", "list", small).document, {"keys": []})

    def test_terminate_clears_what_is_volatile_and_says_so(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"ended-{backend}", config(backend, "volatile"))
                self.done(agent, "set_many", {"a": 1, "b": 2})
                self.ok("stop", agent)
                self.assertEqual(self.ok("memory", "list", agent).document, {"keys": ["a", "b"]}, "stop keeps it")
                self.ok("terminate", agent)
                purged = self.audited(agent, "kai.purged")
                self.assertEqual([record["metadata"]["memoryEntries"] for record in purged], [2], purged)
                self.assertEqual(purged[0]["metadata"]["memoryBytes"], 4)
                self.assertEqual(self.ok("memory", "list", agent).document, {"keys": []})
                self.ok("start", agent)
                self.assertEqual(self.done(agent, "list"), {"keys": []})

    def test_purge_clears_all_of_it_and_says_so(self):
        for backend in PERSISTENT:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"purged-{backend}", config(backend))
                self.done(agent, "set_many", {"a": 1, "b": 2, "c": 3})
                self.ok("terminate", agent)
                self.assertEqual(self.ok("memory", "list", agent).document, {"keys": ["a", "b", "c"]})
                self.assertEqual(self.audited(agent, "kai.purged"), [])
                self.ok("terminate", agent, "--purge")
                purged = self.audited(agent, "kai.purged")
                self.assertEqual([record["metadata"]["memoryEntries"] for record in purged], [3], purged)
                self.assertEqual(list(pathlib.Path(self.daemon.state, "memory").glob(f"{agent}.db*")), [])
                self.assertEqual(self.redis.ask("KEYS", f"kai:{{{agent}}}:*"), "")
                self.ok("start", agent)
                self.assertEqual(self.done(agent, "list"), {"keys": []})

    def test_unregister_leaves_nothing_of_it(self):
        for backend in PERSISTENT:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"gone-{backend}", config(backend))
                self.done(agent, "set", "a", 1)
                self.ok("stop", agent)
                self.ok("unregister", agent)
                self.assertEqual(list(pathlib.Path(self.daemon.state, "memory").glob(f"{agent}.db*")), [])
                self.assertEqual(self.redis.ask("KEYS", f"kai:{{{agent}}}:*"), "")


class Others(MemoryTest):
    """Shared memory, and hooks that use their own."""

    POLICIES = MemoryTest.POLICIES.replace("policies:\n", """policies:
- name: reader
  agentId: "reader*"
  permissions:
  - {resource: memory, scope: "*", actions: [read]}
""")

    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        permissions = [{"resource": "memory", "scope": owner, "actions": ["read"]}
                       for owner in ("open-sqlite", "open-redis", "closed", "nobody")]
        cls.begin(*(memory_agents.worker(directory, f"open-{backend}", memory=config(backend, sharedAccess=True))
                    for backend in ("sqlite", "redis")),
                  memory_agents.worker(directory, "closed", memory=config("sqlite")),
                  memory_agents.worker(directory, "reader", memory=config("sqlite"),
                                       security=memory_agents.security(permissions)),
                  # It asks, but its policy gives it nothing.
                  memory_agents.worker(directory, "stranger", memory=config("sqlite"),
                                       security=memory_agents.security(permissions)),
                  memory_agents.raw(directory, "reader-raw", memory=config("sqlite"),
                                    security=memory_agents.security(permissions)))

    def denied(self, who, name, /, *args, **options):
        before = self.daemon.status(who)["denials"]
        answer = self.call(who, name, *args, **options)
        self.assertEqual((answer.get("code"), answer.get("retryable")), ("DENIED", False), answer)
        self.assertGreater(self.daemon.status(who)["denials"], before, "a refusal is counted")

    def test_it_is_read_with_a_grant_alone(self):
        for owner in ("open-sqlite", "open-redis"):
            with self.subTest(owner=owner):
                self.done(owner, "set_many", {"a": {"b": 1}, "c": 2})
                self.assertEqual(self.done("reader", "get", "a", agent=owner), {"b": 1})
                self.assertEqual(self.done("reader", "get_many", ["a", "c", "none"], agent=owner), {"a": {"b": 1}, "c": 2})
                self.assertEqual(self.done("reader", "list", agent=owner)["keys"], ["a", "c"])
                self.assertIsNone(self.done("reader", "get", "none", agent=owner))
                self.denied("stranger", "get", "a", agent=owner)
                self.denied("stranger", "list", agent=owner)
        self.denied("reader", "get", "a", agent="closed")
        self.assertEqual(self.call("reader", "get", "a", agent="nobody").get("code"), "NOT_FOUND")
        self.denied("reader", "get", "a", agent="stranger")
        self.assertEqual(self.done("reader", "list"), {"keys": []}, "its own is its own")

    def test_what_is_stopped_is_read_as_it_was(self):
        self.done("open-sqlite", "set", "stopped", 1)
        self.ok("stop", "open-sqlite")
        self.assertEqual(self.done("reader", "get", "stopped", agent="open-sqlite"), 1)
        self.ok("start", "open-sqlite")

    def test_nobody_writes_anothers(self):
        self.done("open-sqlite", "set", "mine", 1)
        for method, params in (("set", {"key": "mine", "value": 2}), ("delete", {"key": "mine"}),
                               ("setMany", {"entries": [{"key": "mine", "value": 2, "agent": "open-sqlite"}]})):
            with self.subTest(method=method):
                line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": f"memory.{method}",
                                   "params": params | ({"agent": "open-sqlite"} if method != "setMany" else {})})
                answer = self.send("reader-raw", "line", {"hex": line.encode().hex()})
                self.assertIn(answer["error"]["data"]["code"], ("INVALID", "DENIED"), answer)
        self.assertEqual(self.done("open-sqlite", "get", "mine"), 1)

    def test_hooks_use_it_from_the_first_to_the_last(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin(packages.package(self.scratch, f"hooks-{backend}", "main.py", memory_agents.HOOKS,
                                                    mode=0o644, capabilities=["counts"], memory=config(backend)))[0]
                for round_ in range(1, 3):
                    expected = {"began": round_} | ({"ended": round_ - 1} if round_ > 1 else {})
                    self.assertEqual(self.send(agent, "counts"), expected)
                    self.ok("stop", agent)
                    self.assertEqual(self.ok("memory", "get", agent, "ended").document["value"], round_)
                    self.ok("start", agent)


if __name__ == "__main__":
    unittest.main()
