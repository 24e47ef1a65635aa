"""A fake view in this process: on a loopback socket, or on a network in memory.

Rules:
* It serves in the nursery of its block, by the clock of this run: on a network in memory, in virtual time.
* Killing it cancels its tasks, which closes its sockets; freezing stops it from taking and sending bytes, while its
  network goes on: what clients see is what they see of a process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import trio

from viewreg._boundary import describe
from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError
from viewreg.testing._connections import Connections
from viewreg.testing._services import FakeServices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ssl import SSLContext

    from purerpc import Servicer

    from viewreg.testing._behavior import Behavior, Serving
    from viewreg.testing._calls import CallLog
    from viewreg.testing._network import MemoryNetwork

_STOP_TIME: Final = 2.0  # seconds for connections to end when the view stops
_MEMORY_PORT: Final = 8080


class LocalHost:
    """Runs one view at a time. See `Host`. Without a network, on loopback."""

    def __init__(
        self,
        nursery: trio.Nursery,
        log: CallLog,
        network: MemoryNetwork | None,
        servicers: Sequence[Servicer],
        ssl_context: SSLContext | None,
    ) -> None:
        self.pid: Final = os.getpid()
        self.frozen = False  # written by `freeze`, `thaw` and `_run`
        self._nursery: Final = nursery
        self._log: Final = log
        self._network: Final = network
        self._servicers: Final = servicers
        self._ssl_context: Final = ssl_context
        self._connections: Connections | None = None  # None once it has ended; written by `start` and `_run`
        self._scope = trio.CancelScope()

    @property
    def running(self) -> bool:
        return self._connections is not None

    async def start(self, serving: Serving, host: str, port: int) -> Endpoint:
        await trio.lowlevel.checkpoint()
        listener: trio.abc.Listener[Any]
        if self._network is None:
            try:
                [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
            except OSError as error:
                raise ViewregError(f"fake view on port {port}: cannot listen: {describe(error)}") from None
            endpoint = Endpoint("127.0.0.1", listener.socket.getsockname()[1])
        else:
            endpoint = Endpoint(host or self._network.new_host(), port or _MEMORY_PORT)
            listener = self._network.listen(endpoint)
        if self._ssl_context is not None:
            self._ssl_context.set_alpn_protocols(["h2"])
            listener = trio.SSLListener(listener, self._ssl_context)
        services = FakeServices(serving, endpoint.host, self._servicers)
        self._connections = connections = Connections(services, self._log)
        self._scope = trio.CancelScope()
        self._nursery.start_soon(self._run, listener, connections, self._scope)
        return endpoint

    async def obey(self, serving: Serving, behavior: Behavior) -> None:
        await trio.lowlevel.checkpoint()
        if self._connections is not None:
            self._connections.services.obey(serving, behavior)

    def kill(self) -> None:
        if self._connections is not None:
            self._connections.abandon()
            self._scope.cancel()

    def freeze(self) -> None:
        if self._connections is not None:
            self.frozen = True
            self._connections.freeze()

    def thaw(self) -> None:
        if self._connections is not None:
            self.frozen = False
            self._connections.thaw()

    async def stop(self) -> None:
        if self._connections is not None:
            self._connections.stop()
        with trio.move_on_after(_STOP_TIME):
            await self._log.wait_until(lambda: not self.running)
        await self.end()

    async def end(self) -> None:
        self.kill()
        with trio.CancelScope(shield=True):
            await self._log.wait_until(lambda: not self.running)

    async def _run(self, listener: trio.abc.Listener[Any], connections: Connections, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await connections.run(listener)
        finally:
            self._connections, self.frozen = None, False
            self._log.all_ended()
            self._log.announce()
