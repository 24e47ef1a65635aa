"""What a user's dial and probe may do: anything, at the cost of their own view."""

from __future__ import annotations

import enum
import errno
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

import viewreg
from fleet import (
    Does,
    Fleet,
    SilentError,
    all_healthy,
    events,
    healthy,
    open_fleet,
    reason,
    unhealthy,
)
from viewreg import Config, Connectivity, Endpoint, Event, Feature, ProbeResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from viewreg import Channel

A, B, C = "a:1", "b:1", "c:1"


# -- what dial may do --


ERRORS: list[Exception] = [
    OSError(errno.ENETUNREACH, "x"),
    OSError("no", "way"),
    OSError(2**70, "far out"),
    OSError([], "nowhere"),
    OSError(),
    SilentError(),
    ExceptionGroup("two", [ValueError("one"), ConnectionRefusedError(errno.ECONNREFUSED, "two")]),
    trio.TooSlowError(),
    StopIteration("odd"),
    KeyError("odd"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_dial_raises(error: Exception, autojump_clock: MockClock) -> None:
    """A dial may raise any exception: its view is unhealthy with a reason, and nothing else happens."""
    async with open_fleet() as fleet:
        fleet[A].does, fleet[A].error = Does.RAISE, error
        async with fleet.open(A, B) as registry:
            await registry.wait_until(healthy(B))
            await trio.sleep(5)
            assert registry.history(A)[-1].what is Event.CONNECT_FAILED
            assert registry.history(A)[-1].why
            fleet[A].does = Does.SERVE
            await registry.wait_until(all_healthy)


@pytest.mark.parametrize("returns", [None, 5, "stream"])
async def test_whatever_dial_returns(returns: object, autojump_clock: MockClock) -> None:
    """A dial may return anything: what is no stream is a failed dial that says so."""

    async def dial(_endpoint: Endpoint) -> Any:
        return returns

    async with viewreg.open_registry("static:///a:1", dial=dial) as registry:
        await trio.sleep(5)
        assert reason(registry, A).startswith(
            f"connecting failed: dial returned {type(returns).__name__}: expected a trio.abc.Stream"
        )


async def fails_when_cancelled() -> None:
    """What a user's nursery does when one of its tasks fails while it cleans up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("failed to clean up")


async def in_two_tasks() -> None:
    """The same one nursery further up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails_when_cancelled)
        await trio.sleep_forever()


async def test_dial_fails_while_it_is_cancelled(autojump_clock: MockClock) -> None:
    """A dial whose own nursery fails while it is cancelled is a failed dial like any other."""
    async with open_fleet() as fleet:

        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            if endpoint.host == "a":
                await in_two_tasks()
            return await fleet[endpoint.host_port].dial()

        fleet.locator.set([A, B])
        async with viewreg.open_registry(fleet.locator, dial=dial) as registry:
            await registry.wait_until(healthy(B))
            await trio.sleep(6)  # the first has timed out
            fleet.locator.set([B])  # the second is cancelled by the removal
            await trio.sleep(1)
            fleet.locator.set([A, B])
            await trio.sleep(1)
            assert registry.snapshot.view(B).healthy


# -- what a probe may do --


class Colour(enum.Flag):
    RED = enum.auto()
    BLUE = enum.auto()


class Ask:
    """A probe made of a function."""

    no_features = Feature(0)

    def __init__(self, ask: Callable[[Channel], Awaitable[Any]]) -> None:
        self.ask = ask

    async def __call__(self, channel: Channel) -> Any:
        return await self.ask(channel)


def open_with(fleet: Fleet, probe: Any, *host_ports: str, config: Config | None = None) -> Any:
    """A registry with this probe."""
    fleet.locator.set(host_ports)
    return viewreg.open_registry(fleet.locator, config or Config(), probe=probe, dial=fleet.dial, rng=Random(1))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_a_probe_raises(error: Exception, autojump_clock: MockClock) -> None:
    """A probe may raise any exception: its view is unhealthy with a reason, and its neighbour is not."""

    async def ask(channel: Channel) -> ProbeResult[Feature]:
        await trio.lowlevel.checkpoint()
        if channel.endpoint.host == "a":
            raise error
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, B) as registry:
        await registry.wait_until(healthy(B))
        await trio.sleep(5)
        assert registry.history(A)[-1].what is Event.PROBE_FAILED
        assert registry.history(A)[-1].why
        assert registry.snapshot.view(B).healthy


async def test_a_probe_whose_nursery_fails(autojump_clock: MockClock) -> None:
    """A probe whose own nursery fails says so by its innermost error; also while the endpoint is being removed."""

    async def ask(channel: Channel) -> ProbeResult[Feature]:
        if channel.endpoint.host == "a":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("inner")
        if channel.endpoint.host == "c":
            await in_two_tasks()
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, B, C) as registry:
        await registry.wait_until(healthy(B))
        await trio.sleep(3)
        assert "ValueError: inner" in reason(registry, A)
        fleet[C].cut()
        await trio.sleep(3)
        fleet.locator.set([B])
        await trio.sleep(1)
        assert registry.snapshot.view(B).healthy


async def test_a_probe_that_hangs(autojump_clock: MockClock) -> None:
    """A probe that never ends is cancelled after `Config.probe_timeout` and has failed."""

    async def ask(channel: Channel) -> ProbeResult[Feature]:
        if channel.endpoint.host == "a":
            await trio.sleep_forever()
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, B, config=Config(probe_timeout=2.0)) as registry:
        await registry.wait_until(healthy(B))
        await trio.sleep(2.5)
        assert reason(registry, A) == "probe failed: no answer within 2 s"


async def test_a_probe_of_a_lost_connection_holds_nothing_up(autojump_clock: MockClock) -> None:
    """A probe that hangs is cancelled with its connection: the next one is dialled after its backoff, as always."""
    hangs = True

    async def ask(_channel: Channel) -> ProbeResult[Feature]:
        if hangs:
            await trio.sleep_forever()
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, config=Config(probe_timeout=60.0)) as registry:
        await registry.wait_until(lambda snapshot: snapshot.view(A).connectivity is Connectivity.READY)
        await trio.sleep(1)
        hangs, lost = False, trio.current_time()
        fleet[A].cut()
        await registry.wait_until(all_healthy)
        assert trio.current_time() - lost < 1


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (None, "NoneType: expected a ProbeResult"),
        (Feature.DIAGNOSTICS, "Feature: expected a ProbeResult"),
        (ProbeResult(Colour.RED), "Colour: expected Feature"),
    ],
)
async def test_whatever_a_probe_returns(returns: object, words: str, autojump_clock: MockClock) -> None:
    """A probe may return anything: what is no result, or has features of another kind, is a failed probe."""

    async def ask(_channel: Channel) -> Any:
        return returns

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A) as registry:
        await trio.sleep(0.5)
        assert words in reason(registry, A)
        assert not registry.healthy_views()


async def test_a_probe_with_features_of_its_own(autojump_clock: MockClock) -> None:
    """A probe may bring any flag: views, selections and summary speak it."""

    class ColourProbe:
        no_features = Colour(0)

        async def __call__(self, channel: Channel) -> ProbeResult[Colour]:
            return ProbeResult(Colour.RED if channel.endpoint.host == "a" else Colour.RED | Colour.BLUE)

    async with open_fleet() as fleet, open_with(fleet, ColourProbe(), A, B) as registry:
        await registry.wait_until(all_healthy)
        assert [view.endpoint.host for view in registry.healthy_views(Colour.BLUE)] == ["b"]
        assert registry.summary()["red_views"] == 2
        assert registry.summary()["blue_views"] == 1


class Watches(Ask):
    """A probe that watches, and then is asked."""

    def __init__(self, watch: Callable[[Channel], Any]) -> None:
        super().__init__(self.answer)
        self.watch = watch
        self.asked = 0

    async def answer(self, _channel: Channel) -> ProbeResult[Feature]:
        self.asked += 1
        return ProbeResult(Feature.DIAGNOSTICS)


async def test_watch(autojump_clock: MockClock) -> None:
    """A probe's `watch` is read as it speaks, and nothing else counts that is answered; then asking takes over."""
    closed = trio.Event()

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        try:
            yield ProbeResult(Feature(0))
            await trio.sleep(100)
            yield ProbeResult(Feature(0), serving=False, reason="full")
            await trio.sleep(100)
        finally:
            closed.set()

    async with open_fleet() as fleet:
        probe = Watches(watch)
        async with open_with(fleet, probe, A) as registry:
            await registry.wait_until(all_healthy)
            assert trio.current_time() == 0.0
            await registry.wait_until(unhealthy(A))
            assert trio.current_time() == 100.0
            assert reason(registry, A) == "not serving: full"
            asked = probe.asked
            assert 8 <= asked <= 10  # whether it still lives, for it says nothing by itself
            await registry.wait_until(all_healthy)
            assert trio.current_time() == 200.0
            assert closed.is_set()
            assert 9 <= probe.asked - asked <= 11


async def test_watch_ends_with_its_connection(autojump_clock: MockClock) -> None:
    """A watch is ended and cleaned up when its connection is lost, and begun anew on the next one."""
    begun = ended = 0

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        nonlocal begun, ended
        begun += 1
        try:
            yield ProbeResult(Feature(0))
            await trio.sleep_forever()
        finally:
            ended += 1

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].cut()
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        assert (begun, ended) == (2, 1)


async def test_watch_begins_anew_when_asking_recovers(autojump_clock: MockClock) -> None:
    """A watch that has ended is begun anew once asking has failed and is answered well again; never just so."""
    begun, fails = 0, False

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        nonlocal begun
        begun += 1
        yield ProbeResult(Feature(0))
        if begun == 1:
            return
        await trio.sleep_forever()

    class Recovers(Watches):
        async def answer(self, channel: Channel) -> ProbeResult[Feature]:
            if fails:
                raise ValueError("not now")
            return await super().answer(channel)

    async with open_fleet() as fleet, open_with(fleet, Recovers(watch), A) as registry:
        await registry.wait_until(all_healthy)
        await trio.sleep(100)
        assert begun == 1
        fails = True
        await registry.wait_until(unhealthy(A))
        fails = False
        await registry.wait_until(all_healthy)
        await trio.sleep(100)
        assert begun == 2


async def test_rise_and_fall_of_a_watch(autojump_clock: MockClock) -> None:
    """Until `rise` or `fall` is reached, the word of a watch is seen to hold as quickly as that of a probe by call."""
    serving = trio.Event()

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        yield ProbeResult(Feature(0))
        await serving.wait()
        yield ProbeResult(Feature(0), serving=False)
        await trio.sleep_forever()

    config = Config(rise=3, fall=3, probe_jitter=0.0)
    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A, config=config) as registry:
        await registry.wait_until(all_healthy)
        assert trio.current_time() <= 2.0
        await trio.sleep(100)
        assert events(registry, A).count(Event.PROBE_FAILED) == 0
        began = trio.current_time()
        serving.set()
        await registry.wait_until(unhealthy(A))
        assert 1.0 < trio.current_time() - began <= 2.0


async def test_watch_that_fails_when_it_is_cancelled(autojump_clock: MockClock) -> None:
    """A watch whose own nursery fails while it is ended with its connection does no harm."""

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        yield ProbeResult(Feature(0))
        await in_two_tasks()

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A) as registry:
        for _ in range(3):
            await registry.wait_until(all_healthy)
            fleet[A].cut()
            await registry.wait_until(unhealthy(A))
        fleet.locator.set([])
        await trio.sleep(1)


@pytest.mark.parametrize("returns", [None, 5, "raise", "wrong type"])
async def test_whatever_watch_does(returns: object, autojump_clock: MockClock) -> None:
    """A watch that raises, or is none, or yields nonsense costs nothing but itself: asking takes over."""

    async def nonsense() -> AsyncIterator[object]:
        yield 5

    def watch(_channel: Channel) -> Any:
        if returns == "raise":
            raise ValueError("watch what?")
        return nonsense() if returns == "wrong type" else returns

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A) as registry:
        await registry.wait_until(all_healthy)
        assert Event.PROBE_FAILED in events(registry, A)


async def test_watch_that_never_waits(autojump_clock: MockClock) -> None:
    """A watch that speaks without ever waiting does not stop the world."""
    said = 0

    async def watch(channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        nonlocal said
        while channel.endpoint.host == "a" and said < 2_000:
            said += 1
            yield ProbeResult(Feature(0), serving=said % 2 == 0)
        yield ProbeResult(Feature(0))

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A, B) as registry:
        await registry.wait_until(healthy(B))
        assert said < 2_000
