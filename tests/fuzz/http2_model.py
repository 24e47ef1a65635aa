"""The other end of a `Protocol`, as RFC 9113 has it: what a server may say, what its client must make of it.

Rules:
* It is written from the RFC and from what docs/transport.md promises, not from the code that it judges: it takes no
  part of `viewreg._http2` but the names of errors.
* It hears both directions, one frame of the server's at a time: `says` tells what must, and what may, follow from a
  frame of the server's; `hears` holds what the client then sends against that, and against every rule for a client.
* "Up" is from client to server, "down" the other way. Sections in comments are those of RFC 9113.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import hpack
import hpack.exceptions

from http2_rules import (
    ACK,
    CALM,
    CANCEL,
    CONTINUATION,
    CONTINUATIONS,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL,
    FRAME_SIZE,
    GOAWAY,
    HEAD,
    HEADER_LIST,
    HEADERS,
    HELD_BY_A_CALL,
    HELD_BY_ALL,
    LONG_NUMBER,
    MAX_WINDOW,
    NOTHING,
    PADDED,
    PATIENCE,
    PING,
    PREFACE,
    PRIORITY_FLAG,
    PROTOCOL,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Call,
    Expected,
    Fatal,
    Raw,
    is_malformed,
    length_of,
    setting_error,
    status_of,
)
from viewreg._http2.errors import FailureKind
from viewreg._http2.frames import ErrorCode


class Model:
    """One connection. `says` and `hears` are called in turn."""

    def __init__(self) -> None:
        self.calls: Final[dict[int, Call]] = {}
        self.settings_received = False  # by the client
        self.going_away = False  # no new streams: the server has said so
        self.lost = False  # the client's owner has given it up
        self.failed: int | None = None  # the code with which the connection ended
        self.max_concurrent: int | None = None  # streams; the server has not said
        self.up_window = self.down_window = DEFAULT_WINDOW
        self.in_block = False  # of the server's
        self._initial_up = self._initial_down = DEFAULT_WINDOW
        self._largest_up = 2**14
        self._preface = PREFACE  # what is to come of it
        self._client_settings = False
        self._client_goaway = False
        self._last_id = 0
        self._frames = 0
        self._down_block = (0, 0, b"", 0)  # stream, flags, bytes, CONTINUATIONs
        self._up_block = (0, 0, b"")
        self._down_decoder: Final[Any] = hpack.Decoder(max_header_list_size=HEADER_LIST)
        self._up_decoder: Final[Any] = hpack.Decoder(max_header_list_size=2**32)

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.calls.values() if not call.closed]

    # -- what the server says --

    def begins(self, unfinished: bytes) -> Expected:
        """What follows from the first bytes of a frame, none or all of whose payload is missing."""
        if not self.settings_received and unfinished.startswith(b"HTTP/"):
            return Expected(fatal=PROTOCOL | FRAME_SIZE)
        if len(unfinished) < HEAD:
            return Expected()
        fatal: frozenset[int] = NOTHING
        if not self.settings_received and (unfinished[3] != SETTINGS or unfinished[4] & ACK):
            fatal = PROTOCOL  # 3.4
        if length_of(unfinished) > 2**14:
            fatal |= FRAME_SIZE  # 4.2
        return Expected(fatal=fatal)

    def says(self, frame: Raw) -> Expected:
        """A whole frame of the server's."""
        expected = Expected()
        self._frames += 1
        if self._frames > PATIENCE:
            expected.tolerated |= CALM
        try:
            if self.in_block and (frame.kind != CONTINUATION or _id(frame) != self._down_block[0]):
                raise Fatal(PROTOCOL)  # 6.2
            if frame.kind < len(self._SAYS):  # 5.5
                self._SAYS[frame.kind](self, frame, expected)
        except Fatal as fatal:
            expected.fatal = fatal.codes
        return expected

    def _says_data(self, frame: Raw, expected: Expected) -> None:
        payload, size = frame.payload, len(frame.payload)
        self.down_window -= size  # 6.9.1: padding included, and whatever becomes of it
        call = self._addressed(frame)
        if frame.flags & PADDED:
            if not payload or payload[0] >= size:  # 6.1
                if call is not None:
                    raise Fatal(PROTOCOL | FRAME_SIZE)
                expected.tolerated |= PROTOCOL | FRAME_SIZE
            payload = payload[1 : size - payload[0]] if payload else b""
        if call is None:
            return
        call.down_window -= size
        if call.down_window < 0 or call.headers is None:  # 6.9.1, 8.1
            codes = (FLOW_CONTROL if call.down_window < 0 else NOTHING) | (
                PROTOCOL if call.headers is None else NOTHING
            )
            self._malformed(call, expected, codes)
            return
        call.unread += payload
        failure = call.head_failure
        if failure is not None:
            call.down_ended = frame.flags & END_STREAM != 0
            if not (call.up_ended and call.down_ended):  # 5.1: then it is closed
                expected.resets[call.id] = CANCEL
            call.end((failure, ErrorCode.CANCEL))
        elif frame.flags & END_STREAM:
            self._end_down(call, expected)

    def _says_headers(self, frame: Raw, expected: Expected) -> None:
        self._addressed(frame)
        payload, padding = frame.payload, 0
        if frame.flags & PADDED:
            if not payload:
                raise Fatal(PROTOCOL | FRAME_SIZE)
            padding, payload = payload[0], payload[1:]
        if len(payload) < padding + (5 if frame.flags & PRIORITY_FLAG else 0):  # 6.2
            raise Fatal(PROTOCOL | FRAME_SIZE)
        payload = payload[5 if frame.flags & PRIORITY_FLAG else 0 : len(payload) - padding]
        self._down_block = (_id(frame), frame.flags, payload, 0)
        self.in_block = True
        if frame.flags & END_HEADERS:
            self._says_block(expected)

    def _says_continuation(self, frame: Raw, expected: Expected) -> None:
        if not self.in_block:
            raise Fatal(PROTOCOL)  # 6.10
        stream_id, flags, block, count = self._down_block
        self._down_block = (stream_id, flags, block + frame.payload, count + 1)
        if len(block) + len(frame.payload) > HEADER_LIST or count + 1 > CONTINUATIONS:
            raise Fatal(CALM)
        if frame.flags & END_HEADERS:
            self._says_block(expected)

    def _says_block(self, expected: Expected) -> None:
        self.in_block = False
        stream_id, flags, block, _ = self._down_block
        if LONG_NUMBER.search(block):
            expected.tolerated |= {ErrorCode.COMPRESSION_ERROR}
        try:
            fields = tuple((bytes(name), bytes(value)) for name, value in self._down_decoder.decode(block, raw=True))
        except hpack.exceptions.OversizedHeaderListError:
            raise Fatal(CALM) from None
        except Exception:  # noqa: BLE001 (4.3: whatever a decoder stumbles over)
            raise Fatal({ErrorCode.COMPRESSION_ERROR}) from None
        call = self.calls[stream_id]
        if call.closed:
            return
        end = flags & END_STREAM
        status = status_of(fields)
        if is_malformed(fields) or (101 if call.headers is None else 0) == status:  # 8.2, 8.3, 8.6
            self._malformed(call, expected, PROTOCOL)
        elif call.headers is not None:
            if status is not None or not end:  # 8.1
                self._malformed(call, expected, PROTOCOL)
                return
            call.trailers = fields
            self._end_down(call, expected)
        elif status is None or (status < 200 and end):  # 8.1, 8.3.2
            self._malformed(call, expected, PROTOCOL)
        elif status >= 200:
            call.headers = fields
            if end:
                call.trailers = fields
                self._end_down(call, expected)

    def _says_priority(self, frame: Raw, expected: Expected) -> None:
        if not _id(frame):
            raise Fatal(PROTOCOL)  # 6.3
        call = self.calls.get(_id(frame))
        if len(frame.payload) != 5 and call is not None and not call.closed:
            self._malformed(call, expected, FRAME_SIZE)

    def _says_rst_stream(self, frame: Raw, _expected: Expected) -> None:
        if len(frame.payload) != 4:
            raise Fatal(FRAME_SIZE | (NOTHING if _id(frame) in self.calls else PROTOCOL))  # 6.4
        call = self._addressed(frame)
        if call is not None:
            call.end((FailureKind.RESET_BY_PEER, int.from_bytes(frame.payload, "big")))

    def _says_settings(self, frame: Raw, expected: Expected) -> None:
        if frame.stream_id & MAX_WINDOW:
            raise Fatal(PROTOCOL | FRAME_SIZE)  # 6.5
        if frame.flags & ACK:
            if frame.payload:
                raise Fatal(FRAME_SIZE)
            return
        if len(frame.payload) % 6:
            raise Fatal(FRAME_SIZE)
        pairs = [frame.payload[at : at + 6] for at in range(0, len(frame.payload), 6)]
        numbers = [(int.from_bytes(pair[:2], "big"), int.from_bytes(pair[2:], "big")) for pair in pairs]
        fatal = frozenset[int]().union(*(setting_error(*pair) for pair in dict(numbers).items()))
        if fatal:
            raise Fatal(fatal)
        # A value that a later one in the same frame replaces need not be looked at.
        expected.tolerated = expected.tolerated.union(*(setting_error(*pair) for pair in numbers))
        values = dict(numbers)
        if len(numbers) > len(values):
            expected.tolerated |= FLOW_CONTROL
        self.max_concurrent = values.get(3, self.max_concurrent)
        self._largest_up = values.get(5, self._largest_up)
        if 4 in values:
            change, self._initial_up = values[4] - self._initial_up, values[4]
            for call in self.open_calls:
                call.up_window += change  # 6.9.2
                if call.up_window > MAX_WINDOW:
                    raise Fatal(FLOW_CONTROL)
        self.settings_received = True
        expected.answers.append((SETTINGS, ACK, b""))  # 6.5.3
        expected.events.append("SettingsReceived")

    def _says_push_promise(self, _frame: Raw, _expected: Expected) -> None:
        raise Fatal(PROTOCOL)  # 6.6, 8.4: it was disabled

    def _says_ping(self, frame: Raw, expected: Expected) -> None:
        if _id(frame) or len(frame.payload) != 8:  # 6.7
            raise Fatal((PROTOCOL if _id(frame) else NOTHING) | (FRAME_SIZE if len(frame.payload) != 8 else NOTHING))
        if frame.flags & ACK:
            expected.events.append(f"PingAnswered {frame.payload.hex()}")
        else:
            expected.answers.append((PING, ACK, frame.payload))

    def _says_goaway(self, frame: Raw, expected: Expected) -> None:
        if _id(frame) or len(frame.payload) < 8:  # 6.8
            raise Fatal((PROTOCOL if _id(frame) else NOTHING) | (FRAME_SIZE if len(frame.payload) < 8 else NOTHING))
        last = int.from_bytes(frame.payload[:4], "big") & MAX_WINDOW
        code = int.from_bytes(frame.payload[4:8], "big")
        self.going_away = True
        for call in self.open_calls:
            if call.id > last:
                call.end((FailureKind.CONNECTION_LOST if call.headers else FailureKind.NOT_PROCESSED, code))
        expected.events.append(f"GoAway {last} {code}")

    def _says_window_update(self, frame: Raw, expected: Expected) -> None:
        if len(frame.payload) != 4:
            raise Fatal(FRAME_SIZE)  # 6.9
        increment = int.from_bytes(frame.payload, "big") & MAX_WINDOW
        if not _id(frame):
            self.up_window += increment
            if not increment or self.up_window > MAX_WINDOW:  # 6.9, 6.9.1
                raise Fatal(FLOW_CONTROL if increment else PROTOCOL)
            return
        call = self._addressed(frame)
        if call is not None:
            call.up_window += increment
            if not increment or call.up_window > MAX_WINDOW:
                self._malformed(call, expected, FLOW_CONTROL if increment else PROTOCOL)

    _SAYS: ClassVar = (
        _says_data, _says_headers, _says_priority, _says_rst_stream, _says_settings, _says_push_promise, _says_ping,
        _says_goaway, _says_window_update, _says_continuation,
    )  # fmt: skip

    def _addressed(self, frame: Raw) -> Call | None:
        """The call that a frame is for, None if it is over. One that never was is an error (5.1.1)."""
        call = self.calls.get(_id(frame))
        if call is None:
            raise Fatal(PROTOCOL)
        return None if call.closed else call

    def _malformed(self, call: Call, expected: Expected, codes: frozenset[int]) -> None:
        expected.resets[call.id] = codes
        call.end((FailureKind.MALFORMED, -1))

    def _end_down(self, call: Call, expected: Expected) -> None:
        call.down_ended = True
        if not call.up_ended:
            expected.resets[call.id] = frozenset({ErrorCode.NO_ERROR})  # 8.1: nobody reads the rest of the request
        call.end()

    # -- what the client's owner does --

    def takes(self, call: Call, message: bytes) -> Expected:
        """The owner has taken this message."""
        assert call.has_message, f"stream {call.id}: a message was taken that is not there"
        size = call.needed
        assert message == call.unread[5:size], f"stream {call.id}: another message than the one that was sent"
        del call.unread[:size]
        expected, failure = Expected(), call.head_failure
        if failure is not None:
            if not call.closed:
                expected.resets[call.id] = CANCEL
            call.end((failure, ErrorCode.CANCEL))
        return expected

    def leaves(self, call: Call, code: int) -> Expected:
        """The owner resets it."""
        if call.closed:
            return Expected()
        call.end()
        call.unread.clear()
        return Expected(resets={call.id: frozenset({code})})

    def loses(self) -> None:
        """The owner has given the connection up."""
        self.lost = True
        for call in self.open_calls:
            call.end((FailureKind.CONNECTION_LOST, 0))

    def goodbye(self, code: int) -> list[tuple[int, int, bytes]]:
        """The GOAWAY that the client must send, once."""
        return [] if self._client_goaway else [(GOAWAY, 0, bytes(7) + bytes((code,)))]

    # -- what the client says --

    def hears(self, data: bytes, expected: Expected) -> int:
        """All that the client says in one step: whole frames, each of which it may say, and all that it must.

        Returns how many.
        """
        if self._preface:
            assert data.startswith(self._preface), f"no preface: {data[:40]!r}"
            data, self._preface = data[len(self._preface) :], b""
        at, count, answers, resets = 0, 0, list(expected.answers), dict(expected.resets)
        while at < len(data):
            end = at + HEAD + length_of(data[at : at + HEAD])
            assert end <= len(data), f"a torn frame: {data[at : at + 40]!r}"
            frame = Raw.read(data[at:end])
            assert len(frame.payload) <= self._largest_up, f"a frame of {len(frame.payload)} bytes"  # 4.2
            assert not self._up_block[0] or frame.kind == CONTINUATION, "a header block was torn"  # 4.3
            if not self._client_settings:
                self._hears_first(frame)
            elif frame.kind in (SETTINGS, PING) or (frame.kind == GOAWAY and not frame.stream_id):
                self._hears_answer(frame, answers)
            elif frame.kind == RST_STREAM:
                codes = resets.pop(frame.stream_id, NOTHING)
                assert int.from_bytes(frame.payload, "big") in codes, f"RST_STREAM {frame}, expected {codes}"
                assert (frame.flags, len(frame.payload)) == (0, 4)
            elif frame.kind == WINDOW_UPDATE:
                self._hears_window_update(frame)
            elif frame.kind in (DATA, HEADERS, CONTINUATION):
                self._hears_request(frame, expected.sender)
            else:
                raise AssertionError(f"no client says {frame}")
            at, count = end, count + 1
        assert not self._up_block[0], "a header block does not end"
        assert not answers, f"no answer: {answers}"
        assert not resets, f"no RST_STREAM: {resets}"
        return count

    def _hears_first(self, frame: Raw) -> None:
        assert (frame.kind, frame.flags, frame.stream_id) == (SETTINGS, 0, 0)  # 3.4
        pairs = [frame.payload[at : at + 6] for at in range(0, len(frame.payload), 6)]
        values = {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}
        assert values[2] == 0  # 8.4: gRPC knows no push
        assert values[6] == HEADER_LIST
        assert values.get(5, 2**14) == 2**14
        self._initial_down = values.get(4, DEFAULT_WINDOW)
        self._client_settings = True

    def _hears_answer(self, frame: Raw, answers: list[tuple[int, int, bytes]]) -> None:
        said = (frame.kind, frame.flags, frame.payload)
        if frame.kind == GOAWAY:
            assert not self._client_goaway, "GOAWAY for the second time"
            self._client_goaway = True
            said = (GOAWAY, frame.flags, frame.payload[:8])  # its words are for people
        assert frame.stream_id == 0
        assert answers[:1] == [said], f"{said}, expected {answers}"
        del answers[0]

    def _hears_window_update(self, frame: Raw) -> None:
        increment = int.from_bytes(frame.payload, "big")
        assert (frame.flags, len(frame.payload)) == (0, 4)
        assert 0 < increment <= MAX_WINDOW
        if not frame.stream_id:
            self.down_window += increment
            assert self.down_window <= HELD_BY_ALL
            return
        call = self.calls[frame.stream_id]
        call.down_window += increment
        assert not call.closed, f"a window for stream {call.id}, which is over"
        assert call.down_window + len(call.unread) <= max(HELD_BY_A_CALL, call.needed), f"stream {call.id}: too much"

    def _hears_request(self, frame: Raw, sender: Call | None) -> None:
        assert sender is not None
        assert frame.stream_id == sender.id, f"{frame}, expected only frames of stream {sender.id}"
        if frame.kind == DATA:
            assert not frame.flags & ~END_STREAM
            assert sender.id in self.calls
            assert not sender.up_ended, f"DATA on stream {sender.id}, whose request has ended"
            size = len(frame.payload)
            sender.up_window -= size
            self.up_window -= size
            assert not size or min(sender.up_window, self.up_window) >= 0, f"stream {sender.id}: DATA past the window"
            sender.request += frame.payload
            sender.up_ended = frame.flags & END_STREAM != 0
            return
        if frame.kind == HEADERS:
            assert not frame.flags & ~(END_STREAM | END_HEADERS)
            assert self.settings_received
            assert not self.going_away, "a new stream, though the server goes away"
            assert frame.stream_id & 1, f"stream {frame.stream_id} from a client"  # 5.1.1
            assert self._last_id < frame.stream_id <= MAX_WINDOW
            limit = self.max_concurrent
            assert limit is None or len(self.open_calls) < limit, "more streams than the server takes"  # 5.1.2
            self._last_id = frame.stream_id
            sender.up_window, sender.down_window = self._initial_up, self._initial_down
            self.calls[sender.id] = sender
            self._up_block = (sender.id, frame.flags, frame.payload)
        else:
            assert self._up_block[0] == frame.stream_id
            assert not frame.flags & ~END_HEADERS
            self._up_block = (sender.id, self._up_block[1], self._up_block[2] + frame.payload)
        if frame.flags & END_HEADERS:
            _, flags, block = self._up_block
            self._up_block, sender.block = (0, 0, b""), block
            self._up_decoder.max_allowed_table_size = 0  # the least that a server may want (RFC 7541, 4.2)
            fields = [(bytes(name), bytes(value)) for name, value in self._up_decoder.decode(block, raw=True)]
            pseudo = [name for name, _ in fields if name.startswith(b":")]
            assert sorted(pseudo) == [b":authority", b":method", b":path", b":scheme"], pseudo  # 8.3.1
            assert [name for name, _ in fields[:4]] == pseudo
            sender.up_ended = flags & END_STREAM != 0


def _id(frame: Raw) -> int:
    return frame.stream_id & MAX_WINDOW  # 4.1: the reserved bit is ignored
