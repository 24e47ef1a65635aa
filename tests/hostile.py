"""Servers that try to fill their client's memory, for virtual time: there is no other end, and nothing of it to count.

Rules:
* What a server says is made when the client reads it, and forgotten: all memory that grows meanwhile is the client's.
* A server is a generator function over a `Hostile`. It yields bytes; `WAIT` lets it wait until the client has spoken,
  `NOW` lets arrive what it has said so far. When it ends, the connection stays as it is.
* DATA keeps to the windows that the client gives, and takes all of them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from nasty.nasty_pb2 import Answer
from viewreg._http2.flow import CONNECTION_WINDOW, STREAM_WINDOW
from viewreg.testing.frames import (
    END_HEADERS,
    END_STREAM,
    RESPONSE,
    FrameReader,
    block,
    data,
    frame,
    headers,
    message,
    settings,
    settings_ack,
    status_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME: Final = 16_384  # bytes of the largest frame that a client must take
ARRIVAL: Final = 65_536  # bytes that arrive at once
WAIT: Final = b""
NOW: Final = None

Says: TypeAlias = "Callable[[Hostile], Iterator[bytes | None]]"
Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Hostile(trio.abc.Stream):
    """The client's end of a connection to a server that does as `says`, once so many `calls` have begun.

    One that is `deaf` reads nothing from then on.
    """

    def __init__(self, says: Says, calls: int, *, deaf: bool = False) -> None:
        self.streams: Final[list[int]] = []  # of calls, in order
        self.windows: Final[dict[int, int]] = {}  # bytes that may still be sent on each of those that are not reset
        self.window = CONNECTION_WINDOW
        self.said = 0  # bytes
        self.goaway: int | None = None  # its code, if the client has said so
        self.closed = False
        self._deaf: Final = deaf
        self._calls: Final = calls
        self._reader: Final = FrameReader()
        self._news = trio.Event()  # swapped when the client speaks
        self._left = b""  # said, and not arrived
        self._parts: Final = itertools.chain([settings(), settings_ack()], self._wait_for_calls(), says(self))

    def _wait_for_calls(self) -> Iterator[bytes | None]:
        yield NOW
        while len(self.streams) < self._calls:
            yield WAIT

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        due = [self._left]
        size = len(self._left)
        while size < ARRIVAL:
            part = next(self._parts, WAIT)
            if part:
                due.append(part)
                size += len(part)
            elif size:
                break
            elif part == WAIT:
                await self._news.wait()
        whole = b"".join(due)
        self._left = whole[ARRIVAL:]
        self.said += len(whole) - len(self._left)
        return whole[:ARRIVAL]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._deaf and len(self.streams) >= self._calls:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        for found in self._reader.feed(bytes(data)):
            if found.kind == "HEADERS":
                self.streams.append(found.stream_id)
                self.windows[found.stream_id] = STREAM_WINDOW
            elif found.kind == "WINDOW_UPDATE" and found.stream_id in self.windows:
                self.windows[found.stream_id] += found.increment
            elif found.kind == "WINDOW_UPDATE" and not found.stream_id and self.streams:  # not that of the preface
                self.window += found.increment
            elif found.kind == "RST_STREAM":
                del self.windows[found.stream_id]
            elif found.kind == "GOAWAY":
                self.goaway = found.code
        news, self._news = self._news, trio.Event()
        news.set()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()

    # -- for servers --

    def begin(self) -> bytes:
        """The headers of all answers."""
        return b"".join(map(headers, self.streams))

    def say(self, stream_id: int, payload: bytes, padding: int | None = None) -> tuple[bytes, int]:
        """As much of it as the windows take, in one DATA frame, and how much that is; `WAIT` if it is nothing."""
        overhead = 0 if padding is None else 1 + padding
        length = min(len(payload), min(self.windows.get(stream_id, 0), self.window) - overhead)
        if length <= 0:
            return WAIT, 0
        self.windows[stream_id] -= length + overhead
        self.window -= length + overhead
        return data(stream_id, payload[:length], padding=padding), length

    def say_once(self, payload: bytes, size: int = FRAME) -> Iterator[bytes]:
        """The same bytes on all streams, in frames of that size at most; no more of them on streams that are reset."""
        for stream_id in self.streams:
            at = 0
            while at < len(payload) and stream_id in self.windows:
                part, said = self.say(stream_id, payload[at : at + size])
                at += said
                yield part

    def say_for_ever(self, unit: bytes, size: int, padding: int | None) -> Iterator[bytes]:
        """A unit again and again on all streams, in frames of that size, as far as the windows go."""
        whole = unit * (2 + size // len(unit))
        places = dict.fromkeys(self.streams, 0)
        while True:
            waits = True
            for stream_id, at in places.items():
                part, said = self.say(stream_id, whole[at : at + size], padding)
                if part:
                    waits = False
                    places[stream_id] = (at + said) % len(unit)
                    yield part
            if waits:
                yield WAIT


# -- answers: made beforehand, not to be counted --


def an_answer(size: int) -> bytes:
    """A message with so many bytes in it, and a few more; with none if that is 0."""
    return message(Answer(number=1, payload=bytes(size)).SerializeToString() if size else b"")


def messages(size: int, *, frame_size: int = FRAME, padding: int | None = None) -> Says:
    """As many answers as the windows allow."""
    unit = an_answer(size)

    def says(server: Hostile) -> Iterator[bytes]:
        yield server.begin()
        yield from server.say_for_ever(unit, frame_size, padding)

    return says


def once(payload: bytes, frame_size: int = FRAME) -> Says:
    """The same bytes on all streams."""

    def says(server: Hostile) -> Iterator[bytes]:
        yield server.begin()
        yield from server.say_once(payload, frame_size)

    return says


def torn(size: int, *, before: int = 0, each: int = 1) -> Says:
    """A large answer without its last byte, after so many others of `each` bytes."""
    return once(an_answer(each) * before + an_answer(size)[:-1])


def announced(size: int) -> Says:
    """The first byte of a large answer."""
    return once(an_answer(size)[:6])


def drip(size: int) -> Says:
    """An answer in frames of one byte, which arrive byte by byte."""
    says_once = once(an_answer(size)[:-1], 1)

    def says(server: Hostile) -> Iterator[bytes | None]:
        for part in says_once(server):
            for byte in part or b"":
                yield bytes((byte,))
                yield NOW

    return says


def all_of_everything(listed: Fields) -> Says:
    """Headers, a window of data and trailers: the calls are over, and nobody has read what they got."""
    payload = an_answer(1) + an_answer(STREAM_WINDOW)[: STREAM_WINDOW - 100]

    def says(server: Hostile) -> Iterator[bytes]:
        yield from (cut(stream_id, block((*RESPONSE, *listed))) for stream_id in server.streams)
        yield from server.say_once(payload)
        yield from (cut(stream_id, block((*status_fields(0), *listed)), end=True) for stream_id in server.streams)

    return says


# -- headers --


def fields(count: int, size: int) -> Fields:
    """So many header fields with values of that size."""
    return tuple((b"x%d" % number, b"v" * size) for number in range(count))


def cut(stream_id: int, whole: bytes, *, end: bool = False) -> bytes:
    """A header block in HEADERS and CONTINUATIONs of a size that may be sent."""
    first, *rest = (whole[at : at + FRAME] for at in range(0, len(whole), FRAME))
    flags = (END_STREAM if end else 0) | (0 if rest else END_HEADERS)
    parts = [frame("HEADERS", flags, stream_id, first)]
    parts += (frame("CONTINUATION", 0, stream_id, piece) for piece in rest[:-1])
    parts += (frame("CONTINUATION", END_HEADERS, stream_id, piece) for piece in rest[-1:])
    return b"".join(parts)


def long_headers(listed: Fields) -> Says:
    """The same fields on all streams."""

    def says(server: Hostile) -> Iterator[bytes]:
        yield from (cut(stream_id, block((*RESPONSE, *listed))) for stream_id in server.streams)

    return says


def informational(server: Hostile) -> Iterator[bytes]:
    """A thousand responses before the response, each as long as a frame."""
    for _ in range(1000):
        yield cut(server.streams[0], block(((b":status", b"103"), *fields(4, 4000))))


def endless_headers(server: Hostile) -> Iterator[bytes]:
    """A header block that goes on and on."""
    yield frame("HEADERS", 0, server.streams[0], b"\x88")
    yield from itertools.repeat(frame("CONTINUATION", 0, server.streams[0], block(fields(4, 4000))), 100)


def table(server: Hostile) -> Iterator[bytes]:
    """A dynamic table, which was not offered; each entry comes in a long block."""
    yield server.begin()
    for number in range(200):
        yield cut(server.streams[0], b"\x40\1x\x03%03d" % number + block(fields(1, 60_000)))


# -- floods --


def flood(part: bytes, size: int) -> Says:
    """The same again and again, so many bytes of it."""

    def says(server: Hostile) -> Iterator[bytes]:
        yield server.begin()
        yield from itertools.repeat(part, size // len(part))

    return says
