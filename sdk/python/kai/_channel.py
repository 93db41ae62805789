"""JSON-RPC 2.0, one document a line, in both directions over one socket. Nothing here grows without bound."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections import deque

from kai._errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    SERVER_ERROR,
    AgentError,
    RpcFault,
    agent_error_body,
    from_error_body,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Coroutine, Deque, Dict, Protocol

    from kai._instance import Instance

    class Handler(Protocol):
        def instance_for(self, method: str, params: Dict[str, Any]) -> Instance: ...

        async def request(self, method: str, params: Dict[str, Any], instance: Instance) -> Any: ...

        async def fault(self, error: Exception, instance: Instance) -> Dict[str, Any]: ...

        async def notification(self, method: str, params: Dict[str, Any]) -> None: ...

        def answered(self, method: str) -> None: ...

        def closed(self) -> None: ...


MAX_LINE = (1 << 20) + (64 << 10)  # bytes, without the LF
MAX_UNSENT = 16 << 20  # bytes of answers that the host has not taken: beyond it nothing more is read
MAX_UNSENT_LOG = 1 << 20  # bytes: beyond it log records are dropped and counted
MAX_CALLS = 256  # calls to the host that are waiting for their answer
MAX_WAITING = 256  # requests that came while a plain hook waited for the host: beyond it they are answered BUSY
READ_SIZE = 64 << 10


class ChannelClosed(SystemExit):
    """The host is gone while a plain hook waited for it: ends the runner past any `except Exception` of the agent."""


class Discarded(BaseException):
    """The host has discarded the version whose plain hook waited for it: ends that hook past any `except Exception`."""


class Channel:
    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        self._socket = sock
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._line = bytearray()  # the line that is being read
        self._line_bytes = 0
        self._waiting: Deque[Dict[str, Any]] = deque()
        self._unbegun = 0  # tasks that will each take one of _waiting
        self._answering_health = False
        self._unsent: Deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._writer_added = False
        self._reading = False
        self._calls: Dict[int, asyncio.Future[Any]] = {}
        self._next_id = 1
        self._dropped_logs = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly
        sock.setblocking(False)
        self._resume_reading()

    # ---- towards the host

    def notify_log(self, record: Dict[str, Any]) -> None:
        """Log records give way: an agent that logs faster than the host reads loses records, not memory."""
        if self._unsent_bytes > MAX_UNSENT_LOG:
            self._dropped_logs += 1
            return
        if self._dropped_logs:
            message = f"{self._dropped_logs} log records were dropped: the agent logs too fast"
            self._dropped_logs = 0
            self._write(_encode({"jsonrpc": "2.0", "method": "log", "params": {"level": "warn", "message": message}}))
        self._write(_encode({"jsonrpc": "2.0", "method": "log", "params": record}))

    async def call(self, method: str, params: Dict[str, Any]) -> Dict[str, Any]:
        return await self._start_call(method, params)

    def call_and_wait(self, method: str, params: Dict[str, Any], may_be_discarded: bool) -> Dict[str, Any]:
        """For plain hooks: the loop stands still meanwhile, so this reads the socket itself. What is not the answer
        waits its turn, but for health: an agent that waits for another one is not hung; and for discard."""
        answer = self._start_call(method, params)
        self._loop.call_soon(self._serve_waiting)  # runs when the hook has given way
        poll = select.poll()
        self._serve_health()  # one that came together with the hook's own request
        while not answer.done():
            if may_be_discarded and any(document["method"] == "discard" for document in self._waiting):
                answer.cancel()
                raise Discarded()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            poll.poll()
            self._flush()
            if not self._receive():
                raise ChannelClosed(0)
            self._serve_health()
        return answer.result()

    def _start_call(self, method: str, params: Dict[str, Any]) -> asyncio.Future[Any]:
        if len(self._calls) >= MAX_CALLS:
            message = f"{MAX_CALLS} calls are waiting for an answer; await some of them before the next"
            raise AgentError(message, code="BUSY", retryable=True)
        call_id = self._next_id
        self._next_id += 1
        line = _encode({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})
        self._calls[call_id] = self._loop.create_future()
        self._write(line)
        return self._calls[call_id]

    def _write(self, line: bytes) -> None:
        self._unsent.append(memoryview(line))
        self._unsent_bytes += len(line)
        self._flush()
        if self._unsent_bytes > MAX_UNSENT:
            self._pause_reading()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                self._unsent_bytes -= sent
                if sent == len(self._unsent[0]):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            pass
        except OSError:  # the host is gone: reading says so too
            self._unsent.clear()
            self._unsent_bytes = 0
        self._watch_writable(bool(self._unsent))
        if self._unsent_bytes <= MAX_UNSENT:
            self._resume_reading()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted and not self._writer_added:
            self._loop.add_writer(self._socket, self._flush)
        elif not wanted and self._writer_added:
            self._loop.remove_writer(self._socket)
        self._writer_added = wanted

    # ---- from the host

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._socket, self._readable)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        if self._receive():
            self._serve_waiting()
        else:
            self._loop.remove_reader(self._socket)
            self._handler.closed()

    def _receive(self) -> bool:
        """Reads what is there. False: the host has closed the channel."""
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._append(part)
            line, size = bytes(self._line), self._line_bytes
            self._line.clear()
            self._line_bytes = 0
            self._take(line, size)
        self._append(rest)
        return True

    def _append(self, part: bytes) -> None:
        self._line_bytes += len(part)
        if self._line_bytes > MAX_LINE:
            self._line.clear()  # only counted on, up to its LF
        else:
            self._line += part

    def _take(self, line: bytes, size: int) -> None:
        if size > MAX_LINE:
            message = f"a line of {size} bytes; the limit is {MAX_LINE}"
            return self._refuse(None, RpcFault(INVALID_REQUEST, message, "TOO_LARGE"))
        try:
            document = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return self._refuse(None, RpcFault(PARSE_ERROR, f"not a JSON document in UTF-8: {error}"))
        if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
            return self._refuse_shape(None)
        request_id = document.get("id")
        if not (request_id is None or isinstance(request_id, (str, int, float))) or isinstance(request_id, bool):
            return self._refuse_shape(None)
        if isinstance(document.get("method"), str):
            return self._queue(document)
        if "result" not in document and "error" not in document:
            return self._refuse_shape(request_id)
        self._settle(document)

    def _queue(self, document: Dict[str, Any]) -> None:
        request_id, method = document.get("id"), document["method"]
        if not isinstance(document.setdefault("params", {}), dict):
            if request_id is not None:
                self._refuse(request_id, RpcFault(INVALID_PARAMS, f"{method}: params is not an object"))
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(document)
        elif request_id is not None:
            message = "the agent's hook is waiting for the host, and so are too many requests"
            self._refuse(request_id, RpcFault(SERVER_ERROR, message, "BUSY", retryable=True))

    def _serve_waiting(self) -> None:
        while self._unbegun < len(self._waiting):
            self._unbegun += 1
            self._start_task(self._serve_next())

    def _start_task(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_next(self) -> None:
        """Takes its request only now: until then a plain hook that waits can see it."""
        self._unbegun -= 1
        if self._waiting:
            await self._serve(self._waiting.popleft())

    def _serve_health(self) -> None:
        """The health requests among those that wait; the others keep their order."""
        if self._answering_health:  # a health check that waits for the host is not asked again meanwhile
            return
        asked = [document for document in self._waiting if _asks_health(document)]
        if not asked:
            return
        self._waiting = deque(document for document in self._waiting if not _asks_health(document))
        self._answering_health = True
        try:
            for document in asked:
                self._answer_health(document["id"], document["params"])
        finally:
            self._answering_health = False

    def _answer_health(self, request_id: Any, params: Dict[str, Any]) -> None:
        answer: Dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        try:
            instance = self._handler.instance_for("health", params)
            line = _encode({**answer, "result": instance.health_now()})
        except RpcFault as fault:
            line = _encode({**answer, "error": fault.body})
        except Exception as error:
            line = _encode({**answer, "error": agent_error_body(error)})
            self._start_task(self._handler.fault(error, instance))  # on_error may be async: it waits its turn
        self._write(line)

    async def _serve(self, document: Dict[str, Any]) -> None:
        request_id, method = document.get("id"), document["method"]
        if request_id is None:
            return await self._handler.notification(method, document["params"])
        answer: Dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        try:
            instance = self._handler.instance_for(method, document["params"])
        except RpcFault as fault:
            return self._refuse(request_id, fault)
        try:
            result = await self._handler.request(method, document["params"], instance)
            # Encoding is inside: a value that is not JSON is the agent's error like any other.
            line = _encode({**answer, "result": result}, f"the answer to {method}")
        except Exception as error:
            line = _encode({**answer, "error": await self._handler.fault(error, instance)})
        self._write(line)
        self._handler.answered(method)

    def flush_and_wait(self) -> None:
        """Returns when the kernel has taken all that was written. The loop stands still meanwhile."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self._unsent:
            poll.poll()
            self._flush()

    def _settle(self, document: Dict[str, Any]) -> None:
        call = self._calls.pop(document.get("id"), None)  # type: ignore[arg-type]
        if call is None or call.done():  # also the error with id null by which the host answers garbage
            return
        if document.get("error"):
            call.set_exception(from_error_body(document["error"]))
        else:
            call.set_result(document.get("result") or {})

    def _refuse(self, request_id: Any, fault: RpcFault) -> None:
        self._write(_encode({"jsonrpc": "2.0", "id": request_id, "error": fault.body}))

    def _refuse_shape(self, request_id: Any) -> None:
        self._refuse(request_id, RpcFault(INVALID_REQUEST, "not a JSON-RPC 2.0 request or answer"))


def _asks_health(document: Dict[str, Any]) -> bool:
    return document["method"] == "health" and document.get("id") is not None


def _encode(document: Dict[str, Any], what: str = "a message") -> bytes:
    """One line. Raises for what is no JSON (NaN, a set, half of a surrogate pair), and for what is too long, which the
    error calls `what`."""
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    line = text.encode("utf-8") + b"\n"
    if len(line) > MAX_LINE + 1:
        message = f"{what} has {len(line) - 1} bytes, over the limit of a line, {MAX_LINE}: send less, or in parts"
        if "method" in document:
            raise AgentError(message, code="TOO_LARGE")
        raise RpcFault(SERVER_ERROR, message, "TOO_LARGE")
    return line


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
