"""Answers that are odd, wrong, too large, or no answers: what concerns one call, and one call only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matrix.cells import ANSWERED, Effect
from matrix.rows import ONE, bad_answer, good_answer, head, whole
from viewreg import (
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from viewreg.testing.frames import (
    END_HEADERS,
    PADDED,
    PRIORITY,
    RESPONSE,
    block,
    data,
    frame,
    headers,
    message,
    status_fields,
    trailers,
    window_update,
)

if TYPE_CHECKING:
    from matrix.cells import Fault
    from viewreg import CallError

LIMIT: Final = 10_000  # bytes of a message that the registries of the matrix take

# http-grpc-status-mapping.md; what is not in it means UNKNOWN.
HTTP: Final[dict[int, type[CallError]]] = {
    400: InternalError,
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: UnimplementedError,
    405: UnknownError,
    418: UnknownError,
    429: UnavailableError,
    431: InternalError,
    500: UnknownError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
PAGE: Final = b"<html><body>No upstream</body></html>"


def response(stream: int, status: int, *fields: tuple[bytes, bytes], end: bool = False) -> bytes:
    """The header block of a response with an HTTP status."""
    return headers(stream, ((b":status", b"%d" % status), *fields), end=end)


def page(status: int, error: type[CallError]) -> Fault:
    """A proxy answers with a page of its own, and no gRPC status."""
    return bad_answer(
        f"HTTP {status}",
        lambda stream: response(stream, status, (b"content-type", b"text/html")) + data(stream, PAGE, end=True),
        error,
        # It may be the proxy that speaks, or the server behind it: nobody knows.
        started=True if error is UnavailableError else None,
        words=f": ...{status}...",
    )


def bad_status(status: bytes) -> Fault:
    """An answer with a grpc-status that there is not."""
    return bad_answer(
        f"grpc-status {status.decode()!r}",
        lambda stream: head(stream) + headers(stream, ((b"grpc-status", status),), end=True),
        UnknownError,
        answers=1,
    )


def answer_of(stream: int, size: int) -> bytes:
    """A message of exactly so many bytes, which a probe's and a call's caller can read: field 2 is bytes."""
    rest = size - 3  # the field's number, and two bytes of length
    body = b"\x12" + bytes((rest & 0x7F | 0x80, rest >> 7)) + bytes(rest)
    assert len(body) == size
    return headers(stream) + data(stream, message(body)) + trailers(stream)


def padded(stream: int) -> bytes:
    """An answer whose frames all carry as much padding as they can, a message byte by byte."""
    fields = block(RESPONSE)
    parts = [frame("HEADERS", END_HEADERS | PADDED, stream, bytes((255,)) + fields + bytes(255))]
    parts += [data(stream, ONE[at : at + 1], padding=255) for at in range(len(ONE))]
    return b"".join((*parts, data(stream, b"", padding=0), trailers(stream)))


WRONG: Final = [
    *(page(status, error) for status, error in HTTP.items()),
    bad_answer(
        "HTTP 200 of a web page",
        lambda stream: response(stream, 200, (b"content-type", b"text/html")) + data(stream, PAGE, end=True),
        UnknownError,
    ),
    bad_answer(
        "trailers only, NOT_FOUND",
        lambda stream: headers(stream, (*RESPONSE, *status_fields(5, "no such fact")), end=True),
        NotFoundError,
        words=": no such fact",
    ),
    bad_answer(
        "NOT_FOUND after a message",
        lambda stream: head(stream) + trailers(stream, 5, details="no such fact"),
        NotFoundError,
        answers=1,
        words=": no such fact",
    ),
    # statuscodes.md: of one answer there must be exactly one. A stream may have none, or two.
    bad_answer(
        "trailers only, OK",
        lambda stream: headers(stream, (*RESPONSE, *status_fields(0)), end=True),
        UnimplementedError,
        stream=Effect(call=ANSWERED, answers=0),
    ),
    bad_answer(
        "two answers",
        lambda stream: headers(stream) + data(stream, ONE + ONE) + trailers(stream),
        UnimplementedError,
        stream=Effect(call=ANSWERED, answers=2),
    ),
    bad_answer("no grpc-status", lambda stream: head(stream) + headers(stream, (), end=True), UnknownError, answers=1),
    bad_answer("no trailers", lambda stream: headers(stream) + data(stream, ONE, end=True), UnknownError, answers=1),
    *(bad_status(status) for status in (b"99", b"-1", b"OK", b"")),
    bad_answer(
        "a message 1 byte over the limit",
        lambda stream: answer_of(stream, LIMIT + 1),
        ResourceExhaustedError,
        "RST_STREAM CANCEL",
    ),
    bad_answer(
        "a message of which only the length comes, 4 GiB",
        lambda stream: headers(stream) + data(stream, message(b"", length=2**32 - 1)),
        ResourceExhaustedError,
        "RST_STREAM CANCEL",
    ),
    bad_answer(
        "the compressed flag set",
        lambda stream: headers(stream) + data(stream, message(b"", compressed=True)) + trailers(stream),
        InternalError,
        "RST_STREAM CANCEL",
    ),
    bad_answer(
        "bytes that are no message",
        lambda stream: headers(stream) + data(stream, message(b"\xff")) + trailers(stream),
        InternalError,
    ),
    bad_answer(
        "an OK in the middle of a message",
        lambda stream: headers(stream) + data(stream, ONE[:3]) + trailers(stream),
        InternalError,
    ),
    # -- malformed (RFC 9113, 8.1.1): a stream error of type PROTOCOL_ERROR --
    bad_answer(
        "101",
        lambda stream: response(stream, 101),
        InternalError,
        "RST_STREAM PROTOCOL_ERROR",
    ),
    bad_answer(
        "103 that ends the stream",
        lambda stream: response(stream, 103, end=True),
        InternalError,
        "RST_STREAM PROTOCOL_ERROR",
    ),
    bad_answer(
        "headers without a status",
        lambda stream: headers(stream, ((b"content-type", b"application/grpc"),)),
        InternalError,
        "RST_STREAM PROTOCOL_ERROR",
    ),
    bad_answer("DATA before headers", lambda stream: data(stream, ONE), InternalError, "RST_STREAM PROTOCOL_ERROR"),
    bad_answer(
        "a second header block that is no trailer",
        lambda stream: head(stream) + headers(stream),
        InternalError,
        "RST_STREAM PROTOCOL_ERROR",
        answers=1,
    ),
    bad_answer(
        "a connection-specific header",
        lambda stream: headers(stream, (*RESPONSE, (b"connection", b"close"))),
        InternalError,
        "RST_STREAM PROTOCOL_ERROR",
    ),
    bad_answer(
        "WINDOW_UPDATE of 0 bytes",
        lambda stream: window_update(stream, 0),
        InternalError,
        "RST_STREAM PROTOCOL_ERROR",
        idle=Effect(),  # RFC 9113, 5.1: on its way while the stream ended
    ),
    bad_answer(
        "a stream's window past 2**31 - 1",
        lambda stream: window_update(stream, 2**31 - 1),
        InternalError,
        "RST_STREAM FLOW_CONTROL_ERROR",
        idle=Effect(),
    ),
]

RIGHT: Final = [
    good_answer("a message of just the limit", lambda stream: answer_of(stream, LIMIT)),
    good_answer("100", lambda stream: response(stream, 100) + whole(stream)),
    good_answer("103, twice", lambda stream: 2 * response(stream, 103, (b"link", b"</style>")) + whole(stream)),
    good_answer("padded frames", padded, interop="data_frame_padding"),
    good_answer(
        "HEADERS with a priority, in CONTINUATIONs",
        lambda stream: (
            frame("HEADERS", PRIORITY, stream, bytes(5))
            + frame("CONTINUATION", 0, stream, block(RESPONSE)[:10])
            + frame("CONTINUATION", END_HEADERS, stream, block(RESPONSE)[10:])
            + data(stream, ONE)
            + trailers(stream)
        ),
    ),
    good_answer(
        "empty DATA between messages",
        lambda stream: headers(stream) + 100 * data(stream) + data(stream, ONE) + 100 * data(stream) + trailers(stream),
    ),
]

ANSWERS: Final = [*WRONG, *RIGHT]
