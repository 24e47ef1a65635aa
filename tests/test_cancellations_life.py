"""A registry's whole life, cancelled from outside at every step that any task makes: in memory, and on real sockets.

It is dialled, shakes hands, is probed, fails a probe, is lost, backs off, is replaced after GOAWAY, is removed and
drained, and is left. Wherever that ends: no task, no stream, no socket; the registry is usable and empty; what it said
was consistent; and the next one works.
"""

from __future__ import annotations

import itertools
import math
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fleet import Does, Fleet, all_healthy, call, healthy, open_fleet, unhealthy
from steps import at_every_step, covers
from transport import note
from viewreg import (
    Backoff,
    Config,
    Endpoint,
    Feature,
    Registry,
    RegistryClosedError,
    Snapshot,
    UnavailableError,
    ViewregError,
    dial_tcp,
    open_registry,
)
from viewreg.rpc import CarouselRequest
from viewreg.testing import FakeCluster, open_fake_cluster

A, B = "a:1", "b:1"
PROBE: Final = "/rpc.Diagnostics/stats"
CONFIG: Final = Config(
    probe_interval=2.0, probe_jitter=0.0, probe_retry_interval=0.3, connect_timeout=1.0, backoff=Backoff(initial=0.2)
)

FAST: Final = Config(probe_retry_interval=0.01, backoff=Backoff(initial=0.01, maximum=0.02), on_demand_interval=0.01)


class Witness:
    """Keeps what a registry said while it lived, and asks it afterwards."""

    def __init__(self) -> None:
        self._registry: Registry[Feature] | None = None
        self._seen: list[Snapshot[Feature]] = []

    async def watch(self, registry: Registry[Feature]) -> None:
        """Look at every change."""
        self._registry, self._seen = registry, []
        async for change in registry.changes():
            self._seen.append(change.new)

    async def examine(self) -> None:
        """It never contradicted itself; now it is empty, and every wait ends as it is documented."""
        registry, self._registry = self._registry, None
        if registry is None:
            return  # cancelled before it was opened
        order = [(snapshot.version, snapshot.last_changed) for snapshot in self._seen]
        for (version, moment), (later, later_moment) in itertools.pairwise(order):
            assert version < later
            assert moment < later_moment
        for snapshot in self._seen:
            assert all(view.partition is not None for view in snapshot.healthy_views())
        last = registry.snapshot
        assert registry.all_views() == last.all_views() == []
        assert not self._seen or last.version >= self._seen[-1].version
        assert await registry.wait_for_change(-math.inf) is last
        assert await registry.wait_for_stable(1000.0) is last
        assert [change.new async for change in registry.changes()] == [last]
        with pytest.raises(RegistryClosedError):
            await registry.wait_until(lambda snapshot: bool(snapshot.views))
        with pytest.raises(RegistryClosedError):
            await registry.wait_for_change(registry.last_changed)
        for view in self._seen[-1].views if self._seen else ():
            with pytest.raises(UnavailableError):
                await view.channel.wait_ready()


# -- in memory --


async def live(fleet: Fleet, registry: Registry[Feature]) -> None:
    """Bring the registry into all its states, one after the other."""
    server = fleet[A]
    # The dial is answered late, and so is the handshake.
    await trio.sleep(0.1)
    for stream in server.streams:
        fleet.nursery.start_soon(server.serve, stream.server)
    server.does, server.view.delay = Does.SERVE, 0.1
    await registry.wait_until(all_healthy)
    # A probe fails, and the next one does not.
    server.view.status = 14
    await registry.wait_until(unhealthy(A))
    server.view.status = 0
    await registry.wait_until(healthy(A))
    # The connection is lost with a call on it, the server away for two dials.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, registry)
        await server.view.wait_requests(len(server.view.requests) + 1)
        server.does = Does.REFUSE
        server.cut()
    await registry.wait_until(unhealthy(A))
    await trio.sleep(0.7)
    server.does = Does.SERVE
    await registry.wait_until(healthy(A))
    # It is replaced while a call is on its way.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, registry, A)
        await server.view.wait_requests(len(server.view.requests) + 1)
        server.view.go_away()
    await call(registry, A)
    # It is removed with a call, and drained.
    fleet.locator.set([A, B])
    await registry.wait_until(all_healthy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, registry, A)
        await server.view.wait_requests(len(server.view.requests) + 1)
        fleet.locator.set([B])
        await registry.wait_until(lambda snapshot: len(snapshot.views) == 1)


async def fails(registry: Registry[Feature]) -> None:
    """A call on a connection that is lost."""
    with pytest.raises(UnavailableError):
        await call(registry, A)


@covers("open_registry")
async def test_cancelled_at_every_step_of_its_life(autojump_clock: object) -> None:
    """Wherever its parent scope is cancelled, nothing of a registry is left, and the next one becomes healthy."""
    witness = Witness()
    async with open_fleet() as fleet:
        server = fleet[A]

        async def prepare() -> None:
            server.does, server.view.delay, server.view.status = Does.MUTE, 0.0, 0

        async def act() -> None:
            async with fleet.open(A, config=CONFIG) as registry, trio.open_nursery() as nursery:
                nursery.start_soon(witness.watch, registry)
                await live(fleet, registry)
                nursery.cancel_scope.cancel()

        async def check() -> None:
            # What calls are there were the body's, and told before the connections were closed.
            assert not fleet.streams
            await witness.examine()
            await wait_all_tasks_blocked()
            assert server.view.connections == fleet[B].view.connections == 0
            assert set(server.view.abandoned) <= {PROBE}
            server.does, server.view.delay, server.view.status = Does.SERVE, 0.0, 0
            async with fleet.open(A, config=CONFIG) as registry:
                await registry.wait_until(all_healthy)
            assert not fleet.streams

        steps = await at_every_step(prepare, act, check)
    note(f"cancelled at each of {steps} steps")
    assert steps > 100


# -- on real sockets --

FILES: Final = Path("/proc/self/fd")


def sockets() -> int:
    """How many files this process has open."""
    return sum(1 for _ in FILES.iterdir())


async def live_on_sockets(cluster: FakeCluster, registry: Registry[Feature]) -> None:
    """Two servers: one dies and comes back, the other one is removed with a call on it."""
    one, two = cluster.views
    await registry.wait_until(all_healthy)
    async with registry.snapshot.view(one.endpoint).carousel().ride(CarouselRequest()) as ride:
        await anext(ride)
        one.kill()
        with pytest.raises(UnavailableError):
            async for _ in ride:
                pass
    await registry.wait_until(unhealthy(one.endpoint.host_port))
    await one.restart()
    await registry.wait_until(all_healthy)
    async with registry.snapshot.view(two.endpoint).carousel().ride(CarouselRequest()) as ride:
        await anext(ride)
        cluster.remove(two)
        await registry.wait_until(lambda snapshot: len(snapshot.views) == 1)
        await anext(ride)


@pytest.mark.skipif(not FILES.is_dir(), reason="counts sockets as Linux shows them")
async def test_cancelled_on_real_sockets() -> None:
    """The same with sockets, whose number is afterwards what it was, and servers that know of no call any more."""
    witness = Witness()
    async with open_fake_cluster(partitions=2, replicas=1, where="loopback") as cluster:
        one, two = cluster.views
        before = 0

        async def prepare() -> None:
            nonlocal before
            before = sockets()

        async def act() -> None:
            async with open_registry(config=FAST, **cluster.connect) as registry, trio.open_nursery() as nursery:
                nursery.start_soon(witness.watch, registry)
                await live_on_sockets(cluster, registry)
                nursery.cancel_scope.cancel()

        async def check() -> None:
            await witness.examine()
            if not one.running:
                await one.restart()
            with suppress(ViewregError):  # it is listed
                cluster.add(two)
            await two.wait_for_calls(lambda calls: all(call.code is not None for call in calls))
            await wait_all_tasks_blocked()
            assert sockets() == before
            assert one.open_calls == two.open_calls == 0

        with trio.fail_after(120):
            steps = await at_every_step(prepare, act, check)
    note(f"cancelled at each of {steps} steps")


class Resolver(trio.abc.HostnameResolver):
    """Knows one name, and two addresses for it, of which one is nobody's. It asks in no thread: those have files."""

    # Trio gives all by their places.
    async def getaddrinfo(self, host: Any, port: Any, *_: int) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@covers("dial_tcp")
@pytest.mark.skipif(not FILES.is_dir(), reason="counts sockets as Linux shows them")
@pytest.mark.parametrize("host", ["127.0.0.1", "view.example"])
async def test_a_dial_that_is_cancelled(host: str) -> None:
    """Wherever `dial_tcp` is cancelled, its sockets are closed, to an address as to a name."""
    trio.socket.set_custom_hostname_resolver(Resolver())
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        endpoint = Endpoint(host, listener.socket.getsockname()[1])
        before = sockets()

        async def prepare() -> None:
            await trio.lowlevel.checkpoint()

        async def act() -> None:
            await (await dial_tcp(endpoint)).aclose()

        async def check() -> None:
            assert sockets() == before

        assert await at_every_step(prepare, act, check)
