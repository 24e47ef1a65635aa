"""Views in memory, each with its part of forty facts, which a ride hands out one by one: what fan-outs are tested on.

Rules:
* `views["a"]` is one server. Its attributes say what becomes of rides that begin from now on.
* A consumer keeps, of what a view tells, only what belongs to the range that it was asked for: so does `collect`.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

import viewreg
from viewreg import Answer, FactPartition, FanOut, Feature, HashRange, KeyEncoding, StaticLocator, hash_sp
from viewreg.rpc import CarouselRequest, CarouselResult, CarouselServicer, Fact
from viewreg.testing import MemoryNetwork, open_fake_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from viewreg import CallError, Registry, ResponseStream, View
    from viewreg.testing import FakeView

FACTS: Final = [Fact(id=number, subject=number, predicate=1) for number in range(1, 41)]
EVERY_FACT: Final = [fact.id for fact in FACTS]
SPO, RIDES = KeyEncoding.SPO, Feature.CAROUSEL
QUARTER, MIDDLE = 2**62, 2**63
GUARD: Final = 1_000.0  # seconds, virtual ones: who waits for ever is to fail
ALL, LOW, HIGH = HashRange.FULL, HashRange(0, MIDDLE), HashRange(MIDDLE, None)
HALVES: Final = {"low": LOW, "high": HIGH}
EACH_TWICE: Final = {"low-1": LOW, "low-2": LOW, "high-1": HIGH, "high-2": HIGH}


def within(part: HashRange) -> list[int]:
    """The ids of the facts whose hash is in a range."""
    return [fact.id for fact in FACTS if hash_sp(fact.subject, fact.predicate) in part]


class Rider(CarouselServicer):  # type: ignore[misc, unused-ignore]
    """One view, and how it hands out its facts."""

    def __init__(self, part: HashRange) -> None:
        self.facts = within(part)
        self.pause = 0.0  # seconds before each fact
        self.last = math.inf  # after so many facts comes what `error` says
        self.error: CallError | None = None  # None: nothing more, ever
        self.size = 0  # bytes that each fact is long
        self.begun = 0
        self.sent = 0
        self.fake: FakeView
        self.forget: Callable[[], None]  # lets discovery forget it

    async def ride(self, input_message: CarouselRequest) -> AsyncIterator[CarouselResult]:
        self.begun += 1
        for number, fact in enumerate(self.facts):
            if number >= self.last:
                if self.error is not None:
                    raise self.error
                await trio.sleep_forever()
            await trio.sleep(self.pause)
            self.sent += 1
            yield CarouselResult(facts=[Fact(id=fact, subject=fact, predicate=1, object=bytes(self.size))])


@asynccontextmanager
async def open_riders(parts: Mapping[str, HashRange]) -> AsyncIterator[tuple[dict[str, Rider], Registry[Feature]]]:
    """Servers by their names, each of a part of SPO, and a registry in which all are healthy. In virtual time."""
    network = MemoryNetwork()
    riders = {name: Rider(part) for name, part in parts.items()}
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(GUARD))
        for name, part in parts.items():
            partition = FactPartition(KeyEncoding.SPO, part)
            opened = open_fake_view(where=network, host=name, partition=partition, services=[riders[name]])
            riders[name].fake = await stack.enter_async_context(opened)
        locator = StaticLocator([rider.fake.endpoint for rider in riders.values()])
        for rider in riders.values():
            others = [other.fake.endpoint for other in riders.values() if other is not rider]
            rider.forget = partial(locator.set, others)
        async with viewreg.open_registry(locator, dial=network.dial) as registry:
            await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == len(parts))
            yield riders, registry


def ride(view: View[Feature], _part: HashRange) -> ResponseStream[CarouselResult]:
    """One call of a fan-out."""
    return view.carousel().ride(CarouselRequest())


def kept(answer: Answer[CarouselResult]) -> list[int]:
    """The ids of the facts that count."""
    return [fact.id for fact in answer.message.facts if hash_sp(fact.subject, fact.predicate) in answer.range]


async def collect(answers: FanOut[CarouselResult]) -> list[int]:
    """The ids of all facts, as they come."""
    return [fact async for answer in answers for fact in kept(answer)]


def host(view: View[Feature]) -> str:
    """The name of a view's server."""
    assert view.endpoint is not None
    return view.endpoint.host


def first(*names: str) -> Callable[[View[Feature]], float]:
    """For `prefer`: these before all others."""
    return lambda view: host(view) not in names
