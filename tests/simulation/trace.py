"""Traces: what happened in one world, as text that can be read, compared and replayed.

    viewreg simulation 3, viewreg 1.2.3, seed 17, 3600 s
    0.000000 > 0.000 start h1:1
    0.003000 h1:1 is dialled
    3601.000000 the end

Rules:
* The first line says which version of this program made it. Another version makes other worlds, and refuses it; so it
  does a trace of another viewreg, in whose world something else may happen, until it is told that this is meant.
* A line begins with the virtual second in which it happened. `>` marks an operation, which begins with the second for
  which it was planned: a stall may have made it late.
* The last line says how it ended. A trace without it was cut short, and would not do all that was done.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from simulation.operations import Operation, TraceError, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 3  # to be raised with every change of what a seed gives or of what an operation does

VIEWREG: Final[str] = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["version"]

_FORM: Final = "viewreg simulation VERSION, viewreg VERSION, seed SEED, SECONDS s"
_HEADER: Final = re.compile(
    r"viewreg simulation ([0-9]{1,9}), viewreg (\S+), seed ([0-9]{1,18}), ([0-9]{1,7}(?:\.[0-9]{1,3})?) s"
)
_LAST: Final = re.compile(r"[0-9.]+ (the end|wrong: .*)")
_MARK: Final = " > "


@frozen
class Recipe:
    """What makes a world: run it again, and the same happens."""

    seed: int
    seconds: float
    operations: tuple[Operation, ...]

    @property
    def header(self) -> str:
        """The first line of its trace."""
        seconds = f"{self.seconds:.3f}".rstrip("0").rstrip(".")
        return f"viewreg simulation {VERSION}, viewreg {VIEWREG}, seed {self.seed}, {seconds} s"


def read(text: str, *, any_viewreg: bool = False) -> Recipe:
    """What the trace is of. Raises `TraceError` if it is none, if it was cut short, or if it is of another version."""
    lines = text.split("\n")
    first, last = lines[0], text.rstrip("\n").rpartition("\n")[2]
    header = _HEADER.fullmatch(first)
    if header is None:
        raise TraceError(f"first line {first[:80]!r}: expected {_FORM!r}")
    version, viewreg, seed, seconds = header.groups()
    if int(version) != VERSION:
        raise TraceError(f"a trace of version {version}: expected version {VERSION}, whose worlds are others")
    if viewreg != VIEWREG and not any_viewreg:
        raise TraceError(f"a trace of viewreg {viewreg}: expected {VIEWREG}, or --any-viewreg beside it")
    if _LAST.fullmatch(last) is None:
        raise TraceError(f"cut short: last line {last[:80]!r}: expected 'SECONDS the end' or 'SECONDS wrong: WHAT'")
    return Recipe(int(seed), float(seconds), tuple(_operations(lines[1:])))


def _operations(lines: Iterable[str]) -> Iterable[Operation]:
    for line in lines:
        _, mark, operation = line.partition(_MARK)
        if mark:
            yield parse(operation)
