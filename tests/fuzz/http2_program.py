"""Bytes as a program: what a server says, how the network cuts it, and what the client's owner does meanwhile.

Rules:
* Any bytes are a program, and most changes of a byte change one step of it: each step is one byte that names it
  (see `OPERATIONS`) and some that say more; what is missing at the end is zero.
* A frame of the server's is made from a template whose fields the program chooses, right or wrong, or is raw bytes. It
  arrives at once, unless the step's highest bit is set: then it waits for `cut`, which lets a part of it arrive.
* A program that has left the connection alive ends with a server and an owner that do all as they should: then every
  call must come to its end.
* `Program(data).trace` says in words what was done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from http2_rules import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, MAX_WINDOW, PADDED, PRIORITY_FLAG
from http2_twins import Pair, Twins
from viewreg._http2.frames import ErrorCode
from viewreg._http2.headers import literal, request_block
from viewreg._http2.protocol import Protocol
from viewreg.testing import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    Step: TypeAlias = tuple[str | int, ...]  # its name and its operands

T = TypeVar("T")

HOLD: Final = 0x80  # of a step's first byte: what the server says waits
CODES: Final = 32  # of operations, in the lower bits
MOST_STEPS: Final = 400
MOST_BYTES: Final = 4 * 1024 * 1024  # that a server says
SMALL: Final = 1000  # bytes that a frame counts beside its own: the time goes into frames
MOST_CALLS: Final = 40

SIZES: Final = (
    0,
    1,
    5,
    6,
    100,
    1000,
    16_000,
    16_384,
    70_000,
    131_072,
    262_139,
    262_144,
    300_000,
    600_000,
)  # of messages
CUTS: Final = (1, 2, 4, 5, 6, 9, 100, 1000, 16_384, 2**31)  # bytes of an answer, or of what waits
INCREMENTS: Final = (0, 1, 1000, 65_535, 2**20, MAX_WINDOW - 65_535, MAX_WINDOW, 2**31, 2**31 + 7, 2**32 - 1)
VALUES: Final = (0, 1, 2, 100, 16_383, 16_384, 20_000, 65_535, 300_000, 2**24 - 1, 2**24, MAX_WINDOW, 2**31, 2**32 - 1)
LARGEST: Final = (1000, 2**26, 2**26, 262_144)  # messages that a call takes
TIMES: Final = (1, 2, 3, 10, 130, 1001)

STATUS: Final = b"\x88"  # :status 200, from the static table
FIELDS: Final = frames.block(((b"content-type", b"application/grpc"),))
END: Final = frames.block(frames.status_fields(0))
BLOCKS: Final = (
    STATUS + FIELDS,
    END,
    STATUS + FIELDS + END,
    b"\x20" + STATUS + FIELDS,  # with a table of no size
    b"\x3f\xe1\x1f" + STATUS + b"\x40\x01x\x03one",  # with one of 4,096 bytes, and an entry for it
    STATUS + b"\xbe",  # that refers to the entry
    b"\x3f\xe1\x1f" + STATUS + b"\xbe",  # and to one in a table that is new
    frames.block(((b":status", b"103"), (b"link", b"x"))),
    frames.block(((b":status", b"101"),)),
    frames.block(((b":status", b"404"), (b"content-type", b"text/html"))),
    frames.block(((b":status", b"20"),)),
    frames.block(((b":status", b"600"),)),
    b"",
    b"\xbf",  # no such entry
    b"\x3f\xff\xff\x7f",  # a table larger than allowed
    STATUS + b"\x20",  # too late to say so
    STATUS + b"\x00\x81\xff\x01a",  # Huffman's code without an end
    STATUS + b"\x00\x82\x49\x7f\x01a",  # and with one
    STATUS + b"\x00\x7f" + b"\xff" * 20,  # a number without an end
    STATUS + b"\x00\x7f" + b"\xff" * 1100 + b"\x01",
    STATUS + frames.block(((b"Upper", b""),)),
    STATUS + frames.block(((b"connection", b"close"),)),
    STATUS + frames.block(((b"x", b"a\nb"),)),
    STATUS + STATUS,
    FIELDS + STATUS,
    STATUS + frames.block(((b":path", b"/"),)),
    STATUS + frames.block(((b"", b""),)),
    STATUS + frames.block(((b"x", b" a\x80 "),)),
    STATUS + b"\x40\x01x" + b"\x7f\xd0\x1f" + b"v" * 4175 + b"\xbe" * 20,  # too large for the table
    STATUS + frames.block(((b"x-large", b"v" * 16_000),)),
    STATUS + frames.block(((b"x", b""),) * 127),
    STATUS + frames.block(((b"x", b""),) * 128),  # too many
    STATUS + b"\x40\x01y" + b"\x7f\xd1\x1e" + b"v" * 4048 + b"\xbe" * 14,  # a little that unpacks to much
    STATUS + b"\x40\x01y" + b"\x7f\xd1\x1e" + b"v" * 4048 + b"\xbe" * 20,  # too much
)
REQUEST: Final = request_block("http", "view:1", "/rpc.Diagnostics/stats", "fuzz")
REQUESTS: Final = (
    REQUEST,
    REQUEST + literal(b"authorization", b"secret" * 30),
    REQUEST + literal(b"x-large", b"v" * 20_000),
    REQUEST + literal(b"x-large", b"v" * 40_000),
)


class Tape:
    """The bytes of a program, read once."""

    def __init__(self, data: bytes) -> None:
        self._data: Final = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def pick(self, table: Sequence[T]) -> T:
        return table[self.byte() % len(table)]


class Program:
    """One run."""

    def __init__(self, data: bytes, kind: type[Protocol] = Protocol) -> None:
        self.trace: Final[list[str]] = []
        self.twins: Final = Twins(kind)
        self._tape: Final = Tape(data)
        self._wire = b""  # what the server has said and the network has not brought
        self._answers: Final[dict[int, bytes]] = {}  # what the server has still to send of its answers, by stream
        self._last = b""  # the server's last frame
        self._flaw: tuple[int, int] | None = None  # a place in the next frame, and what is changed there
        self._hold = False
        self._said = 0

    def run(self) -> None:
        """All steps, and a good end if one is possible."""
        for _ in range(MOST_STEPS):
            if self._tape.over or self.twins.flooded:
                break
            code = self._tape.byte()
            self._hold = code & HOLD != 0
            operation = OPERATIONS[code % CODES]
            self.trace.append(operation.__name__.strip("_"))
            operation(self)
        twins = self.twins
        if twins.alive and not twins.flooded:
            self._arrive(self._wire)
        if twins.alive and not twins.flooded and not twins.unfinished and not twins.model.in_block:
            self._finish()
        if not twins.model.lost:
            twins.lose()
        twins.take_outbox()

    # -- the server --

    def _raw(self) -> None:
        self._say(self._tape.take(self._tape.byte() % 40))

    def _frame(self) -> None:
        tape = self._tape
        kind, flags, stream_id, size = tape.byte() % 12, tape.byte(), self._stream_id(), tape.byte()
        payload = tape.take(size % 24) if size < 192 else bytes((tape.byte(),)) * tape.pick(SIZES)
        payload = payload[:20_000]
        self._say(frames.frame(kind, flags, stream_id, payload))

    def _flawed(self) -> None:
        self._flaw = (self._tape.byte(), self._tape.byte())

    def _headers(self) -> None:
        stream_id, block, flags = self._stream_id(), self._tape.pick(BLOCKS), self._tape.byte()
        payload = block[:16_384]
        if flags & PRIORITY_FLAG:
            payload = b"\0\0\0\0\x10" + payload
        if flags & PADDED:
            payload = b"\3" + payload + b"\0\0\0"
        said = frames.frame(HEADERS, flags & 0x2D ^ END_HEADERS, stream_id, payload[:16_384])  # mostly END_HEADERS
        if flags & END_HEADERS:
            pieces = self._tape.byte() % 4
            for piece in range(pieces):
                last = END_HEADERS if piece == pieces - 1 else 0
                said += frames.frame(CONTINUATION, last, stream_id, self._tape.pick(BLOCKS)[:16_384])
        self._say(said)

    def _message(self) -> None:
        stream_id, size, how = self._stream_id(), self._tape.pick(SIZES), self._tape.byte()
        body = bytes((how,)) * size
        said = frames.message(body, compressed=how > 250, length=2**32 - 1 if how == 250 else None)
        self._answers[stream_id] = (self._answers.get(stream_id, b"") + said)[:MOST_BYTES]

    def _data(self) -> None:
        stream_id, size, how = self._stream_id(), self._tape.pick(CUTS), self._tape.byte()
        answer = self._answers.get(stream_id, b"")
        if not how & 0x80:  # a server that keeps to the windows
            pair = next((pair for pair in self.twins.pairs if pair.call.id == stream_id), None)
            size = min(size, max(0, pair.call.down_window) if pair else 0)
        padding = how >> 4 & 7 if how & PADDED else None
        room = 16_384 if padding is None else 16_383 - padding
        answer, rest = answer[:size], answer[size:]
        pieces = [answer[at : at + room] for at in range(0, len(answer), room)] or [b""]
        end = how & END_STREAM != 0
        self._answers[stream_id] = rest
        self._say(
            b"".join(
                frames.data(stream_id, piece, end=end and at == len(pieces) - 1, padding=padding)
                for at, piece in enumerate(pieces)
            )
        )

    def _rst_stream(self) -> None:
        self._say(frames.rst_stream(self._stream_id(), self._tape.byte()))

    def _settings(self) -> None:
        pairs = (
            (self._tape.byte() % 8).to_bytes(2, "big") + self._tape.pick(VALUES).to_bytes(4, "big")
            for _ in range(self._tape.byte() % 5)
        )
        self._say(frames.frame("SETTINGS", payload=b"".join(pairs)))

    def _settings_ack(self) -> None:
        self._say(frames.settings_ack())

    def _ping(self) -> None:
        self._say(frames.ping(self._tape.take(1) * 8, ack=self._tape.byte() % 2 == 1))

    def _goaway(self) -> None:
        last, code, debug = self._stream_id(), self._tape.byte() % 16, self._tape.byte()
        self._say(frames.goaway(last, code, bytes((debug,)) * debug * 2))

    def _window_update(self) -> None:
        self._say(frames.window_update(self._stream_id(), self._tape.pick(INCREMENTS)))

    def _again(self) -> None:
        count = self._tape.pick(TIMES)
        self.trace[-1] += f" {count} times"
        self._said += count * SMALL
        self._say(self._last * count, anew=False)

    def _cut(self) -> None:
        size = self._tape.pick(CUTS)
        piece, self._wire = self._wire[:size], self._wire[size:]
        self._arrive(piece)

    def _trickle(self) -> None:
        for _ in range(self._tape.byte()):
            piece, self._wire = self._wire[:1], self._wire[1:]
            self._arrive(piece)

    def _say(self, said: bytes, *, anew: bool = True) -> None:
        if anew:
            self._last = said
            if self._flaw is not None and said:
                at, change = self._flaw[0] % len(said), self._flaw[1]
                said = said[:at] + bytes((said[at] ^ change,)) + said[at + 1 :]
                self._flaw = None
        self._said += len(said)
        if self._said > MOST_BYTES:
            return
        self.trace[-1] += f": {said[:40].hex()}" + (f"... {len(said)} bytes" if len(said) > 40 else "")
        self._wire += said
        if not self._hold:
            said, self._wire = self._wire, b""
            self._arrive(said)

    def _arrive(self, piece: bytes) -> None:
        if piece and not self.twins.model.lost:
            self.twins.receive(piece)

    def _stream_id(self) -> int:
        """Mostly that of a call; else one that was never opened, the connection's, or any."""
        number = self._tape.byte()
        if number < 240 and self.twins.pairs:
            return self.twins.pairs[number % len(self.twins.pairs)].call.id
        following = 2 * len(self.twins.pairs) + 1
        known = (0, following, 1, 2, 2**31, 2**31 + 1, MAX_WINDOW)
        return known[number % 8] if number % 8 < len(known) else self._tape.number()

    # -- the client's owner --

    def _open(self) -> None:
        block, size, largest = self._tape.pick(REQUESTS), self._tape.byte(), self._tape.pick(LARGEST)
        if self.twins.free_streams <= 0 or len(self.twins.pairs) >= MOST_CALLS:
            return
        body = None if size & 1 else frames.message(bytes(SIZES[size // 2 % len(SIZES)]))
        self.twins.open(block, b"" if size == 254 else body, largest)

    def _send(self) -> None:
        pair, size, how = self._pair(), self._tape.pick(SIZES), self._tape.byte()
        if pair is not None and (pair.rest is not None or not pair.ends):
            self.twins.send(pair, bytes((how,)) * size, end=how % 4 == 0)

    def _end_request(self) -> None:
        pair = self._pair()
        if pair is not None and pair.rest is None:
            self.twins.end_request(pair)

    def _reset(self) -> None:
        pair, code = self._pair(), ErrorCode(self._tape.byte() % 14)
        if pair is not None:
            self.twins.reset(pair, code)

    def _take(self) -> None:
        pair = self._pair()
        if pair is not None and pair.stepwise.has_message:
            self.twins.take(pair)

    def _take_all(self) -> None:
        for pair in self.twins.pairs:
            while pair.stepwise.has_message:
                self.twins.take(pair)

    def _ask(self) -> None:
        self.twins.ping(self._tape.take(1) * 8)

    def _close(self) -> None:
        self.twins.close(ErrorCode(self._tape.byte() % 14), "bye" * self._tape.byte())

    def _lose(self) -> None:
        self.twins.lose()

    def _take_outbox(self) -> None:
        self.twins.take_outbox()

    def _pair(self) -> Pair | None:
        number = self._tape.byte()
        return self.twins.pairs[number % len(self.twins.pairs)] if self.twins.pairs else None

    # -- a good end --

    def _finish(self) -> None:
        """Windows open as far as they can, and both sides say what they have left: every call ends."""
        self._hold, twins = False, self.twins
        self.trace.append("a good end")
        if not twins.model.settings_received:
            self._arrive(frames.settings())
        for pair in twins.pairs:
            self._finish_request(pair)
        for pair in twins.pairs:
            self._finish_answer(pair)
        assert not twins.stepwise.streams, f"calls that do not end: {twins.stepwise.streams}"

    def _finish_request(self, pair: Pair) -> None:
        twins, call = self.twins, pair.call
        while (left := pair.left) and not call.up_ended:
            for stream_id, window in ((0, twins.model.up_window), (call.id, call.up_window)):
                if window < 2**20:
                    self._arrive(frames.window_update(stream_id, 2**20 - window))
            twins.take_outbox()
            twins.send(pair, b"", end=True)
            assert pair.left < left, f"stream {call.id} sends nothing"
        if not call.up_ended:
            twins.end_request(pair)

    def _finish_answer(self, pair: Pair) -> None:
        twins, call = self.twins, pair.call
        if call.headers is None and not call.closed:
            self._arrive(frames.headers(call.id))
        answer = self._answers.get(call.id, b"")
        while answer and not call.closed:
            size = min(len(answer), 16_384, call.down_window)
            if size:
                self._arrive(frames.data(call.id, answer[:size]))
                answer = answer[size:]
            assert size or pair.stepwise.has_message, f"stream {call.id}: neither side can go on"
            while pair.stepwise.has_message:
                twins.take(pair)
            twins.take_outbox()
        if not call.closed:
            self._arrive(frames.trailers(call.id))
        while pair.stepwise.has_message:
            twins.take(pair)


# The last ones are there to be frequent, and to make room: a new operation takes the place of one of them, so that the
# programs in corpus/ keep their meaning.
OPERATIONS: Final[tuple[Callable[[Program], None], ...]] = (
    Program._open, Program._headers, Program._message, Program._data, Program._take, Program._send, Program._settings,
    Program._window_update, Program._reset, Program._rst_stream, Program._end_request, Program._ping, Program._cut,
    Program._again, Program._take_all, Program._take_outbox, Program._frame, Program._flawed, Program._goaway,
    Program._settings_ack, Program._ask, Program._raw, Program._close, Program._lose, Program._trickle,
    Program._headers, Program._message, Program._data, Program._take, Program._send, Program._open, Program._data,
)  # fmt: skip


def read_hex(path: Path) -> bytes:
    """A program that was kept, as a text of hexadecimal digits; `#` begins a remark."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in path.read_text().splitlines()))


def assembled(*steps: Step) -> bytes:
    """A program of steps by name, such as `("open", 0, 4)`; `("data+hold", ...)` waits for a cut."""
    names = [operation.__name__.strip("_") for operation in OPERATIONS]
    code = bytearray()
    for word, *operands in steps:
        name, _, hold = str(word).partition("+")
        code.append(names.index(name) | (HOLD if hold else 0))
        code += bytes(map(int, operands))
    return bytes(code)


_CALL: Final = ("open", 0, 8, 1)  # with a request of 100 bytes
_EARLY: Final = (("settings", 0), ("settings_ack",))
_BEGUN: Final = (*_EARLY, _CALL, ("headers", 0, 0, 0))  # and its answer, too
_END: Final = ("headers", 0, 1, 1)

# Sessions as they should be, and as they often go wrong: where a search begins.
SESSIONS: Final[tuple[tuple[Step, ...], ...]] = (
    (*_BEGUN, ("message", 0, 4, 7), ("data", 0, 9, 0), ("take", 0), _END),
    (*_EARLY, _CALL, ("headers", 0, 2, 1), ("take_outbox",), _CALL, ("headers", 1, 2, 1)),
    (*_EARLY, _CALL, ("headers", 0, 7, 0), ("headers", 0, 0, 0x28), ("data", 0, 3, 0x78), ("rst_stream", 0, 7)),
    (*_EARLY, _CALL, ("headers", 0, 3, 0), ("message", 0, 12, 7), *[("data", 0, 9, 0)] * 2, ("take_all",), _END),
    (*_EARLY, ("open", 0, 18, 1), ("window_update", 0, 3), ("window_update", 240, 3), ("send", 0, 0, 0)),
    (*_EARLY, ("open", 2, 1, 1), ("send", 0, 8, 1), ("send", 0, 0, 0), ("headers", 0, 2, 1)),
    (*_EARLY, ("open", 3, 1, 1), ("end_request", 0), ("reset", 0, 8), ("headers", 0, 0, 0), _END),
    (*_EARLY, _CALL, _CALL, ("goaway", 0, 0, 3), ("headers", 0, 2, 1), ("ask", 1), ("ping", 1, 1)),
    (*_EARLY, ("settings", 2, 3, 1, 4, 0), _CALL, _CALL, ("settings", 2, 3, 3, 4, 8), ("send", 0, 0, 0), _CALL),
    (
        *_EARLY,
        _CALL,
        ("settings", 1, 4, 2),
        ("open", 0, 1, 1),
        ("send", 1, 4, 1),
        ("settings", 1, 4, 8),
        ("send", 1, 0, 0),
    ),
    (*_EARLY, _CALL, ("headers", 0, 4, 0), _CALL, ("headers", 1, 5, 1), ("headers", 0, 32, 1), ("ping", 9, 0)),
    (*_EARLY, _CALL, ("headers", 0, 29, 4, 3, 29, 29, 1), _END, ("close", 0, 3), ("lose",)),
    (*_EARLY, _CALL, ("headers+hold", 0, 0, 0), ("message", 0, 7, 1), ("data+hold", 0, 9, 0), ("cut", 5), ("cut", 6)),
    (*_BEGUN, ("data", 0, 0, 0), ("again", 5), ("take_outbox",), ("ping", 1, 0), ("again", 5)),
    (*_BEGUN, ("message", 0, 4, 251), ("data", 0, 9, 0), _CALL, ("message", 1, 13, 250), ("data", 1, 9, 0x80)),
    (*_BEGUN, ("message", 0, 4, 1), ("message", 0, 13, 2), ("data", 0, 9, 0x80), ("take_all",)),
    (*_BEGUN, *[("message", 0, 8, 3), ("data", 0, 9, 0), ("take", 0)] * 5, _END),
    (*_BEGUN, ("message", 0, 4, 1), ("message", 0, 4, 251), ("data", 0, 9, 1), ("take", 0), ("take", 0)),
    (*_EARLY, ("flawed", 4, 32), ("frame", 6, 0, 240, 8, 0, 0, 0, 0, 0, 0, 0, 0), ("raw", 3, 0, 0, 0)),
    (*_EARLY, _CALL, ("rst_stream", 241, 8)),
    (*_EARLY, *[_CALL] * 3, ("headers", 0, 3, 0), ("headers", 1, 4, 0), ("headers", 2, 5, 0)),
    (*_EARLY, *[_CALL] * 3, ("headers", 0, 4, 0), ("headers", 1, 3, 0), ("headers", 2, 6, 0)),
    (*_EARLY, ("settings", 1, 4, 12)),
    (*_EARLY, _CALL, ("window_update", 240, 6)),
    (*_EARLY, _CALL, ("headers", 0, 0, 4, 0), ("frame", 9, 0, 0, 0), ("again", 4)),
    (*_EARLY, _CALL, _CALL, ("headers", 0, 0, 4, 0), ("frame", 9, 4, 1, 0)),
    (*_EARLY, _CALL, ("headers", 0, 0, 4, 0), ("ping", 1, 0)),
    (*_BEGUN, *[("message", 0, 8, 1)] * 3, ("data", 0, 9, 1), *[("take", 0)] * 3),
    (*_BEGUN, ("message", 0, 4, 251), ("data", 0, 9, 1)),
    (*_BEGUN, ("message", 0, 13, 1), *[("data", 0, 9, 0)] * 4, ("take", 0), _END),
    (*_BEGUN, ("goaway+hold", 0, 0, 0), ("goaway+hold", 0, 1, 0), ("cut", 9)),
    (*_EARLY, _CALL, ("headers+hold", 0, 2, 1), ("ping+hold", 1, 0), ("trickle", 99)),
    (("raw", 28, *b"HTTP/1.1 400 Bad Request\r\n\r\n"),),
    (*_EARLY, _CALL, ("frame", 2, 0, 0, 4, 0, 0, 0, 0), ("frame", 5, 4, 0, 4, 0, 0, 0, 2)),
)
SEEDS: Final = tuple(assembled(*session) for session in SESSIONS)

# Every block as an answer, every kind of frame in the sizes and with the flags that mean something to one of them.
EDGES: Final = tuple(
    assembled(*steps)
    for steps in (
        *((*_EARLY, _CALL, ("headers", 0, number, 0), ("headers", 0, number, 1)) for number in range(len(BLOCKS))),
        *(
            (*_EARLY, ("open", 0, 8, 0), ("headers", 0, 0, 0), ("message", 0, at, 9), ("data", 0, 9, 0))
            for at in (5, 6)
        ),
        *(
            (*_BEGUN, ("frame", kind, flags, stream_id, size, *(0,) * size))
            for kind in range(11)
            for flags in (0, 1, 4, 8, 0x2D)
            for stream_id in (0, 240)
            for size in (0, 4, 5, 6, 8)
        ),
    )
)
