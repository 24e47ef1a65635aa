"""The kinds of rows: most faults do to every moment what their kind does.

Rules:
* `fatal`: illegal for the connection, which ends with GOAWAY of a code (RFC 9113, 5.4.1). Calls on it are lost.
* `bad_answer`: concerns one call, which ends with an error of its own (RFC 9113, 5.4.2; gRPC over HTTP/2). A probe that
  fails makes its view unhealthy and not more.
* `good_answer`: a whole answer, in a form that is odd and legal.
* `harmless`: legal, and nobody's business: what is in flight goes on.
* While the block is being left nothing is read any more, so no fault changes anything: calls are lost, and what could
  not be sent is given up after the 0.1 s that the design grants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from matrix.cells import ANSWERED, AWAY, GOES_ON, GONE, UNHEALTHY, Effect, Fault, Senseless
from viewreg import UnavailableError
from viewreg.testing.frames import data, headers, message, trailers

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg import CallError

    Wire = Callable[[int], bytes]
    Columns = dict[str, Any]  # of a Fault, by name

GRACE: Final = 0.1  # seconds for the last frames of a connection that is being left (design, 4)
CLOSED: Final = Effect(view=GONE, call=UnavailableError, started=True, within=GRACE)
NO_STREAM_YET: Final = Senseless("no stream is open before the server's SETTINGS")
NO_CALL_OPEN: Final = Senseless("no call is in flight that this could be an answer to")

MUTE: Final = "before it said anything: it may expect TLS"  # how a server on TLS leaves one that speaks plainly

ONE: Final = message(b"")  # an Answer with nothing in it


def head(stream: int) -> bytes:
    """The beginning of an answer, and one message."""
    return headers(stream) + data(stream, ONE)


def whole(stream: int) -> bytes:
    """An answer of one message."""
    return head(stream) + trailers(stream)


def lost(why: str, *sends: str) -> Columns:
    """The columns of a row that ends its connection. "..." in `why` stands for any words."""
    idle = Effect(view=AWAY, history=(f"connection lost: {why}",), sends=sends)
    unary = evolve(idle, call=UnavailableError, started=True)
    return {
        "idle": idle,
        "connect": evolve(idle, history=(f"connecting failed: {why}",)),
        "unary": unary,
        "stream": evolve(unary, answers=1),
        "probe": idle,
        "close": CLOSED,
    }


def fatal(name: str, wire: Wire, code: str, **changes: Any) -> Fault:
    """Illegal for the connection, whatever it does."""
    columns = lost(f"... ({code})", f"GOAWAY {code}")
    if changes.get("answers"):
        columns["stream"] = columns["unary"]  # nothing was answered before
    return Fault(name=name, wire=wire, **{**columns, **changes})


def bad_answer(
    name: str,
    wire: Wire,
    error: type[CallError],
    *sends: str,
    answers: int = 0,
    started: bool | None = None,
    words: str = "...",
    **changes: Any,
) -> Fault:
    """An answer that fails its call. `answers` is how many messages in it are good, which a stream delivers."""
    unary = Effect(call=error, started=started, sends=sends)
    columns = {
        "idle": NO_CALL_OPEN,
        "connect": NO_STREAM_YET,
        "unary": unary,
        "stream": evolve(unary, answers=answers),
        "probe": Effect(view=UNHEALTHY, history=(f"probe failed: {error.code.name}{words}",), sends=sends),
        "close": CLOSED,
    }
    return Fault(name=name, wire=wire, answers=True, **{**columns, **changes})


def good_answer(name: str, wire: Wire, *, answers: int = 1, **changes: Any) -> Fault:
    """A whole answer of so many messages."""
    columns = {
        "idle": NO_CALL_OPEN,
        "connect": NO_STREAM_YET,
        "unary": Effect(call=ANSWERED, answers=1),
        "stream": Effect(call=ANSWERED, answers=answers),
        "probe": Effect(history=("probe answered: ...",)),
        "close": CLOSED,
    }
    return Fault(name=name, wire=wire, answers=True, **{**columns, **changes})


def harmless(name: str, wire: Wire, **changes: Any) -> Fault:
    """Legal, and no concern of what is in flight."""
    columns = {
        "idle": Effect(),
        "connect": Effect(view=UNHEALTHY, history=("connected",)),  # the probe is on its way
        "unary": Effect(call=GOES_ON),
        "stream": Effect(call=GOES_ON, answers=1),
        "probe": Effect(),
        "close": CLOSED,
    }
    return Fault(name=name, wire=wire, **{**columns, **changes})
