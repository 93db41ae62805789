"""What the runtime does for an agent: each a call or a notification to the host."""

from __future__ import annotations

from kai._errors import AgentError
from kai._message import decode_payload, decode_value, encode_data, encode_payload, encode_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Union

    from kai._channel import Channel
    from kai.types import AgentLimits, AgentManifest, MemoryWrite, Permission

MAX_LOG_TEXT = 64 << 10  # characters
VALUES = ("payload", "value", "data")


class Caller:
    """Calls to the host: an awaitable in an async hook; in a plain hook the call waits and returns the value."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.in_plain_hook = False
        self.may_be_discarded = False  # then a plain hook that waits ends when the host says discard
        self.closed = False

    def __call__(self, method: str, params: Dict[str, Any], finish: Callable[[Dict[str, Any]], Any]) -> Any:
        # An option that was not given is left out; None as a value is JSON's null.
        given = {name: value for name, value in params.items() if value is not None or name in VALUES}
        if self.in_plain_hook:
            self._check(method)
            return finish(self._channel.call_and_wait(method, given, self.may_be_discarded))
        return self._call(method, given, finish)

    async def _call(self, method: str, params: Dict[str, Any], finish: Callable[[Dict[str, Any]], Any]) -> Any:
        self._check(method)
        return finish(await self._channel.call(method, params))

    def _check(self, method: str) -> None:
        if self.closed:
            message = f"{method}: another version of the agent has taken over from this one"
            raise AgentError(message, code="NOT_RUNNING")


class Memory:
    """The agent's memory. Values are JSON, or bytes.

    Every call raises AgentError: CONFLICT where a condition does not hold, QUOTA_EXCEEDED, TOO_LARGE, INVALID, DENIED
    (another agent's memory without a grant). One that is retryable (UNAVAILABLE, BUSY, TIMEOUT) may be tried again; of
    a write that was under way nobody knows then whether it was done.
    """

    def __init__(self, call: Caller) -> None:
        self._call = call

    def get(self, key: str, *, agent: Optional[str] = None) -> Any:
        """None where there is no such key. `agent` reads the shared memory of another agent."""
        return self._call(
            "memory.get",
            {"key": key, "agent": agent},
            lambda result: decode_value(result) if result.get("found") else None,
        )

    def get_entry(self, key: str, *, agent: Optional[str] = None) -> Any:
        """{"value": …, "version": N}, the version for if_version; None where there is no such key."""
        return self._call(
            "memory.get",
            {"key": key, "agent": agent},
            lambda result: (
                {"value": decode_value(result), "version": result["version"]} if result.get("found") else None
            ),
        )

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: Optional[float] = None,
        if_absent: Optional[bool] = None,
        if_version: Optional[int] = None,
    ) -> Any:
        """{"version": N}. ttl is in seconds, also parts of one; 0 is never, None the manifest's.

        A condition that does not hold raises CONFLICT.
        """
        params = _write(key, value, ttl, if_absent, if_version)
        return self._call("memory.set", params, lambda result: {"version": result["version"]})

    def get_many(self, keys: Iterable[str], *, agent: Optional[str] = None) -> Any:
        """A dict of those keys (at most 1,000) that are there."""
        return self._call(
            "memory.getMany",
            {"keys": list(keys), "agent": agent},
            lambda result: {entry["key"]: decode_value(entry) for entry in result["entries"]},
        )

    def set_many(
        self, entries: Union[Mapping[str, Any], Iterable[MemoryWrite]], *, ttl: Optional[float] = None
    ) -> Any:
        """All or none, at most 1,000. A list of {"version": N} in the order of the entries.

        entries: {key: value, …}, or dicts with the arguments of set(): key, value, ttl, if_absent, if_version. ttl
        holds for those that have none of their own.
        """
        writes: Iterable[Any] = (
            [{"key": key, "value": value} for key, value in entries.items()] if hasattr(entries, "items") else entries
        )
        encoded = []
        for entry in writes:
            params = _write(**{"ttl": ttl, **entry})
            encoded.append({name: given for name, given in params.items() if given is not None or name in VALUES})
        return self._call(
            "memory.setMany",
            {"entries": encoded},
            lambda result: [{"version": version} for version in result["versions"]],
        )

    def delete(self, key: str) -> Any:
        """Whether there was such a key."""
        return self._call("memory.delete", {"key": key}, lambda result: result["deleted"])

    def list(
        self,
        *,
        prefix: Optional[str] = None,
        limit: Optional[int] = None,
        cursor: Optional[str] = None,
        agent: Optional[str] = None,
    ) -> Any:
        """{"keys": […], "cursor": …}: keys in the order of their UTF-8 bytes, at most 1,000 at once.

        The cursor is there when there are more, and gets the next ones.
        """
        params = {"prefix": prefix, "limit": limit, "cursor": cursor, "agent": agent}
        return self._call("memory.list", params, lambda result: result)


def _write(
    key: str,
    value: Any,
    ttl: Optional[float] = None,
    if_absent: Optional[bool] = None,
    if_version: Optional[int] = None,
) -> Dict[str, Any]:
    return {"key": key, **encode_value(value), "ttl": ttl, "ifAbsent": if_absent, "ifVersion": if_version}


class Log:
    """Records in the supervisor's log, under this agent's id. Logging never raises."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.closed = False

    def debug(self, message: object, **fields: Any) -> None:
        self._record("debug", message, fields)

    def info(self, message: object, **fields: Any) -> None:
        self._record("info", message, fields)

    def warn(self, message: object, **fields: Any) -> None:
        self._record("warn", message, fields)

    def error(self, message: object, **fields: Any) -> None:
        self._record("error", message, fields)

    def _record(self, level: str, message: object, fields: Dict[str, Any]) -> None:
        if self.closed:
            return
        text = str(message)[:MAX_LOG_TEXT].encode("utf-8", "replace").decode("utf-8")
        record: Dict[str, Any] = {"level": level, "message": text}
        try:
            self._channel.notify_log({**record, "fields": fields} if fields else record)
        except Exception as error:  # fields that are no JSON, or too long: the record goes without them
            self._channel.notify_log({**record, "fields": {"fieldsLost": type(error).__name__}})


class Context:
    def __init__(self, channel: Channel, init: Dict[str, Any]) -> None:
        self.call = Caller(channel)
        self.memory = Memory(self.call)
        self.log = Log(channel)
        self.manifest: AgentManifest = init.get("manifest") or {}  # type: ignore[assignment]
        self.capabilities: List[str] = init.get("capabilities") or []
        self.permissions: List[Permission] = init.get("permissions") or []
        self.limits: AgentLimits = init.get("limits") or {}  # type: ignore[assignment]

    def close(self) -> None:
        """Another version has taken over: calls fail with NOT_RUNNING, and log records are dropped."""
        self.call.closed = True
        self.log.closed = True

    def send(self, to: str, capability: str, payload: Any, timeout: Optional[float], **metadata: Any) -> Any:
        params = {
            "to": to,
            "capability": capability,
            **encode_payload({} if payload is None else payload),
            "metadata": _metadata(**metadata),
            "timeoutMs": None if timeout is None else int(timeout * 1000),
        }
        return self.call("klp.send", params, decode_payload)

    def emit(self, name: str, data: Any, **metadata: Any) -> Any:
        params = {"name": name, **encode_data(data), "metadata": _metadata(**metadata)}
        return self.call("klp.emit", params, lambda _: None)


def _metadata(
    *, priority: Optional[str] = None, ttl: Optional[int] = None, traceparent: Optional[str] = None
) -> Optional[Dict[str, Any]]:
    """None where nothing of it is given."""
    given = {"priority": priority, "ttl": ttl, "traceparent": traceparent}
    return {name: value for name, value in given.items() if value is not None} or None
