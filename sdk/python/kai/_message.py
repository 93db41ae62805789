"""KLPMessage, and payloads between their JSON-RPC form and what an agent sees."""

from __future__ import annotations

import binascii
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from kai.types import KLPMetadata


class Message:
    """A KLP message. `from_` is the field `from`; payload is parsed JSON, or bytes where content_type is not JSON."""

    __slots__ = (
        "protocol",
        "id",
        "from_",
        "to",
        "type",
        "correlation_id",
        "capability",
        "timestamp",
        "payload",
        "content_type",
        "metadata",
    )

    def __init__(
        self,
        *,
        id: str,
        from_: str,
        to: str,
        type: str,
        timestamp: str,
        payload: Any = None,
        correlation_id: Optional[str] = None,
        capability: Optional[str] = None,
        content_type: Optional[str] = None,
        metadata: Optional[KLPMetadata] = None,
    ) -> None:
        self.protocol = "klp/1.0"
        self.id = id
        self.from_ = from_
        self.to = to
        self.type = type
        self.correlation_id = correlation_id
        self.capability = capability
        self.timestamp = timestamp
        self.payload = payload
        self.content_type = content_type
        self.metadata: KLPMetadata = metadata if metadata is not None else {}

    def __repr__(self) -> str:
        return f"<Message {self.type} {self.id} from {self.from_} to {self.to} {self.capability or ''}>"


def reply(msg: Message, payload: Any) -> Message:
    """The response to `msg` as a whole message, where more than the payload is to be said.

    The supervisor stamps from_ and the time again.
    """
    now = time.time()
    return Message(
        id=_uuid7(int(now * 1000)),
        from_=msg.to,
        to=msg.from_,
        type="response",
        correlation_id=msg.id,
        capability=msg.capability,
        timestamp=iso_time(now),
        payload=payload,
    )


def iso_time(seconds: float) -> str:
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


def decode_message(fields: Dict[str, Any]) -> Message:
    return Message(
        id=fields.get("id", ""),
        from_=fields.get("from", ""),
        to=fields.get("to", ""),
        type=fields.get("type", "request"),
        timestamp=fields.get("timestamp", ""),
        payload=decode_payload(fields),
        correlation_id=fields.get("correlationId"),
        capability=fields.get("capability"),
        content_type=fields.get("contentType"),
        metadata=fields.get("metadata"),
    )


def encode_answer(value: Any) -> Dict[str, Any]:
    """What on_message returned → the result of `message`."""
    if not isinstance(value, Message):
        return encode_payload(value)
    fields = {
        "protocol": value.protocol,
        "id": value.id,
        "from": value.from_,
        "to": value.to,
        "type": value.type,
        "timestamp": value.timestamp,
        "correlationId": value.correlation_id,
        "capability": value.capability,
        "metadata": value.metadata or None,
        **encode_payload(value.payload, value.content_type),
    }
    return {"message": {name: field for name, field in fields.items() if field is not None or name == "payload"}}


def encode_payload(value: Any, content_type: Optional[str] = None) -> Dict[str, Any]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        base64 = binascii.b2a_base64(value, newline=False).decode("ascii")
        return {"payloadBase64": base64, "contentType": content_type or "application/octet-stream"}
    return {"payload": value}


def decode_payload(fields: Dict[str, Any]) -> Any:
    base64 = fields.get("payloadBase64")
    return fields.get("payload") if base64 is None else binascii.a2b_base64(base64)


def encode_data(value: Any) -> Dict[str, Any]:
    """What klp.emit publishes: JSON is called "data" there."""
    encoded = encode_payload(value)
    return encoded if "payloadBase64" in encoded else {"data": value}


def encode_value(value: Any) -> Dict[str, Any]:
    encoded = encode_payload(value)
    base64 = encoded.get("payloadBase64")
    return {"value": value} if base64 is None else {"valueBase64": base64}


def decode_value(fields: Dict[str, Any]) -> Any:
    base64 = fields.get("valueBase64")
    return fields.get("value") if base64 is None else binascii.a2b_base64(base64)


def _uuid7(milliseconds: int) -> str:
    """RFC 9562 version 7: 48 bits of milliseconds, then version, variant and random bits."""
    raw = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
