"""Flow control, in both directions: nothing is held without bound, and nothing stands still."""

from __future__ import annotations

import itertools
import random
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_driver import MAX_MESSAGE, NO_LIMIT, Driver, a_block, nobody
from viewreg._http2.events import WINDOW_OPENED
from viewreg._http2.flow import CONNECTION_WINDOW, STREAM_WINDOW, connection_credit, stream_credit
from viewreg._http2.stream import PREFIX_SIZE, Stream
from viewreg.testing.frames import data, headers, message, trailers, window_update
from viewreg.testing.frames import settings as settings_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB = 1024 * 1024


class Server:
    """The sending side of flow control as a server keeps it, from the frames of the client alone."""

    def __init__(self, driver: Driver, streams: Iterable[Stream]) -> None:
        self.driver = driver
        self.connection = CONNECTION_WINDOW
        self.windows = {stream.id: STREAM_WINDOW for stream in streams}
        self.streams = {stream.id: stream for stream in streams}
        driver.receive(*(headers(stream_id) for stream_id in self.windows))

    def send(self, stream_id: int, payload: bytes) -> int:
        """Send as much as one frame and the windows allow; returns how much."""
        size = max(0, min(len(payload), 16_384, self.windows[stream_id], self.connection))
        if size:
            self.windows[stream_id] -= size
            self.connection -= size
            self.driver.receive(data(stream_id, payload[:size]))
            self.look()
        return size

    def look(self) -> None:
        """Take the client's updates in, and check what must hold after each step."""
        for frame in self.driver.sent():
            assert frame.kind == "WINDOW_UPDATE"
            if frame.stream_id:
                self.windows[frame.stream_id] += frame.increment
            else:
                self.connection += frame.increment
        assert self.connection == self.driver.protocol._receive_window
        assert self.connection > CONNECTION_WINDOW // 2
        for stream_id, stream in self.streams.items():
            assert stream.receive_window == self.windows[stream_id]
            assert stream.receive_window + stream.held <= max(STREAM_WINDOW, stream.needed)
            assert stream.held + stream.receive_window >= stream.needed, "the message at the head can never be complete"


SIZES = st.one_of(st.integers(0, 40), st.integers(0, 20_000), st.integers(200_000, 600_000))


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, max_size=30), st.integers(1, 3), st.integers(0, 2**32))
def test_the_window_holds_and_never_starves(sizes: list[int], count: int, seed: int) -> None:
    """At every step: window and held bytes are at most 256 KiB or the head message, and the head can be completed."""
    rng = random.Random(seed)
    driver = Driver()
    streams = [driver.call() for _ in range(count)]
    server = Server(driver, streams)
    left = {stream.id: b"".join(message(bytes(size)) for size in sizes) for stream in streams}
    taken = {stream.id: 0 for stream in streams}
    while any(left.values()) or any(stream.has_message for stream in streams):
        stream = rng.choice(streams)
        sent = 0
        for _ in range(rng.randrange(20)):
            size = server.send(stream.id, left[stream.id][: rng.choice((1, 5, 100, 16_384, 16_384))])
            left[stream.id] = left[stream.id][size:]
            sent += size
        if stream.has_message and (rng.random() < 0.5 or not sent):
            assert len(driver.protocol.take_message(stream)) == sizes[taken[stream.id]]
            taken[stream.id] += 1
            server.look()
    assert set(taken.values()) == {len(sizes)}
    assert not any(stream.held for stream in streams)


NEEDED = st.integers(0, STREAM_WINDOW) | st.integers(0, 2**32)


@given(st.integers(0, STREAM_WINDOW), st.integers(0, STREAM_WINDOW), NEEDED)
def test_stream_credit_keeps_its_promise(window: int, held: int, needed: int) -> None:
    """Whatever is given: afterwards no more than promised may be held, and the message at the head fits."""
    window = min(window, STREAM_WINDOW - held)
    credit = stream_credit(window, held, needed)
    assert credit >= 0
    assert window + credit + held <= max(STREAM_WINDOW, needed)
    assert window + credit + held >= min(needed, max(STREAM_WINDOW, needed))
    assert credit == 0 or credit >= STREAM_WINDOW // 2 or window + held < needed


@given(st.integers(0, CONNECTION_WINDOW))
def test_connection_credit_gives_all_back(window: int) -> None:
    """Half a window is always there."""
    credit = connection_credit(window)
    assert credit in (0, CONNECTION_WINDOW - window)
    assert window + credit > CONNECTION_WINDOW // 2


def test_ten_thousand_tiny_messages() -> None:
    """They arrive in order, whether they are taken at once or at the end, and are held as the bytes that came."""
    driver = Driver()
    stream = driver.call()
    server = Server(driver, [stream])
    sent = b"".join(message(b"%d" % number) for number in range(10_000))
    while sent:
        sent = sent[server.send(1, sent) :]
    driver.receive(trailers(1))
    assert driver.take_all(stream) == [b"%d" % number for number in range(10_000)]
    assert stream.held == 0


SIZES = st.integers(1, 12) | st.integers(1, 50_000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12) | st.integers(0, 60_000), max_size=8), st.lists(SIZES, min_size=1), st.booleans())
def test_messages_come_out_as_they_were(lengths: list[int], cuts: list[int], at_once: bool) -> None:
    """However messages are cut, and whether they are taken as they come or in the end: they are the same bytes."""
    sent = [random.Random(length).randbytes(length) for length in lengths]
    left = b"".join(map(message, sent))
    stream, taken = Stream(nobody, MAX_MESSAGE), []
    for size in itertools.cycle(cuts):
        if left:
            stream.append(left[:size])
        left = left[size:]
        while stream.has_message and (at_once or not left):
            taken.append(stream.take_message()[0])
        if not left:
            break
    assert taken == sent
    assert all(type(found) is bytes for found in taken)
    assert stream.held == 0
    assert not stream._parts


def test_messages_that_end_where_a_part_ends() -> None:
    """A message of several frames whose last one ends with it, taken at once, leaves nothing of its place behind."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1))
    for sign in (b"a", b"b", b"c"):
        sent = sign * 40_000
        whole = message(sent)
        driver.receive(*(data(1, whole[at : at + 16_384]) for at in range(0, len(whole), 16_384)))
        assert driver.take_all(stream) == [sent]


def test_sixty_megabytes_one_by_one() -> None:
    """A reader that takes one message of 1 MiB at a time gets them all, and no more than one is ever held."""
    driver = Driver()
    stream = driver.call()
    server = Server(driver, [stream])
    one = message(b"m" * MIB)
    highest = 0
    for _ in range(60):
        left = one
        while left:
            size = server.send(1, left)
            assert size, "the server waits for a window, the client for the message"
            left = left[size:]
            highest = max(highest, stream.held)
        assert driver.protocol.take_message(stream) == one[5:]
        server.look()
    assert highest <= MIB + 5


def test_a_stalled_stream_does_not_starve_another() -> None:
    """A stream whose reader does nothing takes its own window, and the connection's stays open for others."""
    driver = Driver()
    stalled, lively = driver.call(), driver.call()
    server = Server(driver, [stalled, lively])
    while server.send(1, message(bytes(100)) * 100):
        pass
    assert server.windows[1] == 0
    for _ in range(50):
        left = message(bytes(100_000))
        while left:
            left = left[server.send(3, left) :]
        driver.protocol.take_message(lively)
        server.look()
    assert stalled.held == STREAM_WINDOW


def test_data_for_a_forgotten_stream_is_given_back() -> None:
    """What still comes for a call that was left, padding included, does not eat the connection's window."""
    driver = Driver()
    driver.protocol.reset_stream(driver.call())
    driver.sent()
    credit = 0
    for _ in range(200):
        driver.receive(data(1, bytes(16_000), padding=255))
        credit += sum(frame.increment for frame in driver.sent())
    assert 200 * 16_256 - credit < CONNECTION_WINDOW // 2
    assert driver.protocol._receive_window > CONNECTION_WINDOW // 2


def test_padding_counts() -> None:
    """Padding takes window like data (RFC 9113, 6.1), and is given back."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1))
    for _ in range(2000):
        driver.receive(data(1, padding=255))
    assert stream.receive_window > 0
    assert sum(frame.increment for frame in driver.sent() if frame.stream_id) == 2000 * 256 - (
        STREAM_WINDOW - stream.receive_window
    )


@pytest.mark.parametrize("size", [1, 7])
def test_crumbs_are_held_without_overhead(size: int) -> None:
    """A server that sends its window in frames of a few bytes makes us hold little more than those bytes."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1))
    crumbs = data(1, b"\0" * size) * 6000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        driver.receive(crumbs)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert stream.held == 6000 * size
    assert held < 2 * stream.held + 4096


@pytest.mark.parametrize("size", [900, 30_000, 60_000, 300_000, 3_000_000])
def test_a_buffer_takes_little_more_than_is_held(size: int) -> None:
    """Whatever was sent and taken before: memory for what a stream may hold, and a few KiB more."""
    driver = Driver()
    stream = driver.call()
    server = Server(driver, [stream])
    left, most = message(bytes(size)) * (4_000_000 // size), 0
    while left:
        while left and (sent := server.send(1, left)):
            left = left[sent:]
            most = max(most, sum(map(sys.getsizeof, stream._parts)))
        if stream.has_message:
            driver.protocol.take_message(stream)
            most = max(most, sum(map(sys.getsizeof, stream._parts)))
        server.look()
    assert most <= max(STREAM_WINDOW, PREFIX_SIZE + size) + 48 * 1024


def test_no_window_is_given_to_a_stream_that_has_ended() -> None:
    """Taking the messages of a complete answer sends nothing: a server may take an update for an old stream amiss."""
    driver = Driver()
    stream = driver.call()
    answer = message(bytes(8_000)) * 20
    driver.receive(headers(1), *(data(1, answer[at : at + 16_384]) for at in range(0, len(answer), 16_384)))
    driver.receive(trailers(1))
    driver.sent()
    assert len(driver.take_all(stream)) == 20
    assert not driver.sent()


def test_an_endless_stream_stays_small() -> None:
    """However long a stream is, and though a part of a message is always left, what was taken is let go."""
    driver = Driver()
    stream = driver.call()
    server = Server(driver, [stream])
    left = message(bytes(1_000)) * 5_000
    while left:
        left = left[server.send(1, left) :]
        driver.take_all(stream)
        server.look()
        assert sum(map(len, stream._parts)) < 128 * 1024


def test_what_was_left_is_not_held() -> None:
    """A stream that was reset from this side drops what it held."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1), data(1, message(bytes(10_000))))
    driver.protocol.reset_stream(stream)
    assert (stream.held, stream.has_message) == (0, False)
    assert not stream._parts


# -- sending --


def requested(driver: Driver, size: int, limit: int = NO_LIMIT) -> tuple[Stream, memoryview | None]:
    """A call with a body of that size, and what is left of it."""
    stream = Stream(nobody, MAX_MESSAGE)
    return stream, driver.protocol.open_stream(stream, a_block(), bytes(size), limit)


def sizes(driver: Driver) -> list[int]:
    """The sizes of the DATA frames that came out; the last is negative if it ended the stream."""
    return [-len(f.payload) if f.end_stream else len(f.payload) for f in driver.sent() if f.kind == "DATA"]


def test_a_body_leaves_as_far_as_the_window_goes() -> None:
    """The rest comes back, and leaves when the server has opened the windows of both stream and connection."""
    driver = Driver({4: 20_000})
    stream, rest = requested(driver, 80_000)
    assert sizes(driver) == [16_384, 3_616]
    assert rest is not None
    assert len(rest) == 60_000
    assert driver.receive(window_update(1, 50_000)) == [WINDOW_OPENED]
    rest = driver.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT)
    assert rest is not None
    assert (sum(sizes(driver)), len(rest)) == (45_535, 14_465)  # now the connection's window is used up
    assert driver.receive(window_update(0, 100_000)) == [WINDOW_OPENED]
    rest = driver.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT)
    assert rest is not None
    assert driver.receive(window_update(1, 100_000)) == [WINDOW_OPENED]
    assert driver.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT) is None
    assert sizes(driver)[-1] < 0
    assert stream.local_closed


def test_small_requests_take_window_too() -> None:
    """Requests that leave in one piece use the connection's window up like any other."""
    driver = Driver()
    for _ in range(6):
        assert requested(driver, 10_000)[1] is None
    rest = requested(driver, 10_000)[1]
    assert rest is not None
    assert len(rest) == 70_000 - 65_535


def test_an_opened_window_is_told_only_to_those_who_wait() -> None:
    """WindowOpened comes once for every sender's attempt that left a rest, and never without one."""
    driver = Driver({4: 100})
    assert driver.receive(window_update(0, 1), settings_frame({4: 200})) != [WINDOW_OPENED]
    stream, rest = requested(driver, 300)
    assert rest is not None
    assert driver.receive(window_update(1, 10), window_update(1, 10)) == [WINDOW_OPENED]
    assert driver.receive(window_update(1, 10)) == []
    assert driver.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT) is not None
    assert WINDOW_OPENED in driver.receive(settings_frame({4: 1000}))


def test_a_window_below_zero_holds_everything_back() -> None:
    """A server may shrink its window under what was sent: nothing leaves until it is above zero again."""
    driver = Driver({4: 1000})
    stream, rest = requested(driver, 1500)
    assert rest is not None
    driver.receive(settings_frame({4: 100}))
    assert stream.send_window == -900
    driver.receive(window_update(1, 900))
    sizes(driver)
    assert driver.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT) is rest
    driver.receive(window_update(1, 1))
    assert len(driver.protocol.send_data(stream, rest, end_stream=True, limit=NO_LIMIT) or b"") == 499
    assert sizes(driver) == [1]


def test_an_end_without_data_needs_no_window() -> None:
    """Half-closing works while every window is shut."""
    driver = Driver({4: 0})
    stream = driver.open()
    assert driver.protocol.send_data(stream, memoryview(b""), end_stream=True, limit=0) is None
    assert sizes(driver) == [0]
    assert stream.local_closed
    other = driver.open()
    driver.protocol.end_request(other)
    assert other.local_closed


def test_the_outbox_limit_is_kept() -> None:
    """No more than `limit` bytes of a body are queued, whatever the windows allow."""
    driver = Driver({4: MIB})
    driver.receive(window_update(0, MIB))
    stream, rest = requested(driver, 100_000, limit=20_000)
    assert rest is not None
    assert (sum(sizes(driver)), len(rest)) == (20_000, 80_000)
    rest = driver.protocol.send_data(stream, rest, end_stream=True, limit=0)
    assert rest is not None
    assert not sizes(driver)


def test_frames_are_no_larger_than_the_server_takes() -> None:
    """Frames of 16 KiB by default, larger ones where the server takes them, but never past 64 KiB."""
    for limit, largest in ((16_384, 16_384), (30_000, 30_000), (2**24 - 1, 65_536)):
        driver = Driver({4: MIB, 5: limit})
        driver.receive(window_update(0, MIB))
        requested(driver, 300_000)
        assert max(map(abs, sizes(driver))) == largest
