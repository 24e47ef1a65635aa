"""Picking one view for one call: near, quick, and not busy. On a fleet in memory, in virtual time."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from fleet import all_healthy, call, open_fleet, stats, unhealthy
from viewreg import (
    Channel,
    Config,
    Endpoint,
    Feature,
    HashRange,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    NotServedError,
    ProbeResult,
    StatsProbe,
    open_registry,
)
from viewreg.testing.frames import ACK, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from fleet import Fleet
    from viewreg import Registry

SP, PO = Feature.HASH_SP, Feature.HASH_PO
A, B, C = "a:1", "b:1", "c:1"
MIDDLE = 2**63
PICKS = 300  # enough for each of a few views to be picked, whatever the seed


def picked(registry: Registry[Feature], feature: Feature = SP, **options: Any) -> Counter[str]:
    """How often each view is picked."""
    return Counter(str(registry.pick(feature, **options).channel).removeprefix("tcp://") for _ in range(PICKS))


def round_trips(registry: Registry[Feature], *host_ports: str) -> list[float | None]:
    """What is known of these."""
    return [registry.snapshot.view(host_port).channel.round_trip for host_port in host_ports]


@asynccontextmanager
async def calls_in_flight(fleet: Fleet, registry: Registry[Feature], **counts: int) -> AsyncIterator[None]:
    """So many calls that do not end: to host `a` at port 1, and so on."""
    async with trio.open_nursery() as nursery:
        for host, count in counts.items():
            fleet[f"{host}:1"].view.hang = True
            for _ in range(count):
                nursery.start_soon(call, registry, f"{host}:1")
        await wait_all_tasks_blocked()
        for host in counts:
            fleet[f"{host}:1"].view.hang = False
        yield
        nursery.cancel_scope.cancel()


async def test_everyone_is_picked(autojump_clock: MockClock) -> None:
    """Among views of which one is as good as the other each is picked; picking neither waits nor changes anything."""
    async with open_fleet() as fleet, fleet.open(A, B, C) as registry:
        await registry.wait_until(all_healthy)
        version, snapshot = registry.version, registry.snapshot
        with assert_no_checkpoints():
            assert picked(registry).keys() == {A, B, C}
        assert registry.version == version
        assert registry.pick(SP) in snapshot.views


async def test_only_who_can(autojump_clock: MockClock) -> None:
    """Only healthy views that provide the feature are picked, from the moment on in which that is known."""
    async with open_fleet() as fleet:
        fleet[C].view.stats = stats("POS")
        async with fleet.open(A, B, C) as registry:
            with pytest.raises(NotServedError, match=r"^no healthy view provides HashSP$"):
                registry.pick(SP)
            await registry.wait_until(all_healthy)
            assert picked(registry).keys() == {A, B}
            assert picked(registry, Feature.CAROUSEL | PO).keys() == {C}
            assert picked(registry, Feature(0)).keys() == {A, B, C}
            fleet[A].cut()
            await registry.wait_until(unhealthy(A))
            assert picked(registry).keys() == {B}
    with pytest.raises(NotServedError, match=r"^no healthy view provides anything$") as caught:
        registry.pick(Feature(0))
    assert caught.value.gaps == ()


async def test_by_hash(autojump_clock: MockClock) -> None:
    """With a hash only those that serve it are picked; one that nobody serves is an error that says what is missing."""
    async with open_fleet() as fleet:
        fleet[A].view.stats = stats("SPO", 10, MIDDLE)
        fleet[B].view.stats = fleet[C].view.stats = stats("SPO", MIDDLE)
        async with fleet.open(A, B, C) as registry:
            await registry.wait_until(all_healthy)
            for point, expected in [(10, {A}), (MIDDLE - 1, {A}), (MIDDLE, {B, C}), (2**64 - 1, {B, C})]:
                assert picked(registry, hash=point).keys() == expected
                assert picked(registry, Feature.CAROUSEL, hash=point, encoding=KeyEncoding.SPO).keys() == expected
            with pytest.raises(NotServedError, match=r"^nobody serves SPO: 0x00.* - 0x0+A$") as caught:
                registry.pick(SP, hash=9)
            assert caught.value.gaps == (HashRange(0, 10),)
            fleet[A].cut()
            await registry.wait_until(unhealthy(A))
            with pytest.raises(NotServedError):
                registry.pick(SP, hash=10)


async def test_the_less_busy(autojump_clock: MockClock) -> None:
    """Of two views the one with fewer calls in flight is picked; so of several never the busiest, but any other."""
    async with open_fleet() as fleet, fleet.open(A, B, C) as registry:
        await registry.wait_until(all_healthy)
        async with calls_in_flight(fleet, registry, a=3, b=1):
            assert [registry.snapshot.view(name).channel.calls_in_flight for name in (A, B, C)] == [3, 1, 0]
            found = picked(registry)
            assert found.keys() == {B, C}
            assert found[C] > found[B]
        assert [registry.snapshot.view(name).channel.calls_in_flight for name in (A, B, C)] == [0, 0, 0]
        assert picked(registry).keys() == {A, B, C}


async def test_calls_that_wait_count(autojump_clock: MockClock) -> None:
    """Calls that wait for a stream are in flight, too."""
    async with open_fleet() as fleet:
        fleet[A].view.max_concurrent_streams = 1
        async with fleet.open(A) as registry:
            await registry.wait_until(all_healthy)
            async with calls_in_flight(fleet, registry, a=5):
                assert registry.pick(SP).channel.calls_in_flight == 5


def in_zones(**zones: str) -> list[Endpoint]:
    """Host `a` at port 1 in the zone of `a`, and so on."""
    return [Endpoint(host, 1, annotations={"zone": zone}) for host, zone in zones.items()]


async def test_zone(autojump_clock: MockClock) -> None:
    """Views of the zone are preferred, by the newest annotations; if there are none, all are as good."""
    async with open_fleet() as fleet, fleet.open() as registry:
        fleet.locator.set([*in_zones(a="east", b="west", c="west"), "d:1"])
        await registry.wait_until(all_healthy)
        assert picked(registry, zone="west").keys() == {B, C}
        assert picked(registry, zone="west", hash=5).keys() == {B, C}
        assert picked(registry, zone="north").keys() == picked(registry).keys() == {A, B, C, "d:1"}
        fleet.locator.set([*in_zones(a="west", b="west", c="east"), "d:1"])
        await registry.wait_until(lambda at: at.view(C).endpoint in in_zones(c="east"))
        assert picked(registry, zone="west").keys() == {A, B}
        fleet[A].cut()
        fleet[B].cut()
        await registry.wait_until(lambda at: not at.view(A).healthy and not at.view(B).healthy)
        assert picked(registry, zone="west").keys() == {C, "d:1"}


@pytest.mark.parametrize(("delay", "expected"), [(0.014, {A, B, C}), (0.016, {A, B})])
async def test_the_slow(delay: float, expected: set[str], autojump_clock: MockClock) -> None:
    """Whose round trip is more than 15 ms longer than the best one is not picked once that is known."""
    async with open_fleet() as fleet:
        fleet[A].view.delay = 1.0
        fleet[B].view.delay = fleet[A].view.delay + 0.001
        fleet[C].view.delay = fleet[A].view.delay + delay
        async with fleet.open(A, B, C, config=Config(keepalive_interval=float("inf"))) as registry:
            await registry.wait_until(all_healthy)
            assert round_trips(registry, A, B, C) == [None] * 3
            assert picked(registry).keys() == {A, B, C}
            await trio.sleep(15)
            assert round_trips(registry, A, C) == pytest.approx([1, 1 + delay])
            assert picked(registry).keys() == expected


async def test_the_slow_come_back(autojump_clock: MockClock) -> None:
    """A view that was slow is picked again a second after one quick probe; one that has become slow after four."""
    config = Config(probe_interval=1, probe_jitter=0)
    async with open_fleet() as fleet:
        fleet[A].view.delay = 0.1
        async with fleet.open(A, B, config=config) as registry:
            await trio.sleep(3.5)
            assert picked(registry).keys() == {B}
            fleet[A].view.delay = 0.0
            fleet[B].view.delay = 0.2
            await trio.sleep(3)
            assert picked(registry).keys() == {A, B}
            await trio.sleep(1.1)
            assert picked(registry).keys() == {A}


async def test_a_new_connection_is_measured_anew(autojump_clock: MockClock) -> None:
    """What was measured on a connection counts no more on the next one: it may lead to another server."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await trio.sleep(25)
        assert round_trips(registry, A) == [0]
        fleet[A].cut()
        await registry.wait_until(unhealthy(A))
        assert round_trips(registry, A) == [None]
        await registry.wait_until(all_healthy)
        assert round_trips(registry, A) == [None]


async def test_pings_are_measured(autojump_clock: MockClock) -> None:
    """Where probes only watch, keepalive PINGs tell the round trip."""

    class Watching(StatsProbe):
        async def watch(self, channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
            yield await self(channel)
            await trio.sleep_forever()

    async with (
        open_fleet() as fleet,
        open_registry("static:///a:1", Config(keepalive_interval=3), probe=Watching(), dial=fleet.dial) as registry,
    ):
        await trio.sleep(2.9)
        assert round_trips(registry, A) == [None]
        await trio.sleep(0.2)
        assert round_trips(registry, A) == [0]
        await fleet[A].say(frame("PING", ACK, 0, b"viewreg\0"))
        await wait_all_tasks_blocked()
        connection = registry._handles[A].supervisor._connection
        assert connection is not None
        assert connection.round_trips == (0,)  # what nobody has asked for is no answer


async def test_it_can_be_repeated(autojump_clock: MockClock) -> None:
    """The same generator gives the same choices; and a registry that never picks draws nothing for it."""
    choices, left = [], []
    for picks in (20, 20, 0):
        rng = Random(7)
        async with open_fleet() as fleet, fleet.open(A, B, C, rng=rng) as registry:
            await registry.wait_until(all_healthy)
            choices.append([str(registry.pick(SP).channel) for _ in range(picks)])
        left.append(rng.random())
    assert choices[0] == choices[1]
    assert left[0] == left[1] != left[2]


async def test_what_is_remembered_is_bounded(autojump_clock: MockClock) -> None:
    """However many zones are asked for, few answers are kept, and all are right."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        for number in range(200):
            assert registry.pick(SP, zone=f"z{number}") == registry.pick(SP, zone=f"z{number}", hash=number)
        assert len(registry._picker._choices) == len(registry._picker._parts) == 64


@pytest.mark.parametrize(
    ("feature", "options", "kind", "text"),
    [
        ("HashSP", {}, InvalidTypeError, "feature 'HashSP': expected a Feature"),
        ("HashSP", {"hash": 1}, InvalidTypeError, "feature 'HashSP': expected a Feature"),
        (SP, {"hash": 2**64}, InvalidValueError, "hash 18446744073709551616: expected a whole number from 0 to"),
        (SP, {"hash": "1"}, InvalidTypeError, "hash '1': expected a whole number from 0 to"),
        (SP, {"hash": 1, "encoding": KeyEncoding.POS}, InvalidValueError, "encoding POS with feature HashSP"),
        (
            SP,
            {"encoding": KeyEncoding.SPO},
            InvalidValueError,
            "encoding KeyEncoding.SPO: expected None without a hash",
        ),
        (Feature.CAROUSEL, {"hash": 1}, InvalidValueError, "feature Carousel: expected HashSP or HashPO"),
        (SP, {"zone": 5}, InvalidTypeError, "zone 5: expected a str or None"),
    ],
)
async def test_nonsense(
    feature: Any, options: dict[str, Any], kind: type[Exception], text: str, autojump_clock: MockClock
) -> None:
    """What makes no sense is refused, with what is allowed, again and again."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        for _ in range(2):
            with pytest.raises(kind) as caught:
                registry.pick(feature, **options)
            assert str(caught.value).startswith(text)
