"""What can be done to a simulated world, as lines of text: `12.345 freeze h2:1`.

Rules:
* An operation is a moment, a verb and words. Verbs are a table, which says what words each takes; anything else is
  refused, with what is allowed.
* Moments are whole milliseconds, so that a text says them exactly.
* Whatever passes here can be done: what a person writes into a trace never looks like a fault of viewreg.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from attrs import frozen

from simulation.calls import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable


HOSTS: Final = ("h1:1", "h2:1", "h3:1", "h4:10", "h4:9")  # all servers that there are, in the original's order


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
        good = 0 <= float(word) < math.inf
    except ValueError:
        good = False
    return "" if good else "a number from 0 on"


def _number_or_inf(word: str) -> str:
    return _number(word) and ("" if word == "inf" else "a number from 0 on, or inf")


def _whole(first: int, last: int) -> Callable[[str], str]:
    def check(word: str) -> str:
        good = word.isascii() and word.isdecimal() and len(word) <= len(str(last)) and first <= int(word) <= last
        return "" if good else f"a whole number from {first} to {last}"

    return check


def _item(word: str) -> str:
    return "" if word.partition(";")[0] in HOSTS else f"one of {', '.join(HOSTS)}, or one with ;NOTE"


def _anything(word: str) -> str:
    return ""


_count: Final = _whole(0, 10**9)
_code: Final = _whole(0, 2**32 - 1)
_hash: Final = _whole(0, 2**64 - 1)
_host: Final = _one_of(*HOSTS)
_WAY: Final = _one_of("both", "to-server", "to-client")

# What each verb takes. The last one of "list" may come any number of times.
VERBS: Final[dict[str, tuple[Callable[[str], str], ...]]] = {
    # servers, each first
    "start": (_host,),
    "kill": (_host,),
    "freeze": (_host,),
    "thaw": (_host,),
    "cut": (_host, _WAY),
    "heal": (_host,),
    "dials": (_host, _one_of("accept", "refuse", "black-hole")),
    "delay": (_host, _number, _number),
    "reset": (_host,),
    "close": (_host,),
    "half-close": (_host,),
    "greet": (_host, _one_of("settings", "nothing", "nonsense")),
    "behave": (
        _host,
        _one_of(
            "answer", "fail", "hang", "slow", "garble", "view-type", "encoding", "partition", "refuse", "reset", "leave"
        ),
        _anything,
    ),
    "pings": (_host, _one_of("answered", "ignored")),
    "serve": (_host, _one_of("SPO", "POS"), _hash, _hash),
    "goaway": (_host, _code),
    "drain": (_host,),
    # discovery; an endpoint is an address, or address;note
    "list": (_item,),
    "discovery": (_one_of("fails", "recovers", "lies", "talks-nonsense"),),
    # the program
    "stall": (_number,),
    "call": (
        _count,
        _host,
        _one_of(*KINDS),
        _number_or_inf,
        _count,
        _number,
    ),  # number, server, kind, deadline, count, pause
    "leave": (_count,),  # the call of that number
    "read": (_count, _number),  # number, pause
    "wait": (_count, _one_of("change", "stable", "count", "healthy", "served"), _anything),
    "stop": (_count,),  # the reader or waiter of that number
    "open": (),
    "close-registry": (_one_of("by-leaving", "by-cancelling", "by-raising", "by-listing"),),
}
# What the last word has to be, where the one before says that.
_AMOUNTS: Final = {
    ("behave", "fail"): _whole(1, 16),
    ("behave", "slow"): _number,
    ("behave", "reset"): _code,
    ("wait", "stable"): _number,
    ("wait", "count"): _count,
    ("wait", "healthy"): _host,
    ("wait", "served"): _whole(1, 10**9),
}


def parse(line: str) -> Operation:
    """Read one line. Raises `TraceError`."""
    at, _, rest = line.strip().partition(" ")
    verb, *words = rest.split() or [""]
    if _number(at):
        raise TraceError(f"{line!r}: expected a number of seconds first, from 0 on")
    if verb not in VERBS:
        raise TraceError(f"{line!r}: verb {verb!r}: expected one of {', '.join(VERBS)}")
    kinds = VERBS[verb]
    if verb == "list":
        kinds = kinds * len(words)
    if len(words) != len(kinds):
        raise TraceError(f"{line!r}: {len(words)} words after {verb}: expected {len(kinds)}")
    if len(words) > 1 and (verb, words[-2]) in _AMOUNTS:
        kinds = (*kinds[:-1], _AMOUNTS[verb, words[-2]])
    for word, kind in zip(words, kinds, strict=True):
        if expected := kind(word):
            raise TraceError(f"{line!r}: {word!r}: expected {expected}")
    return Operation(float(at), verb, tuple(words))
