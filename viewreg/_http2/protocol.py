"""The client's side of one HTTP/2 connection, for gRPC, without I/O. Its receiving half: bytes in, events out.

Rules:
* `receive` returns what happened: a `Stream` (look at it again), or one of the connection's own events. It raises
  `ConnectionFailedError` and nothing else; the connection is then over, and GOAWAY lies in the outbox.
* Everything the peer may legally do is handled. What is illegal for one stream resets that stream, what is illegal for
  the connection ends the connection (RFC 9113, section 5.4).
* Frames that are still on their way to a forgotten stream are counted for flow control, and dropped: a server need not
  know yet that we have left. A stream that was never opened is the server's error.
* What a server can make us hold or do for nothing is bounded: replies that it does not fetch, header blocks that go on
  and on, and frames in a row that bring no call any further.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar, Final

from viewreg._http2 import frames, payloads
from viewreg._http2.errors import ConnectionFailedError, FailureKind, StreamFailure
from viewreg._http2.events import WINDOW_OPENED, Event, GoAway, PingAnswered, SettingsReceived, WindowOpened
from viewreg._http2.flow import CONNECTION_DUE, CONNECTION_WINDOW, STREAM_DUE, connection_credit
from viewreg._http2.frames import ErrorCode
from viewreg._http2.headers import MAX_HEADER_LIST_SIZE, HeaderDecoder
from viewreg._http2.outgoing import Outgoing

if TYPE_CHECKING:
    from viewreg._http2.stream import Stream

__all__ = ["Event", "GoAway", "PingAnswered", "Protocol", "SettingsReceived", "WindowOpened"]

MAX_FRAME_SIZE: Final = frames.MIN_MAX_FRAME_SIZE  # bytes that we accept in one frame
MAX_SENT_FRAME: Final = 64 * 1024  # bytes, where the peer accepts them; larger ones only hold up other streams
MAX_QUEUED_REPLIES: Final = 1000  # frames that only answer the peer's; more, unsent, is a flood
# Frames in a row that bring no call any further: PINGs, SETTINGS, empty DATA, unknown ones. In a row means: no answer
# comes, and nothing is asked. A server that acknowledges each frame of a large request needs a few hundred.
MAX_IDLE_FRAMES: Final = 10_000
IDLE_FRAMES_OF_A_CALL: Final = 8  # for each open call as many more: windows given back, before any is answered
MAX_CONTINUATIONS: Final = 128  # frames of one header block; full ones would be five


class Protocol(Outgoing):
    """State of one client connection. See the modules of both halves for their rules."""

    __slots__ = (
        "_buffer", "_continuations", "_decoder", "_failure", "_goaway", "_header_block", "_header_end_stream",
        "_header_stream_id", "_receive_window",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""  # the beginning of a frame
        self._decoder: Final = HeaderDecoder()
        self._header_stream_id = 0  # 0: no header block is being received
        self._header_end_stream = False
        self._header_block = bytearray()
        self._continuations = 0
        self._receive_window = CONNECTION_WINDOW
        self._goaway: GoAway | None = None  # the last one received, not told yet
        self._failure: tuple[ErrorCode, str] | None = None  # what `receive` has raised

    def receive(self, data: bytes | bytearray) -> list[Event]:
        """Take in bytes as they came from the network. Returns what happened, in order.

        But GoAway comes last, and once: who ends the connection on it shall not miss the calls that ended behind it.
        Raises ConnectionFailedError, from then on always. `lose` returns the streams that still have to be told.
        """
        if self._failure is not None:
            raise ConnectionFailedError(*self._failure)
        buffer = self._buffer + data if self._buffer else bytes(data)  # Trio's streams in memory give bytearrays
        try:
            if not self.settings_received:
                payloads.check_first_frame(buffer)
            self._buffer = buffer[self._receive_frames(buffer) :]
            if self._queued_replies > MAX_QUEUED_REPLIES:
                raise ConnectionFailedError(ErrorCode.ENHANCE_YOUR_CALM, "more frames to answer than it reads answers")
        except ConnectionFailedError as error:
            self._failure = error.code, error.message
            self._buffer = b""
            self.going_away = True
            self.close(error.code, error.message)
            raise
        events, self._events = self._events, []
        if self._goaway is not None:
            events.append(self._goaway)
            self._goaway = None
        return events

    def _receive_frames(self, buffer: bytes) -> int:
        """Handle the frames that are complete. Returns where the rest begins."""
        at, size = 0, len(buffer)
        unpack, receivers = frames.FRAME_HEADER.unpack_from, self._RECEIVERS
        while (start := at + frames.FRAME_HEADER_SIZE) <= size:
            upper, lower, kind, flags, stream_id = unpack(buffer, at)
            end = start + (upper << 8 | lower)
            if end - start > MAX_FRAME_SIZE:
                raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {end - start} bytes")
            if end > size:
                break
            if self._header_stream_id and kind != frames.CONTINUATION:
                raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "a header block that is not continued")
            if kind > frames.HEADERS:
                self._count_idle_frame()
            if kind < len(receivers):  # frames of unknown types are ignored (RFC 9113, 5.5)
                receivers[kind](self, flags, stream_id & 0x7FFF_FFFF, buffer[start:end])
            at = end
        return at

    def _tell(self, stream: Stream) -> None:
        events = self._events
        if not events or events[-1] is not stream:
            events.append(stream)

    # -- one method for each type of frame --

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window <= CONNECTION_DUE:
            self._return_credit()
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_opened(stream_id, "DATA")
            if not size:
                self._count_idle_frame()
            return
        if flags & frames.PADDED:
            payload = payloads.unpadded(payload)
        if not payload:
            self._count_idle_frame()
        elif self._idle_frames > 0:
            self._idle_frames = 0
        stream.receive_window -= size
        if stream.receive_window < 0:
            self._malformed(stream, "more DATA than the stream's window", ErrorCode.FLOW_CONTROL_ERROR)
            return
        if stream.headers is None:
            self._malformed(stream, "DATA before the response's headers")
            return
        failure = stream.append(payload) if payload else None
        if failure is not None:
            stream.remote_closed = flags & frames.END_STREAM != 0
            self._fail_stream(stream, failure)
        elif flags & frames.END_STREAM:
            self._close_remote(stream)
        elif stream.receive_window <= STREAM_DUE or stream.receive_window < stream.needed:
            self._extend(stream)
        self._tell(stream)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id not in self.streams:
            self._check_opened(stream_id, "HEADERS")
        if flags & frames.PADDED:
            payload = payloads.unpadded(payload)
        if flags & frames.PRIORITY_FLAG:
            payload = payloads.without_priority(payload)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, payload, end_stream=flags & frames.END_STREAM != 0)
        else:
            self._header_stream_id, self._header_end_stream = stream_id, flags & frames.END_STREAM != 0
            self._header_block[:] = payload
            self._continuations = 0

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._header_stream_id or stream_id != self._header_stream_id:
            raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        self._continuations += 1
        self._header_block += payload
        if len(self._header_block) > MAX_HEADER_LIST_SIZE or self._continuations > MAX_CONTINUATIONS:
            limits = f"{MAX_HEADER_LIST_SIZE} bytes or {MAX_CONTINUATIONS} CONTINUATION frames"
            raise ConnectionFailedError(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of more than {limits}")
        if flags & frames.END_HEADERS:
            block = bytes(self._header_block)
            self._header_stream_id = 0
            self._header_block.clear()
            self._on_block(stream_id, block, end_stream=self._header_end_stream)

    def _on_block(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        decoded = self._decoder.decode(block)  # also for forgotten streams: the decoder's state depends on it
        stream = self.streams.get(stream_id)
        if stream is None:
            self._count_idle_frame()
            return
        fault = decoded.fault
        if fault:
            pass
        elif stream.headers is not None:
            if end_stream and not decoded.status:
                stream.trailers = decoded.fields
            else:
                fault = "a second header block that is no trailer"
        elif decoded.status >= 200:  # noqa: PLR2004 (RFC 9110, 15)
            stream.headers = decoded.fields
            if end_stream:
                stream.trailers = decoded.fields
        elif decoded.status == 0:
            fault = "a response without a status"
        elif end_stream or decoded.status == 101:  # noqa: PLR2004 (RFC 9113, 8.6)
            fault = f"an informational response {decoded.status} that ends or changes the stream"
        else:
            self._count_idle_frame()
            return
        if fault:
            self._malformed(stream, fault)
            return
        if self._idle_frames > 0:  # noqa: PLR1730 (min is slow, and this is done for every call)
            self._idle_frames = 0
        if end_stream:
            self._close_remote(stream)
        self._tell(stream)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "a PRIORITY frame on stream 0")
        stream = self.streams.get(stream_id)
        if len(payload) != frames.PRIORITY_SIZE and stream is not None:
            self._malformed(stream, f"a PRIORITY frame of {len(payload)} bytes", ErrorCode.FRAME_SIZE_ERROR)

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        code = payloads.uint32(payload, "RST_STREAM")
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            self._check_opened(stream_id, "RST_STREAM")
            return
        stream.failure = StreamFailure.reset(code)
        stream.local_closed = True
        self._tell(stream)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        values = payloads.settings(flags, stream_id, payload)
        if values is None:
            return
        for code, value in values.items():
            if code == frames.SETTINGS_MAX_CONCURRENT_STREAMS:
                self.max_concurrent_streams = value
            elif code == frames.SETTINGS_INITIAL_WINDOW_SIZE:
                self._change_initial_window(value)
            elif code == frames.SETTINGS_MAX_FRAME_SIZE:
                self._max_send_frame = min(value, MAX_SENT_FRAME)
            elif code == frames.SETTINGS_MAX_HEADER_LIST_SIZE:
                self.max_send_header_list = value
        self.settings_received = True
        self._reply(frames.SETTINGS_ACK)
        self._events.append(SettingsReceived())

    def _change_initial_window(self, value: int) -> None:
        change = value - self._initial_send_window
        self._initial_send_window = value
        for stream in self.streams.values():
            stream.send_window += change  # below zero is legal (RFC 9113, 6.9.2)
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFailedError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window past 2**31 - 1")
        if change > 0:
            self._window_opened()

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "a PUSH_PROMISE, though push is disabled")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        payloads.check_ping(stream_id, payload)
        if flags & frames.ACK:
            self._events.append(PingAnswered(payload))
        else:
            self._reply(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        last_stream_id, code, debug = payloads.goaway(stream_id, payload)
        self.going_away = True
        text = "the server went away before it looked at the call"
        for stream in list(takewhile(lambda stream: stream.id > last_stream_id, reversed(self.streams.values()))):
            del self.streams[stream.id]
            # One that has answered contradicts itself: whether it has processed the request, nobody knows.
            kind = FailureKind.NOT_PROCESSED if stream.headers is None else FailureKind.CONNECTION_LOST
            stream.failure = StreamFailure(kind, code, text)
            stream.local_closed = True
            self._tell(stream)
        self._goaway = GoAway(last_stream_id, code, debug)

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        increment = payloads.uint32(payload, "WINDOW_UPDATE") & 0x7FFF_FFFF
        if not stream_id:
            if not increment:
                raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0 bytes")
            self._send_window += increment
            if self._send_window > frames.MAX_WINDOW:
                raise ConnectionFailedError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window past 2**31 - 1")
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                self._check_opened(stream_id, "WINDOW_UPDATE")
                return
            if not increment:
                self._malformed(stream, "a WINDOW_UPDATE of 0 bytes")
                return
            stream.send_window += increment
            if stream.send_window > frames.MAX_WINDOW:
                self._malformed(stream, "the stream's window past 2**31 - 1", ErrorCode.FLOW_CONTROL_ERROR)
                return
        self._window_opened()

    # -- what they share --

    def _check_opened(self, stream_id: int, kind: str) -> None:
        """A stream that is not open is over, or never was: that is the peer's error."""
        if not stream_id & 1 or stream_id >= self._next_stream_id:
            text = f"{kind} on stream {stream_id}, which was never opened"
            raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, text)

    def _close_remote(self, stream: Stream) -> None:
        """The answer is complete. A request that is still open has lost its reader: RST_STREAM(NO_ERROR) ends it."""
        stream.remote_closed = True
        del self.streams[stream.id]
        if not stream.local_closed:
            stream.local_closed = True
            self._reply(frames.rst_stream_frame(stream.id, ErrorCode.NO_ERROR))

    def _malformed(self, stream: Stream, text: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        self._fail_stream(stream, StreamFailure(FailureKind.MALFORMED, code, text))
        self._tell(stream)

    def _window_opened(self) -> None:
        if self._starved:
            self._starved = False  # until a sender tries again and has a rest again
            self._events.append(WINDOW_OPENED)

    def _return_credit(self) -> None:
        """Half a window is always left: so no frame, large as it may be, can take more than there is."""
        credit = connection_credit(self._receive_window)
        self._receive_window += credit
        self._reply(frames.window_update_frame(0, credit))

    def _count_idle_frame(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES + IDLE_FRAMES_OF_A_CALL * len(self.streams):
            text = f"more than {MAX_IDLE_FRAMES} frames in a row that bring no call any further"
            raise ConnectionFailedError(ErrorCode.ENHANCE_YOUR_CALM, text)

    # By type of frame, in the order of their numbers.
    _RECEIVERS: ClassVar = (
        _on_data, _on_headers, _on_priority, _on_rst_stream, _on_settings, _on_push_promise, _on_ping, _on_goaway,
        _on_window_update, _on_continuation,
    )  # fmt: skip
