"""Agent packages that the tests register: a manifest that is right, changed where a test wants it, and small programs."""

import copy
import json
import pathlib

CORRECT = {
    "id": "", "name": "A test's agent", "version": "1.0.0", "entry": "", "persona": "utility", "capabilities": [],
    "memory": {"type": "volatile", "backend": "memory", "persistent": False},
    "security": {
        "sandbox": True, "permissions": [], "crypto": "none",
        "networkAccess": {"allowOutbound": False},
        "fileAccess": {"allowedPaths": [], "readOnly": True, "tempFileAccess": True},
    },
    "dependencies": [],
    "metadata": {"author": "tests", "description": "made by a test", "license": "MIT", "tags": [],
                 "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"},
}


def manifest(agent, entry, **changes):
    document = copy.deepcopy(CORRECT)
    document.update(id=agent, entry=entry)
    document.update(changes)
    return document


def package(directory, agent, entry, program, mode=0o755, **changes):
    """A package directory with one program, ready to be registered."""
    root = pathlib.Path(directory) / agent
    root.mkdir(parents=True)
    (root / "manifest.json").write_text(json.dumps(manifest(agent, entry, **changes)))
    path = root / entry
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(program)
    path.chmod(mode)
    return root


# What a test asks an agent to do, by capability. Each answer says what happened inside the sandbox.
PROBE = '''
import asyncio, errno, os, signal, sys
from kai import Agent

def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))

class Probe(Agent):
    async def on_init(self):
        self.hooks, self.errors = ["on_init"], []

    async def on_start(self):
        self.hooks.append("on_start")

    def on_error(self, error):
        self.errors.append(str(error))

    async def on_message(self, msg):
        asked = msg.payload
        if msg.capability == "echo":
            return asked
        if msg.capability == "fail":
            raise ValueError(asked["message"])
        if msg.capability == "seen":
            return {"hooks": self.hooks, "errors": self.errors}
        if msg.capability == "never":
            await asyncio.Event().wait()
        if msg.capability == "print":
            os.write(asked.get("stream", 1), bytes.fromhex(asked["hex"]))
            return {}
        if msg.capability == "exit":
            os._exit(asked["code"])
        if msg.capability == "kill":
            os.kill(os.getpid(), asked["signal"])
            await asyncio.Event().wait()
        if msg.capability == "allocate":
            held = bytearray(asked["mb"] << 20)
            for at in range(0, len(held), 4096):
                held[at] = 1
            return {"held": len(held)}
        if msg.capability == "fork":
            return self.fork_until_refused()
        if msg.capability == "open":
            try:
                with open(asked["path"], asked.get("mode", "r")):
                    return {"opened": True}
            except OSError as error:
                return {"refused": name_of(error)}
        if msg.capability == "memory":
            await self.memory.set("key", 1)
            return {"kept": await self.memory.get("key")}
        if msg.capability == "big":
            return {"text": "x" * asked["bytes"]}

    def fork_until_refused(self):
        reading, writing = os.pipe()
        children, refused = [], None
        try:
            while len(children) < 4096:
                child = os.fork()
                if child == 0:
                    os.close(writing)
                    os.read(reading, 1)
                    os._exit(0)
                children.append(child)
        except OSError as error:
            refused = name_of(error)
        os.close(writing)
        for child in children:
            os.waitpid(child, 0)
        os.close(reading)
        return {"children": len(children), "refused": refused}
'''
PROBE_CAPABILITIES = ["echo", "fail", "seen", "never", "print", "exit", "kill", "allocate", "fork", "open", "memory", "big"]


def probe(directory, agent="probe", **changes):
    changes.setdefault("capabilities", PROBE_CAPABILITIES)
    return package(directory, agent, "main.py", PROBE, mode=0o644, **changes)


def script(directory, agent, text, **changes):
    """An exec agent: a shell script."""
    return package(directory, agent, "main.sh", "#!/bin/sh\n" + text, **changes)
