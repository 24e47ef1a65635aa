"""How often anything is done: dials after a graceful end, PINGs into silence, probes until healthy. In virtual time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import viewreg
from fleet import Does, Fleet, all_healthy, events, healthy, open_fleet, stats, unhealthy
from viewreg import Backoff, Config, Event, Feature, ProbeResult, StatsProbe
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import goaway, ping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from viewreg import Channel, Endpoint

A = "a:1"
ENHANCE_YOUR_CALM = 11

# -- graceful ends --


class Leaving:
    """A server that answers the first probe of each connection and then says GOAWAY, at once or `after` seconds."""

    def __init__(self, nursery: trio.Nursery, after: float) -> None:
        self.dials: list[float] = []
        self._nursery = nursery
        self._after = after

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        self.dials.append(trio.current_time())
        assert len(self.dials) < 1000, "dialled as fast as the CPU can"
        await trio.lowlevel.checkpoint()
        client, server = memory_stream_pair()
        self._nursery.start_soon(self._serve, ScriptedPeer(server))
        return client

    async def _serve(self, peer: ScriptedPeer) -> None:
        await peer.handshake()
        request = await peer.expect_request()
        await peer.respond(request.stream_id, stats().SerializeToString())
        await wait_all_tasks_blocked()
        if self._after:
            await trio.sleep(self._after)
        await peer.send(goaway(request.stream_id))


@pytest.mark.parametrize("interval", [0.5, 2.0])
async def test_a_server_that_always_leaves_is_dialled_at_a_pace(interval: float, autojump_clock: MockClock) -> None:
    """A server that leaves after each first answer is dialled twice each `on_demand_interval`, and stays healthy."""
    async with trio.open_nursery() as nursery:
        server = Leaving(nursery, after=0.0)
        config = Config(on_demand_interval=interval)
        async with viewreg.open_registry("static:///a:1", config, dial=server.dial) as registry:
            await registry.wait_until(all_healthy)
            version = registry.version
            await trio.sleep(20 * interval)
            assert registry.version == version
        nursery.cancel_scope.cancel()
    assert 20 <= len(server.dials) <= 42
    assert all(later - first >= interval - 1e-9 for first, later in zip(server.dials, server.dials[2:], strict=False))


async def test_a_server_that_leaves_at_times_is_replaced_at_once(autojump_clock: MockClock) -> None:
    """A GOAWAY that comes later than `on_demand_interval` after the last dial is answered by a dial in no time."""
    async with trio.open_nursery() as nursery:
        server = Leaving(nursery, after=3.0)
        async with viewreg.open_registry("static:///a:1", dial=server.dial):
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert server.dials == [0.0, 3.0, 6.0, 9.0]


@pytest.mark.parametrize("age", [0.0, 100.0])
async def test_a_single_graceful_end_is_replaced_at_once(age: float, autojump_clock: MockClock) -> None:
    """The first GOAWAY of a healthy server is answered by a dial in no time, however young the connection is."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        await trio.sleep(age)
        await fleet[A].say(goaway())
        await fleet[A].view.wait_requests(fleet[A].probes + 1)
        assert trio.current_time() == age
        assert fleet[A].dials == [0.0, age]
        assert registry.version == version


@pytest.mark.parametrize("times", [1, 2])
async def test_a_server_that_leaves_twice_in_a_row(times: int, autojump_clock: MockClock) -> None:
    """A replacement that leaves gracefully before its first answer is replaced, too; the next such one is lost."""
    dialled, peers = trio.open_memory_channel[ScriptedPeer](10)

    async def dial(_endpoint: Endpoint) -> trio.abc.Stream:
        peer, stream = ScriptedPeer.pair()
        await dialled.send(peer)
        return stream

    async with viewreg.open_registry("static:///a:1", dial=dial) as registry:
        for leaves in [False] + [True] * times + [False]:
            peer = await peers.receive()
            await peer.handshake()
            request = await peer.expect_request()
            if leaves:
                await peer.send(goaway())
            else:
                await peer.respond(request.stream_id, stats().SerializeToString())
                await registry.wait_until(all_healthy)
                await trio.sleep(1)
                await peer.send(goaway())
        await wait_all_tasks_blocked()
        found = [entry.what for entry in registry.history(A)]
    assert found.count(Event.REPLACING) == 3
    assert found.count(Event.LOST) == times - 1


# -- PINGs --


class Silent(StatsProbe):
    """Watches: asks once and then listens for ever, as health checks do."""

    async def watch(self, channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        yield await self(channel)
        await trio.sleep_forever()


def open_silent(fleet: Fleet, config: Config, *, ask_after: float = 86_400.0) -> Any:
    """A registry of server A whose probe says nothing after its first result, and is asked after so much silence."""
    fleet[A].records = True
    config = attrs.evolve(config, probe_interval=ask_after)
    fleet.locator.set([A])
    return viewreg.open_registry(fleet.locator, config, probe=Silent(), dial=fleet.dial)


async def ping_times(fleet: Fleet, until: float) -> list[float]:
    """When the server got PINGs, to the second."""
    times = []
    while trio.current_time() < until:
        before = fleet[A].pings
        await trio.sleep(1)
        times += [trio.current_time()] * (fleet[A].pings - before)
    return times


async def test_pings_into_silence(autojump_clock: MockClock) -> None:
    """After two PINGs without an answer to a call, one goes each 300 s, which no server holds against a client."""
    async with open_fleet() as fleet, open_silent(fleet, Config()) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        times = await ping_times(fleet, 2000.0)
        assert registry.version == version
    assert len(times) == 8
    assert times[1] <= 20
    gaps = [later - earlier for earlier, later in pairwise(times[1:])]
    assert all(300 <= gap <= 310 for gap in gaps)


@pytest.mark.parametrize("quiet", [1.0, *range(100, 124, 2), 1000.0])
async def test_a_frozen_server_that_is_only_watched(quiet: float, autojump_clock: MockClock) -> None:
    """A server that freezes while its probe only listens is unhealthy as soon as one that is asked, however quiet."""
    async with open_fleet() as fleet, open_silent(fleet, Config(), ask_after=10.0) as registry:
        await registry.wait_until(healthy(A))
        await trio.sleep(quiet)
        fleet[A].freeze()
        with trio.fail_after(10.5):
            await registry.wait_until(unhealthy(A))
        fleet[A].thaw()
        with trio.fail_after(6):
            await registry.wait_until(healthy(A))


async def test_pings_of_a_server_are_no_flood(autojump_clock: MockClock) -> None:
    """A server that asks by PING each 5 s for 15 hours, while nobody calls, goes on being healthy."""
    async with open_fleet() as fleet, open_silent(fleet, Config()) as registry:
        await registry.wait_until(healthy(A))
        fleet[A].records = False
        version = registry.version
        for _ in range(11_000):
            await fleet[A].say(ping())
            await trio.sleep(5)
        assert registry.version == version


async def test_a_silent_watch_is_no_news(autojump_clock: MockClock) -> None:
    """A server whose watch is silent is asked about once an interval, and that changes nothing that anyone sees."""
    async with open_fleet() as fleet, open_silent(fleet, Config(), ask_after=10.0) as registry:
        await registry.wait_until(healthy(A))
        version = registry.version
        await trio.sleep(1000)
        assert registry.version == version
        assert 25 <= fleet[A].probes <= 105
        assert len(registry.history(A)) == 3


async def test_a_frozen_server_that_is_rarely_probed(autojump_clock: MockClock) -> None:
    """A server that freezes between two probes that are hours apart is unhealthy within some 300 s."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(probe_interval=7200.0)) as registry:
        await registry.wait_until(healthy(A))
        await trio.sleep(120)
        fleet[A].freeze()
        with trio.fail_after(300 + 8 + 2 + 1):
            await registry.wait_until(unhealthy(A))


async def test_rare_pings_stay_rare(autojump_clock: MockClock) -> None:
    """With an interval above 300 s PINGs are that far apart, before and after the first two."""
    async with open_fleet() as fleet, open_silent(fleet, Config(keepalive_interval=1000.0)) as registry:
        await registry.wait_until(healthy(A))
        times = await ping_times(fleet, 5500.0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) >= 4
    assert all(1000 <= gap <= 1005 for gap in gaps)


async def complain(fleet: Fleet, registry: viewreg.Registry[Feature]) -> None:
    """Let the server say that it was asked too often, and wait until it is healthy again."""
    await fleet[A].say(goaway(0, ENHANCE_YOUR_CALM, b"too_many_pings"))
    await registry.wait_until(unhealthy(A))
    await registry.wait_until(healthy(A))


@pytest.mark.parametrize(("times", "interval"), [(0, 8.0), (1, 16.0), (3, 64.0), (14, 86_400.0), (40, 86_400.0)])
async def test_complaints_double_the_interval(times: int, interval: float, autojump_clock: MockClock) -> None:
    """Each ENHANCE_YOUR_CALM doubles the time before a PING, up to a day and not beyond."""
    async with open_fleet() as fleet, open_silent(fleet, Config()) as registry:
        await registry.wait_until(healthy(A))
        for _ in range(times):
            await complain(fleet, registry)
        fleet[A].frames.clear()
        await trio.sleep(interval - 1)
        assert fleet[A].pings == 0
        await trio.sleep(2)
        assert fleet[A].pings == 1


# -- probes --


@pytest.mark.parametrize(("rise", "retry"), [(1, 1.0), (2, 1.0), (5, 0.25), (5, 3.0)])
async def test_probes_until_healthy_come_quickly(rise: int, retry: float, autojump_clock: MockClock) -> None:
    """Until `rise` probes were good they are `probe_retry_interval` apart, from then on `probe_interval`."""
    config = Config(rise=rise, probe_retry_interval=retry, probe_jitter=0.0)
    async with open_fleet() as fleet, fleet.open(A, config=config) as registry:
        await registry.wait_until(all_healthy)
        risen = (rise - 1) * retry
        assert trio.current_time() == pytest.approx(risen)
        assert fleet[A].probes == rise
        await trio.sleep(9.5)
        assert fleet[A].probes == rise
        await trio.sleep(1.0)
        assert fleet[A].probes == rise + 1


async def test_a_view_that_fell_rises_as_quickly(autojump_clock: MockClock) -> None:
    """After a failed probe a view is healthy again `rise` good ones later, a second apart."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(rise=3, probe_jitter=0.0)) as registry:
        await registry.wait_until(healthy(A))
        fleet[A].view.status = 13
        await registry.wait_until(unhealthy(A))
        fell = trio.current_time()
        fleet[A].view.status = 0
        await registry.wait_until(healthy(A))
        assert trio.current_time() == pytest.approx(fell + 3.0)


async def test_a_connection_without_an_answer_is_not_replaced_at_once(autojump_clock: MockClock) -> None:
    """A server that says GOAWAY before it has answered one probe is lost, and dialled again as one that failed."""
    config = Config(backoff=Backoff(initial=50.0, maximum=50.0, jitter=0.0))
    async with open_fleet() as fleet:
        fleet[A].does = Does.LEAVE
        async with fleet.open(A, config=config) as registry:
            await trio.sleep(120)
            assert Event.REPLACING not in events(registry, A)
    assert fleet[A].gaps == [50.0, 50.0]
    assert math.isclose(fleet[A].dials[0], 0.0)
