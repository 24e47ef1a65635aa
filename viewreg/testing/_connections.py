"""Serving purerpc services to the clients of a fake view.

Rules:
* purerpc's own `ConnectionHandler` is not used: it takes no notice of a call that its client gave up, waits for the
  calls of a connection that is gone, and swallows cancellation. Its socket, its services and its messages are.
* A call ends when its client resets it or goes away. Each one is reported when it starts and when it ends.
* What a client does wrong ends its own connection and nothing else.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import h2.exceptions
import trio
from purerpc import Cardinality, Status
from purerpc.grpc_proto import GRPCProtoSocket
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.exceptions import GRPCError, RpcFailedError
from purerpc.wrappers import extract_message_from_singleton_stream

from viewreg._transport.purerpc import StatusCode

if TYPE_CHECKING:
    from anyio.abc import SocketStream

    from viewreg.testing._services import FakeServices

# The client went away, or does not speak gRPC. KeyError is purerpc's word for a frame of no stream that it knows.
_DISCONNECTED: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)
_NONSENSE: Final = (h2.exceptions.H2Error, GRPCError, KeyError)


class CallReports(Protocol):
    """Is told of every call."""

    def started(self, method: str, timeout: float | None) -> int:
        """A call began. `timeout` is what its client gave it, in seconds. Returns a number for it."""
        ...

    def ended(self, call: int, code: str) -> None:
        """It ended, with the status of this name."""


class Connections:
    """All connections of one fake view."""

    def __init__(self, services: FakeServices, reports: CallReports) -> None:
        self.services: Final = services
        self.reports: Final = reports
        self.stopping = False  # written by `stop`
        self._open: set[_Connection] = set()  # written by `serve`

    async def serve(self, stream: SocketStream) -> None:
        """Serve one connection until either side ends it."""
        connection = _Connection(self)
        self._open.add(connection)
        if self.stopping:
            connection.end()
        try:
            await connection.run(stream)
        except* (*_DISCONNECTED, *_NONSENSE):
            pass
        finally:
            self._open.discard(connection)

    def stop(self) -> None:
        """End every call with UNAVAILABLE, then every connection. Synchronous; `serve` returns a little later."""
        self.stopping = True
        for connection in self._open:
            connection.end()


class _Connection:
    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._listening = trio.CancelScope()
        self._calls: dict[int, trio.CancelScope] = {}  # by stream; written by `run` and `_serve`

    async def run(self, stream: SocketStream) -> None:
        config = GRPCConfiguration(client_side=False)
        async with stream, GRPCProtoSocket(config, stream) as grpc_socket:
            # What purerpc makes of a reset is nothing.
            grpc_socket._grpc_connection._stream_reset = self._on_reset  # noqa: SLF001
            async with trio.open_nursery() as nursery:
                with self._listening:
                    async for call in grpc_socket.listen():
                        scope = self._calls[call.stream_id] = trio.CancelScope()
                        nursery.start_soon(self._serve, call, scope)
                self.end()

    def end(self) -> None:
        """No more calls; those that are open end now."""
        self._listening.cancel()
        for scope in self._calls.values():
            scope.cancel()

    def _on_reset(self, event: Any) -> list[Any]:  # noqa: ANN401 (h2.events.StreamReset, which has no types)
        scope = self._calls.get(event.stream_id)
        if scope is not None:
            scope.cancel()
        return []

    async def _serve(self, call: Any, scope: trio.CancelScope) -> None:  # noqa: ANN401 (purerpc's stream, without types)
        reports = self._owner.reports
        number: int | None = None
        status = Status(StatusCode.CANCELLED)
        try:
            with scope:
                await call.start_response()
                request = await call.receive_event()
                timeout = None if request.timeout is None else request.timeout.total_seconds()
                method = f"{request.service_name.removeprefix('rpc.')}.{request.method_name}"
                number = reports.started(method, timeout)
                status = await self._answer(call, request)
            if scope.cancelled_caught and self._owner.stopping:
                status = Status(StatusCode.UNAVAILABLE, "the view is stopping")
            with suppress(h2.exceptions.ProtocolError, GRPCError):  # the client has reset it
                await call.close(status)
        finally:
            del self._calls[call.stream_id]
            if number is not None:
                reports.ended(number, status.status_code.name)

    async def _answer(self, call: Any, request: Any) -> Any:  # noqa: ANN401 (purerpc's, without types)
        """Send the answer. Returns the status that the call ends with."""
        services = self._owner.services
        bound = None
        if service := services.by_name.get(request.service_name):
            bound = service.methods.get(request.method_name)
        if bound is None:
            return Status(StatusCode.UNIMPLEMENTED, f"a fake view has no {request.service_name}/{request.method_name}")
        try:
            call.expect_message_type(bound.signature.request_type)
            message = await extract_message_from_singleton_stream(call)
            await services.begin()
            if bound.signature.cardinality is Cardinality.UNARY_UNARY:
                await call.send_message(await bound.method_fn(message, request=request))
            else:
                async with aclosing(bound.method_fn(message, request=request)) as answers:
                    async for answer in answers:
                        await call.send_message(answer)
        except RpcFailedError as error:
            return error.status
        except h2.exceptions.ProtocolError:
            return Status(StatusCode.CANCELLED)  # its client reset it while it was being sent
        return Status(StatusCode.OK)
