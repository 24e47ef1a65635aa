"""Servers for tests: one that a test spells out frame by frame, and a view that works by itself.

Rules:
* Both live on any Trio stream, one end of `memory_stream_pair()` for one, and use no time but Trio's: so they work in
  virtual time. Neither opens a socket.
* `ScriptedPeer` does only what the test tells it, and reads only while the test waits in one of its `expect` methods.
* `H2View` stands on the `h2` package, not on the code under test. Its knobs are attributes that may change at any time.
* The functions that pack frames accept anything, so that a test can break every rule of HTTP/2.
"""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import trio
from attrs import define, field, frozen
from trio.testing import memory_stream_pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from viewreg.rpc import StatsResult

_EVENTS: Final[Any] = h2.events  # its types say nothing, or differ from version to version

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS: Final = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
    "CONTINUATION",
)  # fmt: skip
END_STREAM = ACK = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20
PATIENCE: Final = 60.0  # seconds of Trio's clock that a peer waits for what a test expects

RESPONSE: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))

# -- frames as bytes --


def frame(
    kind: str | int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", *, length: int | None = None
) -> bytes:
    """Any frame, also a wrong one. `length` lies about the payload's."""
    number = KINDS.index(kind) if isinstance(kind, str) else kind
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((number, flags)) + stream_id.to_bytes(4, "big") + payload


def data(stream_id: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    """DATA; with `padding`, that many bytes of it."""
    flags = END_STREAM if end else 0
    if padding is not None:
        return frame("DATA", flags | PADDED, stream_id, bytes((padding,)) + payload + bytes(padding))
    return frame("DATA", flags, stream_id, payload)


def headers(stream_id: int, fields: Iterable[tuple[bytes, bytes]] = RESPONSE, *, end: bool = False) -> bytes:
    """HEADERS with literals that enter no table."""
    return frame("HEADERS", END_HEADERS | (END_STREAM if end else 0), stream_id, block(fields))


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block of literals that enter no table. Names and values are shorter than 16,511 bytes."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def trailers(stream_id: int, status: int = 0, *fields: tuple[bytes, bytes]) -> bytes:
    """HEADERS that end a stream with a gRPC status."""
    return headers(stream_id, ((b"grpc-status", b"%d" % status), *fields), end=True)


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """SETTINGS of number -> value."""
    return frame("SETTINGS", payload=b"".join(struct.pack(">HL", *item) for item in (values or {}).items()))


def settings_ack() -> bytes:
    """The acknowledgement of SETTINGS."""
    return frame("SETTINGS", ACK)


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """PING, or its answer."""
    return frame("PING", ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int = 2**31 - 1, code: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY; by default the first of a graceful end, which refuses no stream yet."""
    return frame("GOAWAY", payload=struct.pack(">LL", last_stream_id, code) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return frame("WINDOW_UPDATE", 0, stream_id, struct.pack(">L", increment))


def rst_stream(stream_id: int, code: int = 0) -> bytes:
    """RST_STREAM."""
    return frame("RST_STREAM", 0, stream_id, struct.pack(">L", code))


def message(body: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message with its prefix of five bytes."""
    return bytes((compressed,)) + len(body).to_bytes(4, "big") + body


def _text(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    rest = size - 127
    head = bytes((127, rest)) if rest < 128 else bytes((127, rest & 127 | 128, rest >> 7))
    return head + text


# -- bytes as frames --


@frozen
class Frame:
    """A frame that was received. `headers` stands in the frame that completes the block."""

    kind: str
    flags: int
    stream_id: int
    payload: bytes = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def end_stream(self) -> bool:
        """It is the last one of its side of the stream."""
        return self.kind in ("DATA", "HEADERS") and bool(self.flags & END_STREAM)

    @property
    def ack(self) -> bool:
        """It acknowledges SETTINGS or answers a PING."""
        return self.kind in ("SETTINGS", "PING") and bool(self.flags & ACK)

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[:4] if self.kind == "RST_STREAM" else self.payload[4:8], "big")

    @property
    def increment(self) -> int:
        """What WINDOW_UPDATE adds."""
        return int.from_bytes(self.payload, "big")

    @property
    def settings(self) -> dict[int, int]:
        """The values that SETTINGS gives."""
        return dict(struct.iter_unpack(">HL", self.payload))

    def header(self, name: bytes) -> bytes | None:
        """The first field of that name."""
        return next((value for key, value in self.headers if key == name), None)


class FrameReader:
    """Bytes of a client in, its frames out; no I/O. The preface is checked and left out."""

    def __init__(self, *, preface: bool = True) -> None:
        self._buffer = b""
        self._preface = preface
        self._decoder: Final[Any] = hpack.Decoder()
        self._block = b""

    def feed(self, received: bytes | bytearray) -> list[Frame]:
        """The frames that are complete now."""
        self._buffer += received
        if self._preface:
            assert PREFACE.startswith(self._buffer[: len(PREFACE)]), f"not HTTP/2's preface: {self._buffer[:24]!r}"
            if len(self._buffer) < len(PREFACE):
                return []
            self._preface, self._buffer = False, self._buffer[len(PREFACE) :]
        result = []
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                break
            result.append(self._parse(self._buffer[:9], self._buffer[9:end]))
            self._buffer = self._buffer[end:]
        return result

    def _parse(self, head: bytes, payload: bytes) -> Frame:
        kind, flags, stream_id = KINDS[head[3]], head[4], int.from_bytes(head[5:9], "big")
        fields: tuple[tuple[bytes, bytes], ...] = ()
        if kind in ("HEADERS", "CONTINUATION"):
            self._block += payload
            if flags & END_HEADERS:
                decoded = self._decoder.decode(self._block, raw=True)
                fields = tuple((bytes(name), bytes(value)) for name, value in decoded)
                self._block = b""
        return Frame(kind, flags, stream_id, payload, fields)


# -- a server that a test spells out --


@frozen
class Request:
    """A whole request of a client."""

    stream_id: int
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = field(repr=False)  # of all its DATA frames

    @property
    def message(self) -> bytes:
        """The one message of a unary request, without prefix."""
        size = int.from_bytes(self.body[1:5], "big")
        assert len(self.body) == 5 + size, f"{len(self.body)} bytes are not one message"
        return self.body[5:]

    def header(self, name: bytes) -> bytes | None:
        """The first field of that name."""
        return next((value for key, value in self.headers if key == name), None)


class ScriptedPeer:
    """A server in the hands of one test: `await peer.handshake()`, `await peer.expect("HEADERS")`, `peer.send(...)`.

    `frames` are all that arrived, in order. Only one task at a time may be in an `expect` method.
    """

    def __init__(self, stream: trio.abc.Stream, *, preface: bool = True) -> None:
        self.frames: Final[list[Frame]] = []
        self.ended = False  # the client has closed the stream, or it broke
        self._stream: Final = stream
        self._reader: Final = FrameReader(preface=preface)
        self._unclaimed: Final[list[Frame]] = []  # those that no `expect` has returned

    @classmethod
    def pair(cls) -> tuple[Self, trio.abc.Stream]:
        """A peer, and the stream for its client."""
        client, server = memory_stream_pair()
        return cls(server), client

    async def send(self, *parts: bytes) -> None:
        """Write these bytes, as one."""
        await self._stream.send_all(b"".join(parts))

    async def handshake(self, values: Mapping[int, int] | None = None) -> Frame:
        """Send SETTINGS, acknowledge the client's and see ours acknowledged. Returns the client's SETTINGS."""
        await self.send(settings(values))
        first = await self.expect("SETTINGS", ack=False)
        await self.send(settings_ack())
        await self.expect("SETTINGS", ack=True)
        return first

    async def expect(self, kind: str, **attributes: object) -> Frame:
        """The first frame of this kind, with these attributes of `Frame`, that no earlier `expect` returned.

        Others stay for later calls. Fails if the client closes the stream or `PATIENCE` ends first.
        """
        assert kind in KINDS, f"{kind!r} is none of {', '.join(KINDS)}"
        with trio.move_on_after(PATIENCE):
            claimed = self._claim(kind, attributes)
            while claimed is None and not self.ended:
                await self._receive()
                claimed = self._claim(kind, attributes)
            if claimed is not None:
                return claimed
        wanted = " ".join((kind, *(f"{name}={value!r}" for name, value in attributes.items())))
        how = "the client closed the stream" if self.ended else f"nothing like it came within {PATIENCE:g} s"
        raise AssertionError(f"expected {wanted}; {how}. Not claimed: {self._unclaimed}")

    async def expect_request(self) -> Request:
        """The next request, up to its end."""
        head = await self.expect("HEADERS")
        body = b""
        end = head.end_stream
        while not end:
            part = await self.expect("DATA", stream_id=head.stream_id)
            body += part.payload
            end = part.end_stream
        path = head.header(b":path")
        assert path is not None
        return Request(head.stream_id, path.decode(), head.headers, body)

    async def expect_end(self) -> None:
        """The client closes the stream. What it sends before that is kept in `frames`."""
        with trio.fail_after(PATIENCE):
            while not self.ended:
                await self._receive()

    async def respond(
        self, stream_id: int, *messages: bytes, status: int = 0, details: str = "", end: bool = True
    ) -> None:
        """Answer with these messages and, unless `end` is false, with this status. Sent as one."""
        parts = [headers(stream_id), *(data(stream_id, message(body)) for body in messages)]
        if end:
            parts.append(trailers(stream_id, status, *_details(details)))
        await self.send(*parts)

    async def refuse(self, stream_id: int, status: int, details: str = "") -> None:
        """Answer by a status alone: one HEADERS frame, which is called trailers-only."""
        fields = (*RESPONSE, (b"grpc-status", b"%d" % status), *_details(details))
        await self.send(headers(stream_id, fields, end=True))

    async def close(self) -> None:
        """Close the stream, without a word."""
        self.ended = True
        await self._stream.aclose()

    def _claim(self, kind: str, attributes: Mapping[str, object]) -> Frame | None:
        for at, found in enumerate(self._unclaimed):
            if found.kind == kind and all(getattr(found, name) == value for name, value in attributes.items()):
                return self._unclaimed.pop(at)
        return None

    async def _receive(self) -> None:
        try:
            received = await self._stream.receive_some(65_536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            received = b""
        self.ended = not received
        arrived = self._reader.feed(received) if received else []
        self.frames.extend(arrived)
        self._unclaimed.extend(arrived)


def _details(details: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"grpc-message", details.encode("ascii")),) if details else ()


# -- a view that works by itself --


class H2View:
    """A view server in memory: `stream = view.connect(nursery)`, or `nursery.start_soon(view.serve, stream)`.

    It answers `/rpc.Diagnostics/stats` with `stats` (None: status UNIMPLEMENTED), a path in `replies` with the messages
    there, and any other with an echo of the messages of the request. It answers when the request is complete.
    """

    def __init__(
        self, stats: StatsResult | None = None, *, delay: float = 0.0, hang: bool = False, status: int = 0
    ) -> None:
        # Knobs, for the test to turn. They act on the next request.
        self.stats = stats
        self.replies: dict[str, list[bytes]] = {}
        self.delay = delay  # seconds of Trio's clock between a request and its answer
        self.hang = hang  # never answer
        self.status = status  # answer with this gRPC status and no message, unless it is 0
        self.details = ""  # the words beside it
        self.max_concurrent_streams: int | None = None  # for connections made from now on
        # What happened, for the test to look at.
        self.requests: Final[list[Request]] = []  # complete ones, in order
        self.resets: Final[list[tuple[int, int]]] = []  # stream id and code of each RST_STREAM of a client
        self.connections_made = 0
        self._connections: Final[set[_Connection]] = set()
        self._frozen = False
        self._requested = trio.Event()  # swapped at every request

    @property
    def frozen(self) -> bool:
        """A knob: write nothing, no answers to PINGs either. What is due leaves when it is set back."""
        return self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self._frozen = value
        for connection in self._connections:
            connection.wake_writer()

    @property
    def open_streams(self) -> int:
        """Requests that have begun and are neither answered nor reset."""
        return sum(len(connection.calls) for connection in self._connections)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def connect(self, nursery: trio.Nursery) -> trio.abc.Stream:
        """A client's end of a new connection, which is served in the nursery."""
        client, server = memory_stream_pair()
        nursery.start_soon(self.serve, server)
        return client

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until either side ends it."""
        self.connections_made += 1
        connection = _Connection(self, stream)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            await trio.aclose_forcefully(stream)

    def cut(self) -> None:
        """End all connections, without a word."""
        for connection in self._connections:
            connection.scope.cancel()

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        """Send GOAWAY on all connections: requests that have begun are still answered, later ones are ignored."""
        for connection in self._connections:
            connection.go_away(code, debug)

    async def wait_requests(self, count: int) -> None:
        """Wait until so many requests have arrived in all. Fails after `PATIENCE`."""
        with trio.fail_after(PATIENCE):
            while len(self.requests) < count:
                await self._requested.wait()

    def note(self, request: Request) -> None:
        """For the connections: a request is complete."""
        self.requests.append(request)
        old, self._requested = self._requested, trio.Event()
        old.set()


@define
class _Call:
    head: tuple[tuple[bytes, bytes], ...]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    body: bytearray = field(factory=bytearray)


class _Connection:
    def __init__(self, view: H2View, stream: trio.abc.Stream) -> None:
        self.scope: Final = trio.CancelScope()
        self.calls: Final[dict[int, _Call]] = {}
        self._view: Final = view
        self._stream: Final = stream
        self._h2: Final[Any] = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self._raw = b""  # frames that h2 does not know of
        self._last_stream_id: float = math.inf  # later ones are ignored
        self._writable = trio.Event()  # swapped by the writer
        self._window = trio.Event()  # swapped when the client gives window

    async def run(self) -> None:
        try:
            with self.scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    self._h2.initiate_connection()
                    if self._view.max_concurrent_streams is not None:
                        self._h2.update_settings({0x3: self._view.max_concurrent_streams})
                    nursery.start_soon(self._write)
                    self.wake_writer()
                    await self._read(nursery)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has closed; a nursery says so in a group
        finally:
            self.calls.clear()

    def go_away(self, code: int, debug: bytes) -> None:
        # h2 would end its state machine, and the requests that have begun with it.
        self._last_stream_id = self._h2.highest_inbound_stream_id
        self._raw += goaway(self._h2.highest_inbound_stream_id, code, debug)
        self.wake_writer()

    def wake_writer(self) -> None:
        self._writable.set()

    async def _read(self, nursery: trio.Nursery) -> None:
        while received := await self._stream.receive_some(65_536):
            try:
                events = self._h2.receive_data(received)
            except h2.exceptions.ProtocolError as error:
                raise AssertionError(f"the client broke the protocol: {error!r}") from error
            for event in events:
                self._on_event(event, nursery)
            self.wake_writer()

    def _on_event(self, event: Any, nursery: trio.Nursery) -> None:
        if isinstance(event, _EVENTS.RequestReceived):
            if event.stream_id <= self._last_stream_id:
                head = tuple((bytes(name), bytes(value)) for name, value in event.headers)
                self.calls[event.stream_id] = _Call(head)
        elif isinstance(event, _EVENTS.DataReceived):
            if event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.calls:
                self.calls[event.stream_id].body += event.data
        elif isinstance(event, _EVENTS.StreamEnded):
            if event.stream_id in self.calls:
                nursery.start_soon(self._answer, event.stream_id, self.calls[event.stream_id])
        elif isinstance(event, _EVENTS.StreamReset):
            self._view.resets.append((event.stream_id, int(event.error_code)))
            call = self.calls.pop(event.stream_id, None)
            if call is not None:
                call.scope.cancel()
        elif isinstance(event, (_EVENTS.WindowUpdated, _EVENTS.RemoteSettingsChanged)):
            old, self._window = self._window, trio.Event()
            old.set()

    async def _answer(self, stream_id: int, call: _Call) -> None:
        view = self._view
        path = dict(call.head)[b":path"].decode()
        view.note(Request(stream_id, path, call.head, bytes(call.body)))
        with call.scope:
            if view.delay:
                await trio.sleep(view.delay)
            if view.hang:
                await trio.sleep_forever()
            status, body = self._reply(path, bytes(call.body))
            fields = ((b"grpc-status", b"%d" % status), *_details(view.details if status else ""))
            if status:
                self._h2.send_headers(stream_id, (*RESPONSE, *fields), end_stream=True)
            else:
                self._h2.send_headers(stream_id, RESPONSE)
                await self._send(stream_id, body)
                self._h2.send_headers(stream_id, fields, end_stream=True)
            self.calls.pop(stream_id, None)
            self.wake_writer()

    def _reply(self, path: str, body: bytes) -> tuple[int, bytes]:
        view = self._view
        if view.status:
            return view.status, b""
        if path in view.replies:
            return 0, b"".join(message(reply) for reply in view.replies[path])
        if path != "/rpc.Diagnostics/stats":
            return 0, body
        if view.stats is None:
            return 12, b""
        return 0, message(view.stats.SerializeToString())

    async def _send(self, stream_id: int, body: bytes) -> None:
        while body:
            size = min(len(body), self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size <= 0:
                self.wake_writer()
                await self._window.wait()
                continue
            self._h2.send_data(stream_id, body[:size])
            body = body[size:]

    async def _write(self) -> None:
        while True:
            await self._writable.wait()
            self._writable = trio.Event()
            if not self._view.frozen:
                due = self._h2.data_to_send() + self._raw
                self._raw = b""
                if due:
                    await self._stream.send_all(due)
