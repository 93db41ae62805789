"""The host's requests: each goes to the version of the agent that it is meant for. The host decides the order."""

from __future__ import annotations

import asyncio
import os

from kai._channel import Channel
from kai._errors import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RpcFault, agent_error_body, not_running
from kai._instance import Instance
from kai._load import Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Awaitable, Dict, Optional

HOOKS = {
    "init": Instance.init,
    "start": Instance.start,
    "message": Instance.message,
    "upgrade": Instance.upgrade,
    "shutdown": Instance.shutdown,
    "error": Instance.error,
    "health": Instance.health,
    "saveState": Instance.save_state,
    "restoreState": Instance.restore_state,
}
# Requests that may say `next`: they are meant for the version that was loaded beside the serving one.
OF_NEXT = ("init", "restoreState", "upgrade", "start", "health")


async def serve(sock: socket.socket, entry: str) -> None:
    """Returns after shutdown, or when the host closes the channel."""
    session = Session()
    channel = Channel(sock, session)
    session.begin(entry, channel)
    await session.ended.wait()
    channel.flush_and_wait()


class Session:
    _channel: Channel  # set by begin(): each knows the other
    _serving: Instance

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._loaded: Optional[Instance] = None
        self._methods = {"load": self._load, "commit": self._commit, "discard": self._discard}

    def begin(self, entry: str, channel: Channel) -> None:
        self._channel = channel
        self._serving = Instance(Code.own(entry), channel)

    # ---- the channel's side

    def instance_for(self, method: str, params: Dict[str, Any]) -> Instance:
        """Whose hook is asked for."""
        if params.get("next") is not True or method not in OF_NEXT:
            return self._serving
        if self._loaded is None:
            raise not_running(f"{method} of the next version: none is loaded")
        return self._loaded

    async def request(self, method: str, params: Dict[str, Any], instance: Instance) -> Any:
        own = self._methods.get(method)
        if own is not None:
            return await own(params)
        hook = HOOKS.get(method)
        if hook is None:
            raise RpcFault(METHOD_NOT_FOUND, f"no method {method}")
        if method != "init" and not instance.running:
            raise not_running(f"{method} before init was answered")
        return await self._bounded(instance, hook(instance, params))

    async def fault(self, error: Exception, instance: Instance) -> Dict[str, Any]:
        try:
            return await self._bounded(instance, instance.fault(error))
        except RpcFault as fault:
            return fault.body

    async def notification(self, method: str, params: Dict[str, Any]) -> None:
        """Events come as `message` without an id."""
        if method != "message":
            return
        instance = self._serving
        try:
            await self.request(method, params, instance)
        except Exception as error:
            body = await self.fault(error, instance)
            instance.log_error(f"an event was not handled: {body['message']}")

    def answered(self, method: str) -> None:
        if method == "shutdown":
            self.ended.set()

    def closed(self) -> None:
        self.ended.set()

    # ---- another version beside the one that serves

    async def _bounded(self, instance: Instance, work: Awaitable[Any]) -> Any:
        """One that was loaded may be discarded while its hook has not returned."""
        return await (instance.until_dropped(work) if instance is self._loaded else work)

    async def _load(self, params: Dict[str, Any]) -> Dict[str, Any]:
        root, entry = params.get("root"), params.get("entry")
        if root is None and entry is None:
            return await self._serving.load(params)
        if not isinstance(root, str) or not isinstance(entry, str):
            raise RpcFault(INVALID_PARAMS, "load: root and entry are not both strings")
        if not self._serving.running:
            raise not_running("load of another version before init was answered")
        if self._loaded is not None:
            message = "load: another version is loaded; commit or discard it first"
            raise RpcFault(INVALID_REQUEST, message, "CONFLICT")
        loaded = Instance(Code.beside(root, entry), self._channel, is_next=True)
        try:
            await loaded.load(params)
        except Exception as error:  # the serving version's on_error has no part in it
            raise RpcFault.of(agent_error_body(error)) from error
        self._loaded = loaded
        return {}

    async def _commit(self, params: Dict[str, Any]) -> Dict[str, Any]:
        if self._loaded is None or not self._loaded.running:
            raise not_running("commit: no version is loaded whose init was answered")
        try:
            os.chdir(self._loaded.code.root)
        except OSError as error:
            raise RpcFault(INVALID_REQUEST, f"commit: {error}", "INTERNAL") from None
        self._serving.drop()
        self._serving, self._loaded = self._loaded, None
        self._serving.serve()
        return {}

    async def _discard(self, params: Dict[str, Any]) -> Dict[str, Any]:
        if self._loaded is not None:
            self._loaded.drop()
            self._loaded = None
            self._serving.code.modules.activate()
        return {}
