"""Every hook, and a capability for each thing that the tests ask of an agent. probe.mjs and probe.cc are the same."""

import asyncio
import json

from kai import Agent, AgentError, reply


PYTHON_NAMES = {"ifAbsent": "if_absent", "ifVersion": "if_version"}


def given(value):
    return bytes(value["bytes"]) if isinstance(value, dict) and "bytes" in value else value


def shown(value):
    return {"bytes": list(value)} if isinstance(value, bytes) else value


class Probe(Agent):
    def __init__(self):
        self.calls = ["constructor"]
        self.state = None
        self.waiting = {}
        self.throw_in = set()
        self.warn = False

    async def on_init(self):
        self.called("onInit")

    def on_start(self):
        self.called("onStart")

    async def on_upgrade(self, old_version):
        self.called(f"onUpgrade {old_version}")

    async def on_shutdown(self):
        self.called("onShutdown")
        self.log.info("bye")

    async def on_error(self, err):
        self.called(f"onError {getattr(err, 'name', type(err).__name__)}: {err}")
        if str(err) == "twice":
            raise RuntimeError("and again")

    def on_health_check(self):
        self.called("onHealthCheck")
        return {"status": "warning"} if self.warn else None

    def save_state(self):
        self.called("saveState")
        return self.state

    def restore_state(self, state):
        self.called("restoreState")
        self.state = state

    async def on_message(self, msg):
        return await getattr(self, "do_" + msg.capability.replace("-", "_"))(msg)

    async def do_calls(self, msg):
        return self.calls

    async def do_echo(self, msg):
        return msg.payload

    async def do_fields(self, msg):
        return {
            "id": msg.id, "from": msg.from_, "to": msg.to, "type": msg.type, "capability": msg.capability,
            "timestamp": msg.timestamp, "metadata": msg.metadata,
        }  # fmt: skip

    async def do_whole(self, msg):
        response = reply(msg, msg.payload)
        response.metadata = {"priority": "high"}
        return response

    async def do_context(self, msg):
        return {"agent": self.manifest["id"], "permissions": self.permissions, "limits": self.limits}

    async def do_bytes(self, msg):
        return {"length": len(msg.payload), "isBytes": isinstance(msg.payload, bytes), "type": msg.content_type}

    async def do_make_bytes(self, msg):
        return bytes(i % 256 for i in range(msg.payload))

    async def do_make_text(self, msg):
        return "x" * msg.payload

    async def do_not_json(self, msg):
        return {1, 2}

    async def do_throw(self, msg):
        raise TypeError(msg.payload)

    async def do_throw_details(self, msg):
        raise AgentError("no room", details={"left": 3}, retryable=True)

    async def do_throw_in(self, msg):
        self.throw_in.add(msg.payload)

    async def do_state(self, msg):
        self.state = msg.payload

    async def do_warn(self, msg):
        self.warn = True

    async def do_hold(self, msg):
        self.waiting[msg.payload] = asyncio.get_running_loop().create_future()
        return await self.waiting[msg.payload]

    async def do_release(self, msg):
        self.waiting[msg.payload].set_result(f"held {msg.payload}")

    async def do_event(self, msg):
        self.log.info(f"event {json.dumps(msg.payload)} {msg.type}")
        return "ignored"

    async def do_log(self, msg):
        self.log.warn("said", why=msg.payload)

    async def do_log_many(self, msg):
        for _ in range(msg.payload):
            self.log.info("x" * 1000)
        print("logged", flush=True)

    async def do_print(self, msg):
        print(msg.payload)

    async def do_memory(self, msg):
        memory = self.memory
        return {
            "set": (await memory.set("k", {"a": 1}, ttl=5, if_absent=True))["version"],
            "get": await memory.get("k"),
            "missing": await memory.get("missing") or "none",
            "bytes": len(await memory.get("bytes")),
            "many": await memory.get_many(["k", "missing"]),
            "setMany": [entry["version"] for entry in await memory.set_many({"m": 1, "n": 2})],
            "deleted": await memory.delete("k"),
            "list": (await memory.list(prefix="m"))["keys"],
        }

    async def do_memory_do(self, msg):
        """One call, as the test says it; bytes are {"bytes": [...]} in JSON."""
        memory, asked = self.memory, msg.payload
        options = {PYTHON_NAMES.get(name, name): value for name, value in asked.get("options", {}).items()}
        key, call = asked.get("key"), asked["call"]
        writes = [
            {**{PYTHON_NAMES.get(name, name): value for name, value in entry.items()}, "value": given(entry["value"])}
            for entry in asked.get("entries", [])
        ]
        try:
            if call == "get":
                result = shown(await memory.get(key, **options))
            elif call == "getEntry":
                result = await memory.get_entry(key, **options)
                result = result and {**result, "value": shown(result["value"])}
            elif call == "set":
                result = await memory.set(key, writes[0]["value"], **options)
            elif call == "getMany":
                found = await memory.get_many(asked["keys"], **options)
                result = {name: shown(value) for name, value in found.items()}
            elif call == "setMany":
                result = await memory.set_many(writes)
            elif call == "delete":
                result = await memory.delete(key)
            else:
                result = await memory.list(**options)
            return {"result": result}
        except AgentError as error:
            return {"code": error.code, "details": error.details, "retryable": error.retryable}

    async def do_memory_count(self, msg):
        """Counts up so many times, against others that count too."""
        done = 0
        while done < msg.payload:
            entry = await self.memory.get_entry("count")
            condition = {"if_version": entry["version"]} if entry else {"if_absent": True}
            try:
                await self.memory.set("count", (entry["value"] if entry else 0) + 1, **condition)
                done += 1
            except AgentError as error:
                if error.code != "CONFLICT":
                    raise

    async def do_send(self, msg):
        return await self.send("other", "ask", msg.payload, timeout=0.5)

    async def do_send_with(self, msg):
        timeout = msg.payload.pop("timeoutMs") / 1000
        return await self.send("other", "ask", "null", timeout=timeout, **msg.payload)

    async def do_emit_with(self, msg):
        await self.emit("done", bytes([0, 255]), **msg.payload)

    async def do_got(self, msg):
        self.log.info(f"got {msg.type} {len(msg.payload)} {msg.content_type}")

    async def do_emit(self, msg):
        await self.emit("done", msg.payload)
        return "emitted"

    async def do_try_send(self, msg):
        try:
            return await self.send("other", "ask", msg.payload)
        except AgentError as error:
            return {"isAgentError": True, "code": error.code, "retryable": error.retryable}

    def called(self, hook):
        self.calls.append(hook)
        if hook in self.throw_in:
            raise RuntimeError(f"thrown in {hook}")
