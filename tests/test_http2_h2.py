"""The protocol against another implementation: the `h2` package as the server, in random sessions."""

from __future__ import annotations

import random
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from http2_driver import MAX_MESSAGE, a_block, nobody
from viewreg._http2.events import WindowOpened
from viewreg._http2.headers import literal
from viewreg._http2.protocol import Protocol
from viewreg._http2.stream import Stream
from viewreg.testing.frames import RESPONSE, block, message

SESSIONS: Final = 300
STEPS: Final = 40  # in a session
ACTIONS: Final = ("call", "answer", "answer", "answer", "take", "take", "leave", "refuse", "connection")
OUTBOX_LIMIT: Final = 64 * 1024  # bytes
_EVENTS: Final[Any] = h2.events  # its types say nothing, or differ from version to version


class Call:
    """What both sides know of one call."""

    def __init__(self, rng: random.Random) -> None:
        self.stream = Stream(nobody, MAX_MESSAGE)
        self.request = message(rng.randbytes(rng.choice((0, 10, 1000, 20_000, 150_000))))
        self.fields = [(b"x-number", b"%d" % rng.randrange(9)), (b"authorization", rng.randbytes(8).hex().encode())]
        self.rest: memoryview | None = None
        self.arrived = bytearray()  # of the request, at the server
        self.request_fields: list[tuple[bytes, bytes]] = []  # at the server
        self.answers = [rng.randbytes(rng.choice((0, 3, 500, 30_000, 400_000))) for _ in range(rng.randrange(4))]
        self.to_send = b"".join(map(message, self.answers))  # what the server has left of them
        self.taken: list[bytes] = []  # at the client
        self.state = "asked"  # the server's: asked, answering, answered; or reset, by either side


class Session:
    """Client and server, the bytes between them cut at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.client = Protocol()
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.server: Any = h2.connection.H2Connection(config)
        self.server.initiate_connection()
        self.calls: dict[int, Call] = {}
        self.pings: list[bytes] = []
        self.deliver()

    def deliver(self) -> None:
        """Carry bytes over until both sides have nothing more to say."""
        while True:
            outgoing, incoming = self.client.take_outbox(), self.server.data_to_send()
            if not outgoing and not incoming:
                return
            for piece in self.cut(outgoing):
                for event in self.server.receive_data(piece):
                    self.at_server(event)
            for piece in self.cut(incoming):
                if any(isinstance(event, WindowOpened) for event in self.client.receive(piece)):
                    self.send_rests()

    def cut(self, data: bytes) -> list[bytes]:
        """Some pieces of it, all of it together."""
        at = sorted(self.rng.randrange(len(data) + 1) for _ in range(self.rng.randrange(4)))
        return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]

    def at_server(self, event: Any) -> None:
        """What a server does by itself."""
        if isinstance(event, _EVENTS.RequestReceived):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            self.calls[event.stream_id].request_fields = fields
        elif isinstance(event, _EVENTS.DataReceived):
            self.calls[event.stream_id].arrived += event.data
            if event.flow_controlled_length:
                self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, _EVENTS.StreamReset):
            self.calls[event.stream_id].state = "reset"

    def send_rests(self) -> None:
        """What a client's callers do when the window opens."""
        for call in self.calls.values():
            if call.rest is not None:
                call.rest = self.client.send_data(call.stream, call.rest, end_stream=True, limit=OUTBOX_LIMIT)

    def step(self) -> None:
        """One of the things that either side may do."""
        open_calls = [call for call in self.calls.values() if call.state in ("asked", "answering")]
        action = self.rng.choice(ACTIONS)
        if action == "call" and self.client.free_streams > 0 and len(open_calls) < 5:
            call = Call(self.rng)
            fields = b"".join(literal(name, value) for name, value in call.fields)
            call.rest = self.client.open_stream(call.stream, a_block() + fields, call.request, OUTBOX_LIMIT)
            self.calls[call.stream.id] = call
        elif action == "connection":
            self.on_connection()
        elif open_calls:
            call = self.rng.choice(open_calls)
            if action == "answer":
                self.answer(call)
            elif action == "take":
                self.take(call)
            elif action == "leave" and self.rng.random() < 0.3:
                call.state, call.rest = "reset", None
                self.client.reset_stream(call.stream)
            elif action == "refuse" and self.rng.random() < 0.3:
                call.state, call.rest = "reset", None
                self.server.reset_stream(call.stream.id, 7)
        self.deliver()
        if self.rng.random() < 0.5:
            self.send_rests()
            self.deliver()

    def answer(self, call: Call) -> None:
        """The next part of an answer: interim response, headers, some data, or trailers."""
        stream_id = call.stream.id
        if call.state == "asked":
            if self.rng.random() < 0.2:
                self.server.send_headers(stream_id, [(b":status", b"103"), (b"link", b"x")])
            if not call.answers and self.rng.random() < 0.5:
                self.server.send_headers(stream_id, [*RESPONSE, (b"grpc-status", b"0")], end_stream=True)
                call.state = "answered"
                return
            self.server.send_headers(stream_id, [*RESPONSE, (b"x-n", b"%d" % self.rng.randrange(3))])
            call.state = "answering"
        for _ in range(self.rng.randrange(1, 20)):
            padding = self.rng.choice((None, None, 0, 200))
            room = self.server.local_flow_control_window(stream_id) - (0 if padding is None else padding + 1)
            size = min(len(call.to_send), room, self.rng.choice((1, 6, 1000, 16_000)))
            if size <= 0:
                break
            self.server.send_data(stream_id, call.to_send[:size], pad_length=padding)
            call.to_send = call.to_send[size:]
        if not call.to_send:
            self.server.send_headers(stream_id, [(b"grpc-status", b"0"), (b"grpc-message", b"")], end_stream=True)
            call.state = "answered"

    def on_connection(self) -> None:
        """PINGs both ways, and settings that change."""
        choice = self.rng.randrange(3)
        if choice == 0:
            self.server.ping(self.rng.randbytes(8))
        elif choice == 1:
            self.client.ping(self.rng.randbytes(8))
        else:
            window = self.rng.choice((30_000, 65_535, 300_000))
            self.server.update_settings({3: self.rng.choice((3, 100)), 4: window, 5: self.rng.choice((16_384, 40_000))})

    def take(self, call: Call) -> None:
        """A reader that takes some messages, or all."""
        while call.stream.has_message and self.rng.random() < 0.9:
            call.taken.append(self.client.take_message(call.stream))

    def finish(self) -> None:
        """Everyone does what is left to do."""
        while open_calls := [call for call in self.calls.values() if call.state in ("asked", "answering")]:
            for call in open_calls:
                self.answer(call)
                self.deliver()
                self.take(call)
                self.deliver()
                self.send_rests()
                self.deliver()
        for call in self.calls.values():
            while call.stream.has_message:
                call.taken.append(self.client.take_message(call.stream))
        self.deliver()


@pytest.mark.parametrize("start", range(0, SESSIONS, 50))
def test_random_sessions_with_h2(start: int) -> None:
    """Requests and answers arrive whole and in order at either side, and neither finds fault with the other."""
    for seed in range(start, start + 50):
        session = Session(seed)
        for _ in range(STEPS):
            session.step()
        session.finish()
        for call in session.calls.values():
            assert call.request_fields[-2:] == call.fields, f"seed {seed}"
            assert call.request.startswith(call.arrived), f"seed {seed}"
            assert call.taken == call.answers[: len(call.taken)], f"seed {seed}"
            if call.state == "answered":
                assert call.taken == call.answers, f"seed {seed}"
                assert call.stream.failure is None, f"seed {seed}"
                assert call.stream.trailers is not None, f"seed {seed}"
                assert dict(call.stream.trailers)[b"grpc-status"] == b"0", f"seed {seed}"
            assert call.stream.id not in session.client.streams, f"seed {seed}"


def test_h2_finds_fault_with_a_faulty_client() -> None:
    """The server of these tests does refuse what is wrong: a response's fields in a request, for one."""
    client = Protocol()
    server: Any = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    client.receive(server.data_to_send())
    client.open_stream(Stream(nobody, MAX_MESSAGE), block(RESPONSE), message(b""), OUTBOX_LIMIT)
    with pytest.raises(h2.exceptions.ProtocolError):
        server.receive_data(client.take_outbox())
