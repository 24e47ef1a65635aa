"""HTTP/2 frames as bytes, and bytes as frames: what a test needs to be one end of a gRPC connection by hand.

    from viewreg.testing import frames

    reply = frames.headers(1) + frames.data(1, frames.message(b"...")) + frames.trailers(1)
    (frame,) = frames.FrameReader(preface=False).feed(frames.rst_stream(1, frames.ErrorCode.CANCEL))

Rules:
* Pure: no I/O, and nothing of viewreg's own client but the names of error codes. What it packs and reads is independent
  of the code that it helps to test.
* Packing is not judging. Whatever fits the fields of a frame is packed, so that a test can break every other rule of
  HTTP/2; what does not fit raises `InvalidValueError` or `InvalidTypeError`.
* Header blocks are literals that enter no table, so that their bytes mean the same on every connection. Reading
  understands every block that HPACK allows.
* Numbers are those of RFC 9113: section 4 and 6 for frames, 7 for error codes.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import attrs
import hpack
import hpack.exceptions
from attrs import field, frozen

from viewreg._errors import InvalidValueError, check_int
from viewreg._http2.frames import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "ACK", "END_HEADERS", "END_STREAM", "KINDS", "PADDED", "PREFACE", "PRIORITY", "RESPONSE", "ErrorCode", "Frame",
    "FrameReader", "Setting", "block", "data", "frame", "goaway", "headers", "message", "ping", "rst_stream",
    "settings", "settings_ack", "status_fields", "trailers", "window_update",
]  # fmt: skip

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says before its first frame."""

KINDS: Final = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
    "CONTINUATION",
)  # fmt: skip
"""The kinds of frames, each at the place of its number."""

# Flags.
END_STREAM: Final = 0x1  # of DATA and HEADERS
ACK: Final = 0x1  # of SETTINGS and PING
END_HEADERS: Final = 0x4  # of HEADERS and CONTINUATION
PADDED: Final = 0x8  # of DATA and HEADERS
PRIORITY: Final = 0x20  # of HEADERS

RESPONSE: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
"""The header fields with which a gRPC server begins its answer."""

_HEAD: Final = 9  # bytes of a frame before its payload
_PRIORITY_SIZE: Final = 5  # bytes that the flag PRIORITY puts before a header block
_SEVEN_BITS: Final = 0x7F
_ANY_SIZE: Final = 2**32 - 1  # bytes; a reader in a test sets no limits of its own
# What grpc-message may show as it is (gRPC over HTTP/2, "Responses"): all that is printable in ASCII but the per cent.
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Setting(enum.IntEnum):
    """The numbers of SETTINGS (RFC 9113, 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1  # bytes, 4,096 if not said
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3  # unlimited if not said
    INITIAL_WINDOW_SIZE = 0x4  # bytes, 65,535 if not said
    MAX_FRAME_SIZE = 0x5  # bytes, 16,384 if not said
    MAX_HEADER_LIST_SIZE = 0x6  # bytes, unlimited if not said


# -- frames as bytes --


def frame(
    kind: str | int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", *, length: int | None = None
) -> bytes:
    """Any frame, also a wrong one, such as `frame("CONTINUATION", END_HEADERS, 1, block(RESPONSE))`.

    `kind` is one of `KINDS` or a number from 0 to 255, `flags` a sum from 0 to 255, `stream_id` up to 2**32 - 1: its
    highest bit is the reserved one. `length` is what the frame says of its payload, up to 2**24 - 1; None is the truth.
    """
    if isinstance(kind, str):
        if kind not in KINDS:
            raise InvalidValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}, or a number from 0 to 255")
        kind = KINDS.index(kind)
    size = len(payload) if length is None else length
    head = _uint("length", size, 3) + _uint("kind", kind, 1) + _uint("flags", flags, 1)
    return head + _uint("stream_id", stream_id, 4) + payload


def data(stream_id: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    """DATA. `end` ends the stream; `padding` is 0 to 255 zeros after the payload, None for a frame without the flag."""
    flags = END_STREAM if end else 0
    if padding is None:
        return frame("DATA", flags, stream_id, payload)
    return frame("DATA", flags | PADDED, stream_id, _uint("padding", padding, 1) + payload + bytes(padding))


def headers(stream_id: int, fields: Iterable[tuple[bytes, bytes]] = RESPONSE, *, end: bool = False) -> bytes:
    """HEADERS with a whole block, however long. `end` ends the stream."""
    return frame("HEADERS", END_HEADERS | (END_STREAM if end else 0), stream_id, block(fields))


def trailers(stream_id: int, status: int = 0, *fields: tuple[bytes, bytes], details: str = "") -> bytes:
    """HEADERS that end a stream with a gRPC status, then these fields."""
    return headers(stream_id, (*status_fields(status, details), *fields), end=True)


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """SETTINGS: values from 0 to 2**32 - 1 by number, such as `{Setting.MAX_CONCURRENT_STREAMS: 1}`."""
    pairs = (_uint("setting", number, 2) + _uint("value", value, 4) for number, value in (values or {}).items())
    return frame("SETTINGS", payload=b"".join(pairs))


def settings_ack() -> bytes:
    """The acknowledgement of SETTINGS."""
    return frame("SETTINGS", ACK)


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """PING, or with `ack` the answer to one. HTTP/2 allows 8 bytes only."""
    return frame("PING", ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int = 2**31 - 1, code: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY; by default the first of a graceful end, which refuses no stream yet."""
    return frame("GOAWAY", payload=_uint("last_stream_id", last_stream_id, 4) + _uint("code", code, 4) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE of so many bytes; stream 0 is the connection."""
    return frame("WINDOW_UPDATE", 0, stream_id, _uint("increment", increment, 4))


def rst_stream(stream_id: int, code: int = 0) -> bytes:
    """RST_STREAM."""
    return frame("RST_STREAM", 0, stream_id, _uint("code", code, 4))


# -- what frames carry --


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block: names and values in order, as they are."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def status_fields(status: int, details: str = "") -> tuple[tuple[bytes, bytes], ...]:
    """`grpc-status` and, if there are details, `grpc-message`, percent-encoded as gRPC demands."""
    told = ((b"grpc-message", quote(details, safe=_PRINTABLE).encode()),) if details else ()
    return (b"grpc-status", b"%d" % status), *told


def message(body: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """A gRPC message with its prefix of five bytes.

    `compressed` sets the prefix's flag and nothing else. `length` is what the prefix says of the body, up to 2**32 - 1;
    None is the truth.
    """
    return bytes((compressed,)) + _uint("length", len(body) if length is None else length, 4) + body


def _uint(name: str, value: int, size: int) -> bytes:
    check_int(name, value, 0, 256**size - 1)
    return value.to_bytes(size, "big")


def _text(text: bytes) -> bytes:
    # A string literal without Huffman coding, and the number before it (RFC 7541, 5.1 and 5.2).
    if len(text) < _SEVEN_BITS:
        return bytes((len(text),)) + text
    number, rest = bytearray((_SEVEN_BITS,)), len(text) - _SEVEN_BITS
    while rest > _SEVEN_BITS:
        number.append(rest & _SEVEN_BITS | _SEVEN_BITS + 1)
        rest >>= 7
    number.append(rest)
    return bytes(number) + text


# -- bytes as frames --


@frozen
class Frame:
    """A frame that was received. `str(frame)` is short, and says what it carries."""

    kind: str
    """One of `KINDS`, or the number of an unknown one, such as "0xee"."""

    flags: int
    stream_id: int
    """Without the reserved bit."""

    payload: bytes = field(repr=False)
    """As it was sent, padding included."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    """The fields of a header block, in the HEADERS or CONTINUATION that completes it."""

    @property
    def end_stream(self) -> bool:
        """Whether its sender says no more on this stream."""
        return self.kind in ("DATA", "HEADERS") and bool(self.flags & END_STREAM)

    @property
    def ack(self) -> bool:
        """Whether it acknowledges SETTINGS or answers a PING."""
        return self.kind in ("SETTINGS", "PING") and bool(self.flags & ACK)

    @property
    def body(self) -> bytes:
        """The payload without the padding of DATA and HEADERS and without the priority of HEADERS."""
        if self.kind not in ("DATA", "HEADERS"):
            return self.payload
        begin, end = 0, len(self.payload)
        if self.flags & PADDED:
            begin, end = 1, end - int.from_bytes(self.payload[:1], "big")
        if self.kind == "HEADERS" and self.flags & PRIORITY:
            begin += _PRIORITY_SIZE
        return self.payload[begin : max(begin, end)]

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY; 0 of other kinds."""
        begin = {"RST_STREAM": 0, "GOAWAY": 4}.get(self.kind)
        return 0 if begin is None else int.from_bytes(self.payload[begin : begin + 4], "big")

    @property
    def increment(self) -> int:
        """The bytes that WINDOW_UPDATE adds; 0 of other kinds."""
        return int.from_bytes(self.payload, "big") if self.kind == "WINDOW_UPDATE" else 0

    @property
    def settings(self) -> dict[int, int]:
        """The values of SETTINGS by number; of other kinds there are none."""
        if self.kind != "SETTINGS":
            return {}
        pairs = (self.payload[at : at + 6] for at in range(0, len(self.payload), 6))
        return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}

    def header(self, name: bytes) -> bytes | None:
        """The value of the first field of that name, None if there is none."""
        return next((value for key, value in self.headers if key == name), None)

    def __str__(self) -> str:
        told: list[str] = [f"flags={self.flags:#x}"] if self.flags else []
        if self.kind in ("RST_STREAM", "GOAWAY"):
            told.append(f"code={self.code}")
        elif self.kind == "WINDOW_UPDATE":
            told.append(f"increment={self.increment}")
        elif self.kind == "SETTINGS":
            told.append(f"settings={self.settings}")
        elif self.headers:
            told.append(" ".join(f"{name!r}: {value!r}" for name, value in self.headers))
        else:
            told.append(f"{len(self.payload)} bytes")
        return " ".join((self.kind, f"stream_id={self.stream_id}", *told))


class FrameReader:
    """Bytes of one side of a connection in, its frames out, however the bytes are cut.

    With `preface`, they are a client's from its first one: its preface is checked and left out. A server has none.
    """

    def __init__(self, *, preface: bool = True) -> None:
        self._preface = preface  # is still to come; written by `feed`
        self._buffer = b""
        self._block = b""  # of headers whose end is still to come
        self._decoder: Final[Any] = hpack.Decoder(max_header_list_size=_ANY_SIZE)
        self._decoder.max_allowed_table_size = _ANY_SIZE  # what this side was allowed, the reader cannot know

    def feed(self, received: bytes | bytearray) -> list[Frame]:
        """The frames that these bytes complete, in order.

        Raises `InvalidValueError` for another beginning than the preface and for a header block that is none; then
        nothing more can be read.
        """
        self._buffer += received
        if self._preface:
            if not PREFACE.startswith(self._buffer[: len(PREFACE)]):
                raise InvalidValueError(
                    f"the first bytes {self._buffer[: len(PREFACE)]!r}: expected the preface of HTTP/2, {PREFACE!r}, "
                    "of a client that begins without TLS and without an upgrade from HTTP/1.1"
                )
            if len(self._buffer) < len(PREFACE):
                return []
            self._preface, self._buffer = False, self._buffer[len(PREFACE) :]
        found: list[Frame] = []
        at = 0
        while (end := at + _HEAD + int.from_bytes(self._buffer[at : at + 3], "big")) <= len(self._buffer):
            found.append(self._read(self._buffer[at : at + _HEAD], self._buffer[at + _HEAD : end]))
            at = end
        self._buffer = self._buffer[at:]
        return found

    def _read(self, head: bytes, payload: bytes) -> Frame:
        kind = KINDS[head[3]] if head[3] < len(KINDS) else f"{head[3]:#x}"
        found = Frame(kind, head[4], int.from_bytes(head[5:], "big") & 0x7FFF_FFFF, payload)
        if kind not in ("HEADERS", "CONTINUATION"):
            return found
        self._block += found.body
        if not found.flags & END_HEADERS:
            return found
        whole, self._block = self._block, b""
        return attrs.evolve(found, headers=self._decode(whole))

    def _decode(self, whole: bytes) -> tuple[tuple[bytes, bytes], ...]:
        try:
            return tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(whole, raw=True))
        except hpack.exceptions.HPACKError as error:
            raise InvalidValueError(f"the header block {whole[:100]!r}: expected one that HPACK can read") from error
