"""Two `Protocol`s that live through the same, and the `Model` that judges them after every step.

Rules:
* `stepwise` gets every frame of the server's by itself and is asked at once what it has to say: the model follows it
  frame by frame. `batched` gets the bytes as they were cut, many frames or a part of one, and its outbox is emptied
  only when the program says so. What either has done must be the same.
* Only what the methods of `Protocol` ask for is asked of a program: `free_streams` for a new stream, `has_message` for
  taking one, no end and no other data before the rest of a body, and no bytes for a connection that was given up.
* A broken promise is an `AssertionError`; any other exception but `ConnectionFailedError` from `receive` is one, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define

from http2_model import Model
from http2_rules import (
    GOAWAY,
    HEAD,
    HEADER_LIST,
    HELD_BY_A_CALL,
    PATIENCE,
    PING,
    PREFACE,
    Call,
    Expected,
    Raw,
    length_of,
)
from viewreg._http2.errors import ConnectionFailedError, FailureKind
from viewreg._http2.events import GoAway, PingAnswered, WindowOpened
from viewreg._http2.frames import ErrorCode
from viewreg._http2.protocol import Protocol
from viewreg._http2.stream import Stream

if TYPE_CHECKING:
    from viewreg._http2.events import Event

OUTBOX_LIMIT: Final = 64 * 1024  # bytes of messages that may wait to be sent
REPLIES: Final = 1000  # answers to the server's own frames that may wait


@define(eq=False)
class Pair:
    """One call: the stream of either twin, what the model knows of it, and what is left of its request."""

    call: Call
    stepwise: Stream
    batched: Stream
    handed: bytes = b""  # what was handed over for sending
    rest: tuple[memoryview, memoryview] | None = None
    ends: bool = False  # the request ends with what was handed over
    told: bool = False  # that a window opened, since it was left with a rest
    had_room: bool = False  # in the windows, when it was left with a rest: the outbox was full

    @property
    def left(self) -> int:
        """Bytes of the rest."""
        return 0 if self.rest is None else len(self.rest[0])


class Twins:
    """Both protocols, their calls, and the model of their server."""

    def __init__(self, kind: type[Protocol] = Protocol) -> None:
        self.model: Final = Model()
        self.pairs: Final[list[Pair]] = []
        self.stepwise: Final = kind()
        self.batched: Final = kind()
        self.unfinished = b""  # the beginning of a frame of the server's
        self.flooded = False  # `batched` has ended because nobody took its outbox: the twins have parted
        self._follows = True  # the model knows what the streams have come to
        self._due = b""  # what `batched` has to say
        self._replies = 0  # frames among them that answer the server's
        # Streams whose change only `lose` can tell, because the same `receive` failed: of `stepwise`, of `batched`.
        self._untold: Final[tuple[set[int], set[int]]] = set(), set()
        self._hear(Expected())
        self._compare()

    @property
    def alive(self) -> bool:
        """Whether the server may say more."""
        return self.model.failed is None and not self.model.lost

    # -- what the network brings --

    def receive(self, piece: bytes) -> None:
        """These bytes arrive at once. Requires that the connection was not given up."""
        if not self.alive:
            self._fail_again(piece)
            return
        before = self._seen()
        told: list[Event] = []
        left = piece
        while left and self.alive:
            size = self._rest_of_frame(left)
            told += self._receive_frame(left[:size])
            left = left[size:]
        changed, failed = before.symmetric_difference(self._seen()), self.model.failed
        events, error = _receive(self.batched, bytearray(piece))
        if error is not None:
            self._untold[1].update(stream_id for stream_id, _ in changed)
            if failed is None:
                self._flood(error)
            else:
                assert error.code == failed, f"many frames at once: {error!r}"
            self.take_outbox()
        else:
            assert failed is None, "many frames at once are borne"
            assert self._replies <= REPLIES, f"{self._replies} answers wait, and the server may ask for more"
            assert _merged(events) == _merged(told), "many frames at once give other events"
        self._compare()

    def _rest_of_frame(self, left: bytes) -> int:
        """How many of these bytes belong to the frame that has begun."""
        begun = self.unfinished + left[:HEAD]
        if len(begun) < HEAD:
            return len(left)
        return min(len(left), HEAD + length_of(begun) - len(self.unfinished))

    def _receive_frame(self, chunk: bytes) -> list[Event]:
        """A frame, or a part of one, for `stepwise`. Returns its events, with the streams of `batched`."""
        self.unfinished += chunk
        expected = self.model.begins(self.unfinished)
        if len(self.unfinished) >= HEAD and len(self.unfinished) == HEAD + length_of(self.unfinished):
            if not expected.fatal:
                expected = self.model.says(Raw.read(self.unfinished))
            self.unfinished = b""
        before = self._seen()
        events, error = _receive(self.stepwise, chunk)
        if error is not None:
            assert error.code in expected.fatal | expected.tolerated, f"{error!r}, expected {expected}"
            self.model.failed = error.code
            self._follows = error.code in expected.fatal
            self._hear(Expected(answers=self.model.goodbye(error.code)))
            self._untold[0].update(stream_id for stream_id, _ in before.symmetric_difference(self._seen()))
            return []
        assert not expected.fatal, f"the connection lives, expected {expected}"
        self._hear(expected, replies=True)
        assert [_named(event) for event in events if not isinstance(event, (Stream, WindowOpened))] == expected.events
        told = {event.id for event in events if isinstance(event, Stream)}
        changed = {stream_id for stream_id, _ in before.symmetric_difference(self._seen())}
        assert changed <= told, f"streams {changed - told} have changed, and nobody is told"
        self._check_waiting(opened=any(isinstance(event, WindowOpened) for event in events))
        return [self._of_batched(event) for event in events]

    def _of_batched(self, event: Event) -> Event:
        return next((pair.batched for pair in self.pairs if pair.stepwise is event), event)

    def _check_waiting(self, *, opened: bool) -> None:
        for pair in self.pairs:
            pair.told |= opened
            if pair.rest is not None and not pair.call.up_ended and not pair.told and not pair.had_room:
                assert self._room(pair) <= 0, f"nobody tells stream {pair.call.id} that it may send"

    def _room(self, pair: Pair) -> int:
        return min(self.model.up_window, pair.call.up_window)

    def _flood(self, error: ConnectionFailedError) -> None:
        """Only `batched` has failed: right if it had too much to say that nobody took."""
        assert error.code == ErrorCode.ENHANCE_YOUR_CALM, f"many frames at once: {error!r}"
        assert self._replies > REPLIES, f"{self._replies} answers are called a flood"
        self.model.failed, self.flooded = error.code, True
        for kind, flags, payload in self.model.goodbye(error.code):
            self._due += len(payload).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 0)) + payload

    def _fail_again(self, piece: bytes) -> None:
        for protocol in (self.batched,) if self.flooded else (self.stepwise, self.batched):
            _, error = _receive(protocol, piece)
            assert error is not None, "a connection that has failed lives again"
            assert error.code == self.model.failed

    # -- what its owner does --

    @property
    def free_streams(self) -> int:
        """How many calls may begin."""
        free, limit = self.stepwise.free_streams, self.model.max_concurrent
        assert free == self.batched.free_streams
        if not self.alive or self.model.going_away or not self.model.settings_received:
            assert free <= 0, f"{free} free streams, though no call may begin"
        elif limit is None:
            assert free > PATIENCE, f"{free} free streams, though the server has set no limit"
        else:
            assert free == limit - len(self.model.open_calls), f"{free} free streams of {limit}"
        return free

    def open(self, block: bytes, body: bytes | None, largest_message: int) -> Pair:
        """Begin a call. Requires `free_streams`."""
        stepwise, batched = Stream(_nobody, largest_message), Stream(_nobody, largest_message)
        call = Call(2 * len(self.pairs) + 1, largest_message)
        pair = Pair(call, stepwise, batched, handed=body or b"", ends=body is not None)
        self.pairs.append(pair)
        limit = self._limit()
        first = self.stepwise.open_stream(pair.stepwise, block, body, limit)
        second = self.batched.open_stream(pair.batched, block, body, limit)
        self._sent(pair, first, second, len(pair.handed), limit)
        assert bytes(pair.call.block).endswith(block)
        return pair

    def send(self, pair: Pair, data: bytes, *, end: bool) -> None:
        """Send what is left, or else this; `end` is the end of the request."""
        first, second = pair.rest or (memoryview(data), memoryview(data))
        if pair.rest is None and not pair.call.up_ended:
            pair.handed += data
            pair.ends = end
        limit, size = self._limit(), len(first)
        first_rest = self.stepwise.send_data(pair.stepwise, first, end_stream=pair.ends, limit=limit)
        second_rest = self.batched.send_data(pair.batched, second, end_stream=pair.ends, limit=limit)
        self._sent(pair, first_rest, second_rest, size, limit)

    def _sent(self, pair: Pair, first: memoryview | None, second: memoryview | None, size: int, limit: int) -> None:
        call, begun = pair.call, len(pair.call.request)
        over = call.up_ended
        self._hear(Expected(sender=call))
        assert first == second
        pair.rest = None if first is None or second is None else (first, second)
        pair.told, pair.had_room = False, self._room(pair) > 0
        if over or call.up_ended:
            assert first is None, f"stream {call.id}: a rest, though its request has ended"
        if not over:
            left = 0 if first is None else len(first)
            assert len(call.request) + left == len(pair.handed)
            assert pair.handed.startswith(call.request), f"stream {call.id}: other data than was handed over"
            assert call.up_ended == (pair.ends and first is None)
            sent = len(call.request) - begun
            assert sent <= limit
            assert not left or sent == limit or self._room(pair) <= 0, f"stream {call.id} holds back what may leave"
            assert left + sent == size
        self._compare()

    def end_request(self, pair: Pair) -> None:
        """Half-close. Requires that nothing is left over."""
        pair.ends = True
        self.stepwise.end_request(pair.stepwise)
        self.batched.end_request(pair.batched)
        self._hear(Expected(sender=pair.call))
        assert pair.call.up_ended
        self._compare()

    def reset(self, pair: Pair, code: ErrorCode) -> None:
        """Leave a call."""
        self.stepwise.reset_stream(pair.stepwise, code)
        self.batched.reset_stream(pair.batched, code)
        pair.rest = None
        self._hear(self.model.leaves(pair.call, code))
        self._compare()

    def take(self, pair: Pair) -> None:
        """Take a message. Requires that there is one."""
        message = self.stepwise.take_message(pair.stepwise)
        assert self.batched.take_message(pair.batched) == message
        assert type(message) is bytes
        self._hear(self.model.takes(pair.call, message) if self._follows else Expected(), replies=True)
        self._compare()

    def ping(self, payload: bytes) -> None:
        """Ask for an answer."""
        self.stepwise.ping(payload)
        self.batched.ping(payload)
        self._hear(Expected(answers=[(PING, 0, payload)]))

    def close(self, code: ErrorCode, debug: str) -> None:
        """Say goodbye."""
        self.stepwise.close(code, debug)
        self.batched.close(code, debug)
        self._hear(Expected(answers=self.model.goodbye(code)))

    def lose(self) -> None:
        """Give the connection up: whoever has a call learns of it, if nobody has told him yet."""
        still_open = {call.id for call in self.model.open_calls}
        self.model.loses()
        for protocol, untold in zip((self.stepwise, self.batched), self._untold, strict=True):
            told = {stream.id for stream in protocol.lose("gone")}
            must = still_open | untold
            assert must <= told, f"nobody tells streams {must - told} that the connection is lost"
            assert not protocol.streams
            assert protocol.free_streams <= 0
            untold.clear()
        self._hear(Expected())
        self._compare()

    def take_outbox(self) -> None:
        """What `batched` has to say leaves."""
        said = self.batched.take_outbox()
        assert _without_words(said) == _without_words(self._due), "many frames at once are answered differently"
        assert self.batched.outbox_size == 0
        self._due, self._replies = b"", 0

    def _limit(self) -> int:
        return max(0, OUTBOX_LIMIT - self.batched.outbox_size)

    # -- what is looked at after each step --

    def _hear(self, expected: Expected, *, replies: bool = False) -> None:
        said = self.stepwise.take_outbox()
        count = self.model.hears(said, expected)
        self._due += said
        self._replies += count if replies else 0

    def _seen(self) -> set[tuple[int, object]]:
        """What the owners of the streams see of them."""
        return {(pair.call.id, _seen(pair.stepwise)) for pair in self.pairs}

    def _compare(self) -> None:
        """Both twins are as the model says, every stream in one state."""
        if self.flooded:
            return
        model, one, two = self.model, self.stepwise, self.batched
        assert list(one.streams) == list(two.streams)
        assert two.outbox_size == len(self._due)
        for pair in self.pairs:
            assert _all(pair.stepwise) == _all(pair.batched)
        for protocol in (one, two):
            assert len(protocol._buffer) < HEAD + 2**14, "more than one frame is held back"
            assert len(protocol._header_block) <= HEADER_LIST, "a header block grows past its bound"
        if not self._follows:
            return
        assert list(one.streams) == [call.id for call in model.open_calls]
        if self.alive:
            assert one._send_window == model.up_window
            assert one._receive_window == model.down_window > 0
        for pair in self.pairs:
            self._compare_one(pair.stepwise, pair.call)

    def _compare_one(self, stream: Stream, call: Call) -> None:
        failure = None if stream.failure is None else (stream.failure.kind, stream.failure.code)
        if call.failure is not None and call.failure[0] is FailureKind.MALFORMED:
            assert failure is not None
            failure = (failure[0], call.failure[1])
        assert (stream.headers, stream.trailers, failure) == (call.headers, call.trailers, call.failure), f"{call}"
        assert (stream.local_closed, stream.remote_closed) == (call.up_ended, call.down_ended), f"{call}"
        assert (stream.held, stream.needed, stream.has_message) == (len(call.unread), call.needed, call.has_message)
        assert stream.held <= max(HELD_BY_A_CALL, call.needed)
        if not call.closed and self.alive:
            windows = (stream.send_window, stream.receive_window)
            assert windows == (call.up_window, call.down_window), f"the windows of stream {call.id} are not {windows}"
            assert call.down_window + stream.held >= max(call.needed, 1), f"stream {call.id} can never go on"


def _receive(protocol: Protocol, data: bytes | bytearray) -> tuple[list[Event], ConnectionFailedError | None]:
    """What it finds in these bytes, or how it fails: there is no third way."""
    try:
        return protocol.receive(data), None
    except ConnectionFailedError as error:
        return [], error


def _seen(stream: Stream) -> object:
    """What its owner sees."""
    return (stream.headers, stream.trailers, stream.failure, stream.has_message, stream.remote_closed)


def _all(stream: Stream) -> object:
    return (_seen(stream), stream.id, stream.local_closed, stream.send_window, stream.receive_window, stream.held)


def _without_words(said: bytes) -> list[Raw]:
    """The frames, without the words of a GOAWAY: what they show of the server's bytes depends on how those were cut."""
    at, found = len(PREFACE) if said.startswith(PREFACE) else 0, []
    while at < len(said):
        end = at + HEAD + length_of(said[at : at + HEAD])
        frame = Raw.read(said[at:end])
        found.append(frame._replace(payload=frame.payload[:8]) if frame.kind == GOAWAY else frame)
        at = end
    return found


def _named(event: Event) -> str:
    """An event of the connection as the model has it."""
    if isinstance(event, PingAnswered):
        return f"PingAnswered {event.payload.hex()}"
    if isinstance(event, GoAway):
        return f"GoAway {event.last_stream_id} {event.code}"
    return type(event).__name__


def _merged(events: list[Event]) -> list[Event]:
    """Several in a row for one stream are one; of GoAway only the last is told, at the end."""
    merged: list[Event] = []
    for event in events:
        if not isinstance(event, GoAway) and not (isinstance(event, Stream) and merged[-1:] == [event]):
            merged.append(event)
    return merged + [event for event in events if isinstance(event, GoAway)][-1:]


def _nobody() -> None:
    """The `wake` of a stream that no task waits for."""
