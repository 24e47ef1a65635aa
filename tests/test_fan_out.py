"""Asking everything that is served: each hash once, other views when one fails, in virtual time."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from riders import (
    ALL,
    EACH_TWICE,
    EVERY_FACT,
    FACTS,
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
    Feature,
    HashRange,
    InvalidTypeError,
    InvalidValueError,
    NotServedError,
    UnavailableError,
    open_fan_out,
)
from viewreg.rpc import LookupSRequest, StatsRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from trio.testing import MockClock

    from viewreg import FanOut, View
    from viewreg.rpc import CarouselResult, LookupChunk

# -- asking --


@pytest.mark.parametrize(
    "parts",
    [
        {"all": ALL},
        HALVES,
        EACH_TWICE,
        {"a": HashRange(0, 3 * QUARTER), "b": HashRange(QUARTER, None)},
        {"a": HashRange(0, MIDDLE + 1), "b": HashRange(MIDDLE - 1, None), "c": HashRange(QUARTER, 3 * QUARTER)},
    ],
    ids=["one", "halves", "each twice", "overlapping", "three"],
)
async def test_every_fact_comes_once(parts: dict[str, HashRange], autojump_clock: MockClock) -> None:
    """However the views' ranges lie to each other, each fact comes exactly once, from as few views as possible."""
    async with open_riders(parts) as (riders, registry):
        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
            assert sorted(await collect(answers)) == EVERY_FACT
            assert not answers.gaps
        asked = [name for name, rider in riders.items() for _ in range(rider.begun)]
        assert len(asked) == len(registry.snapshot.cover(RIDES, encoding=SPO))


async def test_answers_say_what_they_answer(autojump_clock: MockClock) -> None:
    """Each comes with its view and the range that this was asked for: the parts of the cover, no more of a part."""
    async with open_riders(HALVES) as (_, registry):
        wanted = HashRange(QUARTER, 3 * QUARTER)
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, range=wanted) as answers:
            found = [answer async for answer in answers]
        assert {(answer.range, host(answer.view)) for answer in found} == {
            (HashRange(QUARTER, MIDDLE), "low"),
            (HashRange(MIDDLE, 3 * QUARTER), "high"),
        }
        assert sorted(fact for answer in found for fact in kept(answer)) == within(wanted)


async def test_calls_with_one_answer(autojump_clock: MockClock) -> None:
    """What a call returns may as well be awaited."""

    async def count(view: View[Feature], part: HashRange) -> int:
        stats = await view.diagnostics().stats(StatsRequest())
        assert stats.hashPartition.start == part.start
        return stats.facts

    async with open_riders(HALVES) as (_, registry), open_fan_out(registry, RIDES, count, encoding=SPO) as answers:
        assert sorted([answer.message async for answer in answers]) == [1000, 1000]


async def test_the_features_own_encoding(autojump_clock: MockClock) -> None:
    """HASH_SP needs no encoding; of a subject's facts each is found once, in whichever partition it is."""

    def lookup(view: View[Feature], _part: HashRange) -> AsyncIterable[LookupChunk]:
        return view.hash_sp().lookupS(LookupSRequest(subjects=[101, 102]))

    async with open_riders(EACH_TWICE) as (_, registry), open_fan_out(registry, Feature.HASH_SP, lookup) as answers:
        found = [hit.fact async for answer in answers for hit in answer.message.facts]
    assert Counter((fact.subject, fact.predicate) for fact in found) == {
        (subject, predicate): 1 for subject in (101, 102) for predicate in range(1, 6)
    }


async def test_answers_come_as_they_arrive(autojump_clock: MockClock) -> None:
    """A slow view holds up nobody else's answers, and each view's come in its own order."""
    async with open_riders(HALVES) as (riders, registry):
        riders["low"].pause, riders["high"].pause = 1.0, 0.1
        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
            came = [(host(answer.view), *kept(answer)) async for answer in answers]
        assert [fact for name, fact in came if name == "low"] == within(LOW)
        assert [fact for name, fact in came if name == "high"] == within(HIGH)
        last_of_high = came.index(("high", within(HIGH)[-1]))
        assert sum(name == "low" for name, _ in came[:last_of_high]) <= 0.1 * len(within(HIGH)) + 1


async def test_without_a_preference_the_idle_are_asked(autojump_clock: MockClock) -> None:
    """Of replicas the one with fewer calls in flight is asked; of equals any."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        for rider in riders.values():
            rider.last = 0
        async with AsyncExitStack() as stack:
            for _ in range(10):
                await stack.enter_async_context(open_fan_out(registry, RIDES, ride, encoding=SPO))
                await wait_all_tasks_blocked()
            assert [rider.begun for rider in riders.values()] == [5, 5, 5, 5]
        for _ in range(30):
            async with open_fan_out(registry, RIDES, ride, encoding=SPO):
                await wait_all_tasks_blocked()
        assert min(rider.begun for rider in riders.values()) > 10


async def test_a_preference(autojump_clock: MockClock) -> None:
    """`prefer` says which replica is asked."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=first("low-2", "high-1")) as answers:
            assert sorted(await collect(answers)) == EVERY_FACT
        assert [rider.begun for rider in riders.values()] == [0, 1, 1, 0]


async def test_several_readers(autojump_clock: MockClock) -> None:
    """Tasks that share the iterator get each answer once, and all see the end."""
    async with open_riders(EACH_TWICE) as (riders, registry):
        for rider in riders.values():
            rider.pause = 0.01
        found: list[list[int]] = [[], [], []]

        async def read(answers: FanOut[CarouselResult], into: list[int]) -> None:
            async for answer in answers:
                into += kept(answer)

        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers, trio.open_nursery() as nursery:
            for mine in found:
                nursery.start_soon(read, answers, mine)
        assert all(found)
        assert sorted(fact for mine in found for fact in mine) == EVERY_FACT


async def test_a_checkpoint(autojump_clock: MockClock) -> None:
    """Each step of the iteration is one, also when an answer is there, and at the end."""
    async with (
        open_riders({"all": ALL}) as (_, registry),
        open_fan_out(registry, RIDES, ride, encoding=SPO) as answers,
    ):
        for _ in FACTS:
            await wait_all_tasks_blocked()
            with assert_checkpoints():
                await anext(answers)
        await wait_all_tasks_blocked()
        for _ in range(2):
            with assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(answers)


# -- ending it --


async def test_the_deadline_goes_to_all(autojump_clock: MockClock) -> None:
    """The deadline around the fan-out is the calls', and what happens then is what happens everywhere in Trio."""
    async with open_riders(HALVES) as (riders, registry):
        for rider in riders.values():
            rider.last = 0
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError), trio.fail_after(3):
            async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
                await collect(answers)
        assert trio.current_time() == began + 3
        for rider in riders.values():
            calls = await rider.fake.wait_for_calls(lambda calls: calls[-1].cancelled)
            assert calls[-1].timeout == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("how", ["break", "error", "cancel"])
async def test_leaving_ends_all_calls(how: str, autojump_clock: MockClock) -> None:
    """However the block is left, every server is told, and the body's error leaves as itself."""
    known: list[FanOut[CarouselResult]] = []

    async def leave(answers: FanOut[CarouselResult], scope: trio.CancelScope) -> None:
        known.append(answers)
        await anext(answers)
        if how == "error":
            raise LookupError("of the body")
        if how == "cancel":
            scope.cancel()
            await trio.sleep_forever()

    async with open_riders(HALVES) as (riders, registry):
        for rider in riders.values():
            rider.last = 1
        caught = None
        with trio.CancelScope() as scope:
            try:
                async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
                    await leave(answers, scope)
            except LookupError as error:
                caught = error
        assert (caught is not None, scope.cancelled_caught) == (how == "error", how == "cancel")
        for rider in riders.values():
            await rider.fake.wait_for_calls(lambda calls: calls[-1].cancelled)
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await anext(known[0])


async def test_errors_of_the_body_that_is_cancelled(autojump_clock: MockClock) -> None:
    """What the body raises while it is cancelled leaves as itself, too."""
    async with open_riders(HALVES) as (riders, registry):
        for rider in riders.values():
            rider.last = 0

        async def fail() -> None:
            async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
                try:
                    await anext(answers)
                finally:
                    raise LookupError("of the body")

        with trio.move_on_after(1), pytest.raises(LookupError, match="of the body"):
            await fail()


async def test_errors_of_the_callers_functions(autojump_clock: MockClock) -> None:
    """What `call` or `prefer` raises comes out of the iteration as itself, and ends the other calls."""

    class OddError(Exception):
        pass

    def call(view: View[Feature], part: HashRange) -> AsyncIterable[CarouselResult]:
        if host(view) == "low":
            raise OddError
        return ride(view, part)

    async def dies(view: View[Feature], part: HashRange) -> AsyncIterator[CarouselResult]:
        async with ride(view, part) as answers:
            async for answer in answers:
                yield answer
                if host(view) == "low":
                    raise OddError

    async with open_riders(HALVES) as (riders, registry):
        riders["high"].last = 0
        for function in (call, dies):
            async with open_fan_out(registry, RIDES, function, encoding=SPO) as answers:
                with pytest.raises(OddError):
                    await collect(answers)
                with pytest.raises(OddError):  # nobody who shares the iterator takes this for the end
                    await anext(answers)
                await riders["high"].fake.wait_for_calls(lambda _: not riders["high"].fake.open_calls)


async def test_a_preference_that_fails_later(autojump_clock: MockClock) -> None:
    """`prefer` is asked again when a part is: what it raises then comes out of the iteration."""
    asked = 0

    def prefer(_view: View[Feature]) -> float:
        nonlocal asked
        asked += 1
        if asked > 4:
            raise LookupError("of prefer")
        return 0

    async with open_riders(EACH_TWICE) as (riders, registry):
        for rider in riders.values():
            rider.last, rider.error = 0, UnavailableError("gone")
        async with open_fan_out(registry, RIDES, ride, encoding=SPO, prefer=prefer) as answers:
            with pytest.raises(LookupError, match="of prefer"):
                await collect(answers)


async def test_ctrl_c_comes_out_as_itself(autojump_clock: MockClock) -> None:
    """A KeyboardInterrupt that Python raises in one of the tasks is in no group."""

    def call(_view: View[Feature], _part: HashRange) -> AsyncIterable[CarouselResult]:
        raise KeyboardInterrupt

    async with open_riders(HALVES) as (_, registry):
        with pytest.raises(KeyboardInterrupt):
            async with open_fan_out(registry, RIDES, call, encoding=SPO) as answers:
                await collect(answers)


async def test_a_callers_iterator_is_closed(autojump_clock: MockClock) -> None:
    """A generator of the caller's is closed at once, wherever it stands, when the block is left."""
    closed = []

    async def call(view: View[Feature], part: HashRange) -> AsyncIterator[CarouselResult]:
        try:
            async with ride(view, part) as answers:
                async for answer in answers:
                    yield answer
        finally:
            closed.append(host(view))

    async with open_riders(HALVES) as (_, registry):
        async with open_fan_out(registry, RIDES, call, encoding=SPO) as answers:
            await anext(answers)
        assert sorted(closed) == ["high", "low"]


async def test_a_cancelled_reader_loses_nothing(autojump_clock: MockClock) -> None:
    """Who gives up waiting for an answer leaves it to the next."""
    async with open_riders(HALVES) as (riders, registry):
        for rider in riders.values():
            rider.pause = 0.37
        found = []
        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
            with suppress(StopAsyncIteration):
                while True:
                    with trio.move_on_after(0.1):
                        found += kept(await anext(answers))
        assert sorted(found) == EVERY_FACT


async def test_a_slow_reader_is_felt_by_the_servers(autojump_clock: MockClock) -> None:
    """What nobody takes is not fetched: the servers stop when the windows of flow control are full."""
    async with open_riders(HALVES) as (riders, registry):
        for rider in riders.values():
            rider.size, rider.facts = 100_000, rider.facts[:1] * 50
        async with open_fan_out(registry, RIDES, ride, encoding=SPO) as answers:
            await anext(answers)
            await trio.sleep(1)
            for rider in riders.values():
                assert rider.sent <= 6  # a window of 256 KiB, one that waits, one that was taken, one in the server
            assert len([answer async for answer in answers]) == 99


# -- bad input --


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"registry": None}, InvalidTypeError, "registry None: expected a Registry"),
        ({"feature": 3}, InvalidTypeError, "feature 3: expected a Feature"),
        ({"encoding": None}, InvalidValueError, "feature Carousel: expected HashSP or HashPO, or else an encoding"),
        ({"encoding": "SPO"}, InvalidTypeError, "encoding 'SPO': expected KeyEncoding.SPO, KeyEncoding.POS or None"),
        ({"call": 3}, InvalidTypeError, "call 3: expected a function from a view and a HashRange to a call"),
        ({"range": (0, 1)}, InvalidTypeError, r"range \(0, 1\): expected a HashRange"),
        ({"prefer": 3}, InvalidTypeError, "prefer 3: expected a function from a view to a number"),
        ({"partial": 1}, InvalidTypeError, "partial 1: expected True or False"),
        ({"repeat": None}, InvalidTypeError, "repeat None: expected True or False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_bad_arguments(
    wrong: dict[str, Any], error: type[Exception], words: str, autojump_clock: MockClock
) -> None:
    """They are refused at once, by name."""
    async with open_riders({"all": ALL}) as (_, registry):
        right = {"registry": registry, "feature": RIDES, "call": ride, "encoding": SPO}
        with pytest.raises(error, match=f"^{words}"):
            open_fan_out(**{**right, **wrong})


async def test_a_call_that_is_none(autojump_clock: MockClock) -> None:
    """What `call` returns must be iterable or awaitable."""
    wrong: Any = lambda _view, _part: 3  # noqa: E731
    async with (
        open_riders({"all": ALL}) as (_, registry),
        open_fan_out(registry, RIDES, wrong, encoding=SPO) as answers,
    ):
        with pytest.raises(InvalidTypeError, match=r"^call returned 3: expected what can be iterated or awaited$"):
            await anext(answers)


async def test_a_registry_that_is_closed(autojump_clock: MockClock) -> None:
    """Nobody serves anything in a registry that was left."""
    async with open_riders({"all": ALL}) as (_, registry):
        pass
    with pytest.raises(NotServedError):
        async with open_fan_out(registry, RIDES, ride, encoding=SPO):
            pytest.fail("it was entered")
