"""What users hold of one endpoint's transport: stubs, waiting, connectivity. It owns nothing."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from viewreg._errors import InvalidTypeError
from viewreg._http2.headers import request_block
from viewreg._http2.metadata import encode_fields, encode_metadata
from viewreg._http2.standing import FixedMetadata
from viewreg._transport.asked import AskedExchange
from viewreg._transport.calls import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from viewreg._transport.exchange import Exchange
from viewreg._transport.grpcio import Factories, Method
from viewreg._transport.purerpc import GrpcSocket, StubCall, stub_calls
from viewreg._transport.streams import MessageStream
from viewreg._transport.tls import server_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from viewreg._endpoint import Endpoint
    from viewreg._http2.metadata import MetadataLike
    from viewreg._transport.subchannel import Subchannel
    from viewreg._transport.tls import Tls

S = TypeVar("S")
Res = TypeVar("Res")

USER_AGENT: Final = "viewreg"
_NO_METADATA: Final = (b"", 0)


class Channel(Factories):
    """The way to one endpoint, through all its connections. A view's `channel`; shared by all views of an endpoint.

    Calls fail fast with `UnavailableError` while the server is known to be away, and wait while it has never been tried
    to the end; `waiting()` is the same channel with calls that always wait.
    """

    def __init__(
        self, subchannel: Subchannel, *, tls: Tls | None = None, waits: bool = False, probe: bool = False
    ) -> None:
        self._subchannel: Final = subchannel
        self._tls: Final = tls
        self._scheme: Final = "http" if tls is None else "https"
        self._standing: Final = subchannel.config.metadata
        self._waits: Final = waits
        self._probe: Final = probe
        self._waiting: Channel | None = None  # made when it is asked for
        self._stubs: Final[dict[Callable[[Any], Any], Any]] = {}

    @property
    def endpoint(self) -> Endpoint:
        """The server at the other end."""
        return self._subchannel.endpoint

    def stub(self, stub_class: Callable[[Any], S]) -> S:
        """A generated stub on this channel, of purerpc's protoc plugin or grpcio's. Made once for each class.

        One of purerpc's gets viewreg's call objects; one of grpcio's makes its own, by `unary_unary` and its siblings.
        Raises `InvalidTypeError` for a class that is no generated stub.
        """
        stub: S | None = self._stubs.get(stub_class)
        if stub is None:
            stub = self._stubs[stub_class] = self._make_stub(stub_class)
        return stub

    def _make_stub(self, stub_class: Callable[[Any], S]) -> S:
        expected = "expected a stub class that purerpc's or grpcio's protoc plugin has generated"
        try:
            stub = stub_class(self)
        except TypeError as error:
            raise InvalidTypeError(f"{stub_class!r}: {expected}") from error
        calls = stub_calls(stub)
        if not calls and not any(isinstance(value, Method) for value in getattr(stub, "__dict__", {}).values()):
            raise InvalidTypeError(f"{stub_class!r}: {expected}")
        for name, call in calls.items():
            setattr(stub, name, self._call(call))
        return stub

    def as_grpc_aio(self) -> grpc.aio.Channel:
        """This very channel, typed as grpcio's asyncio one: so the types of stubs that mypy-protobuf made fit.

        `docs/any-service.md` says what of grpcio's calls is there.
        """
        channel: Any = self
        return channel  # type: ignore[no-any-return, unused-ignore]

    async def wait_ready(self) -> None:
        """Wait until calls can be made. Raises `UnavailableError` if the endpoint is removed or the registry closed."""
        await self._subchannel.wait_ready()

    def waiting(self) -> Channel:
        """A handle to the same endpoint whose calls wait for the server instead of failing while it is away."""
        if self._waiting is None:
            self._waiting = self if self._waits else Channel(self._subchannel, tls=self._tls, waits=True)
        return self._waiting

    @property
    def calls_in_flight(self) -> int:
        """How many calls are open or wait for a stream now, of all users of the endpoint, probes included."""
        return self._subchannel.calls_in_flight

    @property
    def round_trip(self) -> float | None:
        """Seconds that a probe or a PING took at least, of the last few on this connection; None before the second.

        The smallest counts, for others may have been measured while this process was busy; so does the first probe of
        a connection, which does not count.
        """
        return self._subchannel.round_trip

    def __str__(self) -> str:
        return str(self._subchannel.endpoint)

    def __repr__(self) -> str:
        return f"<Channel to {self}>"

    # -- for call objects --

    def exchange(self, path: str, metadata: MetadataLike | None, body: bytes | None) -> Exchange:
        """A call that has not begun. Raises for metadata that may not be sent."""
        head = request_block(self._scheme, self._authority, path, USER_AGENT)
        standing = self._standing
        if standing is None:
            encoded = _NO_METADATA if metadata is None else encode_metadata(metadata)
        elif isinstance(standing, FixedMetadata):
            encoded = standing.encoded if metadata is None else standing.beneath(encode_fields(metadata))
        else:
            own = () if metadata is None else tuple(encode_fields(metadata))
            return AskedExchange(self._subchannel, head, standing, own, body, waits=self._waits, probe=self._probe)
        return Exchange(self._subchannel, head, encoded, body, waits=self._waits, probe=self._probe)

    @property
    def streams_allowed(self) -> float:
        """How many calls the server lets be open at once, as far as it is known."""
        return self._subchannel.streams_allowed

    async def open_message_stream(
        self, path: str, response_type: type[Res], metadata: MetadataLike | None
    ) -> MessageStream[Any, Res]:
        """A call whose messages are sent and received one by one, begun."""
        exchange = self.exchange(path, metadata, None)
        await trio.lowlevel.checkpoint()
        await exchange.start()
        return MessageStream(exchange, response_type)

    def _call(self, call: StubCall) -> object:
        kinds = {
            (False, False): UnaryUnary,
            (False, True): UnaryStream,
            (True, False): StreamUnary,
            (True, True): StreamStream,
        }
        kind = kinds[call.request_streams, call.response_streams]
        return kind(self, call.path, call.response_type)

    @functools.cached_property
    def _authority(self) -> str:
        endpoint = self._subchannel.endpoint
        if self._tls is not None and self._tls.server_hostname is not None:
            name = server_name(self._tls.server_hostname)  # as gRPC has it: who is to prove a name is called by it
            return f"[{name}]" if ":" in name else name
        host_port = endpoint.host_port
        if host_port.isascii():
            return host_port.split("%", 1)[0] + f"]:{endpoint.port}" if "%" in host_port else host_port
        return f"{endpoint.host.encode('idna').decode('ascii')}:{endpoint.port}"

    # -- for purerpc.Client, which looks these up by name --

    @property
    def _grpc_socket(self) -> GrpcSocket:
        return GrpcSocket(self)

    @property
    def _host(self) -> str:
        return self._subchannel.endpoint.host

    @property
    def _port(self) -> int:
        return self._subchannel.endpoint.port
