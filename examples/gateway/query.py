"""What `GET /facts` may be asked: its parameters, checked.

Rules:
* Whatever is wrong is said in one sentence, with the value and what is allowed: it is shown to whoever asked.
* Nothing is guessed: a parameter that is unknown, or given twice, is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST: Final = 2**64 - 1  # subjects and indexes are uint64 on the wire
_SHOWN: Final = 40  # characters of a value
_KNOWN: Final = ("subject", "index", "limit")


class BadQueryError(ValueError):
    """The request can never be answered. Its text is for whoever made it."""


@frozen
class FactsQuery:
    """One question."""

    subject: int
    index: int  # of the log, as of which facts are wanted; 0 is now
    limit: float  # seconds


def parse(parameters: Iterable[tuple[str, str]], most: float) -> FactsQuery:
    """Read the parameters of a request, which may take `most` seconds. Raises `BadQueryError`."""
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in _KNOWN:
            raise BadQueryError(f"parameter {_show(name)}: expected one of {', '.join(_KNOWN)}")
        if name in given:
            raise BadQueryError(f"{name} {_show(value)}: expected once, and it is {_show(given[name])} already")
        given[name] = value
    if "subject" not in given:
        raise BadQueryError("subject: expected one, such as ?subject=1001")
    return FactsQuery(
        subject=_whole(given, "subject"),
        index=_whole(given, "index") if "index" in given else 0,
        limit=_seconds(given["limit"], most) if "limit" in given else most,
    )


def _whole(given: dict[str, str], name: str) -> int:
    text = given[name]
    if re.fullmatch("[0-9]{1,20}", text) and int(text) <= _LARGEST:
        return int(text)
    raise BadQueryError(f"{name} {_show(text)}: expected a whole number from 0 to {_LARGEST}")


def _seconds(text: str, most: float) -> float:
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) and 0 < float(text) <= most:
        return float(text)
    raise BadQueryError(f"limit {_show(text)}: expected a number of seconds above 0, up to {most:g}")


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
