"""`ScriptedPeer`: a gRPC server in the hands of one test, which writes its frames down one by one.

Rules:
* It says exactly what the test writes down, and records all that it gets. By itself it answers nothing, not even a PING
  or SETTINGS, and gives no flow-control window.
* It reads only while the test waits in one of its `expect` methods.
* What the client does not do is an `AssertionError`, which says what came instead; what the test does wrong is an
  `InvalidValueError`, an `InvalidTypeError` or a `trio.BusyResourceError`.
* It lives on any Trio stream and on Trio's clock: in memory and in virtual time as well as on a socket.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import trio
from attrs import field, frozen
from trio.testing import memory_stream_pair

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg.testing.frames import (
    END_HEADERS,
    KINDS,
    RESPONSE,
    Frame,
    FrameReader,
    data,
    headers,
    message,
    settings,
    settings_ack,
    status_fields,
    trailers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PATIENCE: Final = 60.0  # seconds; costs nothing in virtual time, and is more than a loaded machine needs in real time
_DATA_SIZE: Final = 16_384  # bytes of a frame that every client must take (RFC 9113, 6.5.2)
_PREFIX_SIZE: Final = 5  # bytes before a gRPC message
_RECEIVE_SIZE: Final = 65_536  # bytes

# What `expect` can ask of a frame beside its kind.
_ATTRIBUTES: Final = (
    "ack", "body", "code", "end_stream", "flags", "headers", "increment", "payload", "settings", "stream_id",
)  # fmt: skip

# How a connection ended.
_CLIENT_CLOSED: Final = "the client closed the stream"
_BROKE: Final = "the connection broke"
_PEER_CLOSED: Final = "the peer itself was closed"


@frozen
class PeerRequest:
    """A whole request that a client sent to a `ScriptedPeer`."""

    stream_id: int

    path: str
    """Such as "/rpc.Diagnostics/stats"."""

    headers: tuple[tuple[bytes, bytes], ...]
    """Its header fields, in order."""

    body: bytes = field(repr=False)
    """What all its DATA frames carry, together and without padding."""

    @property
    def messages(self) -> tuple[bytes, ...]:
        """The messages in the body, without their prefixes. Raises AssertionError if the last one is incomplete."""
        found: list[bytes] = []
        at = 0
        while at < len(self.body):
            begin = at + _PREFIX_SIZE
            end = begin + int.from_bytes(self.body[at + 1 : begin], "big")
            if end > len(self.body):
                left = len(self.body) - at
                raise AssertionError(f"the request on stream {self.stream_id} ends {left} bytes into a message")
            found.append(self.body[begin:end])
            at = end
        return tuple(found)

    @property
    def message(self) -> bytes:
        """The one message of a unary request, without its prefix. Raises AssertionError unless there is just one."""
        messages = self.messages
        if len(messages) != 1:
            raise AssertionError(
                f"the request on stream {self.stream_id} has {len(messages)} messages, expected one; "
                "`messages` has them all"
            )
        return messages[0]

    def header(self, name: bytes) -> bytes | None:
        """The value of the first field of that name, None if there is none."""
        return next((value for key, value in self.headers if key == name), None)


class ScriptedPeer(trio.abc.AsyncResource):
    """A server that says exactly the HTTP/2 frames that a test writes down, and records those that it gets.

        peer, stream = ScriptedPeer.pair()  # or ScriptedPeer(stream), of a connection that was accepted
        async with peer:
            await peer.handshake()
            request = await peer.expect_request()
            await peer.send(frames.rst_stream(request.stream_id, frames.ErrorCode.REFUSED_STREAM))

    `stream` is any Trio stream whose other end is a client that begins with HTTP/2's preface. `patience` is how many
    seconds of Trio's clock each `expect` method waits at most: above 0, or math.inf. Leaving the `async with` block
    closes the stream, without a word. Raises `InvalidValueError` or `InvalidTypeError` for another patience.

    All `expect` methods are checkpoints and belong to one task at a time. What has arrived when one is cancelled stays
    for the next. They raise AssertionError when they wait in vain, `InvalidValueError` if the client does not speak
    HTTP/2, and `trio.BusyResourceError` if another task waits already.
    """

    def __init__(self, stream: trio.abc.Stream, *, patience: float = _PATIENCE) -> None:
        _check_patience(patience)
        self.frames: Final[list[Frame]] = []
        """All frames that arrived, in order."""
        self._patience: Final = patience
        self._stream: Final = stream
        self._reader: Final = FrameReader()
        self._unclaimed: Final[list[Frame]] = []  # those that no `expect` has returned
        self._end = ""  # how the connection ended; written by `_receive` and `aclose`
        self._waiting = False  # a task is in an `expect`; written by `_patiently`

    @classmethod
    def pair(cls, *, patience: float = _PATIENCE) -> tuple[Self, trio.abc.Stream]:
        """A peer in memory, and the stream for its client."""
        client, server = memory_stream_pair()
        return cls(server, patience=patience), client

    @property
    def ended(self) -> bool:
        """Whether the connection has ended, as far as the peer has read or if it was the peer that closed it."""
        return bool(self._end)

    # -- what it says --

    async def send(self, *parts: bytes) -> None:
        """Write these bytes, as one. Raises what the stream raises."""
        await self._stream.send_all(b"".join(parts))

    async def handshake(self, values: Mapping[int, int] | None = None) -> Frame:
        """Send SETTINGS, acknowledge the client's and see ours acknowledged. Returns the client's SETTINGS.

        The values are by number, as in `frames.settings`.
        """
        await self.send(settings(values))
        first = await self.expect("SETTINGS", ack=False)
        await self.send(settings_ack())
        await self.expect("SETTINGS", ack=True)
        return first

    async def respond(
        self, stream_id: int, *messages: bytes, status: int = 0, details: str = "", end: bool = True
    ) -> None:
        """Answer with these messages and, unless `end` is false, with this gRPC status. Written as one.

        A message is cut into DATA frames of 16,384 bytes. The client's flow-control window is not looked at.
        """
        parts = [headers(stream_id)]
        for body in messages:
            whole = message(body)
            parts += (data(stream_id, whole[at : at + _DATA_SIZE]) for at in range(0, len(whole), _DATA_SIZE))
        if end:
            parts.append(trailers(stream_id, status, details=details))
        await self.send(*parts)

    async def refuse(self, stream_id: int, status: int, details: str = "") -> None:
        """Answer by a gRPC status alone: one HEADERS frame, which gRPC calls Trailers-Only."""
        await self.send(headers(stream_id, (*RESPONSE, *status_fields(status, details)), end=True))

    async def aclose(self) -> None:
        """Close the stream, without a word. What `frames` holds stays. A checkpoint; if cancelled, it is closed too."""
        self._end = self._end or _PEER_CLOSED
        await self._stream.aclose()

    # -- what it gets --

    async def expect(self, kind: str, **attributes: object) -> Frame:
        """The first frame of this kind, with these attributes of `Frame`, that no earlier `expect` method returned.

        Others stay for later calls: so frames can be expected in any order. `kind` is one of `frames.KINDS`; an
        attribute is any of `Frame` but `kind`, such as `stream_id=1`, `ack=True` or `code=8`.
        """
        if kind not in KINDS:
            raise InvalidValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
        for name in attributes:
            if name not in _ATTRIBUTES:
                raise InvalidValueError(f"attribute {name!r} of a frame: expected one of {', '.join(_ATTRIBUTES)}")
        with self._patiently():
            await trio.lowlevel.checkpoint()
            while (claimed := self._claim(kind, attributes)) is None and not self._end:
                await self._receive()
            if claimed is not None:
                return claimed
        raise self._failure(" ".join((kind, *(f"{name}={value!r}" for name, value in attributes.items()))))

    async def expect_request(self) -> PeerRequest:
        """The next request, once the client has ended its side of the stream.

        Cancelled or in vain, it keeps the frames of the request that it has seen; they are still in `frames`.
        """
        head = last = await self.expect("HEADERS")
        while not last.flags & END_HEADERS:
            last = await self.expect("CONTINUATION", stream_id=head.stream_id)
        path = last.header(b":path")
        if path is None:
            raise AssertionError(f"the request on stream {head.stream_id} has no :path, but {last.headers}")
        body = b""
        end = head.end_stream
        while not end:
            part = await self.expect("DATA", stream_id=head.stream_id)
            body += part.body
            end = part.end_stream
        return PeerRequest(head.stream_id, path.decode(), last.headers, body)

    async def expect_end(self) -> None:
        """The client closes the stream, or breaks it. The frames that come before are there for later calls."""
        with self._patiently():
            await trio.lowlevel.checkpoint()
            while not self._end:
                await self._receive()
        if self._end not in (_CLIENT_CLOSED, _BROKE):
            raise self._failure("the end of the stream")

    @contextmanager
    def _patiently(self) -> Iterator[None]:
        if self._waiting:
            raise trio.BusyResourceError(
                "another task waits in an expect method of this peer: let one task do all of them, or look at `frames`"
            )
        self._waiting = True
        try:
            with trio.move_on_after(self._patience):
                yield
        finally:
            self._waiting = False

    def _claim(self, kind: str, attributes: Mapping[str, object]) -> Frame | None:
        for at, found in enumerate(self._unclaimed):
            if found.kind == kind and all(getattr(found, name) == value for name, value in attributes.items()):
                return self._unclaimed.pop(at)
        return None

    async def _receive(self) -> None:
        received: bytes | bytearray = b""
        end = _CLIENT_CLOSED
        try:
            received = await self._stream.receive_some(_RECEIVE_SIZE)
        except trio.BrokenResourceError:
            end = _BROKE
        except trio.ClosedResourceError:
            end = _PEER_CLOSED
        if not received:
            self._end = end
        arrived = self._reader.feed(received)
        self.frames.extend(arrived)
        self._unclaimed.extend(arrived)

    def _failure(self, wanted: str) -> AssertionError:
        how = self._end or f"nothing like it came within {self._patience:g} s"
        came = "".join(f"\n    {found}" for found in self._unclaimed) or " nothing"
        return AssertionError(f"expected {wanted}; {how}. What came and no expect has returned:{came}")


def _check_patience(value: object) -> None:
    expected = "expected a number of seconds above 0, or math.inf"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidTypeError(f"patience {value!r}: {expected}")
    if value <= 0 or math.isnan(value):
        raise InvalidValueError(f"patience {value!r}: {expected}")
