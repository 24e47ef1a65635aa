"""Serving purerpc services to the clients of a fake view, on whatever streams they come.

Rules:
* purerpc's own `ConnectionHandler` is not used: it takes no notice of a call that its client gave up, waits for the
  calls of a connection that is gone, and swallows cancellation. Its socket, its services and its messages are.
* A call ends when its client resets it or goes away. Each one is reported when it starts and when it ends.
* What a client does wrong ends its own connection and nothing else; so does what a service raises with its call.
"""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import h2.exceptions
import trio
from purerpc import Cardinality, Status
from purerpc.grpc_proto import GRPCProtoSocket
from purerpc.grpc_socket import GRPCStreamState
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.exceptions import GRPCError, RpcFailedError
from purerpc.wrappers import extract_message_from_singleton_stream, stream_to_async_iterator

from viewreg._boundary import only_cancelled
from viewreg._transport.purerpc import StatusCode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from viewreg._http2.metadata import Metadata
    from viewreg.testing._services import FakeServices

logger = logging.getLogger("viewreg.testing")

# The client went away, or does not speak gRPC. KeyError is purerpc's word for a frame of no stream that it knows.
_DISCONNECTED: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_NONSENSE: Final = (h2.exceptions.H2Error, GRPCError, KeyError)


class CallReports(Protocol):
    """Is told of every call."""

    def started(self, method: str, timeout: float | None, metadata: Metadata) -> int:
        """A call began. `timeout` is what its client gave it, in seconds. Returns a number for it."""
        ...

    def ended(self, number: int, code: StatusCode) -> None:
        """It ended, with this status."""


class Connections:
    """All connections of one fake view, from its start to its end."""

    def __init__(self, services: FakeServices, reports: CallReports) -> None:
        self.services: Final = services
        self.reports: Final = reports
        self.stopping = False  # it will not answer any more; written by `stop` and `abandon`
        self._accepting: Final = trio.CancelScope()
        self._open: dict[_Connection, None] = {}  # written by `_serve`
        self._frozen: trio.Event | None = None  # set, and dropped, by `thaw`

    async def run(self, listener: trio.abc.Listener[Any]) -> None:
        """Serve whoever comes until `stop`, and until all have gone."""
        async with trio.open_nursery() as nursery:
            with self._accepting:
                async with listener:
                    while True:
                        # Frozen as well: the kernel would accept it, and nobody but `_serve` sees to its end.
                        nursery.start_soon(self._serve, await listener.accept())

    def stop(self) -> None:
        """End every call with UNAVAILABLE, then every connection. Synchronous; `run` returns a little later."""
        self.stopping = True
        self._accepting.cancel()
        for connection in self._open:
            connection.end()

    def abandon(self) -> None:
        """Count what is still open as lost, not as given up: `run` is about to be cancelled."""
        self.stopping = True

    def freeze(self) -> None:
        """Stand still: what arrives is taken only after `thaw`, nothing is sent."""
        self._frozen = self._frozen or trio.Event()

    def thaw(self) -> None:
        """Go on."""
        if self._frozen is not None:
            self._frozen.set()
            self._frozen = None

    async def moving(self) -> None:
        """Return at once, unless frozen: then when thawed."""
        while self._frozen is not None:
            await self._frozen.wait()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        connection = _Connection(self)
        self._open[connection] = None
        if self.stopping:
            connection.end()
        try:
            with only_cancelled():
                await connection.run(stream)
        except* (*_DISCONNECTED, *_NONSENSE):
            pass
        finally:
            del self._open[connection]


class _Carrier:
    """A Trio stream as purerpc wants it, which speaks anyio's dialect."""

    def __init__(self, stream: trio.abc.Stream, owner: Connections) -> None:
        self._stream = stream
        self._owner = owner

    async def send(self, data: bytes) -> None:
        await self._owner.moving()
        await self._stream.send_all(data)

    async def receive(self, max_bytes: int) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        await self._owner.moving()
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    def extra(self, _attribute: object) -> object:
        """The socket, for its options to be set; anything will do where there is none."""
        return self._stream.socket if isinstance(self._stream, trio.SocketStream) else _NoSocket()

    async def __aenter__(self) -> _Carrier:  # noqa: PYI034 (nothing is derived from it)
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self._stream)


class _NoSocket:
    def setsockopt(self, *_: object) -> None:
        """Nothing to set."""


class _Raw:
    """Bytes in the place of a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        return self._data


class _Connection:
    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._listening = trio.CancelScope()
        self._calls: dict[int, trio.CancelScope] = {}  # by stream; written by `run` and `_serve`
        self._ended: dict[int, Any] = {}  # purerpc's streams whose calls have ended, but not their requests
        self._newest = 0  # stream of the last call; written by `run`
        self._reset: set[int] = set()  # later streams that were reset in the bytes that opened them

    async def run(self, stream: trio.abc.Stream) -> None:
        carrier = _Carrier(stream, self._owner)
        async with carrier, GRPCProtoSocket(GRPCConfiguration(client_side=False), carrier) as grpc_socket:
            # What purerpc makes of a reset is nothing.
            grpc_socket._grpc_connection._stream_reset = self._on_reset  # noqa: SLF001
            try:
                async with trio.open_nursery() as nursery:
                    with self._listening:
                        async for call in grpc_socket.listen():
                            self._newest = call.stream_id
                            scope = self._calls[call.stream_id] = trio.CancelScope()
                            if call.stream_id in self._reset:
                                self._reset.remove(call.stream_id)
                                scope.cancel()
                            nursery.start_soon(self._serve, call, scope)
                    self.end()
            finally:
                for call in (*self._ended.values(), *grpc_socket._streams.values()):  # noqa: SLF001 (see `_close`)
                    _close(call)

    def end(self) -> None:
        """No more calls; those that are open end now."""
        self._listening.cancel()
        for scope in self._calls.values():
            scope.cancel()

    def _on_reset(self, event: Any) -> list[Any]:  # noqa: ANN401 (h2.events.StreamReset, which has no types)
        scope = self._calls.get(event.stream_id)
        if scope is not None:
            scope.cancel()
        elif event.stream_id > self._newest:
            self._reset.add(event.stream_id)
        if call := self._ended.pop(event.stream_id, None):
            _close(call)
        return []

    async def _serve(self, call: Any, scope: trio.CancelScope) -> None:  # noqa: ANN401 (purerpc's stream, without types)
        reports = self._owner.reports
        number: int | None = None
        status: Any = None  # purerpc's, whose class is no type
        try:
            request = await call.receive_event()  # it is there; so a call that was reset at once is reported, too
            with scope:
                timeout = None if request.timeout is None else request.timeout.total_seconds()
                method = f"{request.service_name.removeprefix('rpc.')}.{request.method_name}"
                number = reports.started(method, timeout, _metadata_of(request))
                status = await self._answer(call, request)
            if status is None:  # the scope was cancelled
                stopping = self._owner.stopping
                status = Status(StatusCode.UNAVAILABLE, "the view stops") if stopping else Status(StatusCode.CANCELLED)
            with suppress(h2.exceptions.ProtocolError, GRPCError):  # the client has reset it
                await call.close(status)
        finally:
            del self._calls[call.stream_id]
            self._ended[call.stream_id] = call
            for ended in list(self._ended.values()):
                if ended.state is GRPCStreamState.CLOSED:
                    del self._ended[ended.stream_id]
                    _close(ended)
            if number is not None:
                lost = StatusCode.UNAVAILABLE if self._owner.stopping else StatusCode.CANCELLED
                reports.ended(number, lost if status is None else status.status_code)

    async def _answer(self, call: Any, request: Any) -> Any:  # noqa: ANN401 (purerpc's, without types)
        """Send the answer. Returns the status that the call ends with."""
        services = self._owner.services
        bound = None
        if service := services.by_name.get(request.service_name):
            bound = service.methods.get(request.method_name)
        if bound is None:
            return Status(StatusCode.UNIMPLEMENTED, f"a fake view has no {request.service_name}/{request.method_name}")
        garbage = services.behavior.garbage
        try:
            with only_cancelled():
                await services.begin()
                begun = False
                async with aclosing(_answers(call, request, bound)) as answers:
                    async for answer in answers:
                        if not begun:
                            await call.start_response()
                            begun = True
                        await call.send_message(answer if garbage is None else _Raw(garbage))
        except RpcFailedError as error:
            return error.status
        except h2.exceptions.ProtocolError:
            return Status(StatusCode.CANCELLED)  # its client reset it while it was being sent
        except Exception as error:  # a service may be the test's own, and raise anything
            logger.exception("%s/%s of a fake view raised", request.service_name, request.method_name)
            return Status(StatusCode.UNKNOWN, f"the service raised {error!r}")
        return Status(StatusCode.OK)


def _close(call: Any) -> None:  # noqa: ANN401 (purerpc's stream, without types)
    """Close what purerpc leaves to the garbage collector, which complains."""
    for end in call._incoming_events:  # noqa: SLF001 (there is no other way to them)
        end.close()


async def _answers(call: Any, request: Any, bound: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401 (purerpc's)
    """What a method answers, one message or many, to the one message or many of its request."""
    call.expect_message_type(bound.signature.request_type)
    cardinality = bound.signature.cardinality
    if cardinality in (Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM):
        asked = await extract_message_from_singleton_stream(call)
    else:
        asked = stream_to_async_iterator(call)
    if cardinality in (Cardinality.UNARY_UNARY, Cardinality.STREAM_UNARY):
        yield await bound.method_fn(asked, request=request)
        return
    async with aclosing(bound.method_fn(asked, request=request)) as answers:
        async for answer in answers:
            yield answer


def _metadata_of(request: Any) -> Metadata:  # noqa: ANN401 (purerpc's RequestReceived, without types)
    return tuple((name, value) for name, value in request.custom_metadata if name != "te" and name[0] != ":")
