"""Agent memory on every backend and in every language: what goes in comes out, conditions, expiry, limits, sharing."""

import concurrent.futures
import json
import os
import sys
import time
import unittest

import harness
import memory_agents
from memory_agents import BACKENDS, MemoryTest, config

WRITERS = 16


def at_once(calls):
    """The results of these calls, each on a thread of its own."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def of_each_agent(test):
    def tests(self):
        for agent in self.agents:
            with self.subTest(agent=agent):
                test(self, agent)
    return tests


class Backends(MemoryTest):
    """Every backend × every language. The same words for all: nothing may differ."""

    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        cls.agents = cls.begin(*(
            memory_agents.probe(directory, f"{backend}-{language}", language, memory=config(backend))
            for backend in BACKENDS for language in memory_agents.PROBES))

    def ask(self, agent, call, **asked):
        return self.send(agent, "memory-do", {"call": call, **asked})

    def do(self, agent, call, **asked):
        answer = self.ask(agent, call, **asked)
        self.assertIn("result", answer, asked)
        return answer["result"]

    def set(self, agent, key, value, **options):
        return self.do(agent, "set", key=key, entries=[{"key": key, "value": value}], options=options)["version"]

    def conflict(self, agent, key, **options):
        answer = self.ask(agent, "set", key=key, entries=[{"key": key, "value": "other"}], options=options)
        self.assertEqual((answer.get("code"), answer.get("retryable")), ("CONFLICT", False), answer)
        self.assertEqual(answer["details"]["key"], key, answer)
        return answer["details"]["version"]

    @of_each_agent
    def test_json_and_bytes_come_back_as_they_were(self, agent):
        values = [0, -1.5, "", "grüß Gott \U0001F600", [], {}, False, {"deep": [[[{"a": [1, None]}]]]}, "x" * 100_000,
                  {"bytes": []}, {"bytes": list(range(256))}]
        for number, value in enumerate(values):
            self.set(agent, f"value/{number}", value)
            self.assertEqual(self.do(agent, "get", key=f"value/{number}"), value)
        self.assertIsNone(self.do(agent, "get", key="missing"))
        self.assertIsNone(self.do(agent, "getEntry", key="missing"))
        self.set(agent, "null", None)
        self.assertIsNone(self.do(agent, "getEntry", key="null")["value"])

    @of_each_agent
    def test_many_at_once_all_or_none(self, agent):
        entries = [{"key": f"many/{number:03}", "value": number} for number in range(300)]
        versions = [written["version"] for written in self.do(agent, "setMany", entries=entries)]
        self.assertEqual(len(set(versions)), 300)
        self.assertEqual(versions, sorted(versions))
        keys = [entry["key"] for entry in entries]
        self.assertEqual(self.do(agent, "getMany", keys=["absent", *keys]), {key: n for n, key in enumerate(keys)})
        refused = [{"key": "many/new", "value": 1}, {"key": keys[0], "value": -1, "ifAbsent": True}]
        answer = self.ask(agent, "setMany", entries=refused)
        self.assertEqual(answer.get("code"), "CONFLICT", answer)
        self.assertEqual(self.do(agent, "getMany", keys=["many/new", keys[0]]), {keys[0]: 0})

    @of_each_agent
    def test_list_is_in_the_order_of_bytes_and_goes_on_where_it_ended(self, agent):
        names = ["", "!", "A", "a", "aa", "b", "z", "ä", "€", "\uffff", "\U0001F600"]
        self.do(agent, "setMany", entries=[{"key": f"list/{name}", "value": 1} for name in reversed(names)])
        everything = sorted((f"list/{name}" for name in names), key=str.encode)
        self.assertEqual(self.do(agent, "list", options={"prefix": "list/"}), {"keys": everything})
        self.assertEqual(self.do(agent, "list", options={"prefix": "list/a"})["keys"], ["list/a", "list/aa"])
        found, cursor = [], None
        while True:
            page = self.do(agent, "list", options={"prefix": "list/", "limit": 4} | ({"cursor": cursor} if cursor else {}))
            found += page["keys"]
            self.assertLessEqual(len(page["keys"]), 4)
            cursor = page.get("cursor")
            if cursor is None:
                break
        self.assertEqual(found, everything)

    @of_each_agent
    def test_delete_says_whether_there_was_one(self, agent):
        first = self.set(agent, "deleted", 1)
        self.assertIs(self.do(agent, "delete", key="deleted"), True)
        self.assertIs(self.do(agent, "delete", key="deleted"), False)
        self.assertIsNone(self.do(agent, "getEntry", key="deleted"))
        self.assertGreater(self.set(agent, "deleted", 2), first, "a version is never used again")

    @of_each_agent
    def test_conditions_make_locks(self, agent):
        version = self.set(agent, "lock", "mine", ifAbsent=True)
        self.assertEqual(self.conflict(agent, "lock", ifAbsent=True), version)
        self.assertEqual(self.conflict(agent, "lock", ifVersion=version + 1), version)
        self.assertEqual(self.do(agent, "getEntry", key="lock"), {"value": "mine", "version": version})
        newer = self.set(agent, "lock", "still mine", ifVersion=version)
        self.assertGreater(newer, version)
        self.assertEqual(self.conflict(agent, "lock", ifVersion=version), newer)
        self.do(agent, "delete", key="lock")
        self.assertEqual(self.conflict(agent, "lock", ifVersion=newer), 0)
        self.assertGreater(self.set(agent, "lock", "anew", ifAbsent=True), newer)

    @of_each_agent
    def test_a_counter_by_sixteen_at_once_is_exact(self, agent):
        times = 2
        at_once([lambda: self.send(agent, "memory-count", times)] * WRITERS)
        self.assertEqual(self.do(agent, "get", key="count"), WRITERS * times)

    @of_each_agent
    def test_a_key_ends_with_its_ttl(self, agent):
        self.set(agent, "short", 1, ttl=0.2)
        self.set(agent, "long", 1, ttl=3600)
        self.set(agent, "renewed", 1, ttl=0.2)
        self.set(agent, "renewed", 2)
        harness.wait_until(lambda: self.do(agent, "getEntry", key="short") is None, "a key to expire")
        self.assertEqual(self.do(agent, "getMany", keys=["short", "long", "renewed"]), {"long": 1, "renewed": 2})
        listed = self.do(agent, "list")["keys"]
        self.assertNotIn("short", listed)
        self.assertIs(self.do(agent, "delete", key="short"), False)
        self.set(agent, "short", 2, ifAbsent=True)


class Limits(MemoryTest):
    """What is refused: bad keys, what is too large, what is over the quota whoever writes beside."""

    def begin_worker(self, agent, memory, **changes):
        return self.begin(memory_agents.worker(self.scratch, agent, memory=memory, **changes))[0]

    def test_the_manifests_ttl_holds_for_keys_without_one(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"ttl-{backend}", config(backend, ttl=1))
                self.done(agent, "set_many", {"default": 1, "other": 2})
                self.done(agent, "set", "never", 3, ttl=0)
                self.done(agent, "set", "hour", 4, ttl=3600)
                harness.wait_until(lambda: "default" not in self.done(agent, "list")["keys"], "a key to expire")
                self.assertEqual(self.done(agent, "get_many", ["default", "other", "never", "hour"]),
                                 {"never": 3, "hour": 4})

    def test_bad_keys_and_values(self):
        bad = {"": "INVALID", "x" * 513: "INVALID", "ä" * 257: "INVALID", "a\0b": "INVALID", "\0": "INVALID"}
        for backend in BACKENDS:
            agent = self.begin_worker(f"bad-{backend}", config(backend))
            for key, code in bad.items():
                for name, args in (("get", [key]), ("set", [key, 1]), ("delete", [key]), ("get_many", [[key]]),
                                   ("set_many", [{"good": 1, key: 2}])):
                    with self.subTest(backend=backend, key=key[:8], call=name):
                        answer = self.call(agent, name, *args)
                        self.assertEqual((answer.get("code"), answer.get("retryable")), (code, False), answer)
                        self.assertTrue(answer["message"])
            with self.subTest(backend=backend):
                self.assertEqual(self.call(agent, "get_many", ["k"] * 1001)["code"], "TOO_LARGE")
                self.assertEqual(self.call(agent, "set", "k", 1, ttl=-1)["code"], "INVALID")
                self.assertEqual(self.done(agent, "list"), {"keys": []}, "what was refused changed nothing")
                self.assertGreater(self.done(agent, "set", "x" * 512, 1)["version"], 0)
                self.assertEqual(self.done(agent, "get", "x" * 512), 1)
                self.assertEqual(self.used(agent), 513)

    def line(self, agent, line):
        return self.send(agent, "line", {"hex": line.hex()})

    def test_what_no_sdk_would_say(self):
        bad = [
            (b'{"key":"\\ud800","value":1}', "a lone surrogate"),
            (b'{"key":"a\\u0000b","value":1}', "NUL"),
            (b'{"key":7,"value":1}', "a number"),
            (b'{"key":null,"value":1}', "null"),
            (b'{"value":1}', "no key"),
            (b'{"key":"k"}', "no value"),
            (b'{"key":"k","value":1,"valueBase64":"AA=="}', "two values"),
            (b'{"key":"k","valueBase64":"A"}', "no base64"),
            (b'{"key":"k","value":1,"ttl":-1}', "a ttl before now"),
            (b'{"key":"k","value":1,"ttl":1e300}', "a ttl beyond time"),
            (b'{"key":"k","value":1,"ifVersion":1.5}', "no whole version"),
            (b'{"key":"k","value":1,"ifVersion":1,"ifAbsent":true}', "conditions that cannot both hold"),
            (b'{"key":"k","value":1,"agent":"raw-sqlite"}', "writing another's"),
        ]
        for backend in BACKENDS:
            agent = self.begin(memory_agents.raw(self.scratch, f"raw-{backend}", memory=config(backend)))[0]
            for params, what in bad:
                with self.subTest(backend=backend, what=what):
                    answer = self.line(agent, b'{"jsonrpc":"2.0","id":1,"method":"memory.set","params":' + params + b"}")
                    self.assertEqual(answer.get("error", {}).get("data", {}).get("code"), "INVALID", answer)
            # What is no UTF-8 is no document, and is answered to nobody: the next line is.
            listing = b'{"jsonrpc":"2.0","id":1,"method":"memory.list","params":{}}'
            answer = self.line(
                agent, b'{"jsonrpc":"2.0","id":1,"method":"memory.set","params":{"key":"\xff","value":1}}\n' + listing)
            self.assertEqual(answer.get("result"), {"keys": []}, answer)

    def test_a_value_over_the_limit_is_too_large(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"large-{backend}", config(backend))
                answer = self.send(agent, "large", {"size": (1 << 20) - 1})
                self.assertEqual((answer.get("code"), answer.get("retryable")), ("TOO_LARGE", False), answer)
                self.assertEqual(self.done(agent, "list"), {"keys": []})
                self.assertIn("result", self.send(agent, "large", {"size": (1 << 20) - 2}))
                self.assertEqual(self.used(agent), 1 + (1 << 20))
                self.assertEqual(len(self.ok("memory", "get", agent, "k").document["value"]), (1 << 20) - 2)
                self.assertEqual(self.send(agent, "fill", {"prefix": "bytes", "count": 1, "size": 768 << 10})["keys"], 1)

    def test_the_quota_holds_for_sixteen_writers_at_once(self):
        size, each = 8 << 10, 16  # together twice what may be kept
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                agent = self.begin_worker(f"quota-{backend}", config(backend, maxSize=1))
                answers = at_once([lambda prefix=f"{writer:02}/": self.send(
                    agent, "fill", {"prefix": prefix, "count": each, "size": size}) for writer in range(WRITERS)])
                kept, used = (sum(answer[name] for answer in answers) for name in ("keys", "used"))
                self.assertEqual(kept + sum(answer["refused"] for answer in answers), WRITERS * each)
                self.assertEqual((self.used(agent), self.stats(agent)["entryCount"]), (used, kept))
                self.assertLessEqual(used, 1 << 20)
                self.assertLess(1 << 20, used + size + 8, "refused only what did not fit")
                for answer in answers:
                    if answer["last"]:
                        self.assertEqual((answer["last"]["code"], answer["last"]["retryable"]), ("QUOTA_EXCEEDED", False))
                        self.assertEqual(answer["last"]["details"]["limit"], 1 << 20, answer)
                        self.assertLessEqual(answer["last"]["details"]["used"], 1 << 20, answer)
                self.check_full(agent, size, used)

    def check_full(self, agent, size, used):
        """A refused write changes nothing; what shrinks or makes room is let through."""
        keys = self.done(agent, "list")["keys"]
        refused = self.call(agent, "set_many", {keys[0]: "x", "room": "y" * (2 * size)})
        self.assertEqual(refused.get("code"), "QUOTA_EXCEEDED", refused)
        self.assertEqual(self.used(agent), used)
        self.assertEqual(self.done(agent, "list")["keys"], keys)
        self.done(agent, "set", keys[0], "x")
        self.assertEqual(self.used(agent), used - size + 3)
        self.assertIs(self.done(agent, "delete", keys[1]), True)
        self.done(agent, "set", "room", "y" * (size - 2))
        self.assertLessEqual(self.used(agent), 1 << 20)


class Flood(MemoryTest):
    """An agent that writes the shortest keys as fast as it can. Half a million; KAI_FLOOD_MILLIONS=10 takes minutes."""

    POLICIES = "policies:\n" + """- name: flood
  agentId: "flood*"
  deadlines: {message: 10m}
  cpuLimit: 100
""" + MemoryTest.POLICIES.removeprefix("policies:\n")
    MESSAGES = int(4 * float(os.environ.get("KAI_FLOOD_MILLIONS", "0.5")))
    BATCHES = 250  # of 1,000 keys, in each message
    MAX_RESIDENT = 256 << 20  # of kaid and control together, beyond what they had

    def resident(self):
        processes = [self.daemon.process.pid, *self.daemon.controls()]
        return sum(int(harness.status_of(pid)["VmRSS"].split()[0]) << 10 for pid in processes)

    def test_millions_of_tiny_keys_end_at_the_limit_of_entries_and_cost_nobody_else(self):
        for backend in ("memory", "redis"):
            with self.subTest(backend=backend):
                self.flood(backend)

    def flood(self, backend):
        agent, other = self.begin(
            memory_agents.worker(self.scratch, f"flood-{backend}", memory=config(backend, maxSize=8)),
            memory_agents.worker(self.scratch, f"other-{backend}", memory=config("sqlite")))
        self.done(other, "set", "mine", 0)
        before, most, slowest, answers = self.resident(), 0, 0, []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            flood = pool.submit(lambda: [
                self.ok("send", agent, "flood", json.dumps({"first": part * self.BATCHES, "batches": self.BATCHES}),
                        "--timeout", "600", timeout=660).document["payload"]
                for part in range(self.MESSAGES)])
            while not flood.done():
                began = time.monotonic()
                self.assertGreater(self.done(other, "set", "mine", 1)["version"], 0)
                slowest = max(slowest, time.monotonic() - began)
                most = max(most, self.resident() - before)
            answers = flood.result()
        limit = (8 << 20) // 64
        kept = sum(answer["kept"] for answer in answers)
        refused = sum(answer["refusedBatches"].get("QUOTA_EXCEEDED", 0) for answer in answers)
        self.assertEqual(kept, limit // 1000 * 1000)
        self.assertEqual(kept + 1000 * refused, 1000 * self.MESSAGES * self.BATCHES, answers)
        self.assertEqual(self.stats(agent)["entryCount"], kept)
        self.assertLess(most, self.MAX_RESIDENT)
        self.assertLess(slowest, 10)
        print(f"{backend}: {kept} of {1000 * self.MESSAGES * self.BATCHES} keys; others waited {slowest:.2f} s at most; "
              f"kaid's processes grew by {most >> 20} MB", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
