"""Frames that concern the whole connection: floods, header blocks, and what is out of place, or odd."""

from __future__ import annotations

from typing import Final

from matrix.cells import Effect
from matrix.rows import NO_STREAM_YET, fatal, harmless
from viewreg.testing.frames import (
    ACK,
    END_HEADERS,
    PADDED,
    RESPONSE,
    block,
    data,
    frame,
    headers,
    ping,
    rst_stream,
    settings,
    trailers,
    window_update,
)

ENOUGH: Final = 20_000  # frames in a row: more than anyone needs

# -- floods --

FLOODS: Final = [
    fatal("PING flood", lambda _: ENOUGH * ping(), "ENHANCE_YOUR_CALM"),
    fatal("SETTINGS flood", lambda _: ENOUGH * settings(), "ENHANCE_YOUR_CALM"),
    fatal(
        "empty-DATA flood",
        lambda stream: headers(stream) + ENOUGH * data(stream),
        "ENHANCE_YOUR_CALM",
        answers=True,
        connect=NO_STREAM_YET,
    ),
    fatal(
        "CONTINUATION flood",
        lambda stream: frame("HEADERS", 0, stream, block(RESPONSE)) + ENOUGH * frame("CONTINUATION", 0, stream),
        "ENHANCE_YOUR_CALM",
        connect=NO_STREAM_YET,
    ),
    harmless("PINGs", lambda _: 10 * ping(), pings=10, interop="ping"),
]

# -- header blocks --

BIG: Final = ((b":status", b"200"), *((b"x-%d" % number, bytes(b"v" * 1000)) for number in range(70)))  # over 64 KiB


def in_pieces(stream: int, fields: bytes) -> bytes:
    """A header block in frames of 16 KiB."""
    pieces = [fields[at : at + 16_384] for at in range(0, len(fields), 16_384)]
    first, *middle, last = pieces
    return b"".join((
        frame("HEADERS", 0, stream, first),
        *(frame("CONTINUATION", 0, stream, piece) for piece in middle),
        frame("CONTINUATION", END_HEADERS, stream, last),
    ))  # fmt: skip


def raw_headers(stream: int, fields: bytes) -> bytes:
    """A header block as it is."""
    return frame("HEADERS", END_HEADERS, stream, fields)


# A field of 4,000 bytes that enters the table, then a byte each time that it comes again (RFC 7541, 6.1 and 6.2).
BOMB: Final = b"\x88\x40\x01a\x7f\xa1\x1e" + bytes(b"v" * 4_000) + 100 * b"\xbe"

BLOCKS: Final = [
    fatal(
        "a header list of more than 64 KiB",
        lambda stream: in_pieces(stream, block(BIG)),
        "ENHANCE_YOUR_CALM",
        connect=NO_STREAM_YET,
    ),
    fatal(
        "a small block of more than 64 KiB",
        lambda stream: raw_headers(stream, BOMB),
        "ENHANCE_YOUR_CALM",
        connect=NO_STREAM_YET,
    ),
    # RFC 7541, 2.3.3: an index past the end of both tables is a decoding error.
    fatal(
        "HPACK index 62 of an empty table",
        lambda stream: raw_headers(stream, b"\x88\xbe"),
        "COMPRESSION_ERROR",
        connect=NO_STREAM_YET,
    ),
    fatal(
        "HPACK index 62 after size 0 was signalled",
        lambda stream: raw_headers(stream, b"\x20\x88\x40\x01a\x01b\xbe"),
        "COMPRESSION_ERROR",
        connect=NO_STREAM_YET,
    ),
    fatal("HPACK index 0", lambda stream: raw_headers(stream, b"\x80"), "COMPRESSION_ERROR", connect=NO_STREAM_YET),
    # RFC 7541, 6.3: above what the decoder allows. 4,097 is above even the 4,096 from before our SETTINGS.
    fatal(
        "HPACK table size 4,097",
        lambda stream: raw_headers(stream, b"\x3f\xe2\x1f\x88"),
        "COMPRESSION_ERROR",
        connect=NO_STREAM_YET,
    ),
    fatal(
        "an unknown frame in a header block",
        lambda stream: frame("HEADERS", 0, stream, block(RESPONSE)) + frame(0xEE, 0, stream),
        "PROTOCOL_ERROR",
        connect=NO_STREAM_YET,
    ),
]

# -- frames that are out of place, or odd --

FRAMES: Final = [
    harmless("unknown frames", lambda stream: frame(0xEE, 0xFF, stream, b"what?") + frame(0xEF, 0, 0)),
    harmless("PRIORITY", lambda _: frame("PRIORITY", 0, 101, bytes(5))),
    harmless("the answer to a PING that was never sent", lambda _: ping(b"whatever", ack=True)),
    harmless(
        "late frames of a stream that is over",
        lambda _: headers(1) + data(1, b"too late") + trailers(1) + rst_stream(1) + window_update(1, 1),
        connect=NO_STREAM_YET,
    ),
    fatal("HEADERS of a stream that was never opened", lambda _: headers(101), "PROTOCOL_ERROR"),
    fatal("DATA of a stream that was never opened", lambda _: data(101, b"?"), "PROTOCOL_ERROR"),
    fatal("HEADERS of a stream of the server's", lambda _: headers(2), "PROTOCOL_ERROR"),
    fatal(
        "server push",
        lambda stream: frame("PUSH_PROMISE", END_HEADERS, stream, bytes((0, 0, 0, 2)) + block(RESPONSE)),
        "PROTOCOL_ERROR",
        connect=NO_STREAM_YET,
    ),
    fatal("a frame of 16,385 bytes", lambda _: frame(0xEE, 0, 0, bytes(16_385)), "FRAME_SIZE_ERROR"),
    fatal("PING of 7 bytes", lambda _: ping(bytes(7)), "FRAME_SIZE_ERROR"),
    fatal("SETTINGS of 5 bytes", lambda _: frame("SETTINGS", payload=bytes(5)), "FRAME_SIZE_ERROR"),
    fatal("an acknowledgement with a value", lambda _: frame("SETTINGS", ACK, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    fatal("DATA on stream 0", lambda _: data(0, b"?"), "PROTOCOL_ERROR"),
    fatal("PING on a stream", lambda _: frame("PING", 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    fatal("a CONTINUATION of nothing", lambda stream: frame("CONTINUATION", END_HEADERS, stream), "PROTOCOL_ERROR"),
    fatal("WINDOW_UPDATE of 0 bytes for the connection", lambda _: window_update(0, 0), "PROTOCOL_ERROR"),
    fatal("the connection's window past 2**31 - 1", lambda _: window_update(0, 2**31 - 1), "FLOW_CONTROL_ERROR"),
    # RFC 9113, 6.1. Late DATA is counted and dropped, whatever is in it (5.1).
    fatal(
        "DATA with more padding than payload",
        lambda stream: frame("DATA", PADDED, stream, b"\5abc"),
        "PROTOCOL_ERROR",
        idle=Effect(),
        connect=NO_STREAM_YET,
    ),
]

CONNECTION_FRAMES: Final = [*FLOODS, *BLOCKS, *FRAMES]
