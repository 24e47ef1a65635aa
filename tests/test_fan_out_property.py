"""Fan-outs over any views, of which any fail at any moment, read by any number of tasks: no fact is lost or doubled."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from riders import EVERY_FACT, FACTS, RIDES, SPO, host, kept, open_riders, ride
from viewreg import HashRange, NotServedError, UnavailableError, hash_sp, open_fan_out

if TYPE_CHECKING:
    from riders import Rider
    from viewreg import Answer, FanOut, Feature, ResponseStream, View
    from viewreg.rpc import CarouselResult

GRID = [*range(0, 2**64, 2**62), None]  # where ranges begin and end
UNTIL = 30.0  # seconds; then a fan-out of which a server hangs is left
MOMENTS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 1.03])  # few, so that much happens in one step


@frozen
class Fate:
    """One view, and what becomes of it."""

    start: int
    length: int
    pause: float
    last: int  # after so many facts it fails; there are not so many if it never does
    killed: float | None

    @property
    def part(self) -> HashRange:
        """What it serves."""
        start = GRID[self.start]
        assert start is not None
        return HashRange(start, GRID[min(self.start + self.length, len(GRID) - 1)])


class Seen:
    """What the tasks that share a fan-out came to know."""

    def __init__(self) -> None:
        self.answers: list[Answer[CarouselResult]] = []
        self.ends: list[NotServedError | None] = []  # of each task
        self.asked: list[tuple[str, HashRange]] = []


FATES = st.builds(
    Fate,
    start=st.integers(0, 3),
    length=st.integers(1, 4),
    pause=MOMENTS,
    last=st.sampled_from([0, 1, 2, 99]),
    killed=st.sampled_from([None, None, 0.1, 1.0]),
)
SOUND = [Fate(0, 2, 0.1, 99, None), Fate(2, 2, 0.1, 99, None)]  # those that take over
PATIENCE = st.sampled_from([None, 0.1, 0.25])  # seconds after which a reader gives up waiting; and its rests


@settings(max_examples=40, deadline=None)
@given(
    fates=st.lists(FATES, min_size=1, max_size=4),
    sound=st.sampled_from([SOUND, SOUND, []]),
    readers=st.lists(PATIENCE, min_size=1, max_size=3),
    partial=st.booleans(),
    repeat=st.booleans(),
)
def test_nothing_is_lost_or_doubled(
    fates: list[Fate], sound: list[Fate], readers: list[float | None], partial: bool, repeat: bool
) -> None:
    """Facts and gaps are all there is, no fact comes twice unless told, nobody is asked twice, and all see one end."""
    seen = Seen()
    gaps = trio.run(play, [*fates, *sound], readers, seen, partial, repeat, clock=MockClock(autojump_threshold=0))
    facts = Counter(fact for answer in seen.answers for fact in kept(answer))
    assert repeat or set(facts.values()) <= {1}
    assert len(set(seen.asked)) == len(seen.asked)
    assert len(set(map(repr, seen.ends))) <= 1
    assert all(before.stop <= after.start for before, after in itertools.pairwise(gaps))
    if seen.ends == [None] * len(readers):
        unserved = {fact.id for fact in FACTS if any(hash_sp(fact.subject, fact.predicate) in gap for gap in gaps)}
        assert facts.keys() | unserved == set(EVERY_FACT)
        assert partial or not gaps


async def play(
    fates: list[Fate], readers: list[float | None], seen: Seen, partial: bool, repeat: bool
) -> tuple[HashRange, ...]:
    """Ask for everything while all that happens to the views. Returns what nobody serves."""

    def call(view: View[Feature], part: HashRange) -> ResponseStream[CarouselResult]:
        seen.asked.append((host(view), part))
        return ride(view, part)

    parts = {f"view-{number}": fate.part for number, fate in enumerate(fates)}
    async with open_riders(parts) as (riders, registry), trio.open_nursery() as around:
        for rider, fate in zip(riders.values(), fates, strict=True):
            rider.pause, rider.last, rider.error = fate.pause, fate.last, UnavailableError("gone")
            if fate.killed is not None:
                around.start_soon(kill, rider, fate.killed)
        try:
            with trio.move_on_after(UNTIL):
                async with (
                    open_fan_out(registry, RIDES, call, encoding=SPO, partial=partial, repeat=repeat) as answers,
                    trio.open_nursery() as sharing,
                ):
                    for patience in readers:
                        sharing.start_soon(read, answers, patience, seen)
                return answers.gaps
        except NotServedError as error:  # on entering
            return error.gaps
        finally:
            around.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for rider in riders.values():
                    await ended(rider)
    return ()


async def ended(rider: Rider) -> None:
    """No call of a server's is open."""
    await rider.fake.wait_for_calls(lambda _: not rider.fake.open_calls)


async def kill(rider: Rider, moment: float) -> None:
    """Let a server die."""
    await trio.sleep(moment)
    rider.fake.kill()


async def read(answers: FanOut[CarouselResult], patience: float | None, seen: Seen) -> None:
    """Take answers to the end."""
    while True:
        with trio.move_on_after(UNTIL if patience is None else patience):
            try:
                seen.answers.append(await anext(answers))
                await trio.sleep(patience or 0)
            except StopAsyncIteration:
                seen.ends.append(None)
                return
            except NotServedError as error:
                seen.ends.append(error)
                return
