"""Everything that touches purerpc, whose classes have no types: its statuses, its stubs, its view of a channel.

Rules:
* Importing this module makes purerpc importable beside h2 4 too; so nobody imports purerpc before it.
* purerpc's socket layer is never used. Its generated stubs are built on our channel, and `stub_calls` reads from
  them what our own call objects need to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import h2.events
from attrs import frozen

if not hasattr(h2.events, "PingAcknowledged"):  # h2 4 renamed it; purerpc 0.8 asks for the old name
    h2.events.PingAcknowledged = h2.events.PingAckReceived

import purerpc  # type: ignore[import-untyped, unused-ignore]
from purerpc.grpclib.events import ResponseEnded  # type: ignore[import-untyped, unused-ignore]
from purerpc.wrappers import (  # type: ignore[import-untyped, unused-ignore]
    ClientStub,
    ClientStubStreamStream,
    ClientStubStreamUnary,
    ClientStubUnaryStream,
)

errors: Any = purerpc  # its exception classes, for those who derive from them

if TYPE_CHECKING:
    import enum

    from viewreg._http2.metadata import MetadataLike

    class StatusCode(enum.Enum):
        """The sixteen ways a gRPC call can fail, and OK. It is purerpc's own enum."""

        OK = 0
        CANCELLED = 1
        UNKNOWN = 2
        INVALID_ARGUMENT = 3
        DEADLINE_EXCEEDED = 4
        NOT_FOUND = 5
        ALREADY_EXISTS = 6
        PERMISSION_DENIED = 7
        RESOURCE_EXHAUSTED = 8
        FAILED_PRECONDITION = 9
        ABORTED = 10
        OUT_OF_RANGE = 11
        UNIMPLEMENTED = 12
        INTERNAL = 13
        UNAVAILABLE = 14
        DATA_LOSS = 15
        UNAUTHENTICATED = 16

else:
    StatusCode = purerpc.StatusCode


def purerpc_status(code: StatusCode, details: str) -> Any:
    """A `purerpc.Status`, for those who catch purerpc's exceptions and look at their `status`."""
    return purerpc.Status(code, details)


@frozen
class StubCall:
    """What a generated stub knows of one of its methods."""

    path: str
    response_type: type[Any]
    request_streams: bool
    response_streams: bool


def stub_calls(stub: object) -> dict[str, StubCall]:
    """The calls of a purerpc-generated stub by attribute name; empty for any other object."""
    calls = {}
    for name, call in getattr(stub, "__dict__", {}).items():
        if isinstance(call, ClientStub):
            rpc = call._stream_fn  # noqa: SLF001 (a partial of Client.rpc: nothing public tells method and types)
            method, _, response_type = rpc.args
            calls[name] = StubCall(
                f"/{rpc.func.__self__.service_name}/{method}",
                response_type,
                request_streams=isinstance(call, ClientStubStreamUnary | ClientStubStreamStream),
                response_streams=isinstance(call, ClientStubUnaryStream | ClientStubStreamStream),
            )
    return calls


class Messages(Protocol):
    """A call whose messages are sent and received one by one."""

    async def send_message(self, message: Any, /) -> None: ...
    async def receive_message(self) -> Any: ...
    async def close(self) -> None: ...


class Opener(Protocol):
    """What a channel is to purerpc's own call objects."""

    async def open_message_stream(
        self, path: str, response_type: type[bytes], metadata: MetadataLike | None
    ) -> Messages: ...


class GrpcSocket:
    """What `purerpc.Client` asks of a channel: so `SearchStub(view.channel)` works, with purerpc's own limits."""

    def __init__(self, channel: Opener) -> None:
        self._channel = channel

    async def start_request(
        self, _scheme: str, service: str, method: str, _message_type: str, _authority: str,
        custom_metadata: MetadataLike = (),
    ) -> PurerpcStream:  # fmt: skip
        """Begin a call whose messages are sent and received one by one."""
        stream = await self._channel.open_message_stream(f"/{service}/{method}", bytes, custom_metadata or None)
        return PurerpcStream(stream)


class PurerpcStream:
    """A call as purerpc's wrappers want it. They raise the status themselves, from `end_stream_event`."""

    def __init__(self, stream: Messages) -> None:
        self._stream = stream
        self._response_type: type[Any] | None = None
        self.end_stream_event: Any = None

    def expect_message_type(self, response_type: type[Any]) -> None:
        """Messages that arrive are of this type."""
        self._response_type = response_type

    async def send_message(self, message: Any) -> None:
        """Send one message of the request."""
        await self._stream.send_message(message)

    async def receive_message(self) -> Any:
        """The next message of the answer, None at its end, be it good or bad."""
        try:
            data = await self._stream.receive_message()
        except errors.RpcFailedError as error:
            self._end(error.status)
            return None
        if data is None:
            self._end(purerpc.Status(purerpc.StatusCode.OK))
            return None
        return data if self._response_type is None else self._response_type.FromString(data)

    async def close(self) -> None:
        """No more messages follow in the request."""
        await self._stream.close()

    def _end(self, status: Any) -> None:
        self.end_stream_event = ResponseEnded(0, status)
