"""Bytes as hostile networks and servers send them: cut anywhere, in any order, or never meant to be HTTP/2."""

from __future__ import annotations

import itertools
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from http2_driver import Driver, named
from viewreg._http2.errors import ConnectionFailedError
from viewreg._http2.protocol import MAX_FRAME_SIZE, Event, GoAway
from viewreg.testing.frames import (
    END_HEADERS,
    block,
    data,
    frame,
    goaway,
    headers,
    message,
    ping,
    rst_stream,
    settings_ack,
    trailers,
    window_update,
)
from viewreg.testing.frames import settings as settings_frame

if TYPE_CHECKING:
    from viewreg._http2.stream import Stream

IDS = st.sampled_from([1, 3, 5])
FIELD = ((b"x-field", b"value"),)
FRAMES = st.one_of(
    IDS.map(headers),
    st.builds(trailers, IDS, st.integers(0, 16)),
    st.builds(data, IDS, st.binary(max_size=40).map(message), end=st.booleans(), padding=st.none() | st.integers(0, 9)),
    st.builds(data, IDS, st.binary(max_size=6)),
    st.builds(rst_stream, IDS, st.integers(0, 20)),
    st.builds(settings_frame, st.dictionaries(st.sampled_from([3, 4, 6, 99]), st.integers(0, 2**20), max_size=3)),
    st.builds(window_update, st.sampled_from([0, 1, 3, 5]), st.integers(1, 1000)),
    st.builds(ping, st.binary(min_size=8, max_size=8), ack=st.booleans()),
    st.builds(goaway, st.sampled_from([1, 3, 2**31 - 1]), st.integers(0, 14), st.binary(max_size=9)),
    st.builds(frame, st.integers(10, 255), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=20)),
    st.sampled_from([settings_ack(), frame("PRIORITY", 0, 1, bytes(5)), frame("PING", 0, 0, bytes(7))]),
    IDS.map(lambda at: frame("HEADERS", 0, at, b"\x88") + frame("CONTINUATION", END_HEADERS, at, block(FIELD))),
)
ANY_IDS = st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 + 1])
WILD = st.builds(frame, st.integers(0, 11), st.integers(0, 255), ANY_IDS, st.binary(max_size=40))


class Run:
    """What a protocol with three open streams makes of these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.driver = Driver()
        self.streams = [self.driver.call() for _ in range(3)]
        self.events: list[Event] = []
        self.error: str | None = None
        try:
            for piece in pieces:
                self.events += self.driver.receive(piece)
        except ConnectionFailedError as error:
            self.error = str(error)
        self.told = {event.id for event in self.events if event in self.streams}
        if self.error is not None:
            self.told |= {stream.id for stream in self.driver.protocol.lose("lost")}

    def outcome(self) -> object:
        """All that may not depend on how the bytes were cut. Events of a failed run are with `lose`.

        Only when GoAway is told does: at the end of each piece.
        """
        return (
            self.error,
            self.told,
            None if self.error else named(event for event in self.events if not isinstance(event, GoAway)),
            None if self.error else [event for event in self.events if isinstance(event, GoAway)][-1:],
            self.driver.protocol.take_outbox(),
            [self.of_stream(stream) for stream in self.streams],
        )

    def of_stream(self, stream: Stream) -> object:
        """State of one stream, and its messages."""
        return (stream.headers, stream.trailers, stream.failure, stream.held, self.driver.take_all(stream))


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=20).map(b"".join), st.data())
def test_it_does_not_matter_how_the_bytes_are_cut(received: bytes, data: st.DataObject) -> None:
    """Events, replies and streams are the same for the whole, for its single bytes, and for any pieces."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(received)), max_size=8)))
    pieces = [received[start:end] for start, end in itertools.pairwise([0, *cuts, len(received)])]
    whole = Run([received]).outcome()
    assert Run(pieces).outcome() == whole
    assert Run([received[at : at + 1] for at in range(len(received))]).outcome() == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES | WILD | st.binary(max_size=30), max_size=30))
@example([b"HTTP/1.1 400 Bad Request\r\n\r\n"])
@example([b"\0" * 1000])
@example([b"\xff" * 1000])
def test_garbage_only_ever_ends_the_connection(pieces: list[bytes]) -> None:
    """No bytes raise anything but ConnectionFailedError; each stream is told of its end, and little is held."""
    run = Run(pieces)
    assert len(run.driver.protocol._buffer) < MAX_FRAME_SIZE + 9
    for stream in run.streams:
        if stream.ended:
            assert stream.id in run.told
            assert stream.id not in run.driver.protocol.streams


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_instead_of_settings_only_ever_ends_the_connection(received: bytes) -> None:
    """The same before the handshake."""
    driver = Driver(handshake=False)
    try:
        driver.receive(received)
    except ConnectionFailedError:
        assert driver.protocol.free_streams == 0


def test_a_long_garbage_session_stays_small() -> None:
    """Megabytes of legal and senseless frames leave a connection with nothing but its own state."""
    rng = random.Random(7)
    driver = Driver()
    for _ in range(2000):
        kind = rng.choice([0xB, 0x20, 0xFF])
        driver.receive(frame(kind, rng.randrange(256), rng.randrange(2**31), rng.randbytes(rng.randrange(2000))))
    assert driver.protocol.outbox_size == 0
    assert driver.protocol._buffer == b""


@pytest.mark.parametrize(
    "received",
    [
        frame("HEADERS", 0, 1, b"\x00\x7f" + b"\xff" * 16_000) + frame("CONTINUATION", 4, 1, b"\xff" * 16_000),
        frame("HEADERS", END_HEADERS, 1, (b"\x00\x7f" + b"\xff" * 1000) * 16),
        settings_frame({4: 70_000}) + frame("SETTINGS", 0, 0, bytes(6) * 2730),
        b"".join(frame("SETTINGS", 0, 0, (b"\0\4\0\1\0\0" + b"\0\4\0\0\0\0") * 1365) for _ in range(20)),
        b"".join(goaway(2**31 - 1 - at) for at in range(4000)),
        headers(1) + data(1, b"\0" * 5) * 4000,
    ],
    ids=["endless number", "endless numbers", "many settings", "window up and down", "goaways", "empty messages"],
)
def test_no_bytes_take_long(received: bytes) -> None:
    """Some 64 KiB that were made to cost much are dealt with in far less than a second, with a thousand calls open."""
    driver = Driver({3: 2000})
    for _ in range(1000):
        driver.call()
    started = time.process_time()
    with suppress(ConnectionFailedError):
        driver.receive(received)
    assert time.process_time() - started < 0.25
