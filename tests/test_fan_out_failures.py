"""Fan-outs in which views fail: who is asked again, what is not, and what nobody serves; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from riders import (
    ALL,
    EACH_TWICE,
    EVERY_FACT,
    HALVES,
    HIGH,
    LOW,
    MIDDLE,
    QUARTER,
    RIDES,
    SPO,
    collect,
    first,
    host,
    kept,
    open_riders,
    ride,
    within,
)
from viewreg import (
    AlreadyExistsError,
    DeadlineExceededError,
    FactPartition,
    FailedPreconditionError,
    Feature,
    HashRange,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    NotServedError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    open_fan_out,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from viewreg import CallError, View
    from viewreg.rpc import CarouselResult

FAILURES = [
    UnavailableError("gone"),
    UnimplementedError("not yet"),
    InternalError("a bug"),
    ResourceExhaustedError("too busy"),
    DeadlineExceededError("too slow"),
]


@pytest.mark.parametrize("error", FAILURES, ids=[type(error).__name__ for error in FAILURES])
async def test_another_view_is_asked(error: CallError, autojump_clock: MockClock) -> None:
    """A call that fails before anything was handed out is made once more, to another view of the same range."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].last, riders["low-1"].error = 0, error
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1", "high-1")) as answers:
            assert sorted(await collect(answers)) == EVERY_FACT
        assert [rider.begun for rider in riders.values()] == [1, 1, 1, 0]


async def test_several_take_over_from_one(autojump_clock: MockClock) -> None:
    """What one view was asked for, others may only have in parts: then each of them is asked for its own."""
    async with open_riders({"all": ALL, **HALVES}) as (riders, registry):
        riders["all"].last, riders["all"].error = 0, UnavailableError("gone")
        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
            found = [answer async for answer in answers]
        assert sorted(fact for answer in found for fact in kept(answer)) == EVERY_FACT
        assert {(answer.range, host(answer.view)) for answer in found} == {(LOW, "low"), (HIGH, "high")}


async def test_nobody_is_asked_twice(autojump_clock: MockClock) -> None:
    """When all that serve a part have failed, the error has the part, and the last failure."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        for name in ("low-1", "low-2"):
            riders[name].last, riders[name].error = 0, UnavailableError(f"{name} is tired")
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1")) as answers:
            with pytest.raises(NotServedError) as caught:
                await collect(answers)
        assert caught.value.gaps == (LOW,)
        assert str(caught.value) == (
            "nobody serves SPO: 0x00.. - 0x80.. any more: UNAVAILABLE: low-2 is tired [tcp://low-2:8080]"
        )
        assert isinstance(caught.value.__cause__, UnavailableError)
        assert [riders[name].begun for name in ("low-1", "low-2")] == [1, 1]


async def test_a_view_that_dies_before_its_first_answer(autojump_clock: MockClock) -> None:
    """The connection is lost in the middle of a call that has not answered: nothing is missing in the end."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].last = 0
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1")) as answers:
            await wait_all_tasks_blocked()
            riders["low-1"].fake.kill()
            assert sorted(await collect(answers)) == EVERY_FACT


async def test_a_view_that_dies_after_its_first_answer(autojump_clock: MockClock) -> None:
    """What was handed out would come twice: so the part is not asked for again, and the error names it."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].last, riders["high-1"].pause = 1, 100.0
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1", "high-1")) as answers:
            found = kept(await anext(answers))
            riders["low-1"].fake.kill()
            with pytest.raises(NotServedError) as caught:
                await collect(answers)
            assert found == within(LOW)[:1]
            assert caught.value.gaps == (LOW,)
            assert str(caught.value).startswith("SPO: 0x00.. - 0x80.. was not answered to its end: UNAVAILABLE: ")
            assert riders["low-2"].begun == 0
            await riders["high-1"].fake.wait_for_calls(lambda calls: calls[-1].cancelled)  # while the block goes on


async def test_an_answer_that_nobody_has_seen(autojump_clock: MockClock) -> None:
    """An answer that waits to be taken when its call fails is dropped, and comes from another view: once."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].last, riders["low-1"].error = 1, UnavailableError("gone")
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1")) as answers:
            await wait_all_tasks_blocked()
            assert riders["low-1"].sent == 1
            assert sorted(await collect(answers)) == EVERY_FACT


async def test_begin_anew_if_told(autojump_clock: MockClock) -> None:
    """With `repeat` a part of which something was handed out is asked for again, from its beginning."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].last, riders["low-1"].error, riders["low-1"].pause = 2, UnavailableError("gone"), 0.1
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1"), repeat=True) as answers:
            assert sorted(await collect(answers)) == sorted([*EVERY_FACT, *within(LOW)[:2]])


@pytest.mark.parametrize("seen", [True, False])
async def test_a_server_that_serves_something_else_by_now(seen: bool, autojump_clock: MockClock) -> None:
    """What it answers is of another range, and nothing of the one that it was asked for: that is a failure."""

    async def late(view: View[Feature], part: HashRange) -> AsyncIterator[CarouselResult]:
        await trio.sleep(50)
        async with ride(view, part) as answers:
            async for answer in answers:
                if seen or host(view) != "low-1":
                    yield answer

    async with (
        open_riders(EACH_TWICE) as (riders, registry),
        open_fan_out(registry, RIDES, late, encoding=SPO, prefer=first("low-1", "high-1")) as answers,
    ):
        await wait_all_tasks_blocked()
        riders["low-1"].facts = within(HIGH)
        await riders["low-1"].fake.restart(partition=FactPartition(SPO, HIGH))
        if seen:
            with pytest.raises(NotServedError, match="it serves another partition now") as caught:
                await collect(answers)
            assert caught.value.gaps == (LOW,)
        else:
            assert sorted(await collect(answers)) == EVERY_FACT


async def test_a_removed_server_answers_to_the_end(autojump_clock: MockClock) -> None:
    """One that discovery forgets while it answers is not asked again: what it says counts."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].pause = 0.1
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1")) as answers:
            found = kept(await anext(answers))
            riders["low-1"].forget()
            await registry.wait_until(lambda snapshot: len(snapshot.views) == 3)
            assert sorted(found + await collect(answers)) == EVERY_FACT


async def test_the_newest_snapshot_counts(autojump_clock: MockClock) -> None:
    """A view that became healthy meanwhile takes over, and one that was lost meanwhile is not asked."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-2"].fake.kill()
        await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 3)
        riders["low-1"].last = 0
        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
            await riders["low-2"].fake.restart()
            await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 4)
            riders["low-1"].fake.kill()
            assert sorted(await collect(answers)) == EVERY_FACT


FINAL = [
    InvalidArgumentError("what?"),
    NotFoundError("no"),
    AlreadyExistsError("no"),
    PermissionDeniedError("no"),
    UnauthenticatedError("no"),
    FailedPreconditionError("no"),
    OutOfRangeError("no"),
]


@pytest.mark.parametrize("error", FINAL, ids=[type(error).__name__ for error in FINAL])
async def test_what_all_would_answer(error: CallError, autojump_clock: MockClock) -> None:
    """A status that is about the request, or who asks, is raised as itself; nobody else is asked."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        riders["low-1"].last, riders["low-1"].error = 0, error
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-1")) as answers:
            with pytest.raises(type(error), match=error.details) as caught:
                await collect(answers)
        assert caught.value.__notes__ == ["asked for SPO: 0x00.. - 0x80.."]
        assert riders["low-2"].begun == 0


# -- what nobody serves --


async def test_nobody_serves_it(autojump_clock: MockClock) -> None:
    """A gap is an error on entering, before anybody is asked."""
    async with open_riders({"low": LOW}) as (riders, registry):
        with pytest.raises(NotServedError, match=r"^nobody serves SPO: 0x80\.\. - ∞$") as caught:
            async with open_fan_out(registry, RIDES, ride, encoding=SPO):
                pytest.fail("it was entered")
        assert caught.value.gaps == (HIGH,)
        await wait_all_tasks_blocked()
        assert riders["low"].begun == 0


async def test_a_part_will_do(autojump_clock: MockClock) -> None:
    """With `partial` gaps are no error: what is served comes, and the gaps are told."""
    middle = HashRange(QUARTER, MIDDLE)
    async with (
        open_riders({"a": middle, "b": HashRange(3 * QUARTER, None)}) as (_, registry),
        open_fan_out(registry, RIDES, ride, encoding=SPO, partial=True) as answers,
    ):
        assert answers.gaps == (HashRange(0, QUARTER), HashRange(MIDDLE, 3 * QUARTER))
        assert sorted(await collect(answers)) == sorted(within(middle) + within(HashRange(3 * QUARTER, None)))
    async with open_riders({"a": middle}) as (riders, registry):
        riders["a"].fake.kill()
        await registry.wait_until(lambda snapshot: not snapshot.healthy_views())
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, partial=True) as answers:
            assert await collect(answers) == []
            assert answers.gaps == (ALL,)


async def test_gaps_that_appear(autojump_clock: MockClock) -> None:
    """With `partial`, what is lost on the way is among the gaps, whether or not something of it was handed out."""
    async with open_riders({"low": LOW, "high": HIGH, "low-half": HashRange(0, QUARTER)}) as (riders, registry):
        riders["low"].last, riders["low"].error = 0, UnavailableError("gone")
        riders["high"].last, riders["high"].error, riders["high"].pause = 1, UnavailableError("gone"), 0.1
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, partial=True) as answers:
            assert not answers.gaps
            assert sorted(await collect(answers)) == sorted(within(HashRange(0, QUARTER)) + within(HIGH)[:1])
            assert answers.gaps == (HashRange(QUARTER, MIDDLE), HIGH)
