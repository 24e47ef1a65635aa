"""Every type of frame, legal and illegal: what the protocol makes of it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import pytest

from http2_driver import NO_LIMIT, Driver, a_block, named, nobody
from viewreg._http2.errors import ConnectionFailedError, FailureKind
from viewreg._http2.frames import MAX_STREAM_ID, ErrorCode
from viewreg._http2.protocol import (
    MAX_CONTINUATIONS,
    MAX_IDLE_FRAMES,
    MAX_QUEUED_REPLIES,
    GoAway,
    PingAnswered,
    Protocol,
    SettingsReceived,
)
from viewreg._http2.stream import Stream
from viewreg.testing.frames import (
    END_HEADERS,
    END_STREAM,
    PADDED,
    PRIORITY,
    RESPONSE,
    block,
    data,
    frame,
    goaway,
    headers,
    message,
    ping,
    rst_stream,
    settings,
    settings_ack,
    trailers,
    window_update,
)

if TYPE_CHECKING:
    from viewreg._http2.headers import HeaderList

PROTOCOL_ERROR: Final = ErrorCode.PROTOCOL_ERROR
FLOW_CONTROL_ERROR: Final = ErrorCode.FLOW_CONTROL_ERROR
FRAME_SIZE_ERROR: Final = ErrorCode.FRAME_SIZE_ERROR
ENHANCE_YOUR_CALM: Final = ErrorCode.ENHANCE_YOUR_CALM
COMPRESSION_ERROR: Final = ErrorCode.COMPRESSION_ERROR

TRAILERS: Final = ((b"grpc-status", b"0"),)


class Scene(Driver):
    """Streams in every state that a server may address."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = self.call()  # 1: the request is complete, nothing has come
        self.answering = self.call()  # 3: the response has begun
        self.receive(headers(3))
        self.ended = self.call()  # 5: over
        self.receive(headers(5), trailers(5))
        self.left = self.call()  # 7: reset by us
        self.protocol.reset_stream(self.left)
        self.asking = self.open()  # 9: the request is open; 11 was never opened
        self.sent()


LEGAL: Final = [
    ("response headers", headers(1), ["stream 1"]),
    ("interim response", headers(1, ((b":status", b"103"),)), []),
    ("interim, then final response", headers(1, ((b":status", b"100"),)) + headers(1), ["stream 1"]),
    ("trailers only", headers(1, (*RESPONSE, *TRAILERS), end=True), ["stream 1"]),
    ("trailers", trailers(3), ["stream 3"]),
    ("whole answer", headers(1) + data(1, message(b"x")) + trailers(1), ["stream 1"]),
    ("data", data(3, message(b"x")), ["stream 3"]),
    ("padded data", data(3, message(b"x"), padding=200), ["stream 3"]),
    ("data padded by nothing", data(3, message(b"x"), padding=0), ["stream 3"]),
    ("nothing but padding", data(3, padding=255), ["stream 3"]),
    ("empty data", data(3), ["stream 3"]),
    ("data with flags that nobody knows", frame("DATA", 0xF6, 3, b"\x00" + message(b"x")), ["stream 3"]),
    ("the largest frame", data(3, bytes(16_384)), ["stream 3"]),
    ("data that ends", data(3, message(b"x"), end=True), ["stream 3"]),
    ("data for a stream that ended", data(5, b"late"), []),
    ("data for a stream that we left", data(7, b"late"), []),
    ("headers for a stream that ended", headers(5), []),
    ("headers for a stream that we left", headers(7) + trailers(7), []),
    ("padded headers", frame("HEADERS", END_HEADERS | PADDED, 1, b"\3" + block(RESPONSE) + bytes(3)), ["stream 1"]),
    ("headers with priority", frame("HEADERS", END_HEADERS | PRIORITY, 1, bytes(5) + block(RESPONSE)), ["stream 1"]),
    ("headers with both", frame("HEADERS", 0x2C, 1, b"\1" + bytes(5) + block(RESPONSE) + b"\0"), ["stream 1"]),
    (
        "headers in pieces",
        frame("HEADERS", 0, 1, block(RESPONSE)[:3])
        + frame("CONTINUATION", 0, 1, block(RESPONSE)[3:9])
        + frame("CONTINUATION", END_HEADERS, 1, block(RESPONSE)[9:]),
        ["stream 1"],
    ),
    ("headers in empty pieces", frame("HEADERS", 0, 1) + frame("CONTINUATION", 4, 1, block(RESPONSE)), ["stream 1"]),
    ("priority", frame("PRIORITY", 0, 1, bytes(5)), []),
    ("priority of a stream to come", frame("PRIORITY", 0, 99, bytes(5)), []),
    ("priority of a wrong size, stream over", frame("PRIORITY", 0, 5, bytes(4)), []),
    ("reset", rst_stream(1, 2), ["stream 1"]),
    ("reset of a stream that ended", rst_stream(5), []),
    ("reset of a stream that we left", rst_stream(7), []),
    ("reset with an unknown code", rst_stream(1, 0xDEAD), ["stream 1"]),
    ("settings", settings({3: 100}), ["SettingsReceived"]),
    ("unknown settings", settings({0x99: 1, 8: 1}), ["SettingsReceived"]),
    ("push disabled", settings({2: 0}), ["SettingsReceived"]),
    ("settings acknowledged", settings_ack(), []),
    ("ping", ping(), []),
    ("ping answered", ping(ack=True), ["PingAnswered"]),
    ("ping with unknown flags", frame("PING", 0xFE, 0, bytes(8)), []),
    ("goaway, all processed", goaway(), ["GoAway"]),
    ("goaway with words", goaway(2**31 - 1, 11, b"too_many_pings"), ["GoAway"]),
    ("goaway, some not processed", goaway(3), ["stream 9", "GoAway"]),
    ("goaway with reserved bit", goaway(2**32 - 1), ["GoAway"]),
    ("window update", window_update(0, 1), []),
    ("window update of a stream", window_update(9, 1), []),
    ("window update of a stream that ended", window_update(5, 1), []),
    ("window update of 0, stream over", window_update(7, 0), []),
    ("window update with reserved bit", window_update(0, 2**31 + 1), []),
    ("frame of unknown type", frame(0x77, 0xFF, 12, b"whatever"), []),
    ("frame of unknown type, connection", frame(0xA, 0, 0, b"altsvc"), []),
    ("reserved bit of a stream id", frame("DATA", 0, 2**31 + 3, message(b"x")), ["stream 3"]),
]

CONNECTION_ERRORS: Final = [
    ("data on stream 0", data(0, b"x"), PROTOCOL_ERROR),
    ("data on a server's stream", data(2, b"x"), PROTOCOL_ERROR),
    ("data on a stream to come", data(11, b"x"), PROTOCOL_ERROR),
    ("more padding than data", frame("DATA", PADDED, 3, b"\5abcd"), PROTOCOL_ERROR),
    ("padding without length", frame("DATA", PADDED, 3, b""), FRAME_SIZE_ERROR),
    ("frame too large", frame("DATA", 0, 3, bytes(16_385)), FRAME_SIZE_ERROR),
    ("unknown frame too large", frame(0x77, 0, 0, b"", length=2**24 - 1), FRAME_SIZE_ERROR),
    ("headers on stream 0", headers(0), PROTOCOL_ERROR),
    ("headers on a server's stream", headers(2), PROTOCOL_ERROR),
    ("headers on a stream to come", headers(11), PROTOCOL_ERROR),
    ("headers in pieces on a stream to come", frame("HEADERS", 0, 11), PROTOCOL_ERROR),
    ("more padding than headers", frame("HEADERS", END_HEADERS | PADDED, 1, b"\5abcd"), PROTOCOL_ERROR),
    ("headers too short for priority", frame("HEADERS", END_HEADERS | PRIORITY, 1, bytes(4)), FRAME_SIZE_ERROR),
    ("headers of no such index", frame("HEADERS", END_HEADERS, 1, b"\xff\xff\x03"), COMPRESSION_ERROR),
    ("headers of index 0", frame("HEADERS", END_HEADERS, 1, b"\x80"), COMPRESSION_ERROR),
    ("headers cut short", frame("HEADERS", END_HEADERS, 1, b"\x00\x0aabc"), COMPRESSION_ERROR),
    ("headers cut before the value", frame("HEADERS", END_HEADERS, 1, b"\x00\x01a"), COMPRESSION_ERROR),
    ("table size past the limit", frame("HEADERS", END_HEADERS, 1, b"\x3f\xe2\x1f"), COMPRESSION_ERROR),
    ("headers unreadable, stream over", frame("HEADERS", END_HEADERS, 7, b"\x80"), COMPRESSION_ERROR),
    ("header list too large", frame("HEADERS", 4, 1, b"\x88" + b"\x90" * 2000), ENHANCE_YOUR_CALM),
    ("a number without end", frame("HEADERS", 4, 1, b"\x00\x7f" + b"\xff" * 9000), COMPRESSION_ERROR),
    (
        "header block without end",
        frame("HEADERS", 0, 1) + frame("CONTINUATION", 0, 1, bytes(16_000)) * 5,
        ENHANCE_YOUR_CALM,
    ),
    (
        "header block in crumbs",
        frame("HEADERS", 0, 1) + frame("CONTINUATION", 0, 1) * (MAX_CONTINUATIONS + 1),
        ENHANCE_YOUR_CALM,
    ),
    ("headers not continued", frame("HEADERS", 0, 1) + ping(), PROTOCOL_ERROR),
    ("headers not continued, unknown frame", frame("HEADERS", 0, 1) + frame(0x77), PROTOCOL_ERROR),
    ("continued on another stream", frame("HEADERS", 0, 1) + frame("CONTINUATION", 4, 3), PROTOCOL_ERROR),
    ("continuation of nothing", frame("CONTINUATION", END_HEADERS, 1), PROTOCOL_ERROR),
    ("priority on stream 0", frame("PRIORITY", 0, 0, bytes(5)), PROTOCOL_ERROR),
    ("reset of stream 0", rst_stream(0), PROTOCOL_ERROR),
    ("reset of a stream to come", rst_stream(11), PROTOCOL_ERROR),
    ("reset of a wrong size", frame("RST_STREAM", 0, 1, bytes(5)), FRAME_SIZE_ERROR),
    ("settings on a stream", frame("SETTINGS", 0, 1), PROTOCOL_ERROR),
    ("settings of a wrong size", frame("SETTINGS", 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    ("settings acknowledged with a payload", frame("SETTINGS", 1, 0, bytes(6)), FRAME_SIZE_ERROR),
    ("push enabled by a server", settings({2: 1}), PROTOCOL_ERROR),
    ("initial window too large", settings({4: 2**31}), FLOW_CONTROL_ERROR),
    ("initial window that lifts a stream's", window_update(9, 2**30) + settings({4: 2**31 - 1}), FLOW_CONTROL_ERROR),
    ("frame size too small", settings({5: 16_383}), PROTOCOL_ERROR),
    ("frame size too large", settings({5: 2**24}), PROTOCOL_ERROR),
    ("push promise", frame("PUSH_PROMISE", END_HEADERS, 1, struct.pack(">L", 2)), PROTOCOL_ERROR),
    ("ping on a stream", frame("PING", 0, 1, bytes(8)), PROTOCOL_ERROR),
    ("ping of a wrong size", frame("PING", 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("goaway on a stream", frame("GOAWAY", 0, 1, bytes(8)), PROTOCOL_ERROR),
    ("goaway of a wrong size", frame("GOAWAY", 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("window update of 0", window_update(0, 0), PROTOCOL_ERROR),
    ("window update of 0 by the reserved bit", window_update(0, 2**31), PROTOCOL_ERROR),
    ("window past its end", window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
    ("window update of a wrong size", frame("WINDOW_UPDATE", 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    ("window update of a stream to come", window_update(11, 1), PROTOCOL_ERROR),
    ("pings without end", ping() * (MAX_QUEUED_REPLIES + 1), ENHANCE_YOUR_CALM),
    ("settings without end", settings() * (MAX_QUEUED_REPLIES + 1), ENHANCE_YOUR_CALM),
    ("empty frames without end", data(3) * (2 * MAX_IDLE_FRAMES), ENHANCE_YOUR_CALM),
    ("empty frames without end, stream over", data(7) * (2 * MAX_IDLE_FRAMES), ENHANCE_YOUR_CALM),
]

STREAM_ERRORS: Final = [
    ("data before headers", data(1, b"x"), 1, PROTOCOL_ERROR),
    ("no status", headers(1, ((b"content-type", b"application/grpc"),)), 1, PROTOCOL_ERROR),
    ("no headers at all", frame("HEADERS", END_HEADERS, 1), 1, PROTOCOL_ERROR),
    ("status of two digits", headers(1, ((b":status", b"20"),)), 1, PROTOCOL_ERROR),
    ("status of words", headers(1, ((b":status", b"abc"),)), 1, PROTOCOL_ERROR),
    ("status of foreign digits", headers(1, ((b":status", "٢٠٠".encode()),)), 1, PROTOCOL_ERROR),
    ("two statuses", headers(1, ((b":status", b"200"), (b":status", b"200"))), 1, PROTOCOL_ERROR),
    ("status at the end", headers(1, ((b"a", b"b"), (b":status", b"200"))), 1, PROTOCOL_ERROR),
    ("a request's pseudo field", headers(1, ((b":status", b"200"), (b":path", b"/"))), 1, PROTOCOL_ERROR),
    ("capitals in a name", headers(1, (*RESPONSE, (b"Grpc-Status", b"0"))), 1, PROTOCOL_ERROR),
    ("an empty name", headers(1, (*RESPONSE, (b"", b"0"))), 1, PROTOCOL_ERROR),
    ("a space in a name", headers(1, (*RESPONSE, (b"a b", b"0"))), 1, PROTOCOL_ERROR),
    ("a line end in a value", headers(1, (*RESPONSE, (b"a", b"b\r\nc"))), 1, PROTOCOL_ERROR),
    ("a field of HTTP/1", headers(1, (*RESPONSE, (b"connection", b"close"))), 1, PROTOCOL_ERROR),
    ("interim response that ends", headers(1, ((b":status", b"103"),), end=True), 1, PROTOCOL_ERROR),
    ("switching protocols", headers(1, ((b":status", b"101"),)), 1, PROTOCOL_ERROR),
    ("a second response", headers(3), 3, PROTOCOL_ERROR),
    ("trailers with a status", headers(3, (*RESPONSE, *TRAILERS), end=True), 3, PROTOCOL_ERROR),
    ("trailers that do not end", headers(3, TRAILERS), 3, PROTOCOL_ERROR),
    ("priority of a wrong size", frame("PRIORITY", 0, 1, bytes(4)), 1, FRAME_SIZE_ERROR),
    ("window update of 0", window_update(9, 0), 9, PROTOCOL_ERROR),
    ("window past its end", window_update(9, 2**31 - 1), 9, FLOW_CONTROL_ERROR),
    ("more than the window", data(3, bytes(16_384)) * 17, 3, FLOW_CONTROL_ERROR),
]


@pytest.mark.parametrize(("received", "events"), [row[1:] for row in LEGAL], ids=[row[0] for row in LEGAL])
def test_what_is_legal_is_told_and_harms_nothing(received: bytes, events: list[str]) -> None:
    """Everything that RFC 9113 allows a server gives its events, resets no stream and ends no connection."""
    scene = Scene()
    assert named(scene.receive(received)) == events
    assert not [frame for frame in scene.sent() if frame.kind in ("RST_STREAM", "GOAWAY")]
    assert scene.receive(ping(b"still up", ack=True)) == [PingAnswered(b"still up")]


@pytest.mark.parametrize(
    ("received", "code"), [row[1:] for row in CONNECTION_ERRORS], ids=[row[0] for row in CONNECTION_ERRORS]
)
def test_what_is_illegal_for_the_connection_ends_it(received: bytes, code: ErrorCode) -> None:
    """The right code goes out with GOAWAY, `receive` fails from then on, and every open stream can be told."""
    scene = Scene()
    with pytest.raises(ConnectionFailedError) as caught:
        scene.receive(received)
    assert caught.value.code is code
    assert [(frame.kind, frame.code) for frame in scene.sent()][-1] == ("GOAWAY", code)
    with pytest.raises(ConnectionFailedError) as again:
        scene.receive(ping())
    assert (again.value.code, again.value.message) == (code, caught.value.message)
    assert not scene.sent()
    assert {1, 3, 9} <= {stream.id for stream in scene.protocol.lose("it broke the protocol")}
    assert scene.waiting.ended
    assert scene.answering.ended


@pytest.mark.parametrize(
    ("received", "stream_id", "code"), [row[1:] for row in STREAM_ERRORS], ids=[row[0] for row in STREAM_ERRORS]
)
def test_what_is_illegal_for_a_stream_resets_it(received: bytes, stream_id: int, code: ErrorCode) -> None:
    """The stream fails with the right code, the server is told by RST_STREAM, the other streams go on."""
    scene = Scene()
    stream = scene.protocol.streams[stream_id]
    assert stream in scene.receive(received)
    assert stream.failure is not None
    assert (stream.failure.kind, stream.failure.code) == (FailureKind.MALFORMED, code)
    resets = [(frame.stream_id, frame.code) for frame in scene.sent() if frame.kind == "RST_STREAM"]
    assert resets == [(stream_id, code)]
    assert set(scene.protocol.streams) == {1, 3, 9} - {stream_id}
    assert not scene.receive(rst_stream(stream_id), data(stream_id, b"late"))


@pytest.mark.parametrize("ack", [False, True])
def test_a_server_begins_with_settings(ack: bool) -> None:
    """Anything else, an acknowledgement of SETTINGS included, is not HTTP/2."""
    driver = Driver(handshake=False)
    with pytest.raises(ConnectionFailedError, match="does not speak HTTP/2"):
        driver.receive(settings_ack() if ack else ping())


def test_garbage_is_shown_legibly() -> None:
    """Bytes that are no text are escaped once: so the code behind them is not cut off."""
    with pytest.raises(ConnectionFailedError) as caught:
        Driver(handshake=False).receive(bytes(range(255, 155, -1)))
    assert r"it said '\xff\xfe\xfd" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_server_of_http_1_is_quoted() -> None:
    """What a web server says first stands in the error."""
    with pytest.raises(ConnectionFailedError, match=r"'HTTP/1\.1 400 Bad Request'"):
        Driver(handshake=False).receive(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(ConnectionFailedError, match=r"'SSH-2\.0-OpenSSH"):
        Driver(handshake=False).receive(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")


def test_the_preface_announces_what_we_accept() -> None:
    """No table, no push, 256 KiB for a stream, 1 MiB for the connection, 64 KiB of headers; frames of 16 KiB."""
    first, second = Driver(handshake=False).sent()
    assert first.settings == {1: 0, 2: 0, 4: 262_144, 6: 65_536}
    assert (second.kind, second.stream_id, 65_535 + second.increment) == ("WINDOW_UPDATE", 0, 1024 * 1024)


def test_streams_wait_for_the_settings() -> None:
    """No stream is free before the server's first SETTINGS, then as many as it allows."""
    driver = Driver(handshake=False)
    assert driver.protocol.free_streams == 0
    assert driver.receive(settings({3: 2})) == [SettingsReceived()]
    assert driver.protocol.free_streams == 2
    driver.sent()
    driver.call()
    assert driver.protocol.free_streams == 1
    driver.receive(settings({3: 0}))
    assert driver.protocol.free_streams <= 0


def test_a_reset_keeps_its_code() -> None:
    """The code of RST_STREAM reaches the call."""
    scene = Scene()
    scene.receive(rst_stream(1, ErrorCode.REFUSED_STREAM))
    assert scene.waiting.failure is not None
    assert (scene.waiting.failure.kind, scene.waiting.failure.code) == (FailureKind.RESET_BY_PEER, 7)
    assert "REFUSED_STREAM" in scene.waiting.failure.message


def test_a_reset_after_the_trailers_is_no_failure() -> None:
    """Servers of gRPC send RST_STREAM(NO_ERROR) behind an early answer: the answer stands."""
    driver = Driver()
    stream = driver.open()
    driver.receive(headers(1), data(1, message(b"early")), trailers(1), rst_stream(1))
    assert (stream.failure, stream.ended, driver.take_all(stream)) == (None, True, [b"early"])


def test_an_early_answer_frees_the_stream() -> None:
    """A request that is still open when its answer is complete is ended by RST_STREAM(NO_ERROR)."""
    driver = Driver()
    stream = driver.open()
    driver.receive(headers(1), trailers(1))
    assert [(frame.kind, frame.code) for frame in driver.sent()] == [("RST_STREAM", 0)]
    assert stream.local_closed
    assert not driver.protocol.streams
    assert driver.protocol.send_data(stream, memoryview(b"for nobody"), end_stream=True, limit=NO_LIMIT) is None
    driver.protocol.end_request(stream)
    assert not driver.sent()


def test_nothing_is_sent_on_a_stream_that_was_reset() -> None:
    """After `reset_stream`, neither data nor an end nor a second reset leaves."""
    driver = Driver()
    stream = driver.open()
    driver.protocol.reset_stream(stream)
    driver.protocol.reset_stream(stream)
    assert driver.protocol.send_data(stream, memoryview(b"x"), end_stream=False, limit=NO_LIMIT) is None
    driver.protocol.end_request(stream)
    assert [(frame.kind, frame.code) for frame in driver.sent()] == [("RST_STREAM", 8)]


def test_messages_before_a_failure_can_be_taken() -> None:
    """What was complete when the server reset the stream is not lost."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1), data(1, message(b"one") + message(b"two") + message(b"three")[:-1]), rst_stream(1, 2))
    assert driver.take_all(stream) == [b"one", b"two"]
    assert stream.failure is not None


@pytest.mark.parametrize(
    ("bad", "kind"),
    [(message(b"abc", compressed=True), FailureKind.COMPRESSED), (message(bytes(101)), FailureKind.TOO_LARGE)],
    ids=["compressed", "too large"],
)
def test_a_bad_message_fails_its_stream_when_its_turn_comes(bad: bytes, kind: FailureKind) -> None:
    """The messages ahead of it are delivered, then the stream is reset, and only it."""
    driver = Driver()
    stream, other = driver.call(max_message=100), driver.call()
    driver.receive(headers(1), data(1, message(b"good") + message(b"") + bad[:5]), headers(3))
    assert not stream.ended
    assert driver.take_all(stream) == [b"good", b""]
    assert stream.failure is not None
    assert stream.failure.kind is kind
    assert [(frame.kind, frame.stream_id, frame.code) for frame in driver.sent()] == [("RST_STREAM", 1, 8)]
    assert not other.ended


def test_a_bad_message_at_the_end_is_not_answered() -> None:
    """Where the bad message ends the stream there is nothing left to reset: only an open request still has to end."""
    driver = Driver()
    over, open_request = driver.call(max_message=100), driver.open()
    driver.receive(headers(1), data(1, message(bytes(101)), end=True))
    driver.receive(headers(3), data(3, message(b"abc", compressed=True), end=True))
    assert over.failure is not None
    assert open_request.failure is not None
    assert [(frame.kind, frame.stream_id, frame.code) for frame in driver.sent()] == [("RST_STREAM", 3, 8)]
    assert not driver.protocol.streams


def test_the_first_failure_counts() -> None:
    """A bad message that is found after the server has reset the stream does not hide the reset."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1), data(1, message(b"good") + message(b"x", compressed=True)), rst_stream(1, 2))
    driver.take_all(stream)
    assert stream.failure is not None
    assert stream.failure.kind is FailureKind.RESET_BY_PEER


def test_goaway_twice_fails_more_streams() -> None:
    """A server that goes away in two steps keeps the first streams until the second step names a lower id."""
    driver = Driver()
    streams = [driver.call() for _ in range(3)]
    assert driver.receive(goaway(2**31 - 1)) == [GoAway(2**31 - 1, 0, "")]
    assert driver.protocol.free_streams == 0
    assert named(driver.receive(goaway(1, 0, b"bye"))) == ["stream 5", "stream 3", "GoAway"]
    kinds = [stream.failure and stream.failure.kind for stream in streams]
    assert kinds == [None, FailureKind.NOT_PROCESSED, FailureKind.NOT_PROCESSED]
    driver.receive(goaway(5), headers(1), data(1, message(b"last")), trailers(1))
    assert driver.take_all(streams[0]) == [b"last"]


def test_the_reserved_bit_of_goaway_means_nothing() -> None:
    """The last stream id has 31 bits: with the one before them set, the same streams are left out."""
    driver = Driver()
    streams = [driver.call() for _ in range(2)]
    assert named(driver.receive(goaway(2**31 + 1))) == ["stream 3", "GoAway"]
    assert [stream.failure is None for stream in streams] == [True, False]


def test_goaway_is_told_behind_all_that_came_with_it() -> None:
    """An error that ends the connection hides no answer that arrived in the same bytes."""
    driver = Driver()
    stream = driver.call()
    events = driver.receive(goaway(1, 11, b"too_many_pings"), headers(1), trailers(1), goaway(1, 2))
    assert events == [stream, GoAway(1, 2, "")]
    assert driver.receive(ping(ack=True)) == [PingAnswered(b"12345678")]


def test_goaway_does_not_make_an_answered_call_unprocessed() -> None:
    """A stream above the last id that has been answered was processed, whatever GOAWAY says."""
    driver = Driver()
    stream = driver.call()
    driver.receive(headers(1), goaway(0))
    assert stream.failure is not None
    assert stream.failure.kind is FailureKind.CONNECTION_LOST


def test_what_was_complete_before_the_garbage_is_still_told() -> None:
    """A call that ended in the very bytes that broke the connection is among the streams that `lose` returns."""
    driver = Driver()
    stream, other = driver.call(), driver.call()
    with pytest.raises(ConnectionFailedError):
        driver.receive(headers(1), data(1, message(b"done")), trailers(1), data(0))
    assert driver.protocol.lose("garbage") == [stream, other]
    assert (stream.failure, driver.take_all(stream)) == (None, [b"done"])
    assert other.failure is not None
    assert other.failure.kind is FailureKind.CONNECTION_LOST


def test_a_broken_connection_has_no_free_streams() -> None:
    """After the server broke the protocol no stream can be opened, whoever looks before `lose` was called."""
    driver = Driver()
    assert driver.protocol.free_streams > 0
    with pytest.raises(ConnectionFailedError):
        driver.receive(data(0))
    assert driver.protocol.free_streams == 0


def test_stream_ids_run_out() -> None:
    """After the last id the connection takes no new streams, as after GOAWAY."""
    driver = Driver()
    driver.protocol._next_stream_id = MAX_STREAM_ID
    stream = driver.call()
    assert stream.id == MAX_STREAM_ID
    assert driver.protocol.free_streams == 0
    assert driver.protocol.going_away
    driver.receive(headers(MAX_STREAM_ID), trailers(MAX_STREAM_ID))
    assert stream.ended


def test_replies_are_counted_afresh_when_they_have_left() -> None:
    """A server may send as many PINGs as it likes, if it reads the answers."""
    driver = Driver()
    for _ in range(5):
        driver.receive(ping() * (MAX_QUEUED_REPLIES // 2))
        assert {frame.kind for frame in driver.sent()} == {"PING"}


def test_an_unread_flood_over_several_reads_is_noticed() -> None:
    """A server that asks and never reads is told to calm down, however it spreads its questions."""
    driver = Driver()
    for _ in range(MAX_QUEUED_REPLIES):
        driver.receive(ping())
    with pytest.raises(ConnectionFailedError, match="ENHANCE_YOUR_CALM"):
        driver.receive(ping())


@pytest.mark.parametrize("useful", ["DATA", "HEADERS", "a call", "a request's DATA"])
def test_idle_frames_between_others_are_borne(useful: str) -> None:
    """Only frames in a row count that bring no call any further: an answer, or a question of ours, begins a new row."""
    driver = Driver()
    streams = [driver.open() for _ in range(20)]
    driver.receive(headers(1), window_update(1, 1000), window_update(0, 1000))
    for turn in range(1, 10):
        driver.receive(window_update(0, 1) * (MAX_IDLE_FRAMES - 10))
        if useful == "DATA":
            driver.receive(data(1, b"\0"))
        elif useful == "HEADERS":
            driver.receive(headers(1 + 2 * turn))
        elif useful == "a call":
            driver.call()
        else:
            driver.protocol.send_data(streams[0], memoryview(b"x"), end_stream=False, limit=100)


IDLE: Final = {
    "PING": ping(),
    "an answer to no PING": ping(ack=True),
    "SETTINGS": settings(),
    "SETTINGS of no streams": settings({0x3: 0}),
    "an acknowledgement of no SETTINGS": frame("SETTINGS", 1),
    "PRIORITY": frame("PRIORITY", 0, 1, bytes(5)),
    "a type that nobody knows": frame(0xFE, 0, 0),
    "WINDOW_UPDATE": window_update(0, 1),
    "WINDOW_UPDATE of a stream": window_update(1, 1),
    "RST_STREAM of a stream that is over": rst_stream(7, 8),
    "HEADERS of a stream that is over": headers(7),
    "empty DATA": data(3),
    "empty DATA of a stream that is over": data(7),
    "padding alone": data(3, padding=255),
    "an informational response": headers(1, ((b":status", b"103"),)),
}


@pytest.mark.parametrize("what", IDLE)
def test_no_frame_is_borne_for_ever(what: str) -> None:
    """A server that sends and sends, reads our answers and brings no call any further is told to calm down."""
    driver = Driver()
    for _ in range(4):
        driver.call()
    driver.receive(headers(3), headers(7), trailers(7))

    def flood() -> None:
        for _ in range(MAX_IDLE_FRAMES // 100 + 1):
            driver.receive(IDLE[what] * 100)
            driver.sent()

    with pytest.raises(ConnectionFailedError, match="ENHANCE_YOUR_CALM"):
        flood()


def test_many_calls_left_at_once_are_no_flood() -> None:
    """Answers that cross the resets of thousands of calls are borne, also after another call has begun."""
    driver = Driver()
    streams = [driver.call() for _ in range(6_000)]
    for stream in streams:
        driver.protocol.reset_stream(stream)
    driver.call()
    for stream in streams:
        driver.receive(headers(stream.id), data(stream.id, message(b"")), trailers(stream.id))


def test_many_requests_read_are_no_flood() -> None:
    """A server may give back the windows of thousands of requests before it answers one."""
    driver = Driver()
    streams = [driver.call() for _ in range(6_000)]
    for stream in streams:
        driver.receive(window_update(0, 5), window_update(stream.id, 5))


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    """PING goes back with ACK and the same payload, ahead of nothing else."""
    driver = Driver()
    driver.receive(ping(b"abcdefgh"))
    (answer,) = driver.sent()
    assert (answer.kind, answer.ack, answer.payload) == ("PING", True, b"abcdefgh")


def test_settings_are_acknowledged_one_by_one() -> None:
    """Each SETTINGS frame gets an acknowledgement, an acknowledgement gets none."""
    driver = Driver()
    driver.receive(settings(), settings_ack(), settings({4: 1}))
    assert [(frame.kind, frame.ack) for frame in driver.sent()] == [("SETTINGS", True)] * 2


def test_close_says_goodbye_once() -> None:
    """GOAWAY leaves once, with stream id 0, whatever closes first."""
    driver = Driver()
    driver.protocol.close(ErrorCode.NO_ERROR, "done")
    driver.protocol.close(ErrorCode.INTERNAL_ERROR)
    (frame_,) = driver.sent()
    assert (frame_.kind, frame_.code, frame_.payload[:4], frame_.payload[8:]) == ("GOAWAY", 0, bytes(4), b"done")


def test_bytes_may_be_a_bytearray() -> None:
    """Trio's streams in memory give bytearrays: what is kept of them does not change with them."""
    driver = Driver()
    stream = driver.call()
    received = bytearray(headers(1) + data(1, message(b"stay")) + trailers(1))
    driver.protocol.receive(received)
    received[:] = bytes(len(received))
    assert driver.take_all(stream) == [b"stay"]
    assert stream.trailers == TRAILERS


def test_headers_of_a_stream_that_we_left_count_for_the_table() -> None:
    """A server's table goes on, whoever listens: a later block that refers to such headers is understood."""
    driver = Driver()
    driver.protocol.reset_stream(driver.call())
    stream = driver.call()
    indexed = b"\x88" + b"\x40" + block(((b"x-key", b"x-value"),))[1:]  # enters the table, which we asked to be empty
    driver.receive(frame("HEADERS", END_HEADERS, 1, indexed))
    driver.receive(frame("HEADERS", END_HEADERS | END_STREAM, 3, b"\x88\xbe"))
    expected: HeaderList = ((b":status", b"200"), (b"x-key", b"x-value"))
    assert stream.headers == stream.trailers == expected


def test_a_protocol_has_no_cycle() -> None:
    """A connection's memory is free as soon as its owner drops it, without the garbage collector."""
    import gc
    import weakref

    class Watched(Protocol):
        __slots__ = ("__weakref__",)

    gc.disable()
    try:
        protocol = Watched()
        protocol.receive(settings())
        protocol.open_stream(Stream(nobody, 1), a_block(), message(b"x"), NO_LIMIT)
        with pytest.raises(ConnectionFailedError):
            protocol.receive(data(0))
        gone = weakref.ref(protocol)
        del protocol
        assert gone() is None
    finally:
        gc.enable()
