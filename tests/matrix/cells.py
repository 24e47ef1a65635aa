"""The words of the fault matrix: a fault, the moment at which it comes, and what must become of it.

Rules:
* A row is a `Fault`; its six columns are the moments of `During`. Each cell is an `Effect` to be found, or `Senseless`,
  which says why that fault cannot come at that moment.
* What is expected is written from the design, RFC 9113, RFC 7541 and gRPC's own documents, never from the code.
* An `Effect` is also what the worlds return, so that both can be compared field by field.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from viewreg import CallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class During(enum.Enum):
    """When the fault comes."""

    IDLE = "idle"  # the view is healthy, no call is in flight
    CONNECT = "during connect"  # the server has accepted, and not sent its SETTINGS
    UNARY = "during a unary call"  # the server has the request
    STREAM = "during a stream"  # the same; one answer has come, unless the fault is part of the answer
    PROBE = "during a probe"  # of a healthy view, on the same connection
    CLOSE = "during close"  # the block is being left while the server does not read a large request


HEALTHY: Final = "READY, healthy"
UNHEALTHY: Final = "READY, unhealthy"
AWAY: Final = "TRANSIENT_FAILURE, unhealthy"
GONE: Final = "gone"  # the registry is empty: its block is being left

# How calls end, where it is no error.
ANSWERED: Final = "answered"
GOES_ON: Final = "goes on"  # in flight; it is answered once the server is good again
LEFT: Final = "left by its own deadline"
NO_CALL: Final = "no call"

_FLOAT_ERROR: Final = 1e-6  # seconds, which no time that is counted here comes near


@attrs.frozen(kw_only=True)
class Effect:
    """What has become of a fault."""

    view: str = HEALTHY
    history: tuple[str, ...] = ()
    """The entries since the fault, "..." for any words."""
    call: type[CallError] | str = NO_CALL
    started: bool | None = None
    """Of an UnavailableError: whether the server may have seen the request."""
    answers: int = 0
    """That the call had received by then."""
    sends: tuple[str, ...] = ()
    """The GOAWAY and RST_STREAM frames that we send, in order, with the names of their codes; and DATA of the call."""
    within: float = 0.0
    """Seconds from the fault until all this is so: exactly, in virtual time."""


@attrs.frozen
class Senseless:
    """Why a fault cannot come at a moment."""

    why: str


@attrs.frozen(kw_only=True)
class Fault:
    """A row: what goes over the wire, and what must become of it at each moment."""

    name: str
    wire: Callable[[int], bytes] = lambda _: b""
    """The server's bytes, by the number of the call's stream; the last probe's, which is over, if there is no call.

    During connect they come in one piece with the server's SETTINGS, and the number is 0.
    """
    bare: bool = False
    """During connect the bytes come in place of SETTINGS."""
    ends: bool = False
    """Behind the bytes the server closes the connection."""
    accepts: bool = False
    """The server takes new connections at once; otherwise only when it is good again."""
    answers: bool = False
    """The bytes are of the answer, or in its place: so nothing of it was sent before, in a stream either."""
    before: bytes = b""
    """What the server has said when the fault comes, harmless until then; during connect it is in the SETTINGS."""
    after: bytes = b""
    """What the server says first when it is good again, where its connection is still there."""
    request: int = 0
    """Bytes of the payload of the call's request."""
    patience: float = 1_000.0
    """Seconds that the call's scope lasts."""
    pings: int = 0
    """How many PINGs are among the bytes, each of which is answered."""
    callers: int = 1
    """How many calls at once must be answered afterwards."""
    most: int | None = None
    """How many of them may be open at the same time."""
    interop: str = ""
    """The case of gRPC's negative HTTP/2 interop tests that this row contains."""

    idle: Effect | Senseless
    connect: Effect | Senseless
    unary: Effect | Senseless
    stream: Effect | Senseless
    probe: Effect | Senseless
    close: Effect | Senseless

    def expected(self, during: During) -> Effect | Senseless:
        """The cell in this column."""
        cell: Effect | Senseless = getattr(self, during.name.lower())
        return cell

    def effect(self, during: During) -> Effect:
        """The same, where it makes sense."""
        cell = self.expected(during)
        assert isinstance(cell, Effect)
        return cell


@attrs.frozen
class Cell:
    """A fault at a moment that makes sense."""

    fault: Fault
    during: During
    expected: Effect

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.during.value}"


def cells(faults: Iterable[Fault]) -> list[Cell]:
    """The cells that make sense, row by row."""
    found = ((fault, during, fault.expected(during)) for fault in faults for during in During)
    return [Cell(fault, during, expected) for fault, during, expected in found if isinstance(expected, Effect)]


def senseless(faults: Iterable[Fault]) -> dict[str, str]:
    """Why the others make none, by their names."""
    found = ((f"{fault.name}, {during.value}", fault.expected(during)) for fault in faults for during in During)
    return {name: cell.why for name, cell in found if isinstance(cell, Senseless)}


def different(expected: Effect, found: Effect) -> str:
    """A line for each field in which they differ; nothing if they do not."""
    return "\n".join(_differences(expected, found))


def _differences(expected: Effect, found: Effect) -> Iterator[str]:
    for name in (field.name for field in attrs.fields(Effect)):
        wanted, is_found = getattr(expected, name), getattr(found, name)
        if name == "history":
            same = len(wanted) == len(is_found) and all(map(_fits, wanted, is_found))
        elif name == "within":
            same = abs(wanted - is_found) < _FLOAT_ERROR
        else:
            same = wanted == is_found
        if not same:
            yield f"{name}: expected {wanted}, found {is_found}"


def _fits(wanted: str, found: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in wanted.split("...")), found, re.DOTALL) is not None
