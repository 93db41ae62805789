"""One version of the agent in this process: its code, its context and its hooks. A soft upgrade has two of them."""

from __future__ import annotations

import asyncio
import inspect

from kai._agent import Agent
from kai._channel import Discarded
from kai._context import Context
from kai._errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    SERVER_ERROR,
    HostReportedError,
    RpcFault,
    agent_error_body,
    not_running,
)
from kai._health import Health
from kai._message import decode_message, encode_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Awaitable, Dict, Optional, Type

    from kai._channel import Channel
    from kai._load import Code

DEFAULT_IN_FLIGHT = 64
PROTOCOL = 1
DISCARDED = "this version of the agent was discarded"


class Instance:
    def __init__(self, code: Code, channel: Channel, is_next: bool = False) -> None:
        self.code = code
        self._channel = channel
        self._is_next = is_next  # loaded beside the version that serves, which may still take its place
        self._agent_class: Optional[Type[Agent]] = None
        self._agent: Optional[Agent] = None
        self._context: Optional[Context] = None
        self._health = Health()
        self._init_started = False
        self._serving = 0
        self._max_serving = DEFAULT_IN_FLIGHT
        self._dropped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def running(self) -> bool:
        return self._agent is not None

    # ---- two versions

    def serve(self) -> None:
        """It was the next version, and is the one that serves."""
        self._is_next = False
        if self._context is not None:
            self._context.call.may_be_discarded = False

    def drop(self) -> None:
        """From now on nothing that it does reaches anybody, and none of its hooks is called."""
        if not self._dropped.done():
            self._dropped.set_result(None)
        if self._context is not None:
            self._context.close()

    async def until_dropped(self, work: Awaitable[Any]) -> Any:
        """The result of `work`; for a version that is dropped meanwhile the error NOT_RUNNING, at once."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self._dropped}, return_when=asyncio.FIRST_COMPLETED)
        if self._dropped.done():
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()
            raise not_running(DISCARDED)
        try:
            return task.result()
        except Discarded:  # the host's word for it is read next
            raise not_running(DISCARDED) from None

    # ---- methods

    async def load(self, params: Dict[str, Any]) -> Dict[str, Any]:
        """Reads the code and constructs nothing."""
        if self._agent is not None:
            raise RpcFault(INVALID_REQUEST, "load: the code is loaded, and init was answered")
        self._load()
        return {}

    async def init(self, params: Dict[str, Any]) -> Dict[str, Any]:
        if self._init_started:
            raise RpcFault(INVALID_REQUEST, "init comes once")
        if params.get("protocol") != PROTOCOL:
            message = f"runner protocol {params.get('protocol')}; this SDK speaks {PROTOCOL}"
            raise RpcFault(INVALID_PARAMS, message)
        self._init_started = True
        self._context = Context(self._channel, params)
        self._context.call.may_be_discarded = self._is_next
        self._max_serving = self._context.limits.get("inFlight", DEFAULT_IN_FLIGHT)
        agent_class = self._load()
        self.code.modules.activate()
        agent = agent_class.__new__(agent_class)
        agent._context = self._context
        agent.__init__()  # type: ignore[misc]
        self._agent = agent
        return await self._run("on_init")

    async def start(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return await self._run("on_start")

    async def upgrade(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return await self._run("on_upgrade", params.get("oldVersion"))

    async def shutdown(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return await self._run("on_shutdown")

    async def restore_state(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return await self._run("restore_state", params.get("state"))

    async def save_state(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return {"state": await self._hook("save_state")}

    async def health(self, params: Dict[str, Any]) -> Dict[str, Any]:
        return {**self._health.status(), **(await self._hook("on_health_check") or {})}

    async def message(self, params: Dict[str, Any]) -> Dict[str, Any]:
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

    async def error(self, params: Dict[str, Any]) -> Dict[str, Any]:
        """An error that the host saw."""
        name = str(params.get("name", "Error"))
        message = str(params.get("message", ""))
        await self._on_error(HostReportedError(message, name, str(params.get("stack", ""))), name)
        return {}

    def health_now(self) -> Dict[str, Any]:
        """While a plain hook waits for the host. The loop stands still: an async on_health_check cannot run, and the
        runtime answers without it."""
        if self._agent is None:
            raise not_running("health before init was answered")
        hook = self._agent.on_health_check
        said = None if inspect.iscoroutinefunction(hook) else hook()
        if inspect.iscoroutine(said):
            said.close()  # or Python complains of one that was never awaited
        return {**self._health.status(), **({} if inspect.isawaitable(said) else said or {})}

    async def fault(self, error: Exception) -> Dict[str, Any]:
        """The error body for what a request to this version raised; its on_error sees it first."""
        if isinstance(error, RpcFault):
            return error.body
        await self._on_error(error, type(error).__name__)
        return agent_error_body(error)

    def log_error(self, message: str) -> None:
        if self._context is not None:
            self._context.log.error(message)

    # ---- hooks

    def _load(self) -> Type[Agent]:
        if self._agent_class is None:
            self._agent_class = self.code.load()
        return self._agent_class

    async def _hook(self, name: str, *args: Any) -> Any:
        if self._dropped.done():
            raise not_running(DISCARDED)
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
        if self._agent is None or self._dropped.done():
            return
        try:
            await self._hook("on_error", error)
        except Exception as raised:
            self.log_error(f"on_error raised {type(raised).__name__}: {raised}")
