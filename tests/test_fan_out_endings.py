"""How fan-outs end when the caller's own functions are odd, or two things happen in one step; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riders import HALVES, RIDES, SPO, open_riders, ride
from viewreg import Feature, HashRange, open_fan_out

if TYPE_CHECKING:
    from trio.testing import MockClock

    from viewreg import View


async def test_the_end_of_something_else(autojump_clock: MockClock) -> None:
    """A call that raises StopAsyncIteration, as `anext` does, does not pass for the end of all answers."""

    async def first_answer(view: View[Feature], part: HashRange) -> object:
        async with ride(view, part) as answers:
            return await anext(answers)

    async with open_riders(HALVES) as (riders, registry):
        riders["low"].facts = []
        async with open_fan_out(registry, RIDES, first_answer, encoding=SPO) as answers:
            with pytest.raises(RuntimeError, match=r"^call or prefer raised StopAsyncIteration$") as caught:
                [answer async for answer in answers]
        assert isinstance(caught.value.__cause__, StopAsyncIteration)
