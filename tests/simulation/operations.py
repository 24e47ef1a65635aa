"""What can be done to a simulated world, as lines of text: `12.345 freeze h2:1`.

Rules:
* An operation is a moment, a verb and words. Verbs are a table, which says what words each takes; anything else is
  refused, with what is allowed.
* Moments are whole milliseconds, so that a text says them exactly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from attrs import frozen

from simulation.calls import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable


class TraceError(ValueError):
    """A text is no operation, or no trace of this version."""


@frozen
class Operation:
    """Something that is done to the world at one moment."""

    at: float
    verb: str
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((f"{self.at:.3f}", self.verb, *self.words))


def _one_of(*allowed: str) -> Callable[[str], str]:
    return lambda word: "" if word in allowed else f"one of {', '.join(allowed)}"


def _number(word: str) -> str:
    try:
        good = float(word) >= 0
    except ValueError:
        good = False
    return "" if good else "a number from 0 on"


def _count(word: str) -> str:
    return "" if word.isdecimal() else "a whole number from 0 on"


def _text(word: str) -> str:
    return ""


_WAY: Final = _one_of("both", "to-server", "to-client")

# What each verb takes. The last one of "list" may come any number of times.
VERBS: Final[dict[str, tuple[Callable[[str], str], ...]]] = {
    # servers, each first
    "start": (_text,),
    "kill": (_text,),
    "freeze": (_text,),
    "thaw": (_text,),
    "cut": (_text, _WAY),
    "heal": (_text,),
    "dials": (_text, _one_of("accept", "refuse", "black-hole")),
    "delay": (_text, _number, _number),
    "reset": (_text,),
    "close": (_text,),
    "half-close": (_text,),
    "greet": (_text, _one_of("settings", "nothing", "nonsense")),
    "behave": (
        _text,
        _one_of("answer", "fail", "hang", "slow", "garble", "view-type", "encoding", "partition", "refuse", "reset"),
        _number,
    ),
    "pings": (_text, _one_of("answered", "ignored")),
    "serve": (_text, _one_of("SPO", "POS"), _count, _count),
    "goaway": (_text, _count),
    "drain": (_text,),
    # discovery; an endpoint is an address, or address;note
    "list": (_text,),
    "discovery": (_one_of("fails", "recovers", "lies", "talks-nonsense"),),
    # the program
    "stall": (_number,),
    "call": (_count, _text, _one_of(*KINDS), _number, _count, _number),  # number, server, kind, deadline, count, pause
    "leave": (_count,),  # the call of that number
    "read": (_count, _number),  # number, pause
    "wait": (_count, _one_of("change", "stable", "count", "healthy"), _text),
    "stop": (_count,),  # the reader or waiter of that number
    "open": (),
    "close-registry": (_one_of("by-leaving", "by-cancelling", "by-raising"),),
}


def parse(line: str) -> Operation:
    """Read one line. Raises `TraceError`."""
    at, _, rest = line.strip().partition(" ")
    verb, *words = rest.split() or [""]
    if _number(at) or math.isinf(float(at)):
        raise TraceError(f"{line!r}: expected a number of seconds first, from 0 on")
    if verb not in VERBS:
        raise TraceError(f"{line!r}: verb {verb!r}: expected one of {', '.join(VERBS)}")
    kinds = VERBS[verb]
    if verb == "list":
        kinds = kinds * len(words)
    if len(words) != len(kinds):
        raise TraceError(f"{line!r}: {len(words)} words after {verb}: expected {len(kinds)}")
    for word, kind in zip(words, kinds, strict=True):
        if expected := kind(word):
            raise TraceError(f"{line!r}: {word!r}: expected {expected}")
    return Operation(float(at), verb, tuple(words))
