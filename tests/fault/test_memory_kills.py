"""kill -9 of anything while agents write to their memory: what was acknowledged is there, a version never goes back, and
the quota is never exceeded.

What is killed follows from a seed, which is printed; KAI_FAULT_SEED=N makes the same choices again.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import unittest

import harness
import memory_agents
from memory_agents import MemoryTest, config

KILLS = 40
KAID_KILLS = 5
KEYS = 12
SEND_TIMEOUT = 10
MAX_MB = 0.25  # so little that many writes are refused
AGENTS = {
    "sqlite": config("sqlite", maxSize=MAX_MB),
    "indexeddb": config("indexeddb", maxSize=MAX_MB),
    "hybrid": config("sqlite", "hybrid", maxSize=MAX_MB),
    "redis": config("redis", maxSize=MAX_MB),
    "volatile": config("memory", maxSize=MAX_MB),
}


class Key:
    """What may be kept under a key: what was acknowledged last, or one of those whose fate nobody knows since."""

    def __init__(self):
        self.version = 0
        self.acknowledged = None  # the value's number; None: nothing yet
        self.unknown = set()  # of later writes that were not answered

    def acknowledge(self, number, version):
        if version <= self.version:
            raise AssertionError(f"version {version} after {self.version}")
        self.version, self.acknowledged, self.unknown = version, number, set()

    def check(self, entry):
        """get_entry's answer."""
        number, version = (entry["value"]["number"], entry["version"]) if entry else (None, 0)
        if number == self.acknowledged:
            if version != self.version:
                raise AssertionError(f"number {number} has version {version}, and was acknowledged as {self.version}")
        elif number not in self.unknown or version <= self.version:
            raise AssertionError(f"number {number}, version {version}; acknowledged was {self.acknowledged}, version "
                                 f"{self.version}; unknown are {sorted(self.unknown)}")


class Writer:
    """A thread that writes to one agent's memory all the time, and knows what must be there."""

    def __init__(self, daemon, agent, choice):
        self.daemon, self.agent, self.choice = daemon, agent, choice
        self.keys = {f"key/{number}": Key() for number in range(KEYS)}
        self.number = 0
        self.counts = {"acknowledged": 0, "refused": 0, "unknown": 0}
        self.fault = None
        self.over = threading.Event()
        self.ended = threading.Condition()
        self.thread = None

    def begin(self):
        self.over.clear()
        self.thread = threading.Thread(target=self.write_on)
        self.thread.start()

    def end(self):
        self.over.set()
        self.thread.join()
        if self.fault:
            raise AssertionError(f"memory of {self.agent}: {self.fault}")

    def write_on(self):
        while not self.over.is_set() and not self.fault:
            try:
                self.write()
            except Exception as fault:  # for end(), which runs where it is seen
                self.fault = fault
            with self.ended:
                self.ended.notify_all()

    def write(self):
        self.number += 1
        name = self.choice.choice(list(self.keys))
        key = self.keys[name]
        value = {"number": self.number, "pad": "x" * self.choice.randrange(48 << 10)}
        answer = self.answer_to({"name": "set", "args": [name, value]})
        if "result" in answer:
            key.acknowledge(self.number, answer["result"]["version"])
            self.counts["acknowledged"] += 1
        elif answer["code"] == "QUOTA_EXCEEDED":
            self.counts["refused"] += 1
            if answer["details"]["used"] > MAX_MB * (1 << 20):
                raise AssertionError(f"more than the quota is used: {answer}")
        else:
            if not answer["retryable"]:
                raise AssertionError(f"write {self.number} to {name}: {answer}")
            key.unknown.add(self.number)
            self.counts["unknown"] += 1

    def answer_to(self, call):
        """What the agent says; where nobody is there who could say anything: a retryable error."""
        try:
            outcome = self.daemon.ctl("send", self.agent, "call", "-", "--timeout", str(SEND_TIMEOUT), stdin=json.dumps(call),
                                      timeout=SEND_TIMEOUT + harness.PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"silence to {call['name']}") from None
        if outcome.code == 0:
            return outcome.document["payload"]
        # NOT_RUNNING, or no kaid at all: it was not there, as it was killed.
        return {"code": outcome.error["code"], "retryable": True}

    def wait_for_acknowledged(self, count):
        before = self.counts["acknowledged"]
        with self.ended:
            self.ended.wait_for(lambda: self.fault or self.counts["acknowledged"] >= before + count, harness.PATIENCE)
        if self.fault or self.counts["acknowledged"] < before + count:
            raise AssertionError(f"memory of {self.agent}: {self.fault or 'no write is acknowledged any more'}")


class MemoryKills(MemoryTest):
    REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always")

    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        cls.begin(*(memory_agents.worker(directory, agent, memory=memory) for agent, memory in AGENTS.items()))

    def victims(self, kind):
        found = sorted(harness.descendants(self.daemon.process.pid).items())
        names = {"control": "kai-control", "host": "kai-agent-host"}
        if kind in names:
            return [pid for pid, command in found if pathlib.Path(command.split()[0]).name == names[kind]]
        return [pid for pid, command in found if "kai.runner" in command]

    def kill_one(self, kind, place):
        """false: there is none of the kind just now."""
        victims = self.victims(kind)
        try:
            os.kill(victims[place % len(victims)], signal.SIGKILL)
        except (ZeroDivisionError, ProcessLookupError):
            return False
        return True

    def kill_redis(self):
        self.redis.kill()
        self.start_redis()

    def check(self, writers):
        """All that was acknowledged is there, and what is counted as used is what is there."""
        for writer in writers:
            entries = {name: self.done(writer.agent, "get_entry", name) for name in writer.keys}
            for name, entry in entries.items():
                try:
                    writer.keys[name].check(entry)
                except AssertionError as error:
                    self.fail(f"memory of {writer.agent}, {name}: {error}")
            used = sum(len(name) + self.size_of(entry["value"]) for name, entry in entries.items() if entry)
            self.assertEqual(self.used(writer.agent), used, writer.agent)
            self.assertLessEqual(used, MAX_MB * (1 << 20))

    @staticmethod
    def size_of(value):
        """As the Python SDK writes it."""
        return len(json.dumps(value, separators=(",", ":")))

    def test_nothing_acknowledged_is_lost_whoever_is_killed(self):
        choice = random.Random(harness.seed())
        # What an earlier test left is not for this one to judge.
        writers = self.fresh_writers(choice)
        began = time.monotonic()
        killed = {}
        for writer in writers:
            writer.begin()
        try:
            while sum(killed.values()) < KILLS:
                kind = choice.choices(["control", "host", "runner", "redis"], [30, 30, 30, 10])[0]
                place = choice.randrange(64)
                if kind == "redis":
                    self.kill_redis()
                else:
                    harness.wait_until(lambda: self.kill_one(kind, place), f"a {kind} to kill")
                killed[kind] = killed.get(kind, 0) + 1
                choice.choice(writers).wait_for_acknowledged(choice.choice([0, 0, 1, 3]))
            for writer in writers:
                writer.wait_for_acknowledged(1)
        finally:
            for writer in writers:
                writer.end()
        self.check(writers)
        self.say(killed, writers, began)

    def test_nothing_persistent_is_lost_when_kaid_is_killed(self):
        choice = random.Random(harness.seed())
        # Volatile memory begins anew with kaid: nothing is known of it.
        writers = [writer for writer in self.fresh_writers(choice) if writer.agent != "volatile"]
        began = time.monotonic()
        for _ in range(KAID_KILLS):
            self.done("volatile", "set", "gone", 1)
            for writer in writers:
                writer.begin()
            try:
                choice.choice(writers).wait_for_acknowledged(choice.randrange(1, 8))
                self.kill_kaid()
            finally:
                for writer in writers:
                    writer.end()
            self.check(writers)
            self.assertEqual(self.done("volatile", "list"), {"keys": []})
        self.say({"kaid": KAID_KILLS}, writers, began)

    def fresh_writers(self, choice):
        writers = [Writer(self.daemon, agent, random.Random(choice.randrange(1 << 32))) for agent in AGENTS]
        for writer in writers:
            for name in writer.keys:
                self.done(writer.agent, "delete", name)
        return writers

    @staticmethod
    def say(killed, writers, began):
        counts = {writer.agent: writer.counts for writer in writers}
        print(f"killed {killed} in {time.monotonic() - began:.1f} s; writes {counts}", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
