"""Random sessions of a `Protocol` with a server of another make, the `h2` package: `play(seed)`.

Rules:
* Everything either side does is allowed, and every session is another one: what is sent, in which order, how much of it
  the network has brought when the next thing happens, and how it is cut.
* Whenever the network is empty both sides must agree (`Session.agree`): on which streams are open and from which side,
  on all windows, on settings, and on every byte of every message.
* h2 judges the client as it goes: what it finds wrong it raises.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import h2.config
import h2.connection
import h2.events
from attrs import define, field

from viewreg._http2.errors import FailureKind
from viewreg._http2.events import GoAway, PingAnswered, WindowOpened
from viewreg._http2.frames import MAX_STREAM_ID, ErrorCode
from viewreg._http2.headers import literal, request_block
from viewreg._http2.protocol import MAX_SENT_FRAME, Protocol
from viewreg._http2.stream import Stream
from viewreg.testing import frames

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS: Final = 60  # in a session, at most
OUTBOX_LIMIT: Final = 64 * 1024  # bytes
MOST_ROUNDS: Final = 2000  # until what is left at the end is done
REQUEST: Final = request_block("http", "view:1", "/rpc.Diagnostics/stats", "viewreg-tests")
LARGE: Final = b"\xf9" * 4800  # a value that h2 makes more than one frame of: 28 bits a byte in Huffman's code
ACK: Final = frames.settings_ack()
FIRST: Final = (b":status", b"200")
_EVENTS: Final[Any] = h2.events  # its types say nothing, or differ from version to version


@define(eq=False)
class Call:
    """What both sides know of one call."""

    stream: Stream
    largest: int  # bytes of a message that its owner takes
    fields: list[tuple[bytes, bytes]]  # at the end of the request's
    request: bytearray  # as far as it was handed over
    rest: memoryview | None = None
    request_ends: bool = False
    left: bool = False  # by its owner
    refused: int | None = None  # the code with which the server reset it
    # At the server:
    arrived: bytearray = field(factory=bytearray)
    request_fields: list[tuple[bytes, bytes]] = field(factory=list)
    answer: list[bytes] = field(factory=list)  # the messages, all of them
    to_send: bytes = b""  # what is left of them
    sent: bytearray = field(factory=bytearray)
    headers: list[tuple[bytes, bytes]] | None = None
    trailers: list[tuple[bytes, bytes]] | None = None
    answered: bool = False
    # At the client:
    taken: list[bytes] = field(factory=list)


class Session:
    """Client and server, and the bytes on their way."""

    def __init__(self, seed: int) -> None:
        self.rng: Final = random.Random(seed)
        self.client: Final = Protocol()
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.server: Final[Any] = h2.connection.H2Connection(config)
        self.server.initiate_connection()
        self.calls: Final[dict[int, Call]] = {}
        self._up = self._down = b""  # on their way
        self._last = b""  # of what has arrived at the server
        self._unread: Final[list[tuple[int, int]]] = []  # DATA at the server for which no window was given back yet
        self._asked: Final[dict[str, list[bytes]]] = {"client": [], "server": []}  # PINGs without an answer
        self._goodbye: GoAway | None = None  # the server's
        self._changing = True  # SETTINGS of the server's are not acknowledged yet: h2 would mix up two of them
        self._tables: Final = self.rng.random() < 0.5  # the server changes the size of tables
        self.settle()

    # -- the network --

    def settle(self) -> None:
        """Bring all that is on its way, until neither side has more to say."""
        while self._carry_up(whole=True) or self._carry_down(whole=True):
            pass
        self.agree()

    def _carry(self) -> None:
        self.rng.choice((self._carry_up, self._carry_down))(whole=False)

    def _carry_up(self, *, whole: bool) -> bool:
        self._up += self.client.take_outbox()
        self._send_rests()
        piece, self._up = self._cut(self._up, whole=whole)
        # h2 measures frames that come with an acknowledgement by what held before it.
        if ACK in self._last + piece:
            at = (self._last + piece).index(ACK) + len(ACK) - len(self._last)
            piece, self._up = piece[:at], piece[at:] + self._up
        self._last = (self._last + piece)[1 - len(ACK) :]
        for event in self.server.receive_data(piece) if piece else ():
            self._at_server(event)
        return bool(piece)

    def _carry_down(self, *, whole: bool) -> bool:
        self._down += self.server.data_to_send()
        piece, self._down = self._cut(self._down, whole=whole)
        for event in self.client.receive(piece):
            if isinstance(event, WindowOpened):
                self._send_rests()
            elif isinstance(event, PingAnswered):
                self._asked["client"].remove(event.payload)
            elif isinstance(event, GoAway):
                self._goodbye = event
        return bool(piece)

    def _cut(self, data: bytes, *, whole: bool) -> tuple[bytes, bytes]:
        at = len(data) if whole and self.rng.random() < 0.5 else self.rng.randrange(len(data) + 1)
        at = max(at, min(len(data), 1))
        return data[:at], data[at:]

    def _at_server(self, event: Any) -> None:
        if isinstance(event, _EVENTS.RequestReceived):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            self.calls[event.stream_id].request_fields = fields
        elif isinstance(event, _EVENTS.DataReceived):
            self.calls[event.stream_id].arrived += event.data
            if event.flow_controlled_length:
                self._unread.append((event.flow_controlled_length, event.stream_id))
        elif isinstance(event, _EVENTS.PingAckReceived):
            self._asked["server"].remove(event.ping_data)
        elif isinstance(event, _EVENTS.StreamReset):
            call = self.calls[event.stream_id]
            assert (
                call.left
                or (call.answered and event.error_code == ErrorCode.NO_ERROR)
                or (max(map(len, call.answer), default=0) > call.largest and event.error_code == ErrorCode.CANCEL)
            ), f"stream {event.stream_id} was reset with {event.error_code}"
        elif isinstance(event, _EVENTS.SettingsAcknowledged):
            self._changing = False

    # -- the client --

    def call(self) -> None:
        """A call, with its whole request or with some messages to follow."""
        if self.client.free_streams <= 0 or len(self.client.streams) >= 6:
            return
        rng = self.rng
        largest = rng.choice((2**26, 2**26, 2**26, 1000))
        fields = [(b"x-number", b"%d" % rng.randrange(9)), (b"authorization", rng.randbytes(8).hex().encode())]
        if rng.random() < 0.1:
            fields.append((b"x-large", b"v" * rng.choice((16_000, 40_000))))
        if sum(len(name) + len(value) + 32 for name, value in fields) + 500 > self.client.max_send_header_list:
            return  # what the transport looks after
        whole = rng.random() < 0.7
        body = frames.message(rng.randbytes(rng.choice((0, 10, 1000, 20_000, 150_000)))) if whole else b""
        call = Call(Stream(_nobody, largest), largest, fields, bytearray(body), request_ends=whole)
        call.answer = [rng.randbytes(rng.choice((0, 3, 500, 30_000, 400_000))) for _ in range(rng.randrange(5))]
        call.to_send = b"".join(map(frames.message, call.answer))
        block = REQUEST + b"".join(literal(name, value) for name, value in fields)
        call.rest = self.client.open_stream(call.stream, block, body if whole else None, self._room())
        self.calls[call.stream.id] = call

    def more(self) -> None:
        """Another message of a request that goes on, or its end."""
        call = self._any(self._may_ask_more)
        if call is None:
            return
        if self.rng.random() < 0.3:
            call.request_ends = True
            self.client.end_request(call.stream)
            return
        data = frames.message(self.rng.randbytes(self.rng.choice((0, 100, 70_000))))
        call.request += data
        call.request_ends = self.rng.random() < 0.2
        call.rest = self.client.send_data(
            call.stream, memoryview(data), end_stream=call.request_ends, limit=self._room()
        )

    def _may_ask_more(self, call: Call) -> bool:
        # h2 takes the empty frame that ends a request amiss while the window is below zero, which it may be (6.9.2).
        is_open = call.stream.id in self.client.streams and call.stream.send_window >= 0
        return is_open and not call.request_ends and call.rest is None

    def take(self) -> None:
        """A reader that takes some messages, or all."""
        call = self._any(lambda call: call.stream.has_message)
        while call is not None and call.stream.has_message and self.rng.random() < 0.9:
            call.taken.append(self.client.take_message(call.stream))

    def leave(self) -> None:
        """A call is given up."""
        call = self._any(lambda call: call.stream.id in self.client.streams and self.rng.random() < 0.3)
        if call is not None:
            call.left, call.rest = True, None
            self.client.reset_stream(call.stream, self.rng.choice(list(ErrorCode)))

    def _send_rests(self) -> None:
        for call in self.calls.values():
            if call.rest is not None:
                end, room = call.request_ends, self._room()
                call.rest = self.client.send_data(call.stream, call.rest, end_stream=end, limit=room)

    def _room(self) -> int:
        return max(0, OUTBOX_LIMIT - self.client.outbox_size)

    # -- the server --

    def begin(self) -> None:
        """Interim responses, the head of an answer; or all of it in one block."""
        call = self._any(lambda call: call.headers is None and self._may_answer(call))
        if call is None:
            return
        rng, stream_id = self.rng, call.stream.id
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            self.server.send_headers(stream_id, [(b":status", b"103"), (b"link", b"x")])
        call.headers = [FIRST, (b"content-type", b"application/grpc"), (b"x-n", b"%d" % rng.randrange(3))]
        if rng.random() < 0.02:
            call.headers.append((b"x-large", LARGE))
        if rng.random() < 0.2:
            call.to_send = b""
            call.trailers, call.answer = call.headers, []
            self._end(call, lambda: self.server.send_headers(stream_id, call.headers, end_stream=True))
        else:
            self.server.send_headers(stream_id, call.headers)

    def go_on(self) -> None:
        """Some DATA of any size, as far as the windows go, and the end behind the last of it."""
        call = self._any(lambda call: call.headers is not None and self._may_answer(call))
        if call is None:
            return
        rng, stream_id = self.rng, call.stream.id
        for _ in range(rng.randrange(1, 30)):
            padding = rng.choice((None, None, None, 0, 200))
            overhead = 0 if padding is None else padding + 1
            room = min(self.server.local_flow_control_window(stream_id), self.server.max_outbound_frame_size) - overhead
            size = min(len(call.to_send), room, rng.choice((1, 4, 5, 6, 1000, 16_384, 16_384)))
            if size < 0 or (size == 0 and call.to_send):
                break
            self.server.send_data(stream_id, call.to_send[:size], pad_length=padding)
            call.sent += call.to_send[:size]
            call.to_send = call.to_send[size:]
            if not call.to_send:
                break
        if call.to_send or rng.random() < 0.3:
            return
        if rng.random() < 0.1:
            self._end(call, lambda: self.server.end_stream(stream_id))
        else:
            call.trailers = [(b"grpc-status", b"0"), (b"grpc-message", LARGE if rng.random() < 0.01 else b"")]
            self._end(call, lambda: self.server.send_headers(stream_id, call.trailers, end_stream=True))

    def refuse(self) -> None:
        """RST_STREAM, at any point of an answer."""
        call = self._any(lambda call: self._may_answer(call) and self.rng.random() < 0.3)
        if call is not None:
            call.refused = self.rng.choice(list(ErrorCode))
            self.server.reset_stream(call.stream.id, call.refused)

    def read(self) -> None:
        """Give back the window of some DATA that has arrived."""
        for _ in range(self.rng.randrange(1, 9)):
            if self._unread:
                self._acknowledge(*self._unread.pop(self.rng.randrange(len(self._unread))))

    def widen(self) -> None:
        """Give more window than was used."""
        call = self._any(lambda call: self._may_answer(call) and not call.stream.local_closed)
        size = self.rng.choice((1, 1000, 100_000))
        if call is None or self.rng.random() < 0.5:
            self.server.increment_flow_control_window(size)
        elif not self._ended(call):
            self.server.increment_flow_control_window(size, call.stream.id)

    def change(self) -> None:
        """SETTINGS that change."""
        rng = self.rng
        if self._changing:
            return
        self._changing = True
        known = {
            3: rng.choice((0, 1, 3, 100)),
            4: rng.choice((0, 1, 30_000, 65_535, 300_000)),
            5: rng.choice((16_384, 40_000, 2**24 - 1)),
            6: rng.choice((1000, 65_536)),
        }
        if self._tables:
            known[1] = rng.choice((0, 100, 4096, 65_536))
        self.server.update_settings({number: known[number] for number in rng.sample(sorted(known), rng.randrange(4))})

    def connection(self) -> None:
        """PINGs both ways, and frames that nobody heeds."""
        payload = self.rng.randbytes(8)
        choice = self.rng.randrange(4)
        if choice == 0:
            self._asked["server"].append(payload)
            self.server.ping(payload)
        elif choice == 1:
            self._asked["client"].append(payload)
            self.client.ping(payload)
        else:
            kind = "PRIORITY" if choice == 2 else 0xEE
            idle = frames.frame(kind, 0, self.rng.choice((1, 3, 99)), payload[:5])
            self._down += self.server.data_to_send() + idle

    def _end(self, call: Call, say: Callable[[], None]) -> None:
        say()
        call.answered = True

    def _may_answer(self, call: Call) -> bool:
        """The server knows the call, and so far neither side has ended it there."""
        stream = self.server.streams.get(call.stream.id)
        return stream is not None and not stream.closed and not call.answered and bool(call.request_fields)

    def _ended(self, call: Call) -> bool:
        """The request is complete, at the server."""
        return bool(self.server.streams[call.stream.id].state_machine.state.name == "HALF_CLOSED_REMOTE")

    def _acknowledge(self, size: int, stream_id: int) -> None:
        self.server.acknowledge_received_data(size, stream_id)

    def _any(self, suits: Callable[[Call], bool]) -> Call | None:
        calls = [call for call in self.calls.values() if suits(call)]
        return self.rng.choice(calls) if calls else None

    # -- what must hold --

    def agree(self) -> None:
        """Both sides have the same to say of everything. Requires that nothing is on its way."""
        client, server = self.client, self.server
        assert client._send_window == server.inbound_flow_control_window
        assert client._receive_window == server.outbound_flow_control_window
        settings = server.local_settings
        assert client._initial_send_window == settings.initial_window_size
        assert client._max_send_frame == min(settings.max_frame_size, MAX_SENT_FRAME)
        assert client.max_concurrent_streams == settings.max_concurrent_streams
        assert client.max_send_header_list in (settings.max_header_list_size, 2**31)
        assert not any(self._asked.values()), "a PING without an answer"
        open_there = [stream_id for stream_id, stream in server.streams.items() if not stream.closed]
        assert list(client.streams) == sorted(open_there)
        for call in self.calls.values():
            self._agree_on(call)

    def _agree_on(self, call: Call) -> None:
        stream, there = call.stream, self.server.streams.get(call.stream.id)
        if stream.id in self.client.streams:
            own = min(self.client._receive_window, stream.receive_window)
            assert self.server.local_flow_control_window(stream.id) == own
            assert there.state_machine.state.name == ("HALF_CLOSED_REMOTE" if stream.local_closed else "OPEN")
            if not stream.local_closed:
                assert stream.send_window == there.inbound_flow_control_window
        assert call.request_fields[len(call.request_fields) - len(call.fields) :] == call.fields
        unsent = 0 if call.rest is None else len(call.rest)
        assert call.request.startswith(call.arrived)
        if stream.id in self.client.streams or (not call.left and call.refused is None and stream.failure is None):
            whole = call.answered or len(call.arrived) == len(call.request) - unsent
            assert whole, f"stream {stream.id}: {len(call.arrived)} bytes of the request have arrived"
        assert call.taken == call.answer[: len(call.taken)]
        if call.left:
            return
        too_large = stream.failure is not None and stream.failure.kind is FailureKind.TOO_LARGE
        if call.refused is not None and not too_large:
            assert stream.failure is not None
            assert (stream.failure.kind, stream.failure.code) == (FailureKind.RESET_BY_PEER, call.refused)
        elif not too_large:
            assert stream.failure is None, f"{stream}"
            assert stream.held + sum(len(message) + 5 for message in call.taken) == len(call.sent)
            assert stream.remote_closed == call.answered
            for had, sent in ((stream.headers, call.headers), (stream.trailers, call.trailers)):
                assert (None if had is None else list(had)) == sent
        if too_large:
            assert len(call.answer[len(call.taken)]) > call.largest

    # -- the end --

    def finish(self) -> None:
        """Everyone does what is left to do; then all calls are over."""
        self.server.update_settings({3: 100, 4: 65_535})
        for _ in range(MOST_ROUNDS):
            self.settle()
            while self._unread:
                self._acknowledge(*self._unread.pop())
            self.begin()
            self.go_on()
            for call in self.calls.values():
                while call.stream.has_message:
                    call.taken.append(self.client.take_message(call.stream))
                if self._may_ask_more(call):
                    call.request_ends = True
                    self.client.end_request(call.stream)
            if not self.client.streams and not self._unread:
                break
        self.settle()
        assert not self.client.streams, f"calls that do not end: {self.client.streams}"
        for call in self.calls.values():
            if call.answered and not call.left and call.stream.failure is None:
                assert call.taken == call.answer

    def go_away(self) -> None:
        """The server says GOAWAY, after which h2 says nothing more, or the client does."""
        rng = self.rng
        ids = [call.stream.id for call in self.calls.values() if call.request_fields]
        open_ids = list(self.client.streams)
        if rng.random() < 0.3:
            self.client.close(rng.choice(list(ErrorCode)), "words")
            self._carry_up(whole=True)
            return
        last, code, words = rng.choice((*ids, 0, MAX_STREAM_ID)), rng.choice(list(ErrorCode)), rng.randbytes(5)
        self.server.close_connection(code, words, last)
        while self._carry_down(whole=True):
            pass
        assert self._goodbye is not None
        assert (self._goodbye.last_stream_id, self._goodbye.code) == (last, code)
        assert self.client.free_streams <= 0
        assert list(self.client.streams) == [stream_id for stream_id in open_ids if stream_id <= last]
        for stream_id in open_ids:
            stream = self.calls[stream_id].stream
            if stream_id > last:
                kind = FailureKind.NOT_PROCESSED if stream.headers is None else FailureKind.CONNECTION_LOST
                assert stream.failure is not None
                assert stream.failure.kind is kind


ACTIONS: Final = (
    *(Session.call,) * 3, Session.more, *(Session.begin,) * 2, *(Session.go_on,) * 4, *(Session.take,) * 2,
    Session.leave, Session.refuse, *(Session.read,) * 3, Session.widen, Session.change, Session.connection,
    *(Session._carry,) * 8, *(Session.settle,) * 2,
)  # fmt: skip


def play(seed: int) -> Session:
    """One session from its beginning to its end. What fails says by which seed it is found again."""
    try:
        session = Session(seed)
        for _ in range(session.rng.randrange(STEPS)):
            session.rng.choice(ACTIONS)(session)
        session.settle()
        if session.rng.random() < 0.2:
            session.go_away()
        else:
            session.finish()
    except Exception as error:
        error.add_note(f"this was play({seed})")
        raise
    return session


def _nobody() -> None:
    """The `wake` of a stream that no task waits for."""
