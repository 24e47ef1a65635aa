"""The servers of a simulation: view servers that cost little, and do what an operation says.

Rules:
* Frames are packed by `viewreg.testing.frames` and carried by a `MemoryNetwork`. One task serves a connection: it
  reads, and between reads it says what is due.
* A call is taken as soon as it is heard of, unless it is refused or lies beyond a GOAWAY: then nothing is done with it.
  Which call it is, its metadata tell (`x-call`); `taken` counts how often each call was.
* What is set acts on the next call, the next greeting or the next PING; what has been promised before is kept.
"""

from __future__ import annotations

import heapq
import itertools
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from attrs import define

from nasty.nasty_pb2 import Answer, Order
from simulation.wire import (
    ACK,
    CALL_NUMBER,
    DATA,
    HEADERS,
    PING,
    PREFACE_SIZE,
    PROBE_PATH,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    Cutter,
    Frame,
    fields,
    messages,
)
from viewreg.rpc import StatsResult
from viewreg.testing import Direction, frames

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from viewreg.testing import Link, MemoryNetwork

NEVER: Final = 2**31 - 1  # a stream id that no call reaches
GARBAGE: Final = b"\xff\xff\xff"  # is no message of protobuf's
NONSENSE: Final = bytes(range(255, 155, -1))  # is no HTTP/2
_CREDIT_DUE: Final = 32_768  # bytes; until then the client has window enough
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


def stats(encoding: int, start: int, end: int) -> bytes:
    """What a disk view says of itself: 1 is SPO, 2 is POS; `end` 0 is infinity."""
    result = StatsResult(viewType="diskview/simulated")
    result.hashPartition.encoding = encoding  # type: ignore[assignment]
    result.hashPartition.start, result.hashPartition.end = start, end
    return result.SerializeToString()


LIES: Final = {
    "view-type": StatsResult(viewType="megaview").SerializeToString(),
    "encoding": stats(7, 0, 0),
    "partition": stats(1, 9, 3),
}


class Server:
    """One address. `Server.start` lets it listen."""

    def __init__(self, address: str, network: MemoryNetwork, nursery: trio.Nursery, taken: Counter[int]) -> None:
        self.address: Final = address
        self.link: Final[Link] = network.link(address)
        self.taken: Final = taken  # how often each call was taken, of all servers
        # Knobs.
        self.greeting = "settings"  # or "nothing", "nonsense"
        self.behavior, self.amount = "answer", 0.0  # see `_Session._reply`
        self.answers_pings = True
        self.dials = "accept"  # or "refuse", "black-hole"; by `let_dials`
        self.cut = Direction(0)  # by `set_cut`
        self.delay = 0.0  # the longest one way; by `set_delay`
        self.truth = stats(1, 0, 0)  # what it says of itself, as long as it does not lie
        self.frozen = False
        self.sessions: Final[dict[_Session, None]] = {}  # its connections
        self._accepting = 0  # tasks that accept connections
        self._network: Final = network
        self._nursery: Final = nursery

    @property
    def tasks(self) -> int:
        """How many tasks it has."""
        return self._accepting + len(self.sessions)

    @property
    def listening(self) -> bool:
        """Whether it runs."""
        return self.link.listener is not None

    def start(self) -> None:
        """Begin to listen, thawed."""
        if self.link.listener is None:
            self.frozen = False
            self._network.listen(self.address)
            self._nursery.start_soon(self._accept)

    def kill(self) -> None:
        """Die, with all connections."""
        if self.link.listener is not None:
            self.frozen = False
            self.link.listener.kill()

    def freeze(self) -> None:
        """Stand still."""
        if self.link.listener is not None:
            self.frozen = True
            self.link.listener.freeze()

    def thaw(self) -> None:
        """Go on."""
        if self.link.listener is not None:
            self.frozen = False
            self.link.listener.thaw()

    def let_dials(self, what: str) -> None:
        """Accept, refuse or lose dials from now on."""
        self.dials = what
        {"accept": self.link.accept, "refuse": self.link.refuse, "black-hole": self.link.black_hole}[what]()

    def set_cut(self, direction: Direction, *, cut: bool) -> None:
        """Let nothing pass that way, or everything again."""
        self.cut = self.cut | direction if cut else self.cut & ~direction
        (self.link.cut if cut else self.link.heal)(direction)

    def set_delay(self, seconds: float, jitter: float) -> None:
        """Let everything take so long each way."""
        self.delay = seconds + jitter
        self.link.delay(seconds, jitter=jitter)

    def go_away(self, code: int) -> None:
        """Send GOAWAY on all connections. After a graceful one, each ends with its last call."""
        for session in list(self.sessions):
            session.go_away(code)

    def drain(self) -> None:
        """Leave as grpc servers do: a first GOAWAY that refuses nothing, and the real one a little later."""
        for session in list(self.sessions):
            session.drain()

    async def _accept(self) -> None:
        listener = self.link.listener
        assert listener is not None
        self._accepting += 1
        with suppress(trio.ClosedResourceError):
            while True:
                self._nursery.start_soon(_Session(self, await listener.accept()).serve)
        self._accepting -= 1


@define
class _Call:
    number: int | None  # None is a probe
    path: bytes
    body: bytes = b""
    taken: bool = False
    answered: int = 0  # messages, of a call that streams both ways


class _Session:
    """One connection."""

    def __init__(self, server: Server, stream: trio.abc.Stream) -> None:
        self._server: Final = server
        self._stream: Final = stream
        self._calls: Final[dict[int, _Call]] = {}  # begun and not answered
        self._agenda: Final[list[_Due]] = []  # a heap
        self._order: Final = itertools.count()
        self._consumed = 0  # bytes, of which the client has not been told
        self._highest = 0  # stream id seen
        self._limit = NEVER  # later streams are ignored
        self._leaving = False
        self._reading = trio.CancelScope()  # cancelled when there is something to say

    async def serve(self) -> None:
        """Serve until either side ends it."""
        self._server.sessions[self] = None
        try:
            with suppress(*_GONE):
                await self._greet()
        finally:
            del self._server.sessions[self]
            await trio.aclose_forcefully(self._stream)

    def go_away(self, code: int) -> None:
        """Send GOAWAY: calls that have come are still answered."""
        self._limit, self._leaving = self._highest, True
        self._say(frames.goaway(self._highest, code))

    def drain(self) -> None:
        """Send GOAWAY that refuses nothing, and half a second later the real one."""
        self._say(frames.goaway(NEVER, 0))
        self._say(b"", after=0.5, then=lambda: self.go_away(0))

    async def _greet(self) -> None:
        greeting = self._server.greeting
        if greeting == "settings":
            self._say(frames.settings())
            await self._converse()
        elif greeting == "nothing":
            while await self._stream.receive_some():
                pass
        else:
            await self._stream.send_all(NONSENSE)

    async def _converse(self) -> None:
        cutter = Cutter(PREFACE_SIZE)
        while True:
            due = self._due()
            if due:
                await self._stream.send_all(due)
                continue
            if self._leaving and not self._calls:
                return
            self._reading = trio.CancelScope(deadline=self._agenda[0].at if self._agenda else math.inf)
            with self._reading:
                data = await self._stream.receive_some()
                if not data:
                    return
                for frame in cutter.feed(data):
                    self._on_frame(frame)

    # -- saying --

    def _say(
        self, what: bytes, *, after: float = 0.0, stream_id: int = 0, then: Callable[[], None] | None = None
    ) -> None:
        """Have it sent, of a call only if that has not ended by then; with the last of a call, `then` ends it."""
        heapq.heappush(self._agenda, _Due(trio.current_time() + after, next(self._order), stream_id, what, then))
        self._reading.cancel()

    def _due(self) -> bytes:
        said: list[bytes] = []
        while self._agenda and self._agenda[0].at <= trio.current_time():
            due = heapq.heappop(self._agenda)
            if due.stream_id == 0 or due.stream_id in self._calls:
                said.append(due.what)
                if due.then is not None:
                    due.then()
        return b"".join(said)

    # -- hearing --

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind == HEADERS:
            self._highest = max(self._highest, frame.stream_id)
            if frame.stream_id <= self._limit:
                head = fields(frame.payload)
                number = None if head[b":path"] == PROBE_PATH else int(head[CALL_NUMBER])
                self._calls[frame.stream_id] = _Call(number, head[b":path"])
        elif frame.kind == DATA:
            self._consumed += len(frame.payload)
            if self._consumed >= _CREDIT_DUE:
                self._say(frames.window_update(0, self._consumed))
                self._consumed = 0
            if frame.stream_id in self._calls:
                self._calls[frame.stream_id].body += frame.payload
        elif frame.kind == RST_STREAM:
            self._calls.pop(frame.stream_id, None)
        elif frame.kind == PING and not frame.flags & ACK and self._server.answers_pings:
            self._say(frames.ping(frame.payload, ack=True))
        elif frame.kind == SETTINGS and not frame.flags & ACK:
            self._say(frames.settings_ack())
        if frame.kind in (HEADERS, DATA) and frame.stream_id in self._calls:
            self._progress(frame.stream_id, self._calls[frame.stream_id], whole=bool(frame.flags & frames.END_STREAM))

    def _progress(self, stream_id: int, call: _Call, *, whole: bool) -> None:
        server = self._server
        if not call.taken:
            if server.behavior == "refuse":
                del self._calls[stream_id]
                self._say(frames.rst_stream(stream_id, REFUSED_STREAM))
                return
            call.taken = True
            if call.number is not None:
                server.taken[call.number] += 1
        if call.path.endswith(b"/talk") and server.behavior == "answer":
            for body in _echoes(call):
                head = b"" if call.answered else frames.headers(stream_id)
                call.answered += 1
                self._say(head + frames.data(stream_id, frames.message(body)), stream_id=stream_id)
        if whole:
            self._reply(stream_id, call)

    def _reply(self, stream_id: int, call: _Call) -> None:
        """Answer a whole request, as the server's behavior is now."""
        behavior, amount = self._server.behavior, self._server.amount
        if behavior == "fail":
            fields = frames.status_fields(int(amount))
            head = fields if call.answered else (*frames.RESPONSE, *fields)
            self._end(frames.headers(stream_id, head, end=True), stream_id)
        elif behavior == "reset":
            self._end(frames.rst_stream(stream_id, int(amount)), stream_id)
        elif behavior != "hang":
            self._answer(stream_id, call, amount if behavior == "slow" else 0.0)
            if behavior == "leave":
                self._say(b"", then=lambda: self.go_away(0))

    def _answer(self, stream_id: int, call: _Call, after: float) -> None:
        head = b"" if call.answered else frames.headers(stream_id)
        for pause, body in self._bodies(call):
            after += pause
            self._say(head + frames.data(stream_id, frames.message(body)), after=after, stream_id=stream_id)
            head = b""
        self._end(head + frames.trailers(stream_id), stream_id, after)

    def _end(self, what: bytes, stream_id: int, after: float = 0.0) -> None:
        self._say(what, after=after, stream_id=stream_id, then=lambda: self._forget(stream_id))

    def _forget(self, stream_id: int) -> None:
        del self._calls[stream_id]

    def _bodies(self, call: _Call) -> list[tuple[float, bytes]]:
        """The messages of an answer, and how many seconds after the one before each comes."""
        behavior = self._server.behavior
        if behavior == "garble":
            return [(0.0, GARBAGE)]
        if call.number is None:
            return [(0.0, LIES.get(behavior, self._server.truth))]
        if call.path.endswith(b"/talk"):
            return [(0.0, body) for body in _echoes(call)]
        orders = [Order.FromString(body) for body in messages(call.body)]
        if call.path.endswith(b"/listen"):
            order = orders[0]
            return [(order.pause, answer(order.payload, number)) for number in range(order.answers)]
        return [(0.0, answer(orders[-1].payload if orders else b"", len(orders)))]


class _Due(NamedTuple):
    """Something to be said: ordered by time, then by when it was decided."""

    at: float
    order: int
    stream_id: int
    what: bytes
    then: Callable[[], None] | None


def answer(payload: bytes, number: int) -> bytes:
    """One message of an answer."""
    return Answer(number=number, payload=payload).SerializeToString()


def _echoes(call: _Call) -> list[bytes]:
    """The answers to those of its requests that have not been answered yet."""
    orders = [Order.FromString(body) for body in messages(call.body)]
    return [answer(order.payload, number) for number, order in enumerate(orders)][call.answered :]
