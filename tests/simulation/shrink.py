"""Shrinking: the fewest operations that still go wrong in the same way, found by leaving some out.

Rules:
* What goes wrong is told apart by its text without numbers: so the same fault at another moment counts.
* It takes as long as it may, and then gives the best that it has.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.trace import Recipe

_AFTER = 1.0  # virtual seconds that a shrunk world goes on after it went wrong


def shrink(recipe: Recipe, wrong: str, at: float, attempt: Callable[[Recipe], str], patience: float) -> Recipe:
    """Leave out what can be left out, for so many real seconds. `attempt` runs a recipe and returns what was wrong."""
    until = time.monotonic() + patience
    best = evolve(
        recipe,
        seconds=min(recipe.seconds, at + _AFTER),
        operations=tuple(operation for operation in recipe.operations if operation.at <= at),
    )
    if _kind(attempt(best)) != _kind(wrong):
        return recipe
    size = max(1, len(best.operations) // 2)
    while time.monotonic() < until:
        smaller = _without(best, size, _kind(wrong), attempt, until)
        if smaller is best and size == 1:
            break
        best, size = smaller, max(1, min(size // 2, len(smaller.operations) // 2))
    return best


def _without(best: Recipe, size: int, kind: str, attempt: Callable[[Recipe], str], until: float) -> Recipe:
    """Go through the operations once, by groups of this size, and leave out each that is not needed."""
    begin = 0
    while begin < len(best.operations) and time.monotonic() < until:
        kept = best.operations[:begin] + best.operations[begin + size :]
        candidate = evolve(best, operations=kept)
        if _kind(attempt(candidate)) == kind:
            best = candidate
        else:
            begin += size
    return best


def _kind(wrong: str) -> str:
    return re.sub(r"[\d.]+", "#", wrong)
