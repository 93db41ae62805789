"""The class that agents derive from."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Awaitable, List, Optional, Union

    from kai._context import Context, Log, Memory
    from kai._message import Message
    from kai.types import AgentLimits, AgentManifest, HealthStatus, Permission


class Agent:
    """One subclass of this in the entry module is the agent. Every hook may be plain or async.

    Hooks run on one thread: while a plain hook works nothing else is served, health neither; an async hook gives way
    at each await. The calls of the context (send, emit, memory) are awaited in an async hook; in a plain hook the same
    calls wait and return the value, and health alone is served meanwhile (without an on_health_check that is async).
    An exception that a hook raises answers the request with AGENT_ERROR and is given to on_error; the agent lives on.

    A soft upgrade imports another version into this process, with modules of its own (kai/_modules.py says what that
    means for late imports). What the version before has going on (tasks, threads, sockets) goes on; calls of its
    context raise AgentError with code NOT_RUNNING, and its log records are dropped.
    """

    # Set by the runner before __init__, so that a subclass need not call super().__init__().
    _context: Context

    # ---- hooks

    def on_init(self) -> Union[None, Awaitable[None]]:
        """Initialize the agent's state. A start calls on_init and on_start; an upgrade on_init, restore_state,
        on_upgrade, on_start."""

    def on_start(self) -> Union[None, Awaitable[None]]:
        """Start the agent's work."""

    def on_message(self, msg: Message) -> Any:
        """The value is the payload of the response (bytes go as bytes), or a whole Message, as reply() makes.

        Events of topics that the agent may read come here too (msg.type is "event"); their value is ignored.
        """
        raise NotImplementedError

    def on_upgrade(self, old_version: str) -> Union[None, Awaitable[None]]:
        """This version takes the place of old_version, and has its state."""

    def on_shutdown(self) -> Union[None, Awaitable[None]]:
        """Clean up; the process ends after it. Not called when another version takes over inside the process."""

    def on_error(self, err: Exception) -> Union[None, Awaitable[None]]:
        """Sees every exception that another hook raised."""

    def on_health_check(self) -> Union[None, HealthStatus, Awaitable[Optional[HealthStatus]]]:
        """Fields that are left out are filled in by the runtime."""

    def save_state(self) -> Any:
        """What the next version is to know and the memory does not: JSON of at most 1 MiB, which its restore_state
        gets. All messages have been answered before, and none comes after it, but when the upgrade fails: then they go
        on here."""

    def restore_state(self, state: Any) -> Union[None, Awaitable[None]]:
        """What save_state of the version before returned, after on_init; None where it has no such hook."""

    # ---- context

    @property
    def manifest(self) -> AgentManifest:
        return self._context.manifest

    @property
    def capabilities(self) -> List[str]:
        return self._context.capabilities

    @property
    def permissions(self) -> List[Permission]:
        """What the operator granted, which may be less than the manifest asked for."""
        return self._context.permissions

    @property
    def limits(self) -> AgentLimits:
        return self._context.limits

    @property
    def memory(self) -> Memory:
        return self._context.memory

    @property
    def log(self) -> Log:
        return self._context.log

    def send(
        self, to: str, capability: str, payload: Any = None, *, timeout: Optional[float] = None, **metadata: Any
    ) -> Any:
        """Asks another agent; the value is the payload of its response. timeout is in seconds.

        metadata: priority ("low", "normal", "high", "urgent"), ttl (whole seconds), traceparent (W3C Trace Context).
        Raises AgentError; one that is retryable (UNAVAILABLE while kaid restarts, BUSY, TIMEOUT …) may be tried again.
        To "topic:NAME" it publishes: the capability is left out of account, and the value is None once it is sent.
        """
        return self._context.send(to, capability, payload, timeout, **metadata)

    def emit(self, name: str, data: Any = None, **metadata: Any) -> Any:
        """Publishes to `topic:AGENT.NAME`, and is done once it is sent; a refusal (DENIED) is a line of the log.

        metadata: as of send().
        """
        return self._context.emit(name, data, **metadata)
