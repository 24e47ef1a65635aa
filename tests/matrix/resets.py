"""RST_STREAM: every error code at every place of an answer, and where there is none to reset.

gRPC over HTTP/2 ("Errors") says which status a code means, and has none for STREAM_CLOSED and HTTP_1_1_REQUIRED; the
design says INTERNAL for all that have none. A call that was refused before anything was received is sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import evolve

from matrix.cells import GOES_ON, Effect
from matrix.rows import bad_answer, fatal, good_answer, head, whole
from viewreg import CancelledError, InternalError, PermissionDeniedError, ResourceExhaustedError, UnavailableError
from viewreg.testing.frames import ErrorCode, data, headers, message, rst_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from matrix.cells import Fault
    from viewreg import CallError

UNKNOWN: Final = 0x4D2  # a code of no standard, which counts as INTERNAL_ERROR (RFC 9113, 7)
CODES: Final = {code.name: int(code) for code in ErrorCode} | {"0x4d2": UNKNOWN}

# What the server has sent when it resets the stream, and how many messages of it are whole.
PLACES: Final[dict[str, tuple[Callable[[int], bytes], int]]] = {
    "before headers": (lambda _: b"", 0),
    "after headers": (headers, 0),
    "during data": (lambda stream: headers(stream) + data(stream, message(bytes(100))[:50]), 0),
    "after data": (head, 1),
}

STATUSES: Final[dict[str, type[CallError]]] = {
    "REFUSED_STREAM": UnavailableError,
    "CANCEL": CancelledError,
    "ENHANCE_YOUR_CALM": ResourceExhaustedError,
    "INADEQUATE_SECURITY": PermissionDeniedError,
}

INTEROP: Final = {"after headers": "rst_after_header", "during data": "rst_during_data", "after data": "rst_after_data"}


def reset(code: str, place: str) -> Fault:
    """The row of one code at one place."""
    before, answers = PLACES[place]
    error = STATUSES.get(code, InternalError)
    row = bad_answer(
        f"RST_STREAM {code} {place}",
        lambda stream: before(stream) + rst_stream(stream, CODES[code]),
        error,
        answers=answers,
        # The server has begun to answer, so it has seen the request, whatever it says.
        started=True if error is UnavailableError else None,
        words=f": ...{code}",
        interop=INTEROP.get(place, "") if code == "NO_ERROR" else "",
    )
    return sent_again(row) if (code, place) == ("REFUSED_STREAM", "before headers") else row


def sent_again(row: Fault) -> Fault:
    """The server has promised to have done nothing: nobody learns of it, but by a little time."""
    return evolve(row, unary=Effect(call=GOES_ON), stream=Effect(call=GOES_ON), probe=Effect())


RESETS: Final = [
    *(reset(code, place) for place in PLACES for code in CODES),
    good_answer(
        "RST_STREAM NO_ERROR after the trailers",
        lambda stream: whole(stream) + rst_stream(stream, ErrorCode.NO_ERROR),
        idle=Effect(),  # RFC 9113, 5.1: a stream that is over may still be reset
    ),
    good_answer(
        "RST_STREAM INTERNAL_ERROR after the trailers",
        lambda stream: whole(stream) + rst_stream(stream, ErrorCode.INTERNAL_ERROR),
        idle=Effect(),
    ),
    fatal(
        "RST_STREAM of a stream that was never opened",
        lambda _: rst_stream(101, ErrorCode.CANCEL),
        "PROTOCOL_ERROR",  # RFC 9113, 5.1: of an idle stream
    ),
]
