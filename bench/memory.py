#!/usr/bin/python3
"""Figures of agents' memory: get and set from an agent on each backend, one at a time and with 64 in flight, beside
redis-server asked directly over the same Unix socket and SQLite in this process; memory of many contexts.

usage: bench/memory.py [--bin DIRECTORY] [--turns N] [--contexts N]

Measured in turns, one of each after the other; 200 bytes a value, 1,000 keys. SQLite: WAL, synchronous=FULL, one commit
a set, on the file system of kaid's state directory. redis-server keeps nothing on its disk, for both. Needs the target
programs of a build (default: build/release), redis-server, and root. About two minutes, on an idle machine.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import socket
import sqlite3
import statistics
import tempfile
import time

from command_line import must, parse
from processes import pss_kb

KEYS = 1000
VALUE = "x" * 200
IN_FLIGHT = 64
# Of one turn: what takes a second at the most, on a disk that needs 2 ms a commit.
ONE_BY_ONE, AT_ONCE = 300, 4096
BACKENDS = ["memory", "sqlite", "indexeddb", "redis"]
CAPABILITY = "measure"

NODE = '''
import { performance } from 'node:perf_hooks';
const value = 'x'.repeat(200);
export default class Measured {
  constructor(ctx) { this.memory = ctx.memory; }
  onInit() {}
  onStart() {}
  onShutdown() {}
  async onMessage(msg) {
    const { what, count, inFlight } = msg.payload;
    const call = what === 'set' ? (key) => this.memory.set(key, value) : (key) => this.memory.get(key);
    const took = [];
    let next = 0;
    const began = performance.now();
    const work = async () => {
      while (next < count) {
        const key = `key${next++ % 1000}`;
        const from = performance.now();
        await call(key);
        took.push((performance.now() - from) * 1e3);
      }
    };
    await Promise.all(Array.from({ length: inFlight }, work));
    const seconds = (performance.now() - began) / 1e3;
    return { took: inFlight === 1 ? took : [], perSecond: count / seconds };
  }
}
'''
PYTHON = '''
import asyncio, time
from kai import Agent

class Measured(Agent):
    async def on_message(self, msg):
        what, count, in_flight = (msg.payload[name] for name in ("what", "count", "inFlight"))
        value, numbers, took = "x" * 200, iter(range(count)), []

        async def work():
            for number in numbers:
                key, start = f"key{number % 1000}", time.perf_counter()
                if what == "set":
                    await self.memory.set(key, value)
                else:
                    await self.memory.get(key)
                took.append((time.perf_counter() - start) * 1e6)
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        return {"took": took if in_flight == 1 else [], "perSecond": count / (time.perf_counter() - began)}
'''
LANGUAGES = {"node": ("main.mjs", NODE), "python": ("main.py", PYTHON)}


class Agent:
    """An agent that measures its own memory."""

    def __init__(self, daemon, backend, language):
        self.daemon, self.name = daemon, f"{language}-{backend}"

    def measure(self, what, count, in_flight):
        payload = json.dumps({"what": what, "count": count, "inFlight": in_flight})
        outcome = self.daemon.ctl("send", "--timeout", "30", self.name, CAPABILITY, payload)
        if outcome.code != 0:
            raise SystemExit(f"{outcome}\n{self.daemon.log[-4000:]}")
        return outcome.document["payload"]


class Redis:
    """The server itself, over one connection of this process."""

    name = "redis-server directly"

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))

    @staticmethod
    def command(*words):
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    def measure(self, what, count, in_flight):
        # As many bytes as a JSON string has.
        value = json.dumps(VALUE).encode()
        if what == "set":
            commands = [self.command(b"SET", b"key%d" % number, value) for number in range(KEYS)]
            reply = len(b"+OK\r\n")
        else:
            commands = [self.command(b"GET", b"key%d" % number) for number in range(KEYS)]
            reply = len(b"$%d\r\n%s\r\n" % (len(value), value))
        took, began = [], time.perf_counter()
        for first in range(0, count, in_flight):
            start = time.perf_counter()
            self.socket.sendall(b"".join(commands[number % KEYS] for number in range(first, first + in_flight)))
            left = reply * in_flight
            while left > 0:
                left -= len(self.socket.recv(left))
            took.append((time.perf_counter() - start) * 1e6)
        return {"took": took, "perSecond": count / (time.perf_counter() - began)}


class Sqlite:
    """The same rows, in this process."""

    name = "SQLite in-process"

    def __init__(self, path):
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def measure(self, what, count, in_flight):
        del in_flight  # there is nobody to wait for
        count = min(count, 500)  # a slow disk takes milliseconds for each
        took, began = [], time.perf_counter()
        for number in range(count):
            key, start = f"key{number % KEYS}", time.perf_counter()
            if what == "set":
                self.database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, VALUE))
            else:
                self.database.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
            took.append((time.perf_counter() - start) * 1e6)
        return {"took": took, "perSecond": count / (time.perf_counter() - began)}


def in_turns(measured, turns, what, count, in_flight):
    """[one result a turn] of each."""
    results = [[] for _ in measured]
    for _ in range(turns):
        for one, found in zip(measured, results):
            found.append(one.measure(what, count, in_flight))
    return results


def compare(title, measured, figures, unit, best):
    """A line: medians and minima, and the ratio of the better language to what stands beside it."""
    names = [*LANGUAGES, measured[-1].name]
    medians = [statistics.median(each) for each in figures]
    shown = [f"{name} {median:,.0f}{unit} (minimum {min(each):,.0f})" for name, median, each in zip(names, medians, figures)]
    chosen = medians.index(best(medians[:-1]))
    print(f"{title}: {', '.join(shown)}; ratio of medians, {names[chosen]} to {names[-1]}: {medians[chosen] / medians[-1]:.2f}",
          flush=True)


def round_trips(agents, redis, sqlite, turns):
    for backend in BACKENDS:
        measured = [agents[language, backend] for language in LANGUAGES] + [redis if backend == "redis" else sqlite]
        for what in ("set", "get"):
            took = [[each for one in result for each in one["took"]]
                    for result in in_turns(measured, turns, what, ONE_BY_ONE, 1)]
            compare(f"{what}, {backend}", measured, took, " us", min)


def at_once(agents, redis, sqlite, turns):
    for backend in BACKENDS:
        measured = [agents[language, backend] for language in LANGUAGES] + [redis if backend == "redis" else sqlite]
        for what in ("set", "get"):
            rates = [[one["perSecond"] for one in result]
                     for result in in_turns(measured, turns, what, AT_ONCE, IN_FLIGHT)]
            compare(f"{what}s a second with {IN_FLIGHT} in flight, {backend}", measured, rates, "", max)


def one_key():
    """An export (supervisor/memory/memory_export.h) with one key of 200 bytes."""
    lines = [{"format": "kai-memory/1", "agentId": "a", "exportedAt": "2026-01-01T00:00:00.000Z", "backend": "sqlite"},
             {"key": "key", "value": VALUE, "version": 1}]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return text + json.dumps({"entries": 1, "checksum": hashlib.sha256(text.encode()).hexdigest()}) + "\n"


def many(daemon, packages, config, scratch, count):
    """Each context has one key, by an import: none of the agents runs."""
    export = pathlib.Path(scratch, "one-key")
    export.write_text(one_key())
    for backend in ("memory", "sqlite"):
        source, contexts = f"source-{backend}", [f"{backend}-{number}" for number in range(count)]

        def register(agent):
            must(daemon, "register", packages.script(scratch, agent, "exit 0\n", memory=config(backend)))

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(register, [*contexts, source]))
            must(daemon, "memory", "import", source, export)
            before = pss_kb(daemon.control_pid())
            list(pool.map(lambda agent: must(daemon, "memory", "import", agent, export), contexts))
            after = pss_kb(daemon.control_pid())
        held = len(os.listdir(f"/proc/{daemon.control_pid()}/fd"))
        print(f"{count} contexts open, {backend}, a key each: control {before / 1024:.1f} MB PSS before, {after / 1024:.1f} "
              f"after, {(after - before) / count:.1f} KB each; {held} descriptors", flush=True)


def main():
    arguments = parse(__doc__, turns=5, contexts=1000)
    tempfile.tempdir = "/var/tmp"  # a disk: /tmp may be memory
    from harness import Daemon
    from memory_agents import RedisServer, config
    import packages

    server = RedisServer("--appendonly", "no")
    daemon = Daemon(arguments.programs)
    scratch = tempfile.mkdtemp()
    os.chmod(scratch, 0o755)
    try:
        server.start()
        daemon.neighbours.add(server.process.pid)
        daemon.settings = server.setting
        daemon.write_policies()
        daemon.start()
        agents = {}
        for language, (entry, program) in LANGUAGES.items():
            for backend in BACKENDS:
                agent = agents[language, backend] = Agent(daemon, backend, language)
                root = packages.package(scratch, agent.name, entry, program, mode=0o644, capabilities=[CAPABILITY],
                                        memory=config(backend))
                must(daemon, "register", root)
                must(daemon, "start", agent.name)
                agent.measure("set", KEYS, IN_FLIGHT)  # the keys are there, the code is warm
        redis, sqlite = Redis(server.socket), Sqlite(daemon.directory / "beside.db")
        for beside in (redis, sqlite):
            beside.measure("set", KEYS, 1)
        round_trips(agents, redis, sqlite, arguments.turns)
        at_once(agents, redis, sqlite, arguments.turns)
        for agent in agents.values():
            must(daemon, "stop", agent.name)
        many(daemon, packages, config, scratch, arguments.contexts)
        daemon.stop()
    finally:
        daemon.clean_up()
        server.clean_up()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
