"""Reading the payloads of frames: bytes in, values out. What a frame may not be, whatever state the connection is in.

Every function raises ConnectionFailedError, with the code of RFC 9113, section 6.
"""

from __future__ import annotations

from typing import Final

from viewreg._http2 import frames
from viewreg._http2.errors import ConnectionFailedError
from viewreg._http2.frames import ErrorCode

_SAID: Final = 80  # bytes shown of what a server says that does not speak HTTP/2
_TLS_ALERT: Final = b"\x15\x03"  # a record of type alert, of any version since SSL 3.0; no frame may be that long
_DEBUG: Final = 256  # bytes shown of the words in a GOAWAY


def check_first_frame(buffer: bytes) -> None:
    """A server begins with SETTINGS (RFC 9113, 3.4). One that does not speak HTTP/2 often says so in words."""
    if buffer.startswith(_TLS_ALERT):
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "the server expects TLS: it answered with a TLS alert")
    if buffer.startswith(b"HTTP/"):
        said = buffer.split(b"\r", 1)[0]
    elif len(buffer) < frames.FRAME_HEADER_SIZE or (buffer[3] == frames.SETTINGS and not buffer[4] & frames.ACK):
        return
    else:
        said = buffer[:24]
    text = repr(said[:_SAID])[1:]  # without the b, and with each odd byte escaped once
    raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, f"the server does not speak HTTP/2: it said {text}")


def unpadded(payload: bytes) -> bytes:
    """What a frame with the flag PADDED carries beside its padding."""
    if not payload:
        raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
    if payload[0] >= len(payload):
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, "a frame with more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def without_priority(payload: bytes) -> bytes:
    """The header block of a HEADERS frame with the flag PRIORITY, which nobody heeds any more."""
    if len(payload) < frames.PRIORITY_SIZE:
        raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame too short for its priority")
    return payload[frames.PRIORITY_SIZE :]


def uint32(payload: bytes, kind: str) -> int:
    """The one number that the frame carries."""
    if len(payload) != frames.UINT32.size:
        raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, f"{kind} of {len(payload)} bytes")
    value: int = frames.UINT32.unpack(payload)[0]
    return value


def settings(flags: int, stream_id: int, payload: bytes) -> dict[int, int] | None:
    """Values by number, of many for one number the last; known ones are in range. None for an acknowledgement."""
    if stream_id:
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
    if flags & frames.ACK:
        if payload:
            raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
        return None
    if len(payload) % frames.SETTING.size:
        raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    values = dict(frames.SETTING.iter_unpack(payload))
    window = values.get(frames.SETTINGS_INITIAL_WINDOW_SIZE, 0)
    if window > frames.MAX_WINDOW:
        raise ConnectionFailedError(ErrorCode.FLOW_CONTROL_ERROR, f"an initial window of {window} bytes")
    largest = values.get(frames.SETTINGS_MAX_FRAME_SIZE, frames.MIN_MAX_FRAME_SIZE)
    if not frames.MIN_MAX_FRAME_SIZE <= largest <= frames.MAX_MAX_FRAME_SIZE:
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, f"a largest frame of {largest} bytes")
    push = values.get(frames.SETTINGS_ENABLE_PUSH, 0)
    if push:
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {push} from a server")
    return values


def check_ping(stream_id: int, payload: bytes) -> None:
    """A PING belongs to the connection and carries eight bytes."""
    if stream_id:
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, f"a PING on stream {stream_id}")
    if len(payload) != frames.PING_SIZE:
        raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, f"a PING of {len(payload)} bytes")


def goaway(stream_id: int, payload: bytes) -> tuple[int, int, str]:
    """Last stream id, error code, and the server's words."""
    if stream_id:
        raise ConnectionFailedError(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
    head = frames.GOAWAY_HEAD
    if len(payload) < head.size:
        raise ConnectionFailedError(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
    last_stream_id, code = head.unpack_from(payload)
    debug = payload[head.size : head.size + _DEBUG].decode("utf-8", "backslashreplace")
    return last_stream_id & 0x7FFF_FFFF, code, debug
