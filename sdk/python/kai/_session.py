"""The host's requests, each carried out by a hook of the agent. The host decides the order; only `init` must be
first."""

from __future__ import annotations

import asyncio
import inspect

from kai._agent import Agent
from kai._channel import Channel
from kai._context import Context
from kai._errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    SERVER_ERROR,
    HostReportedError,
    RpcFault,
    agent_error_body,
)
from kai._health import Health
from kai._load import load_agent_class
from kai._message import decode_message, encode_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Awaitable, Callable, Dict, Optional

DEFAULT_IN_FLIGHT = 64
PROTOCOL = 1


async def serve(sock: socket.socket, entry: str) -> None:
    """Returns after shutdown, or when the host closes the channel."""
    session = Session(entry)
    session.channel = Channel(sock, session)
    await session.ended.wait()
    session.channel.flush_and_wait()


class Session:
    channel: Channel  # set by serve(): each knows the other

    def __init__(self, entry: str) -> None:
        self.ended = asyncio.Event()
        self._entry = entry
        self._agent: Optional[Agent] = None
        self._context: Optional[Context] = None
        self._health = Health()
        self._init_started = False
        self._serving = 0
        self._max_serving = DEFAULT_IN_FLIGHT
        self._methods: Dict[str, Callable[[Dict[str, Any]], Awaitable[Any]]] = {
            "init": self._init,
            "start": lambda params: self._run("on_start"),
            "message": self._message,
            "upgrade": lambda params: self._run("on_upgrade", params.get("oldVersion")),
            "shutdown": lambda params: self._run("on_shutdown"),
            "error": self._host_error,
            "health": self._health_check,
            "saveState": self._save_state,
            "restoreState": lambda params: self._run("restore_state", params.get("state")),
        }

    # ---- the channel's side

    async def request(self, method: str, params: Dict[str, Any]) -> Any:
        serve_method = self._methods.get(method)
        if serve_method is None:
            raise RpcFault(METHOD_NOT_FOUND, f"no method {method}")
        if method != "init" and self._agent is None:
            raise RpcFault(INVALID_REQUEST, f"{method} before init was answered", "NOT_RUNNING")
        return await serve_method(params)

    async def notification(self, method: str, params: Dict[str, Any]) -> None:
        """Events come as `message` without an id."""
        if method != "message":
            return
        try:
            await self.request(method, params)
        except Exception as error:
            body = await self.fault(error)
            self._log_error(f"an event was not handled: {body['message']}")

    def health_now(self) -> Dict[str, Any]:
        """While a plain hook waits for the host. The loop stands still: an async on_health_check cannot run, and the
        runtime answers without it."""
        if self._agent is None:
            raise RpcFault(INVALID_REQUEST, "health before init was answered", "NOT_RUNNING")
        hook = self._agent.on_health_check
        said = None if inspect.iscoroutinefunction(hook) else hook()
        if inspect.iscoroutine(said):
            said.close()  # or Python complains of one that was never awaited
        return {**self._health.status(), **({} if inspect.isawaitable(said) else said or {})}

    async def fault(self, error: Exception) -> Dict[str, Any]:
        if isinstance(error, RpcFault):
            return error.body
        await self._on_error(error, type(error).__name__)
        return agent_error_body(error)

    def answered(self, method: str) -> None:
        if method == "shutdown":
            self.ended.set()

    def closed(self) -> None:
        self.ended.set()

    # ---- methods

    async def _init(self, params: Dict[str, Any]) -> Dict[str, Any]:
        if self._init_started:
            raise RpcFault(INVALID_REQUEST, "init comes once")
        if params.get("protocol") != PROTOCOL:
            message = f"runner protocol {params.get('protocol')}; this SDK speaks {PROTOCOL}"
            raise RpcFault(INVALID_PARAMS, message)
        self._init_started = True
        self._context = Context(self.channel, params)
        self._max_serving = self._context.limits.get("inFlight", DEFAULT_IN_FLIGHT)
        agent_class = load_agent_class(self._entry)
        agent = agent_class.__new__(agent_class)
        agent._context = self._context
        agent.__init__()  # type: ignore[misc]
        self._agent = agent
        return await self._run("on_init")

    async def _message(self, params: Dict[str, Any]) -> Dict[str, Any]:
        fields = params.get("message")
        if not isinstance(fields, dict):
            raise RpcFault(INVALID_PARAMS, "message: params.message is not an object")
        if self._serving >= self._max_serving:
            message = f"{self._serving} messages are being served, the limit"
            raise RpcFault(SERVER_ERROR, message, "BUSY", retryable=True)
        assert self._agent is not None
        if type(self._agent).on_message is Agent.on_message:
            raise RpcFault(SERVER_ERROR, "the agent has no on_message", "UNKNOWN_CAPABILITY")
        self._serving += 1
        self._health.active()
        try:
            return encode_answer(await self._hook("on_message", decode_message(fields)))
        finally:
            self._serving -= 1

    async def _host_error(self, params: Dict[str, Any]) -> Dict[str, Any]:
        name = str(params.get("name", "Error"))
        message = str(params.get("message", ""))
        await self._on_error(HostReportedError(message, name, str(params.get("stack", ""))), name)
        return {}

    async def _health_check(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return {**self._health.status(), **(await self._hook("on_health_check") or {})}

    async def _save_state(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return {"state": await self._hook("save_state")}

    # ---- hooks

    async def _hook(self, name: str, *args: Any) -> Any:
        assert self._agent is not None and self._context is not None
        hook = getattr(self._agent, name)
        if inspect.iscoroutinefunction(hook):
            return await hook(*args)
        self._context.call.in_plain_hook = True
        try:
            value = hook(*args)
        finally:
            self._context.call.in_plain_hook = False
        return await value if inspect.isawaitable(value) else value

    async def _run(self, name: str, *args: Any) -> Dict[str, Any]:
        await self._hook(name, *args)
        return {}

    async def _on_error(self, error: Exception, name: str) -> None:
        """An exception that on_error raises is logged and goes no further."""
        self._health.failed(error, name)
        if self._agent is None:
            return
        try:
            await self._hook("on_error", error)
        except Exception as raised:
            self._log_error(f"on_error raised {type(raised).__name__}: {raised}")

    def _log_error(self, message: str) -> None:
        if self._context is not None:
            self._context.log.error(message)
