"""Errors, and how they travel: JSON-RPC error objects."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
SERVER_ERROR = -32000

MAX_TEXT = 16 << 10  # characters: the error has to fit a line whatever the agent raised


class AgentError(Exception):
    """A call to the runtime that failed, and what an agent may raise to say more than a message.

    code is one of KLP's error codes, such as UNAVAILABLE or CONFLICT.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "AGENT_ERROR",
        details: Optional[Dict[str, Any]] = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details
        self.retryable = retryable


class RpcFault(Exception):
    """An answer that the SDK itself gives: not an error of the agent's code, so on_error does not see it."""

    def __init__(self, code: int, message: str, klp_code: str = "INVALID", retryable: bool = False) -> None:
        super().__init__(message)
        self.body: Dict[str, Any] = {"code": code, "message": message, "data": {"code": klp_code}}
        if retryable:
            self.body["data"]["retryable"] = True

    @classmethod
    def of(cls, body: Dict[str, Any]) -> RpcFault:
        fault = cls(body["code"], body["message"])
        fault.body = body
        return fault


def not_running(message: str) -> RpcFault:
    """For a request to a version of the agent that is not there yet, or no longer."""
    return RpcFault(INVALID_REQUEST, message, "NOT_RUNNING")


class HostReportedError(Exception):
    """An error that the host saw, as on_error gets it: name and stack are what the host told."""

    def __init__(self, message: str, name: str, stack: str) -> None:
        super().__init__(message)
        self.name = name
        self.stack = stack


def agent_error_body(error: BaseException) -> Dict[str, Any]:
    """An error of the agent's code as the error object of an answer."""
    import traceback

    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    data: Dict[str, Any] = {"code": "AGENT_ERROR", "name": type(error).__name__, "stack": _clip(stack)}
    if isinstance(error, AgentError):
        if error.details is not None and _fits(error.details):
            data["details"] = error.details
        if error.retryable:
            data["retryable"] = True
    return {"code": SERVER_ERROR, "message": _clip(str(error) or type(error).__name__), "data": data}


def from_error_body(body: Dict[str, Any]) -> AgentError:
    """The error of an answer from the host."""
    data = body.get("data") or {}
    return AgentError(
        str(body.get("message", "")),
        code=data.get("code", "INTERNAL"),
        details=data.get("details"),
        retryable=bool(data.get("retryable", False)),
    )


def _clip(text: str) -> str:
    # What the agent put together may hold lone surrogates, which UTF-8 cannot.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _fits(details: Any) -> bool:
    try:
        return len(json.dumps(details, allow_nan=False, ensure_ascii=False).encode("utf-8")) <= MAX_TEXT
    except (TypeError, ValueError, RecursionError):
        return False
