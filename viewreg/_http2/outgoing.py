"""What a client sends: calls in, bytes out. The table of open streams, the server's limits, and the outbox.

Rules:
* Every method appends whole frames to the outbox, at once and synchronously. Whoever owns the socket takes them.
* DATA goes as far as the windows of stream and connection allow. What is left over goes back to its sender, and
  `receive` says `WindowOpened` when it is worth another try.
* A stream is forgotten when both sides have closed it or either has reset it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from viewreg._http2 import frames
from viewreg._http2.errors import FailureKind, StreamFailure
from viewreg._http2.flow import CONNECTION_WINDOW, STREAM_DUE, STREAM_WINDOW, stream_credit
from viewreg._http2.frames import ErrorCode
from viewreg._http2.headers import MAX_HEADER_LIST_SIZE, TABLE_SIZE_ZERO
from viewreg._http2.stream import Stream

if TYPE_CHECKING:
    from viewreg._http2.events import Event

_UNLIMITED: Final = 2**31
_CROSSING: Final = 8  # frames of an answer that may cross our reset of its stream, and are no flood
_MAX_DEBUG: Final = 256  # bytes of words in a GOAWAY

_PREFACE: Final = b"".join((
    frames.PREFACE,
    frames.settings_frame({
        frames.SETTINGS_HEADER_TABLE_SIZE: 0,
        frames.SETTINGS_ENABLE_PUSH: 0,
        frames.SETTINGS_INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        frames.SETTINGS_MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_SIZE,
    }),
    frames.window_update_frame(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW),
))  # fmt: skip


class Outgoing:
    """The sending half of a `Protocol`, whose other half keeps the server's limits current. Never made by itself."""

    __slots__ = (
        "_closed", "_events", "_first_block", "_idle_frames", "_initial_send_window", "_max_send_frame",
        "_next_stream_id", "_outbox", "_queued_replies", "_send_window", "_starved", "going_away",
        "max_concurrent_streams", "max_send_header_list", "outbox_size", "settings_received", "streams",
    )  # fmt: skip

    def __init__(self) -> None:
        self.streams: Final[dict[int, Stream]] = {}  # open ones by id, in ascending order
        self.max_concurrent_streams = _UNLIMITED  # the server's word
        self.max_send_header_list = _UNLIMITED  # bytes; likewise
        self.going_away = False  # no new streams: GOAWAY was received, the ids are used up, or the connection is lost
        self.settings_received = False
        self.outbox_size = 0  # bytes that wait to be taken
        self._outbox: list[bytes] = []
        self._queued_replies = 0  # frames among them that the server's own made us send
        self._events: list[Event] = []  # found by `receive`, not told yet
        self._idle_frames = 0  # received in a row that brought no call any further; below 0: so many are expected
        self._next_stream_id = 1
        self._send_window = frames.DEFAULT_WINDOW
        self._initial_send_window = frames.DEFAULT_WINDOW
        self._max_send_frame = frames.MIN_MAX_FRAME_SIZE
        self._starved = False  # a sender has a rest and waits for WindowOpened
        self._first_block = True
        self._closed = False  # GOAWAY was sent
        self._put(_PREFACE)

    def take_outbox(self) -> bytes:
        """What is to be written now, in order; empty if there is nothing."""
        parts = self._outbox
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.outbox_size = self._queued_replies = 0
        return data

    @property
    def free_streams(self) -> int:
        """How many streams may be opened now; below zero after the server has lowered its limit."""
        if self.going_away or not self.settings_received:
            return 0
        return self.max_concurrent_streams - len(self.streams)

    def open_stream(self, stream: Stream, block: bytes, body: bytes | None, limit: int) -> memoryview | None:
        """Send the request's header block, and of `body` what the windows and `limit` bytes allow.

        Requires `free_streams`. The body is the whole request: returns what is left of it, for `send_data`. Without
        one (None) the request stays open.
        """
        if self._first_block:
            block, self._first_block = TABLE_SIZE_ZERO + block, False
        stream.id = stream_id = self._next_stream_id
        self._next_stream_id += 2
        if self._idle_frames > 0:  # noqa: PLR1730 (min is slow, and this is done for every call)
            self._idle_frames = 0
        if stream_id == frames.MAX_STREAM_ID:
            self.going_away = True  # a new connection has new ids
        stream.send_window = window = self._initial_send_window
        self.streams[stream_id] = stream
        largest = self._max_send_frame
        if body and len(block) <= largest and (size := len(body)) <= min(limit, window, self._send_window, largest):
            # The common case: the whole request leaves in one piece.
            stream.send_window = window - size
            self._send_window -= size
            stream.local_closed = True
            self._put(frames.request_frames(stream_id, block, body))
            return None
        self._put(frames.headers_frames(stream_id, block, end_stream=False, max_frame_size=largest))
        return None if body is None else self.send_data(stream, memoryview(body), end_stream=True, limit=limit)

    def send_data(self, stream: Stream, data: memoryview, *, end_stream: bool, limit: int) -> memoryview | None:
        """Queue of `data` what the windows and `limit` bytes allow. Returns the rest, None once all is queued.

        On a stream that this side has closed, or whose call has ended, it goes nowhere.
        """
        if stream.local_closed:
            return None
        room = min(limit, stream.send_window, self._send_window)  # below zero if the server has shrunk the window
        while len(data) > 0 and room > 0:
            size = min(len(data), room, self._max_send_frame)
            last = end_stream and size == len(data)
            self._put(frames.frame(frames.DATA, frames.END_STREAM if last else 0, stream.id, data[:size]))
            self._idle_frames = min(self._idle_frames, 0)
            stream.send_window -= size
            self._send_window -= size
            room -= size
            data = data[size:]
            if last:
                self._close_local(stream)
                return None
        if len(data) > 0:
            self._starved = True
            return data
        if end_stream:
            self.end_request(stream)
        return None

    def end_request(self, stream: Stream) -> None:
        """Half-close: no more messages follow. Does nothing if this side has closed already."""
        if not stream.local_closed:
            self._put(frames.frame(frames.DATA, frames.END_STREAM, stream.id))
            self._close_local(stream)

    def reset_stream(self, stream: Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End the stream now. What the peer still sends on it is dropped. Does nothing if it is over already."""
        if self.streams.pop(stream.id, None) is not None:
            stream.local_closed = True
            stream.discard()
            self._idle_frames -= _CROSSING
            self._put(frames.rst_stream_frame(stream.id, code))

    def take_message(self, stream: Stream) -> bytes:
        """The message at the stream's head; the window is opened for as much. Requires `stream.has_message`."""
        message, failure = stream.take_message()
        if failure is not None:
            self._fail_stream(stream, failure)
        elif stream.receive_window <= STREAM_DUE or stream.receive_window < stream.needed:
            self._extend(stream)
        return message

    def pause(self) -> None:
        """The server was silent for a while: what it says now is no part of a flood."""
        self._idle_frames = min(self._idle_frames, 0)

    def ping(self, payload: bytes) -> None:
        """Ask for a PingAnswered with the same eight bytes."""
        self._put(frames.frame(frames.PING, 0, 0, payload))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, debug: str = "") -> None:
        """Say goodbye: GOAWAY, once. The client's last stream id is 0, for servers open none here."""
        if not self._closed:
            self._closed = True
            self._put(frames.goaway_frame(0, code, debug.encode()[:_MAX_DEBUG]))

    def lose(self, message: str) -> list[Stream]:
        """The connection is gone: every open stream fails.

        Returns those whose owners have to be told: them, and what a `receive` that failed had no chance to return.
        """
        self.going_away = True
        told = [event for event in self._events if isinstance(event, Stream)]
        self._events = []
        for stream in self.streams.values():
            stream.failure = StreamFailure(FailureKind.CONNECTION_LOST, ErrorCode.NO_ERROR, message)
            stream.local_closed = True
        told.extend(self.streams.values())
        self.streams.clear()
        return told

    # -- for both halves --

    def _close_local(self, stream: Stream) -> None:
        stream.local_closed = True
        if stream.remote_closed:
            self.streams.pop(stream.id, None)

    def _fail_stream(self, stream: Stream, failure: StreamFailure) -> None:
        """Reset one stream for a fault of the peer's. What was complete before it can still be taken."""
        if stream.failure is None:
            stream.failure = failure
        over = stream.local_closed and stream.remote_closed  # then no frame may follow (RFC 9113, 5.1)
        stream.local_closed = True
        if self.streams.pop(stream.id, None) is not None and not over:
            self._reply(frames.rst_stream_frame(stream.id, failure.code))

    def _extend(self, stream: Stream) -> None:
        """Open the stream's window again, if that is due."""
        credit = 0 if stream.ended else stream_credit(stream.receive_window, stream.held, stream.needed)
        if credit:
            stream.receive_window += credit
            self._reply(frames.window_update_frame(stream.id, credit))

    def _put(self, data: bytes) -> None:
        self._outbox.append(data)
        self.outbox_size += len(data)

    def _reply(self, data: bytes) -> None:
        """A frame that the peer's own frames made us send: bounded, or a peer that does not read fills our memory."""
        self._queued_replies += 1
        self._put(data)
