"""What passes between a client and a simulated server, as frames: cut, read, and told to whoever wants to know.

Rules:
* Only what the servers of a simulation say is understood from their side: header blocks that use no table, and no
  padding. It must cost little, for a simulated hour has tens of thousands of frames.
* `Tap` is the client's end of a connection. It tells a `Witness` what the client sent and was told, in the step in
  which that passes; it changes nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import hpack
import trio

from viewreg.testing.frames import END_STREAM, PREFACE

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK: Final = 1
REFUSED_STREAM: Final = 7  # the error code
PREFACE_SIZE: Final = len(PREFACE)
PROBE_PATH: Final = b"/rpc.Diagnostics/stats"
CALL_NUMBER: Final = b"x-call"  # the metadata by which a call of the simulation is known
_HEAD: Final = 9  # bytes of a frame before its payload
_PREFIX: Final = 5  # bytes of a message before its body


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload, "big")


class Cutter:
    """Bytes in, whole frames out. `skip` is how many bytes come before the first."""

    def __init__(self, skip: int = 0) -> None:
        self._skip = skip
        self._buffer = b""

    def feed(self, data: bytes | bytearray) -> list[Frame]:
        """The frames that these bytes complete."""
        buffer = self._buffer + data if self._buffer else bytes(data)
        at, found = self._skip, []
        while (start := at + _HEAD) <= len(buffer):
            end = start + int.from_bytes(buffer[at : at + 3], "big")
            if end > len(buffer):
                break
            stream_id = int.from_bytes(buffer[at + 5 : start], "big")
            found.append(Frame(buffer[at + 3], buffer[at + 4], stream_id, buffer[start:end]))
            at = end
        if at <= len(buffer):
            self._buffer, self._skip = buffer[at:], 0
        else:
            self._buffer = buffer
        return found


@lru_cache(4096)
def fields(block: bytes) -> Mapping[bytes, bytes]:
    """The fields of a header block that uses no table."""
    decoded = hpack.Decoder().decode(block, raw=True)
    return {bytes(name): bytes(value) for name, value in decoded}


def messages(body: bytes) -> list[bytes]:
    """The whole messages at the beginning of a body, without their prefixes."""
    found, at = [], 0
    while at + _PREFIX <= len(body):
        end = at + _PREFIX + int.from_bytes(body[at + 1 : at + _PREFIX], "big")
        if end > len(body):
            break
        found.append(body[at + _PREFIX : end])
        at = end
    return found


class Answer(NamedTuple):
    """How a server ended a call: by a status after messages, or by a reset."""

    status: int | None
    messages: tuple[bytes, ...]
    reset: int | None = None


class Witness(Protocol):
    """Who is told what passes on one connection, from the client's side."""

    def on_greeting(self) -> None:
        """The client has read the server's SETTINGS."""

    def on_bytes(self) -> None:
        """The client has read something."""

    def on_nonsense(self) -> None:
        """What it has read first is no HTTP/2."""

    def on_goaway(self, code: int, last_stream_id: int) -> None:
        """The client has read a GOAWAY."""

    def on_data(self) -> None:
        """The client has read a part of an answer."""

    def on_answer(self, stream_id: int, answer: Answer) -> None:
        """The client has read the end of a call."""

    def on_end(self) -> None:
        """The client has read the end of the connection, or that it broke."""

    def on_request(self, stream_id: int, call: int | None) -> None:
        """The client has begun a call; None is a probe."""

    def on_reset(self, stream_id: int) -> None:
        """The client has reset a call."""

    def on_ping(self) -> None:
        """The client has sent a PING of its own."""

    def on_close(self) -> None:
        """The client has closed its end."""


class Tap(trio.abc.Stream):
    """A client's end that tells what passes."""

    def __init__(self, stream: trio.abc.Stream, witness: Witness) -> None:
        self._stream: Final = stream
        self._witness: Final = witness
        self._sent: Final = Cutter(PREFACE_SIZE)
        self._received: Final = Cutter()
        self._bodies: Final[dict[int, bytes]] = {}  # of answers that have not ended
        self._greeted = False
        self._open = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for frame in self._sent.feed(bytes(data)):
            self._on_sent(frame)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._witness.on_end()
            raise
        if not data:
            self._witness.on_end()
            return data
        self._witness.on_bytes()
        goaway: Frame | None = None
        for frame in self._received.feed(data):
            if frame.kind == GOAWAY:
                goaway = frame
            else:
                self._on_received(frame)
        if goaway is not None:  # what was answered with it comes first, and of two of them the last is the word
            self._witness.on_goaway(goaway.code, int.from_bytes(goaway.payload[:4], "big"))
        if not self._greeted:
            self._witness.on_nonsense()
        return data

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._witness.on_close()
        await self._stream.aclose()

    def _on_sent(self, frame: Frame) -> None:
        if frame.kind == HEADERS:
            head = fields(frame.payload)
            probe = head[b":path"] == PROBE_PATH
            self._witness.on_request(frame.stream_id, None if probe else int(head[CALL_NUMBER]))
        elif frame.kind == RST_STREAM:
            self._bodies.pop(frame.stream_id, None)
            self._witness.on_reset(frame.stream_id)
        elif frame.kind == PING and not frame.flags & ACK:
            self._witness.on_ping()

    def _on_received(self, frame: Frame) -> None:
        if frame.kind == SETTINGS and not frame.flags & ACK and not self._greeted:
            self._greeted = True
            self._witness.on_greeting()
        elif frame.kind == DATA:
            self._witness.on_data()
            self._bodies[frame.stream_id] = self._bodies.get(frame.stream_id, b"") + frame.payload
        elif frame.kind == RST_STREAM:
            self._end(frame.stream_id, None, frame.code)
        elif frame.kind == HEADERS and frame.flags & END_STREAM:
            self._end(frame.stream_id, int(fields(frame.payload)[b"grpc-status"]), None)

    def _end(self, stream_id: int, status: int | None, reset: int | None) -> None:
        body = self._bodies.pop(stream_id, b"")
        self._witness.on_answer(stream_id, Answer(status, tuple(messages(body)), reset))
