"""What stands in a scenario file, value by value, and the errors for what may not stand there.

Rules:
* An error names the place, what stands there and what is allowed, and what was probably meant.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from viewreg import Backoff, ViewregError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ScenarioError(ValueError):
    """A scenario file is not well formed. Says where, what stands there, and what is allowed."""


@frozen
class Place:
    """Where in the files something stands, for errors: `Place("x.json") / "phase 2" / "do"`."""

    text: str

    def __truediv__(self, part: str) -> Place:
        return Place(f"{self.text}: {part}")

    def error(
        self, found: object, expected: str, choices: Iterable[str] = (), *, like: str | None = None
    ) -> ScenarioError:
        """An error that says what is there, what is allowed, and which of the choices was probably meant.

        `like` is what to compare the choices with, if not `found`.
        """
        close = difflib.get_close_matches(like or found, choices, 1, 0.5) if isinstance(found, str) else []
        meant = f"; did you mean {close[0]!r}?" if close else ""
        return ScenarioError(f"{self.text}: {found!r}: expected {expected}{meant}")


def an_object(at: Place, value: object, allowed: Iterable[str], *, required: Iterable[str] = ()) -> dict[str, Any]:
    """An object with these keys at most, and those at least."""
    if not isinstance(value, dict):
        raise at.error(value, "an object")
    allowed = tuple(allowed)
    for key in value:
        if key not in allowed:
            raise at.error(key, f"one of the keys {', '.join(allowed) or 'of an empty object'}", allowed)
    for key in required:
        if key not in value:
            raise at.error(sorted(value), f"the key {key!r} as well")
    return value


def a_list(at: Place, value: object) -> list[Any]:
    """A list of anything."""
    if not isinstance(value, list):
        raise at.error(value, "a list")
    return value


def a_text(at: Place, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise at.error(value, "a text that is not empty")
    return value


def distinct_names(
    at: Place, value: object, form: str, expected: str, *, reserved: Sequence[str] = ()
) -> tuple[str, ...]:
    """A list of texts of this form, a regular expression, each of them once."""
    found: list[str] = []
    for name in a_list(at, value):
        if not isinstance(name, str) or not re.fullmatch(form, name) or name in reserved:
            raise at.error(name, expected)
        if name in found:
            raise at.error(name, "each name once")
        found.append(name)
    return tuple(found)


def a_duration(at: Place, value: object) -> float:
    """Seconds, from a text such as "1.3 s"."""
    found = re.fullmatch(r"(\d+(?:\.\d{1,6})?) s", value) if isinstance(value, str) else None
    if found is None:
        raise at.error(value, 'a time of 0 or more seconds such as "1.3 s"')
    return float(found[1])


def settings(at: Place, base: Any, value: object) -> Any:
    """A `Config` or `Backoff` that differs from `base`. "inf" is infinity, for which JSON has no word."""
    found = dict(an_object(at, value, [attribute.name for attribute in attrs.fields(type(base))]))
    for key, item in found.items():
        if isinstance(item, dict) and isinstance(getattr(base, key), Backoff):
            found[key] = settings(at / key, getattr(base, key), item)
        elif item == "inf":
            found[key] = math.inf
    try:
        return attrs.evolve(base, **found)
    except ViewregError as error:
        raise ScenarioError(f"{at.text}: {error}") from None
