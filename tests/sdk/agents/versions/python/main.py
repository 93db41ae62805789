"""An agent of which a test makes several versions. main.mjs and versions.cc are the same."""

import asyncio
import os

import part
from kai import Agent, AgentError
from parts import within

counted = 0


def count():
    global counted
    counted += 1
    return counted


class Versions(Agent):
    def __init__(self):
        self.calls = ["constructor"]
        self.state = None
        self.tasks = set()

    async def on_init(self):
        if "connect" in self.manifest:
            await self.connect(self.manifest["connect"])
        await self.called("onInit")

    async def on_start(self):
        await self.called("onStart")

    async def on_upgrade(self, old_version):
        await self.called("onUpgrade", f" {old_version}")

    async def on_shutdown(self):
        await self.called("onShutdown")

    async def on_health_check(self):
        await self.called("onHealthCheck")
        return {"status": self.manifest.get("status", "healthy")}

    def save_state(self):
        return self.state

    async def restore_state(self, state):
        await self.called("restoreState")
        self.state = state

    def on_error(self, err):
        self.calls.append(f"onError {err}")

    async def on_message(self, msg):
        return await getattr(self, "do_" + msg.capability.replace("-", "_"))(msg)

    async def do_version(self, msg):
        return self.manifest["version"]

    async def do_calls(self, msg):
        return self.calls

    async def do_count(self, msg):
        """In modules of every kind; those that are loaded late too."""
        import late
        from parts import late_within

        return [count(), part.count(), within.count(), late.count(), late_within.count()]

    async def do_where(self, msg):
        import late

        return [__file__, late.__file__]

    async def do_directory(self, msg):
        return os.getcwd()

    async def do_set(self, msg):
        self.state = msg.payload

    async def do_set_long(self, msg):
        self.state = "x" * msg.payload

    async def do_event(self, msg):
        self.log.info(f"{msg.type} of {self.manifest['version']}")

    async def do_throw(self, msg):
        raise RuntimeError(msg.payload)

    async def do_hold(self, msg):
        await asyncio.get_running_loop().create_future()

    async def do_connect(self, msg):
        await self.connect(msg.payload)

    async def connect(self, path):
        """On the connection each byte is a question: what does the context do?"""
        reader, writer = await asyncio.open_unix_connection(path)
        self.tasks.add(asyncio.create_task(self.answer(reader, writer)))

    async def answer(self, reader, writer):
        while await reader.read(1):
            self.log.info(f"log of {self.manifest['version']}")
            codes = []
            for ask in (
                lambda: self.memory.get("k"),
                lambda: self.send("other", "ask", 1),
                lambda: self.emit("done", 1),
            ):
                try:
                    await ask()
                    codes.append("none")
                except AgentError as error:
                    codes.append(error.code)
            writer.write(" ".join(codes).encode() + b"\n")

    async def called(self, hook, detail=""):
        self.calls.append(hook + detail)
        if self.manifest.get("throwIn") == hook:
            raise RuntimeError(f"thrown in {hook}")
        if self.manifest.get("hangIn") == hook:
            await asyncio.get_running_loop().create_future()
        if self.manifest.get("askIn") == hook:
            await self.send("other", "ask", hook)
