"""A registry of one server in memory, and the states into which it can be brought while something is cancelled."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from trio.testing import wait_all_tasks_blocked

from fleet import Does, Fleet, Server, all_healthy, open_fleet, unhealthy
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from viewreg import Config, Endpoint, Feature, Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

A: Final = "a:1"
PROBE: Final = "/rpc.Diagnostics/stats"
CONFIG: Final = Config(probe_interval=80_000.0, keepalive_interval=math.inf)
LATER: Final = 0.5  # seconds until a slow server answers
SOON: Final = 0.2  # seconds until something happens meanwhile
LARGE: Final = bytes(70_000)  # more than goes into the window of the server


class World:
    """A registry of one server, which a test may bring into any state."""

    def __init__(self, fleet: Fleet, registry: Registry[Feature]) -> None:
        self.fleet: Final = fleet
        self.server: Final[Server] = fleet[A]
        self.registry: Final = registry
        self.channel = registry.snapshot.view(A).channel  # what calls are made on
        self.order = Order()  # what is said in it
        self._over = trio.Event()  # what `soon` was given has happened
        self._over.set()
        self._others = 0  # calls of `other` that are not over
        self._version = registry.version

    @property
    def stub(self) -> NastyStub:
        """For the call that is made."""
        return self.channel.stub(NastyStub)

    @property
    def since_change(self) -> float:
        """Seconds since the registry last changed."""
        return trio.current_time() - self.registry.last_changed

    def soon(self, act: Callable[[], object]) -> None:
        """Let something happen while the call is made, whatever becomes of the call."""
        self._over = trio.Event()

        async def wait() -> None:
            await trio.sleep(SOON)
            act()
            self._over.set()

        self.fleet.nursery.start_soon(wait)

    def serve_mute(self) -> None:
        """Let connections that were accepted in silence be served."""
        for stream in self.server.streams:
            self.fleet.nursery.start_soon(self.server.serve, stream.server)

    async def other(self) -> None:
        """Make another call."""
        self._others += 1
        await self.stub.ask(Order())
        self._others -= 1

    async def check(self) -> None:
        """The server knows already that the call is over; once it is well again, nothing else is left either."""
        await wait_all_tasks_blocked()
        paths = self.server.view.open_paths
        assert len(paths) == paths.count(PROBE) + self._others
        await self._over.wait()
        view = self.server.view
        self.server.does, view.frozen, view.status, view.delay = Does.SERVE, False, 0, 0.0
        self.fleet.locator.set([A])
        await trio.sleep(LATER)  # what the server has said last arrives, and what it still does ends
        snapshot = await self.registry.wait_until(all_healthy)
        assert snapshot.version >= self._version
        self._version = snapshot.version
        self.channel, self.order = snapshot.view(A).channel, Order()
        await self.stub.ask(Order())
        assert len(self.fleet.streams) == view.connections == 1
        assert view.open_streams == 0
        subchannel = self.channel._subchannel
        assert not subchannel.wanted
        assert not subchannel._paused
        connection = subchannel._connection
        assert connection is not None
        assert not connection.http2.streams
        assert not connection._without_window
        assert not connection._without_room


Act: TypeAlias = "Callable[[World], Awaitable[None]]"


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """The server is healthy; it takes one call at a time."""
    async with open_fleet() as fleet:
        view = fleet[A].view
        view.max_concurrent_streams = 1
        view.replies["/nasty.Nasty/tell"] = [b""]
        view.replies["/nasty.Nasty/listen"] = [b"", b""]
        async with fleet.open(A, config=CONFIG) as registry:
            await registry.wait_until(all_healthy)
            yield World(fleet, registry)
        await trio.sleep(LATER)
        assert not fleet.streams


# -- states --


async def answers(_world: World) -> None:
    """It answers at once."""


async def answers_later(world: World) -> None:
    """It takes its time."""
    world.server.view.delay = LATER


async def fails(world: World) -> None:
    """It answers with a status."""
    world.server.view.status = 5


async def is_full(world: World) -> None:
    """It has a call, and takes no second one."""
    view = world.server.view
    view.delay = SOON
    world.fleet.nursery.start_soon(world.other)
    await view.wait_requests(len(view.requests) + 1)


async def does_not_read(world: World) -> None:
    """It gives no window for a while, and the request needs one."""
    world.order = Order(payload=LARGE)
    world.server.view.frozen = True
    world.soon(lambda: setattr(world.server.view, "frozen", False))


async def is_lost(world: World) -> None:
    """It dies before it answers."""
    world.server.view.delay = LATER
    world.soon(world.server.cut)


async def leaves(world: World) -> None:
    """It goes away gracefully before it answers."""
    world.server.view.delay = LATER
    world.soon(world.server.view.go_away)


async def is_removed(world: World) -> None:
    """Discovery lists it no longer before it answers; it is drained."""
    world.server.view.delay = LATER
    world.soon(lambda: world.fleet.locator.set([]))


async def is_away(world: World) -> None:
    """It refuses; the supervisor is in its backoff."""
    world.server.does = Does.REFUSE
    world.server.cut()
    await world.registry.wait_until(unhealthy(A))


async def comes_back(world: World) -> None:
    """It refuses, then it listens again; calls wait for that."""
    await is_away(world)
    world.channel = world.channel.waiting()
    world.soon(lambda: setattr(world.server, "does", Does.SERVE))


async def is_dialled_first(world: World) -> None:
    """It was just discovered, and has accepted the first connection in silence."""
    world.fleet.locator.set([])
    await world.registry.wait_until(lambda snapshot: not snapshot.views)
    world.server.does = Does.MUTE
    world.fleet.locator.set([A])
    world.channel = (await world.registry.wait_until(lambda snapshot: bool(snapshot.views))).view(A).channel
    world.soon(world.serve_mute)


async def is_replaced(world: World) -> None:
    """It went away gracefully; the next connection is accepted in silence."""
    world.server.does = Does.MUTE
    world.server.view.go_away()
    await trio.sleep(LATER)
    world.soon(world.serve_mute)


async def changes(world: World) -> None:
    """Discovery learns something new of it."""
    endpoint = Endpoint("a", 1, annotations={"version": str(world.registry.version)})
    world.soon(lambda: world.fleet.locator.set([endpoint]))


STATES: Final = [
    answers, answers_later, fails, is_full, does_not_read, is_lost, leaves, is_removed, is_away, comes_back,
    is_dialled_first, is_replaced,
]  # fmt: skip
