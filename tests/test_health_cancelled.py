"""Health asked and watched, cancelled at every step that any task makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import viewreg
from health_servicer import NOT_SERVING, SERVING, Health
from steps import at_every_step, covers
from test_health_probe import BOTH, SEARCH, A, Mine, is_healthy
from viewreg import HealthProbe, StaticLocator
from viewreg.testing import MemoryNetwork, open_fake_view

if TYPE_CHECKING:
    from trio.testing import MockClock

    from viewreg import Locator
    from viewreg.testing import FakeView


@covers("HealthProbe.__call__")
async def life(locator: Locator, network: MemoryNetwork, health: Health, services: dict[Mine, str]) -> None:
    """A registry that asks, watches, hears of a change, and whose Watch ends."""
    probe = HealthProbe(services)
    async with viewreg.open_registry(locator, probe=probe, dial=network.dial) as registry:
        snapshot = await registry.wait_until(is_healthy)
        await probe(snapshot.view(A).channel)
        for service in services.values():
            health.set(service, NOT_SERVING)
        await registry.wait_until(lambda snapshot: not is_healthy(snapshot))
        health.end()
        await trio.sleep(1.5)


@pytest.mark.parametrize("services", [SEARCH, BOTH], ids=["one", "two"])
@pytest.mark.parametrize("watch", [True, False], ids=["Watch", "Check"])
async def test_cancelled_at_every_step(services: dict[Mine, str], watch: bool, autojump_clock: MockClock) -> None:
    """No task is left, and no call that the server believes in."""
    network = MemoryNetwork()
    health = Health(watch=watch)
    async with open_fake_view(where=network, host="a", services=[health]) as fake:
        locator = StaticLocator([fake.endpoint])

        async def prepare() -> None:
            health.end(how=False)
            for service in services.values():
                health.set(service, SERVING)

        steps = await at_every_step(
            prepare, lambda: life(locator, network, health, services), lambda: nothing_is_open(fake)
        )
        assert steps > 50


async def nothing_is_open(fake: FakeView) -> None:
    """The server knows of no call."""
    await fake.wait_for_calls(lambda _: not fake.open_calls)
