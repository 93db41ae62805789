"""The agent that the upgrade tests put new versions of into service: the same in Python, Node, TypeScript and C++
(upgrade_agent.cc), and the gate, by which a test holds one of its hooks.

A version is its manifest alone: metadata.tags say what a hook does beside its work, as "onUpgrade=throw":
throw, exit (the process ends), hang (for ever, the event loop goes on), block (for ever, and the event loop with it), or
gate (waits until the test lets it go on). In C++, where hooks share one thread, hang is block. health=critical is what
onHealthCheck says from the beginning.

Capabilities: count {number} remembers the number, in the process alone: {number, version, times}. wait {name}: the same as
a hook's gate. report: what was counted, and which hooks ran. connect: opens a connection to the gate and keeps it. sick:
health is critical from now on. exit {code}.
"""

import json
import pathlib
import shutil
import socket
import threading

import harness
import packages

CAPABILITIES = ["count", "wait", "report", "connect", "sick", "exit"]
GATE = "/tmp/gate"  # where the gate's directory is in the sandbox; the policy maps it

PYTHON = '''
import asyncio, os, socket, threading
from kai import Agent

loaded = 0  # instances that this module's code has made: a version that is loaded beside another one has its own

class Counter(Agent):
    async def on_init(self):
        global loaded
        loaded += 1
        self.version = self.manifest["version"]
        self.acts = dict(tag.split("=", 1) for tag in self.manifest["metadata"]["tags"])
        self.hooks, self.seen, self.kept, self.health = [], {}, None, self.acts.get("health", "healthy")
        await self.act("onInit")

    async def on_start(self):
        await self.act("onStart")

    async def on_upgrade(self, old_version):
        await self.act("onUpgrade", old_version)

    async def on_shutdown(self):
        await self.act("onShutdown")

    async def save_state(self):
        await self.act("saveState")
        return {"seen": self.seen}

    async def restore_state(self, state):
        self.seen = {} if state is None else state["seen"]
        await self.act("restoreState", "nothing" if state is None else "")

    def on_health_check(self):
        return {"status": self.health}

    async def act(self, hook, about=""):
        self.hooks.append(f"{hook} {about}".strip())
        self.log.info(f"{hook} of {self.version}")
        what = self.acts.get(hook)
        if what == "throw":
            raise RuntimeError(f"{hook} of {self.version} is bad")
        if what == "exit":
            os._exit(3)
        if what == "hang":
            await asyncio.Event().wait()
        if what == "block":
            threading.Event().wait()
        if what == "gate":
            await self.wait(f"{hook} {self.version}")

    async def wait(self, name):
        reader, writer = await asyncio.open_unix_connection("GATE/gate")
        writer.write(name.encode() + b"\\n")
        await reader.readline()
        writer.close()

    async def on_message(self, msg):
        return await getattr(self, "do_" + msg.capability)(**msg.payload)

    async def do_count(self, number):
        times = self.seen[str(number)] = self.seen.get(str(number), 0) + 1
        return {"number": number, "version": self.version, "times": times}

    async def do_wait(self, name):
        await self.wait(name)
        return {"version": self.version}

    async def do_report(self):
        doubled = [int(number) for number, times in self.seen.items() if times > 1]
        return {"version": self.version, "hooks": self.hooks, "counted": len(self.seen), "doubled": doubled, "loaded": loaded}

    async def do_connect(self):
        self.kept = socket.socket(socket.AF_UNIX)
        self.kept.connect("GATE/gate")
        self.kept.sendall(b"kept\\n")
        os.dup(self.kept.fileno())  # the instance that opened it is collected when it is dropped; the process goes on
        return {}

    async def do_sick(self):
        self.health = "critical"
        return {}

    async def do_exit(self, code):
        os._exit(code)
'''

NODE = '''
import net from "node:net";
import { once } from "node:events";

let loaded = 0; // instances that this module's code has made: a version that is loaded beside another one has its own

export default class Counter {
  constructor(ctx) {
    this.ctx = ctx;
    this.hooks = [];
    this.seen = {};
    loaded += 1;
    this.version = ctx.manifest.version;
    this.acts = Object.fromEntries(ctx.manifest.metadata.tags.map((tag) => tag.split("=")));
    this.health = this.acts.health ?? "healthy";
  }

  async onInit() { await this.act("onInit"); }
  async onStart() { await this.act("onStart"); }
  async onUpgrade(oldVersion) { await this.act("onUpgrade", oldVersion); }
  async onShutdown() { await this.act("onShutdown"); }

  async saveState() {
    await this.act("saveState");
    return { seen: this.seen };
  }

  async restoreState(state) {
    this.seen = state?.seen ?? {};
    await this.act("restoreState", state === null ? "nothing" : "");
  }

  onHealthCheck() { return { status: this.health }; }

  async act(hook, about = "") {
    this.hooks.push(`${hook} ${about}`.trim());
    this.ctx.log.info(`${hook} of ${this.version}`);
    switch (this.acts[hook]) {
      case "throw": throw new Error(`${hook} of ${this.version} is bad`);
      case "exit": return process.exit(3);
      case "hang": return new Promise(() => {});
      case "block": return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      case "gate": return this.wait(`${hook} ${this.version}`);
    }
  }

  async wait(name) {
    const connection = net.connect("GATE/gate");
    connection.write(`${name}\\n`);
    connection.resume();
    await once(connection, "close");
  }

  async onMessage(msg) {
    const payload = msg.payload;
    switch (msg.capability) {
      case "count": {
        const times = (this.seen[payload.number] = (this.seen[payload.number] ?? 0) + 1);
        return { number: payload.number, version: this.version, times };
      }
      case "wait":
        await this.wait(payload.name);
        return { version: this.version };
      case "report": {
        const doubled = Object.entries(this.seen).filter(([, times]) => times > 1).map(([number]) => Number(number));
        return { version: this.version, hooks: this.hooks, counted: Object.keys(this.seen).length, doubled, loaded };
      }
      case "connect": {
        this.kept = net.connect("GATE/gate");
        this.kept.write("kept\\n");
        return {};
      }
      case "sick":
        this.health = "critical";
        return {};
      case "exit":
        process.exit(payload.code);
    }
  }
}
'''.replace("GATE", GATE)
PYTHON = PYTHON.replace("GATE", GATE)
# What TypeScript is more than that: types that have to be compiled away.
TYPESCRIPT = NODE.replace("constructor(ctx)", "[name: string]: any;\n  constructor(ctx: any)").replace(
    "act(hook, about", "act(hook: string, about: string").replace("wait(name)", "wait(name: string)")

LANGUAGES = {
    "python": ("main.py", PYTHON),
    "node": ("main.mjs", NODE),
    "typescript": ("main.ts", TYPESCRIPT),
    "cpp": ("libcounter.so", harness.BIN.parent / "tests/integration/libupgrade_agent.so"),
}
# A program that knows nothing of kAI. It says which version it is, for its log.
EXEC = '#!/bin/sh\necho "version $TEST_VERSION runs"\nexec sleep infinity\n'

_places = threading.Lock()


def version(directory, agent, number, language="python", acts=(), program=None, **changes):
    """A package of one version, in a directory of its own: directory/AGENT-VERSION, or with a number behind it."""
    entry, source = LANGUAGES[language]
    security = changes.pop("security", {})
    document = packages.manifest(agent, entry, version=number, **{"capabilities": CAPABILITIES, **changes})
    files = {"fileAccess": {"allowedPaths": [GATE], "readOnly": True, "tempFileAccess": True}}
    document["security"] = {**document["security"], **files, **security}
    document["metadata"]["tags"] = list(acts)
    root = place(directory, f"{agent}-{number}")
    (root / "manifest.json").write_text(json.dumps(document))
    if program is None and isinstance(source, pathlib.Path):
        shutil.copy(source, root / entry)
    else:
        (root / entry).write_text(source if program is None else program)
    return root


def exec_version(directory, agent, number, **changes):
    """A package of an exec agent's version."""
    root = place(directory, f"{agent}-{number}")
    runtime = {"kind": "exec", "env": {"TEST_VERSION": number}}
    (root / "manifest.json").write_text(json.dumps(packages.manifest(agent, "main.sh", version=number, runtime=runtime, **changes)))
    (root / "main.sh").write_text(EXEC)
    (root / "main.sh").chmod(0o755)
    return root


# Most of date-fns is there for bundlers, compilers and languages that the calendar does not ask for: without it a package is
# some hundred files instead of some thousand, and the tests' disks are slow.
UNUSED = shutil.ignore_patterns("esm", "docs", "??", "[!e]?-??", "*.d.ts", "*.flow", "*.md")
CALENDAR = "1.0.3"


def calendar(directory, number):
    """The example's package: what is new in 1.1.0 lies in calendar-1.1.0, over the rest in calendar. Any later version is
    the same by another number."""
    examples = harness.SOURCE / "examples"
    root = place(directory, f"calendar-{number}")
    shutil.copytree(examples / "calendar", root, symlinks=True, dirs_exist_ok=True, ignore=UNUSED)
    if number != CALENDAR:
        shutil.copytree(examples / "calendar-1.1.0", root, dirs_exist_ok=True)
    document = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**document, "version": number}))
    return root


def place(directory, name):
    """A new directory of that name, or with a number behind it."""
    with _places:
        path, again = pathlib.Path(directory) / name, 0
        while path.exists():
            again += 1
            path = pathlib.Path(directory) / f"{name}+{again}"
        path.mkdir(parents=True)
        return path


class Gate:
    """A socket where hooks say that they are there, and wait for the test's word. `stands_open`: nobody waits."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(mode=0o755)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.directory / "gate"))
        (self.directory / "gate").chmod(0o777)  # agents have ids of their own
        self.listener.listen()
        self.arrived = threading.Condition()
        self.waiting = {}  # name → connections, those that came first in front
        self.stands_open = False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            name = connection.makefile("r").readline().strip()
            with self.arrived:
                if self.stands_open:
                    connection.close()
                    continue
                self.waiting.setdefault(name, []).append(connection)
                self.arrived.notify_all()

    def wait(self, name, patience=harness.PATIENCE):
        """The connection of the hook that says this name, once one does; its own from now on."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.waiting.get(name), patience):
                raise AssertionError(f"nobody came to the gate as {name!r}; there are {sorted(self.waiting)}")
            return self.waiting[name].pop(0)

    def open(self, name):
        """Lets one go on that comes, or came, by this name."""
        connection = self.wait(name)
        try:
            connection.sendall(b"go\n")
        except OSError:
            pass  # whoever waited is dead
        connection.close()

    def forget(self, stays_open=False):
        """Lets everybody go who waits; `stays_open`: and whoever comes from now on."""
        with self.arrived:
            self.stands_open = stays_open
            for connection in sum(self.waiting.values(), []):
                connection.close()
            self.waiting.clear()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # the thread that accepts holds it otherwise
        self.thread.join()
        self.listener.close()
        self.forget()


def is_open(connection):
    """Whether the other side has it open; what it said is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
