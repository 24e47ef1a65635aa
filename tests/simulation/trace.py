"""Traces: what happened in one world, as text that can be read, compared and replayed.

    viewreg simulation 2, seed 17, 3600 s
    0.000000 > 0.000 start h1:1
    0.003000 h1:1 is dialled

Rules:
* The first line says which version of this program made it. Another version makes other worlds, and refuses it.
* A line begins with the virtual second in which it happened. `>` marks an operation, which begins with the second for
  which it was planned: a stall may have made it late.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from simulation.operations import Operation, TraceError, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 2  # to be raised with every change of what a seed gives or of what an operation does

_HEADER: Final = re.compile(r"viewreg simulation (\d+), seed (\d+), (\d+(?:\.\d+)?) s")
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
        return f"viewreg simulation {VERSION}, seed {self.seed}, {self.seconds:g} s"


def read(text: str) -> Recipe:
    """What the trace is of. Raises `TraceError` if it is none, or of another version."""
    lines = text.splitlines()
    first = lines[0] if lines else ""
    header = _HEADER.fullmatch(first)
    if header is None:
        raise TraceError(f"first line {first[:80]!r}: expected {'viewreg simulation VERSION, seed SEED, SECONDS s'!r}")
    version, seed, seconds = header.groups()
    if int(version) != VERSION:
        raise TraceError(f"a trace of version {version}: expected version {VERSION}, whose worlds are others")
    return Recipe(int(seed), float(seconds), tuple(_operations(lines[1:])))


def _operations(lines: Iterable[str]) -> Iterable[Operation]:
    for line in lines:
        _, mark, operation = line.partition(_MARK)
        if mark:
            yield parse(operation)
