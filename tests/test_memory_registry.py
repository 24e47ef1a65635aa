"""A registry on a network in memory sees of it what it sees on sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

import viewreg
from fleet import stats
from peers import H2View
from viewreg import StaticLocator
from viewreg.testing import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@asynccontextmanager
async def open_world() -> AsyncIterator[tuple[MemoryNetwork, viewreg.Registry[viewreg.Feature]]]:
    """A view server at a:1 and a registry of it, which is healthy."""
    network, view = MemoryNetwork(), H2View(stats())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, view.serve, [network.listen("a:1")])
        async with viewreg.open_registry(StaticLocator(["a:1"]), dial=network.dial) as registry:
            await until(registry, healthy=True)
            yield network, registry
        assert network.link("a:1").connections == 0
        nursery.cancel_scope.cancel()


async def until(registry: viewreg.Registry[viewreg.Feature], *, healthy: bool) -> float:
    """Wait for a:1 to be so. Returns how long that took."""
    started = trio.current_time()
    await registry.wait_until(lambda snapshot: snapshot.view("a:1").healthy is healthy)
    return trio.current_time() - started


def reasons(registry: viewreg.Registry[viewreg.Feature]) -> list[str]:
    """What was wrong with a:1, oldest first."""
    return [entry.why for entry in registry.history("a:1") if "FAILED" in entry.what.name or "LOST" in entry.what.name]


async def test_a_registry_and_a_reset(autojump_clock: MockClock) -> None:
    """A registry sees resets and refused dials as on sockets, and comes back."""
    async with open_world() as (network, registry):
        network.link("a:1").refuse()
        network.link("a:1").reset()
        assert await until(registry, healthy=False) == 0
        await trio.sleep(1)
        network.link("a:1").accept()
        assert 0 < await until(registry, healthy=True) < 1.3
        assert reasons(registry) == ["Connection reset by peer (ECONNRESET)", "Connection refused (ECONNREFUSED)"]


async def test_a_registry_and_a_black_hole(autojump_clock: MockClock) -> None:
    """A registry sees a closed connection and a black hole as on sockets, and comes back."""
    async with open_world() as (network, registry):
        network.link("a:1").black_hole()
        network.link("a:1").close()
        assert await until(registry, healthy=False) == 0
        await trio.sleep(6)
        network.link("a:1").accept()
        await until(registry, healthy=True)
        assert reasons(registry) == ["the server closed the connection", "no answer to the connection within 5 s"]


async def test_a_registry_and_a_cut(autojump_clock: MockClock) -> None:
    """A registry finds a cut by its keepalive; its dial gets through when the link is healed."""
    async with open_world() as (network, registry):
        network.link("a:1").cut()
        assert 8 <= await until(registry, healthy=False) <= 10.5
        await trio.sleep(2)
        network.link("a:1").heal()
        assert await until(registry, healthy=True) == 0
        assert reasons(registry) == ["no answer to a keepalive PING within 2 s"]
        assert len(network.link("a:1").dials) == 2


async def test_a_registry_and_a_frozen_host(autojump_clock: MockClock) -> None:
    """A registry finds a frozen host by its keepalive; it can connect and hears nothing, until the host is thawed."""
    async with open_world() as (network, registry):
        listener = network.link("a:1").listener
        assert listener is not None
        listener.freeze()
        assert 8 <= await until(registry, healthy=False) <= 10.5
        await trio.sleep(6)
        listener.thaw()
        await until(registry, healthy=True)
        assert reasons(registry) == [
            "no answer to a keepalive PING within 2 s",
            "no SETTINGS from the server within 5 s",
        ]


async def test_a_registry_over_a_slow_link(autojump_clock: MockClock) -> None:
    """Over a link with a delay a registry is healthy after three round trips: dial, SETTINGS and the probe's answer."""
    network, view = MemoryNetwork(), H2View(stats())
    network.link("a:1").delay(0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, view.serve, [network.listen("a:1")])
        async with viewreg.open_registry(StaticLocator(["a:1"]), dial=network.dial) as registry:
            assert await until(registry, healthy=True) == 2.5
        nursery.cancel_scope.cancel()
