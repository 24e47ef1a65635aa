"""HTTP/2 frames (RFC 9113, section 4 and 6): the numbers, and bytes of the frames that a client sends.

Nothing here has state. Receiving is in `protocol`, which reads frame headers with `FRAME_HEADER` in its one loop.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Length is 24 bits, which struct does not know: its upper 16 and lower 8 are read apart. Then type, flags, stream id.
FRAME_HEADER: Final = Struct(">HBBBL")
FRAME_HEADER_SIZE: Final = 9

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 0x6

MAX_WINDOW: Final = 2**31 - 1  # bytes; RFC 9113, 6.9.1
MAX_STREAM_ID: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535  # bytes, before any SETTINGS; RFC 9113, 6.9.2
MIN_MAX_FRAME_SIZE: Final = 2**14  # bytes: the smallest and default limit; RFC 9113, 6.5.2
MAX_MAX_FRAME_SIZE: Final = 2**24 - 1

PRIORITY_SIZE: Final = 5  # bytes; RFC 9113, 6.3
PING_SIZE: Final = 8  # bytes; RFC 9113, 6.7
SETTING: Final = Struct(">HL")
UINT32: Final = Struct(">L")
GOAWAY_HEAD: Final = Struct(">LL")


class ErrorCode(enum.IntEnum):
    """RFC 9113, section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def error_name(code: int) -> str:
    """`CANCEL` for 8; a code that no standard knows is shown as its number, such as `0x4d2`."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"{code:#x}"


def frame(kind: int, flags: int, stream_id: int, payload: bytes | memoryview = b"") -> bytes:
    """One whole frame. The caller keeps the payload within the peer's frame size."""
    length = len(payload)
    return FRAME_HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def headers_frames(stream_id: int, block: bytes, *, end_stream: bool, max_frame_size: int) -> bytes:
    """HEADERS, and CONTINUATIONs where the block does not fit one frame; they must not be torn apart."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_size:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + max_frame_size] for at in range(0, len(block), max_frame_size)]
    first, *middle, last = pieces
    return b"".join((
        frame(HEADERS, flags, stream_id, first),
        *(frame(CONTINUATION, 0, stream_id, piece) for piece in middle),
        frame(CONTINUATION, END_HEADERS, stream_id, last),
    ))  # fmt: skip


def request_frames(stream_id: int, block: bytes, body: bytes) -> bytes:
    """A whole request: HEADERS, and DATA with END_STREAM; for a block and a body that fit one frame each."""
    pack, headers, data = FRAME_HEADER.pack, len(block), len(body)
    return b"".join((
        pack(headers >> 8, headers & 0xFF, HEADERS, END_HEADERS, stream_id),
        block,
        pack(data >> 8, data & 0xFF, DATA, END_STREAM, stream_id),
        body,
    ))  # fmt: skip


def settings_frame(settings: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(code, value) for code, value in settings.items()))


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, UINT32.pack(code))


def window_update_frame(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, UINT32.pack(increment))


def goaway_frame(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, GOAWAY_HEAD.pack(last_stream_id, code) + debug)


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)
