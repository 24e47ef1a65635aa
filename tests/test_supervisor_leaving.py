"""Connections that end on purpose: servers that leave gracefully, endpoints that are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import viewreg
from fleet import (
    INSTANT,
    Does,
    all_healthy,
    call,
    events,
    open_fleet,
    reason,
    unhealthy,
)
from viewreg import Config, Endpoint, Event, Feature, StaticLocator, UnavailableError
from viewreg.rpc import DiagnosticsStub, LogStatusRequest, StatsRequest
from viewreg.testing.frames import goaway, ping, settings

if TYPE_CHECKING:
    from trio.testing import MockClock


A, B, C = "a:1", "b:1", "c:1"


# -- leaving gracefully --


async def test_graceful_goaway(autojump_clock: MockClock) -> None:
    """A server that leaves gracefully stays healthy; calls in flight end on the old connection."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        server = fleet[A]
        await registry.wait_until(all_healthy)
        version = registry.version
        server.view.delay = 2.0
        nursery.start_soon(call, registry, A)
        await server.view.wait_requests(2)
        old = next(iter(server.streams))
        server.view.go_away()
        await trio.sleep(0.5)
        assert server.view.connections_made == 2
        assert server.view.connections == 2
        with trio.fail_after(2.5):
            await call(registry, A)
        assert old not in server.streams
        assert len(server.streams) == 1
        assert registry.version == version
        assert Event.REPLACING in events(registry, A)


async def test_two_goaways(autojump_clock: MockClock) -> None:
    """A graceful end in two steps, as servers do it, is one replacement."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        await fleet[A].say(goaway(), ping(), goaway(1))
        await trio.sleep(5)
        assert registry.version == version
        assert len(fleet[A].dials) == 2
        assert len(fleet[A].streams) == 1


async def test_a_replacement_that_is_lost(autojump_clock: MockClock) -> None:
    """A replacement is a connection like any other: when it is lost, the next dial waits for its backoff."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.go_away()
        await trio.sleep(1)
        fleet[A].cut()
        lost = trio.current_time()
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        assert 0.08 <= fleet[A].dials[-1] - lost <= 0.12


async def test_calls_wait_for_the_replacement(autojump_clock: MockClock) -> None:
    """While the replacement is dialled, the view is healthy and calls wait; they are made on the new connection."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        server = fleet[A]
        await registry.wait_until(all_healthy)
        server.does = Does.MUTE
        server.view.go_away()
        await trio.sleep(1)
        nursery.start_soon(call, registry, A)
        await trio.sleep(1)
        assert registry.snapshot.view(A).healthy
        (silent,) = server.streams
        fleet.nursery.start_soon(server.serve, silent.server)
        with trio.fail_after(INSTANT):
            await server.view.wait_requests(3)
        assert registry.snapshot.view(A).healthy


@pytest.mark.parametrize(
    ("does", "after", "words"),
    [(Does.REFUSE, 0.0, "ECONNREFUSED"), (Does.MUTE, 5.0, "no SETTINGS"), (Does.CLOSE, 0.0, "closed")],
)
async def test_replacement_fails(does: Does, after: float, words: str, autojump_clock: MockClock) -> None:
    """If the first dial of the replacement fails, the view is unhealthy from then on, with the reason."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].does = does
        fleet[A].view.go_away()
        left = trio.current_time()
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() - left == pytest.approx(after)
        assert words in reason(registry, A)


async def test_calls_fail_with_the_replacement(autojump_clock: MockClock) -> None:
    """A call that waits for the replacement fails when its dial does, for the same reason."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].does = Does.MUTE
        fleet[A].view.go_away()
        await trio.sleep(0.1)
        with pytest.raises(UnavailableError, match="no SETTINGS from the server within 5 s"):
            await call(registry, A)
        assert trio.current_time() == 5.0


async def test_replacement_fails_its_probe(autojump_clock: MockClock) -> None:
    """If the replacement connects and fails its first probe, the view is unhealthy."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.status = 14
        fleet[A].view.go_away()
        await registry.wait_until(unhealthy(A))
        assert reason(registry, A).startswith("probe failed: UNAVAILABLE")


async def test_goaway_with_an_error(autojump_clock: MockClock) -> None:
    """A server that leaves with an error is lost at once, with its own words in the history."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        await fleet[A].say(goaway(0, 2, b"out of luck"))
        await registry.wait_until(unhealthy(A))
        assert reason(registry, A) == "connection lost: the server sent GOAWAY INTERNAL_ERROR: out of luck"


async def test_goaway_at_once(autojump_clock: MockClock) -> None:
    """A server that takes every connection and leaves it gracefully at once is dialled no faster than a dead one."""
    async with open_fleet() as fleet:
        fleet[A].does = Does.LEAVE
        async with fleet.open(A):
            await trio.sleep(10)
        assert 5 <= len(fleet[A].dials) <= 25


async def test_goaway_for_ever(autojump_clock: MockClock) -> None:
    """A server that leaves each connection before it has answered a probe on it does not stay healthy by that."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].does = Does.LEAVE
        fleet[A].view.go_away()
        with trio.fail_after(10.5):
            await registry.wait_until(unhealthy(A))


# -- removal --


async def test_removed_lets_calls_end(autojump_clock: MockClock) -> None:
    """A removed endpoint is out at once; its calls in flight end well, and the connection with the last of them."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry, trio.open_nursery() as nursery:
        await registry.wait_until(all_healthy)
        view = registry.snapshot.view(A)
        fleet[A].view.delay = 4.0
        nursery.start_soon(call, registry, A)
        await fleet[A].view.wait_requests(2)
        fleet.locator.set([B])
        await registry.wait_until(lambda at: len(at.views) == 1)
        assert trio.current_time() == 0.0
        with pytest.raises(UnavailableError, match="no longer discovered"):
            await view.carousel().logStatus(LogStatusRequest())
        await trio.sleep(3.9)
        assert fleet[A].streams
        await trio.sleep(0.2)
        assert not fleet[A].streams


@pytest.mark.parametrize("drain", [0.0, 3.0, 10.0])
async def test_removed_cuts_calls_in_the_end(drain: float, autojump_clock: MockClock) -> None:
    """Calls in flight on a removed endpoint are cut after `Config.drain_timeout`."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(drain_timeout=drain)) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.hang = True
        async with trio.open_nursery() as nursery:

            async def hangs() -> None:
                with pytest.raises(UnavailableError):
                    await call(registry, A)

            nursery.start_soon(hangs)
            await fleet[A].view.wait_requests(2)
            fleet.locator.set([])
        assert trio.current_time() == pytest.approx(drain, abs=0.2)
        await trio.sleep(0.2)
        assert not fleet.streams


@pytest.mark.parametrize("says", [settings(), goaway(), b""], ids=["SETTINGS", "GOAWAY", "EOF"])
async def test_removed_stays_removed(says: bytes, autojump_clock: MockClock) -> None:
    """On a removed endpoint every call fails at once, whatever its connection, which has one left, does meanwhile."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        await registry.wait_until(all_healthy)
        channel = registry.snapshot.view(A).channel
        fleet[A].view.hang = True

        async def hangs() -> None:
            with pytest.raises(UnavailableError):
                await call(registry, A)

        nursery.start_soon(hangs)
        await fleet[A].view.wait_requests(2)
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        if says:
            await fleet[A].say(says)
        else:
            fleet[A].cut()
        await trio.sleep(0.1)
        for handle in (channel, channel.waiting()):
            with trio.fail_after(INSTANT), pytest.raises(UnavailableError, match="no longer discovered"):
                await handle.stub(DiagnosticsStub).stats(StatsRequest())
        with pytest.raises(UnavailableError):
            await channel.wait_ready()


async def test_removed_while_connecting(autojump_clock: MockClock) -> None:
    """An endpoint that is removed while its connection is being opened leaves no stream."""
    async with open_fleet() as fleet:
        fleet[A].does = Does.MUTE
        async with fleet.open(A) as registry:
            channel = registry.snapshot.view(A).channel
            await trio.sleep(1)
            streams = fleet.streams.copy()
            assert streams
            fleet.locator.set([])
            await registry.wait_until(lambda at: not at.views)
            for stream in streams:
                await stream.server.send_all(settings())
            await trio.sleep(0.2)
            with trio.fail_after(INSTANT), pytest.raises(UnavailableError):
                await channel.stub(DiagnosticsStub).stats(StatsRequest())
            assert not fleet.streams


async def test_a_dial_that_fails_too_late(autojump_clock: MockClock) -> None:
    """A dial that shields itself, and fails after its endpoint was removed, changes nothing any more."""
    ended = False

    async def dial(_endpoint: Endpoint) -> trio.abc.Stream:
        nonlocal ended
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        ended = True
        raise ConnectionRefusedError

    locator = StaticLocator([A])
    async with viewreg.open_registry(locator, dial=dial) as registry:
        await trio.sleep(1)
        locator.set([])
        await registry.wait_until(lambda at: not at.views)
        version = registry.version
        await trio.sleep(2)
        assert ended
        assert registry.version == version


async def test_added_again_while_a_probe_is_in_flight(autojump_clock: MockClock) -> None:
    """The answer to a probe of a removed endpoint changes nothing for the endpoint that has its place now."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        server = fleet[A]
        server.view.delay = 1.0
        await server.view.wait_requests(1)
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        server.does = Does.REFUSE
        fleet.locator.set([A])
        await registry.wait_until(lambda at: bool(at.views))
        await trio.sleep(30)
        assert Event.PROBE_OK not in events(registry, A)
        assert not registry.healthy_views()
        assert registry.snapshot.view(A).features == Feature(0)
