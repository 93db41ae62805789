"""What the tests of agents' memory share: a redis-server of their own, the agents that they ask, and how they ask."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import harness
import packages

BACKENDS = ["memory", "sqlite", "indexeddb", "redis"]
PERSISTENT = ["sqlite", "indexeddb", "redis"]
# The same agent in three languages; capability memory-do is one memory call, memory-count counts up by if_version.
SDK_AGENTS = harness.SOURCE / "tests/sdk/agents"
PROBES = {
    "python": ("main.py", SDK_AGENTS / "probe.py"),
    "node": ("main.mjs", SDK_AGENTS / "probe.mjs"),
    "cpp": ("libprobe.so", harness.BIN.parent / "tests/sdk/libsdk_probe.so"),
}
PROBE_CAPABILITIES = ["memory-do", "memory-count", "calls"]

TIRELESS = """- name: tireless
  agentId: "*"
  maxCrashes: 1000
  backoff: {initial: 0s, base: 5ms, max: 20ms, jitter: 0.5, resetAfter: 1s}
"""

# `call` is any method of its memory: {"result"}, or what the error said.
WORKER = '''
import asyncio, os
from kai import Agent, AgentError

def said(error):
    return {"code": error.code, "message": str(error), "details": error.details, "retryable": error.retryable}

class Worker(Agent):
    async def on_message(self, msg):
        return await getattr(self, "do_" + msg.capability)(**msg.payload)

    async def do_call(self, name, args=(), options={}):
        try:
            return {"result": await getattr(self.memory, name)(*args, **options)}
        except AgentError as error:
            return said(error)

    async def do_fill(self, prefix, count, size):
        """Keys of `size` bytes, until refused; what went in, exactly, and the last refusal."""
        keys, used, refused, last = 0, 0, 0, None
        for number in range(count):
            key = f"{prefix}{number}"
            try:
                await self.memory.set(key, bytes(size))
                keys, used = keys + 1, used + len(key) + size
            except AgentError as error:
                refused, last = refused + 1, said(error)
                if error.code != "QUOTA_EXCEEDED":
                    raise
        return {"keys": keys, "used": used, "refused": refused, "last": last}

    async def do_large(self, size):
        return await self.do_call("set", ["k", "x" * size])

    async def do_flood(self, first, batches):
        """Batches of the shortest keys, eight at once: how many went in, how many were refused, and the codes."""
        numbers, kept, codes = iter(range(first, first + batches)), 0, {}

        async def write():
            nonlocal kept
            for number in numbers:
                try:
                    await self.memory.set_many({f"{number * 1000 + each:x}": 0 for each in range(1000)})
                    kept += 1000
                except AgentError as error:
                    codes[error.code] = codes.get(error.code, 0) + 1
        await asyncio.gather(*(write() for _ in range(8)))
        return {"kept": kept, "refusedBatches": codes}

    async def do_exit(self, code):
        os._exit(code)
'''
WORKER_CAPABILITIES = ["call", "fill", "large", "flood", "exit"]

# Counts in its memory how often it began and ended.
HOOKS = '''
from kai import Agent

class Hooks(Agent):
    async def add(self, key):
        await self.memory.set(key, (await self.memory.get(key) or 0) + 1)

    async def on_init(self):
        await self.add("began")

    async def on_shutdown(self):
        await self.add("ended")

    async def on_message(self, msg):
        return await self.memory.get_many(["began", "ended"])
'''

# Speaks the runner protocol itself: `line` says any bytes to the host, and what the host answers to it.
RAW = '''#!/usr/bin/python3
import json, socket

channel = socket.socket(fileno=3)
lines = channel.makefile("rb")

def answer_to(line):
    channel.sendall(line)
    while True:
        answer = json.loads(next(lines))
        if "method" not in answer:
            return answer

for line in lines:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = {}
    if request["method"] == "message":
        result = {"payload": answer_to(bytes.fromhex(request["params"]["message"]["payload"]["hex"]) + b"\\n")}
    channel.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\\n")
    if request["method"] == "shutdown":
        break
'''


def config(backend, kind=None, **more):
    """A manifest's `memory`."""
    kind = kind or ("volatile" if backend == "memory" else "persistent")
    return {"type": kind, "backend": backend, "persistent": kind != "volatile", **more}


def security(permissions):
    return packages.CORRECT["security"] | {"permissions": permissions}


def probe(directory, agent, language, **changes):
    """The SDKs' own test agent as a package."""
    entry, source = PROBES[language]
    root = pathlib.Path(directory) / agent
    root.mkdir(parents=True)
    document = packages.manifest(agent, entry, capabilities=PROBE_CAPABILITIES, **changes)
    (root / "manifest.json").write_text(json.dumps(document))
    shutil.copy(source, root / entry)
    return root


def worker(directory, agent, **changes):
    return packages.package(directory, agent, "main.py", WORKER, mode=0o644, capabilities=WORKER_CAPABILITIES, **changes)


def raw(directory, agent, **changes):
    return packages.package(directory, agent, "main", RAW, capabilities=["line"],
                            runtime={"kind": "exec", "protocol": "runner"}, **changes)


class RedisServer:
    """A redis-server on a Unix socket in a directory of its own, which anybody may connect to."""

    def __init__(self, *options):
        self.options = list(options)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kai-redis-"))
        self.directory.chmod(0o755)
        self.socket = self.directory / "redis.sock"
        self.process = None

    @property
    def setting(self):
        """Of kaid.yaml."""
        return f"redis: {{url: 'unix:{self.socket}'}}\n"

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "777",
                 "--dir", str(self.directory), "--save", "", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        harness.wait_until(lambda: self.ask("PING") == "PONG", f"redis-server to answer in {self.directory}")
        return self

    def ask(self, *words):
        command = ["redis-cli", "-s", str(self.socket), *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, errors="replace", timeout=harness.PATIENCE, check=False).stdout.strip()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def clean_up(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class MemoryTest(harness.DaemonTest):
    """Tests that share a daemon and the redis-server that its kaid.yaml names."""

    POLICIES = "policies:\n" + TIRELESS
    REDIS_OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.redis = RedisServer(*cls.REDIS_OPTIONS)
        cls.addClassCleanup(cls.redis.clean_up)
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.start_redis()
        cls.daemon.settings = cls.redis.setting
        cls.daemon.write_policies(**{"10-tests": cls.POLICIES})
        cls.daemon.start()
        cls.prepare()

    @classmethod
    def start_redis(cls):
        cls.daemon.neighbours.add(cls.redis.start().process.pid)

    @classmethod
    def begin(cls, *roots):
        """Registers and starts these packages; answers their ids."""
        agents = [json.loads((root / "manifest.json").read_text())["id"] for root in roots]
        for agent, root in zip(agents, roots):
            for command in (["register", root], ["start", agent]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"
        return agents

    # ---- a worker's memory

    def call(self, who, name, /, *args, **options):
        """What a call came to, {"result"} or {"code", …}; asked again where whoever was in between was just not there."""
        payload = json.dumps({"name": name, "args": args, "options": options})

        def answered():
            outcome = self.daemon.ctl("send", who, "call", "-", stdin=payload)
            if outcome.code == 0:
                return outcome.document
            self.assertTrue(outcome.error["retryable"], f"{outcome}\nlog:\n{self.daemon.log[-3000:]}")
            return None
        return harness.wait_until(answered, f"{who} to answer")["payload"]

    def done(self, who, name, /, *args, **options):
        """The result of a call that must succeed, now or once its memory is back."""
        def result():
            answer = self.call(who, name, *args, **options)
            self.assertTrue("result" in answer or answer["retryable"], f"{name} {args}: {answer}")
            return answer if "result" in answer else None
        return harness.wait_until(result, f"memory.{name} of {who}")["result"]

    def stats(self, agent):
        document = self.ok("memory", "stats", agent).document
        self.assertEqual(len(document["contexts"]), 1, document)
        return document["contexts"][0]

    def used(self, agent):
        """Bytes."""
        return round(self.stats(agent)["size"] * (1 << 20))

    def audited(self, agent, event):
        records = self.ok("audit", "list").records
        return [record for record in records if record["agentId"] == agent and record["event"] == event]

    # ---- its processes

    def kill_in(self, agent, kind):
        """SIGKILL to the agent's host or to its runner; returns when it runs anew."""
        before = self.daemon.wait_for_state(agent, "running")["pid"]
        victim = before if kind == "host" else next(iter(harness.descendants(before)))
        os.kill(victim, signal.SIGKILL)
        self.wait_for_another(agent, before)

    def wait_for_another(self, agent, before):
        def another():
            status = self.daemon.status(agent)
            return status["state"] == "running" and status["pid"] != before
        harness.wait_until(another, f"{agent} to run anew; status: {self.daemon.status(agent)}")

    def left_of_kaid(self):
        """What is below this process and neither a neighbour nor a kaictl of a writer that goes on asking meanwhile."""
        def name(pid):
            with contextlib.suppress(OSError):
                return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        below = set(harness.descendants(os.getpid())) - self.daemon.neighbours
        return {pid for pid in below if name(pid) not in (None, "kaictl")}

    def kill_kaid(self):
        """SIGKILL to kaid, whose death is that of everything below it, and the next one."""
        self.daemon.process.kill()
        self.daemon.process.wait()
        harness.wait_until(lambda: not self.left_of_kaid(), "every process to end with kaid")
        groups, mounts = self.daemon.traces.own, self.daemon.traces.mounts
        self.daemon.start()
        self.daemon.traces.own |= groups
        self.daemon.traces.mounts = mounts

    def restart_kaid(self):
        self.daemon.stop()
        self.daemon.start()
