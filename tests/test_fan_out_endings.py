"""How fan-outs end when the caller's own functions are odd, or two things happen in one step; in virtual time."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from riders import ALL, EACH_TWICE, HALVES, RIDES, SPO, first, host, open_riders, ride
from viewreg import InvalidArgumentError, InvalidTypeError, NotServedError, UnavailableError, open_fan_out
from viewreg._transport.calls import StreamStream
from viewreg._transport.streams import Message
from viewreg.rpc import CarouselResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from trio.testing import MockClock

    from viewreg import FanOut, Feature, HashRange, View


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


async def test_nobody_is_asked_after_the_end(autojump_clock: MockClock) -> None:
    """A call that fails in the very step in which another one's failure ends them all is not made once more."""
    asked, fail_too = [], trio.Event()

    async def call(view: View[Feature], _part: HashRange) -> None:
        asked.append(host(view))
        if host(view) == "low-1":
            await trio.sleep(1)
            fail_too.set()
            raise InvalidArgumentError("what?")
        await fail_too.wait()
        raise UnavailableError("gone")

    async with open_riders(EACH_TWICE) as (_, registry):
        async with open_fan_out(registry, RIDES, call, encoding=SPO, prefer=first("low-1", "high-1")) as answers:
            with pytest.raises(InvalidArgumentError):
                await anext(answers)
            await wait_all_tasks_blocked()
        assert sorted(asked) == ["high-1", "low-1"]


async def test_calls_that_end_when_they_are_cancelled(autojump_clock: MockClock) -> None:
    """Leaving the block is no end for who shares the iterator, though the calls take it for one and end well."""

    async def call(_view: View[Feature], _part: HashRange) -> AsyncIterator[int]:
        yield 1
        with suppress(trio.Cancelled):
            await trio.sleep_forever()

    async def read(answers: FanOut[int]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            [answer async for answer in answers]

    async with open_riders(HALVES) as (_, registry), trio.open_nursery() as around:
        async with open_fan_out(registry, RIDES, call, encoding=SPO) as answers:
            around.start_soon(read, answers)
            await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await anext(answers)


@pytest.mark.parametrize("error", [InvalidArgumentError("what?"), UnavailableError("gone"), LookupError("a bug")])
async def test_no_garbage(error: Exception, autojump_clock: MockClock) -> None:
    """A fan-out that has failed goes at once, with its views and answers: no cycle leads through its error."""

    async def call(_view: View[Feature], _part: HashRange) -> None:
        raise copy(error)

    async with open_riders(HALVES) as (_, registry):
        async with open_fan_out(registry, RIDES, call, encoding=SPO) as answers:
            with pytest.raises((type(error), NotServedError)):
                await anext(answers)
        await wait_all_tasks_blocked()
        gc.disable()
        try:
            gone = weakref.ref(answers)
            del answers
            assert gone() is None
        finally:
            gc.enable()


async def test_streams_are_no_answers(autojump_clock: MockClock) -> None:
    """A call that, awaited, gives a stream is refused: nobody would end that with the block. A begun one is ended."""

    async def forgets_to_iterate(view: View[Feature], part: HashRange) -> object:
        return ride(view, part)

    def both_ways(view: View[Feature], _part: HashRange) -> Awaitable[object]:
        return StreamStream[Message, CarouselResult](view.channel, "/rpc.Carousel/ride", CarouselResult)()

    async with open_riders({"all": ALL}) as (riders, registry):
        for call, name in (forgets_to_iterate, "ResponseStream"), (both_ways, "MessageStream"):
            async with open_fan_out(registry, RIDES, call, encoding=SPO) as answers:
                with pytest.raises(InvalidTypeError, match=f"^call, awaited, gave a {name}: expected an answer"):
                    await anext(answers)
            await wait_all_tasks_blocked()
            assert riders["all"].fake.open_calls == 0
