"""The errors of viewreg that are not the status of a call, and the checks that raise the two commonest ones.

Rules:

* Everything raised on purpose is a `ViewregError`, so one ``except`` catches the library and nothing else.
* Where Python has a type for the mistake, the error is of that type too: a wrong value is also a `ValueError`, a wrong
  type a `TypeError`, an unknown key a `KeyError`.
* A message names the offending value and what is allowed. It is one sentence without a full stop, fit for a log line.
* A bool is no number, and neither is NaN.
* How a call failed is told by `CallError` and its kinds, which live with the transport.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import attrs

    from viewreg._partition import HashRange


class ViewregError(Exception):
    """The base of every error that viewreg raises on purpose."""


class InvalidValueError(ViewregError, ValueError):
    """An argument is of the right type and outside what is allowed.

    Raised where a value is made (`Endpoint`, `HashRange`, `Backoff`, `Config`, the ``parse`` functions), never later.
    """


class InvalidTypeError(ViewregError, TypeError):
    """An argument is of a type that can never be right there.

    Raised in the same places as `InvalidValueError`. A bool is no number: ``True`` for a port is a mistake.
    """


class UnknownViewError(ViewregError, KeyError):
    """The registry or snapshot knows no view of the endpoint that was asked for.

    Raised by lookups by endpoint. The message names the known endpoints.
    """

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, quotes and escapes included. Ours is a sentence.
        return Exception.__str__(self)


class LocatorError(ViewregError):
    """A locator could not discover, or what it discovered breaks the rules of `Locator`.

    Raised by locators. The registry catches it: it keeps the last good result, shows the error in its
    `DiscoveryStatus`, and asks again after a backoff. `open_registry` raises it only for a locator URI it cannot open.
    """


class RegistryClosedError(ViewregError):
    """The registry was closed while, or before, something was awaited that can no longer happen.

    Raised by the waits of a registry whose ``async with`` block has been left.
    """


class NotServedError(ViewregError):
    """No healthy view serves what is to be asked for.

    Raised by `Snapshot.cover`, `Coverage.cover` and `Registry.pick`; by `open_fan_out` also for a range that was served
    and is no more, or of which only a part was handed out: its `__cause__` is how the last call failed.
    """

    def __init__(self, message: str, gaps: tuple[HashRange, ...] = ()) -> None:
        super().__init__(message)
        self.gaps = gaps
        """The ranges of hashes that nobody serves: sorted and disjoint. None, if a feature is served by nobody."""


class ProbeAnswerError(ViewregError):
    """A server answered its probe, and the answer could not be understood.

    Raised by probes. It says more than a failed call does: what the server was believed to serve is no longer known,
    so the view loses its features and its partition. Any other error from a probe is a failed call and keeps both.
    """


def check_type(name: str, value: object, kind: type, expected: str) -> None:
    """Raise `InvalidTypeError` unless `value`, called `name` in the message, is a `kind`, described by `expected`."""
    if not isinstance(value, kind):
        raise InvalidTypeError(f"{name} {value!r}: expected {expected}")


def check_int(name: str, value: object, at_least: int, at_most: int | None = None) -> None:
    """Raise unless `value`, called `name` in the message, is an int within the inclusive bounds.

    Raises `InvalidTypeError` for anything but an int, bools included, and `InvalidValueError` outside the bounds.
    """
    kind: type[ViewregError] = InvalidTypeError
    if isinstance(value, int) and not isinstance(value, bool):
        if at_least <= value and (at_most is None or value <= at_most):
            return  # before any text is made: hashing a fact comes through here twice
        kind = InvalidValueError
    bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
    raise kind(f"{name} {value!r}: expected a whole number {bounds}")


def whole(at_least: int, at_most: int) -> Callable[[object, attrs.Attribute[int], object], None]:
    """Return `check_int` as an attrs validator, which names the field."""

    def validate(_instance: object, attribute: attrs.Attribute[int], value: object) -> None:
        check_int(attribute.name, value, at_least, at_most)

    return validate


def number(
    at_least: float, at_most: float, *, or_inf: bool = False, open_end: bool = False
) -> Callable[[object, attrs.Attribute[float], object], None]:
    """Return an attrs validator for an int or float within the two bounds. Pair it with the converter `as_float`.

    The lower bound is inclusive, the upper one unless `open_end`. Infinity is refused unless `or_inf`, NaN always.
    It raises `InvalidTypeError` and `InvalidValueError` as `check_int` does.
    """
    expected = f"expected a number from {at_least:g} to {at_most:g}"
    expected += " exclusive" if open_end else ""
    expected += ", or math.inf" if or_inf else ""

    def validate(_instance: object, attribute: attrs.Attribute[float], value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidTypeError(f"{attribute.name} {value!r}: {expected}")
        in_bounds = at_least <= value <= at_most and not (open_end and value == at_most)
        if not in_bounds and not (or_inf and value == math.inf):
            raise InvalidValueError(f"{attribute.name} {value!r}: {expected}")

    return validate


def as_float(value: float) -> float:
    """Return an int as a float, and anything else as it is, for the validator to judge."""
    # An int past 2**53 has no exact float, past 2**1024 none at all; no number of ours may be that large anyway.
    return float(value) if type(value) is int and abs(value) <= 2**53 else value
