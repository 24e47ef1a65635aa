"""Fan-outs cancelled at every step that any task makes: while they ask, hand out, ask again, and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from riders import FACTS, HIGH, LOW, collect, host, kept, open_riders, ride
from steps import at_every_step, covers
from viewreg import Feature, KeyEncoding, NotServedError, UnavailableError, open_fan_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from riders import Rider
    from viewreg import Registry, View

    Act = Callable[[Registry[Feature], list[int]], Awaitable[None]]

SPO = KeyEncoding.SPO


def weak_first(view: View[Feature]) -> float:
    """Ask the one that fails before all others."""
    return host(view) != "weak"


@covers("open_fan_out", "FanOut.__anext__")
async def asks_again(registry: Registry[Feature], found: list[int]) -> None:
    """All of it, with a view that fails at once, and is replaced."""
    async with open_fan_out(registry, Feature.CAROUSEL, ride, encoding=SPO, prefer=weak_first) as answers:
        async for answer in answers:
            found += kept(answer)


async def fails(registry: Registry[Feature], found: list[int]) -> None:
    """Until a view fails of which something was handed out."""
    async with open_fan_out(registry, Feature.CAROUSEL, ride, encoding=SPO, prefer=weak_first) as answers:
        with pytest.raises(NotServedError):
            found += await collect(answers)


async def is_left(registry: Registry[Feature], found: list[int]) -> None:
    """The first answer of all."""
    async with open_fan_out(registry, Feature.CAROUSEL, ride, encoding=SPO, prefer=weak_first) as answers:
        found += kept(await anext(answers))


@pytest.mark.parametrize(("act", "last"), [(asks_again, 0), (fails, 1), (is_left, 1)])
async def test_cancelled_at_every_step(act: Act, last: int, autojump_clock: MockClock) -> None:
    """No task is left, no server has a call open, no fact comes twice, and the next fan-out is whole."""
    async with open_riders({"weak": LOW, "strong": LOW, "high": HIGH}) as (riders, registry):
        found: list[int] = []

        async def prepare() -> None:
            found.clear()
            for rider in riders.values():
                rider.facts = rider.facts[:2]
                rider.pause = 0.01
            riders["weak"].last, riders["weak"].error = last, UnavailableError("gone")

        async def check() -> None:
            assert len(set(found)) == len(found)
            for rider in riders.values():
                await ended(rider)
            riders["weak"].last = 2
            async with open_fan_out(registry, Feature.CAROUSEL, ride, encoding=SPO) as answers:
                assert len(await collect(answers)) == 4

        steps = await at_every_step(prepare, lambda: act(registry, found), check)
        assert steps > 20
        assert len(registry.healthy_views()) == 3


async def ended(rider: Rider) -> None:
    """No call of a server's is open."""
    await rider.fake.wait_for_calls(lambda _: not rider.fake.open_calls)


async def test_cancelled_with_an_answer_in_reach(autojump_clock: MockClock) -> None:
    """A reader that is cancelled in the very step in which an answer comes leaves it to the next reader."""
    async with open_riders({"low": LOW, "high": HIGH}) as (riders, registry):
        for rider in riders.values():
            rider.pause = 0.25
        found: list[int] = []
        async with open_fan_out(registry, Feature.CAROUSEL, ride, encoding=SPO) as answers:
            while len(found) < len(FACTS):
                with trio.move_on_after(0.25):
                    found += kept(await anext(answers))
        assert sorted(found) == [fact.id for fact in FACTS]
