"""Trio's scheduler, seeded: so that a simulated world is the same in every process.

Trio runs the tasks of one moment in an order that it draws, and has no public way to say how. This module reaches for
two private names of `trio._core._run`, which Trio made for Hypothesis: `_r`, the generator that it draws from, and
`_ALLOW_DETERMINISTIC_SCHEDULING`, by which a batch of tasks is sorted by their age before it is shuffled, so that the
addresses of objects no longer show. A Trio without them fails here, and at once.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio._core._run

if TYPE_CHECKING:
    from collections.abc import Iterator

_run: Any = trio._core._run


@contextmanager
def seeded(seed: str) -> Iterator[None]:
    """Within the block, Trio's choices follow from the seed."""
    state, flag = _run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._r.seed(seed)
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = flag
        _run._r.setstate(state)
