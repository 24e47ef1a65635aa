"""A fleet to which everything happens that can, in virtual time: afterwards all is well, and nothing is left."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from fleet import CLOSED, Does, Fleet, Server, call, open_fleet, stats, tasks
from viewreg import CallError, Config, Feature, UnknownViewError
from viewreg.testing.frames import goaway

if TYPE_CHECKING:
    from trio.testing import MockClock

    from viewreg import Registry

HOSTS = [f"h{number}:1" for number in range(6)]
CALM = 5.0 + 2.0 + 10.5 + 1.3  # seconds: a connect timeout, a keepalive timeout, a frozen connection, a backoff


async def disturb(server: Server, rng: Random) -> None:
    """Do one thing to a server."""
    what = rng.randrange(9)
    if what == 0:
        server.does = rng.choice([*Does])
    elif what == 1:
        server.cut()
    elif what == 2:
        server.reset()
    elif what == 3:
        server.freeze()
    elif what == 4:
        server.thaw()
    elif what == 5:
        await server.say(goaway(code=rng.choice([0, 0, 0, 2, 11])))
    elif what == 6:
        server.view.status = rng.choice([0, 0, 13, 14])
    elif what == 7:
        server.view.delay = rng.choice([0.0, 0.1, 4.9, 5.1, 30.0])
    else:
        server.view.stats = rng.choice([None, stats("SPO"), stats("POS", 5, 9)])


def calm(server: Server) -> None:
    """Let it be a good server from now on."""
    server.does = Does.SERVE
    server.view.status, server.view.delay, server.view.stats = 0, 0.0, stats()
    server.thaw()


async def call_again_and_again(registry: Registry[Feature], rng: Random) -> None:
    """Call servers, with deadlines and without, and count on nothing but that each call ends."""
    while True:
        await trio.sleep(rng.uniform(0, 1))
        with trio.move_on_after(rng.choice([0.05, 20])):
            with suppress(CallError, UnknownViewError):  # whatever comes of it
                await call(registry, rng.choice(HOSTS))


async def upset(fleet: Fleet, rng: Random) -> None:
    """Disturb servers and discovery for five minutes."""
    for _ in range(300):
        await trio.sleep(rng.uniform(0, 2))
        if rng.random() < 0.1:
            fleet.locator.set(rng.sample(HOSTS, rng.randint(0, len(HOSTS))))
        await disturb(fleet[rng.choice(HOSTS)], rng)


@pytest.mark.parametrize("seed", range(6))
async def test_chaos(seed: int, autojump_clock: MockClock) -> None:
    """Whatever happened, servers that are good again are all healthy in bounded time, and stay so; nothing is left."""
    rng = Random(seed)
    config = Config(drain_timeout=rng.choice([0.0, 10.0]), rise=rng.choice([1, 2]), fall=rng.choice([1, 2]))
    async with open_fleet() as fleet:
        before = await tasks()
        async with fleet.open(*HOSTS, config=config, rng=rng) as registry:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call_again_and_again, registry, rng)
                await upset(fleet, rng)
                nursery.cancel_scope.cancel()
            for host_port in HOSTS:
                calm(fleet[host_port])
            fleet.locator.set(HOSTS)
            with trio.fail_after(CALM + 11 + (config.rise - 1)):
                # What a server served in between is corrected by the next probe.
                await registry.wait_until(lambda at: len(at.healthy_views(Feature.HASH_SP)) == len(HOSTS))
            version = registry.version
            await trio.sleep(60)
            assert registry.version == version
            assert len(fleet.streams) == len(HOSTS)
        await trio.sleep(CLOSED)
        assert not fleet.streams
        assert await tasks() == before
