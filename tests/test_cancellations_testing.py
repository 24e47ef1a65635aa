"""The testing kit, cancelled at every step: fake views and clusters, networks in memory, scripted peers.

And the list of what all this is about: every public async function of viewreg and of its testing kit.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import test_cancellations  # noqa: F401  # for what it covers
import test_cancellations_life  # noqa: F401  # likewise
import test_fan_out_cancelled  # noqa: F401  # likewise
import test_health_cancelled  # noqa: F401  # likewise
import viewreg
import viewreg.testing
from fleet import all_healthy
from memory import A
from nasty.nasty_pb2 import Order
from steps import COVERED, at_every_step, covers
from transport import open_channel
from viewreg import CallError, StaticLocator, StatusCode, open_registry
from viewreg.testing import FakeView, MemoryNetwork, ScriptedPeer, open_fake_cluster, open_fake_view
from viewreg.testing.frames import settings_ack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

SOON: Final = 0.2  # seconds until something happens meanwhile


async def nothing() -> None:
    """Neither to prepare nor to check."""
    await trio.lowlevel.checkpoint()


# -- one view --


class World:
    """A view on a network in memory, and a client of it."""

    def __init__(self, nursery: trio.Nursery, network: MemoryNetwork, view: FakeView) -> None:
        self.view: Final = view
        self._nursery: Final = nursery
        self._network: Final = network
        self._meanwhile = trio.CancelScope()

    def soon(self, act: Callable[[], Awaitable[object]]) -> None:
        """Let something begin while a method of the view runs. It ends with `check`."""

        async def wait() -> None:
            with scope:
                await trio.sleep(SOON)
                await act()

        self._meanwhile = scope = trio.CancelScope()
        self._nursery.start_soon(wait)

    async def client(self) -> None:
        """A registry of the view."""
        locator = StaticLocator([self.view.endpoint])
        async with open_registry(locator, dial=self._network.dial) as registry:
            await registry.wait_until(all_healthy)

    async def check(self) -> None:
        """However it was left, the view can be used: it answers a client, and knows of none afterwards."""
        self._meanwhile.cancel()
        await wait_all_tasks_blocked()  # what was told to end does so by itself
        if not self.view.running:
            await self.view.restart()
        await self.view.answer()
        with trio.fail_after(60):
            await self.client()
        await trio.sleep(SOON)
        assert self._network.link(self.view.endpoint).connections == 0
        assert self.view.open_calls == 0


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """The view answers truly."""
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery, open_fake_view(where=network) as view:
        yield World(nursery, network, view)


Act: TypeAlias = "Callable[[World], Awaitable[None]]"


async def at_rest(world: World) -> None:
    """Nobody calls."""


async def with_a_call(world: World) -> None:
    """A call hangs."""
    await world.view.hang()
    world.soon(world.client)
    await world.view.wait_for_calls(lambda calls: any(call.code is None for call in calls))


async def called_soon(world: World) -> None:
    """Somebody will call."""
    world.soon(world.client)


async def killed_soon(world: World) -> None:
    """It will die."""

    async def kill() -> None:
        world.view.kill()
        await world.view.wait_ended()

    world.soon(kill)


@covers("FakeView.fail", "FakeView.hang", "FakeView.slow", "FakeView.lie", "FakeView.garble", "FakeView.answer")
async def behave(world: World) -> None:
    """One behavior after the other."""
    await world.view.fail(StatusCode.NOT_FOUND)
    await world.view.hang()
    await world.view.slow(1.0)
    await world.view.lie(viewType="megaview")
    await world.view.garble()
    await world.view.answer()


@covers("FakeView.stop")
async def stop(world: World) -> None:
    """End it politely."""
    await world.view.stop()


@covers("FakeView.restart")
async def restart(world: World) -> None:
    """End it and start it again."""
    await world.view.restart()


@covers("FakeView.move")
async def move(world: World) -> None:
    """End it and start it elsewhere."""
    await world.view.move()


@covers("FakeView.wait_for_calls")
async def wait_for_calls(world: World) -> None:
    """A call that was not there before."""
    seen = len(world.view.calls)
    await world.view.wait_for_calls(lambda calls: len(calls) > seen)


@covers("FakeView.wait_ended")
async def wait_ended(world: World) -> None:
    """Until it has died."""
    await world.view.wait_ended()


OF_A_VIEW: Final[list[tuple[Act, Act]]] = [
    (behave, at_rest), (behave, with_a_call), (stop, at_rest), (stop, with_a_call), (restart, at_rest),
    (restart, with_a_call), (move, at_rest), (move, with_a_call), (wait_for_calls, called_soon),
    (wait_ended, killed_soon),
]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "state"), OF_A_VIEW, ids=[f"{act.__name__}-{state.__name__}" for act, state in OF_A_VIEW]
)
async def test_a_view(act: Act, state: Act, autojump_clock: object) -> None:
    """A method of a view that is cancelled leaves a view that can be used."""
    async with open_world() as world:
        assert await at_every_step(lambda: state(world), lambda: act(world), world.check)


@covers("open_fake_view", "open_fake_cluster")
async def test_a_cluster(autojump_clock: object) -> None:
    """A cluster that is cancelled, with a registry inside, leaves nothing on its network."""
    network = MemoryNetwork()

    async def act() -> None:
        async with (
            open_fake_cluster(partitions=2, replicas=1, where=network) as cluster,
            open_registry(**cluster.connect) as registry,
        ):
            await registry.wait_until(all_healthy)

    async def check() -> None:
        await trio.sleep(SOON)
        for host in ("view-0", "view-1"):
            link = network.link(f"{host}:8080")
            assert link.listener is None
            assert link.connections == 0

    assert await at_every_step(nothing, act, check) > 50


# -- the network --


@covers("MemoryNetwork.dial", "Link.dial", "MemoryListener.accept", "MemoryListener.aclose")
@pytest.mark.parametrize("delay", [0.0, 0.1])
async def test_a_network(delay: float, autojump_clock: object) -> None:
    """Dialling, accepting, sending, receiving and closing leave no connection and no listener."""
    network = MemoryNetwork()
    link = network.link(A)
    link.delay(delay)

    async def serve() -> None:
        async with network.listen(A) as listener, await listener.accept() as stream:
            await stream.send_all(await stream.receive_some())
            await stream.wait_send_all_might_not_block()
            await stream.send_eof()
            assert await stream.receive_some() == b""

    async def act() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            async with await network.dial(A) as stream:
                await stream.send_all(b"there")
                assert await stream.receive_some() == b"there"
                assert await stream.receive_some() == b""

    async def check() -> None:
        assert link.listener is None
        assert link.connections == 0
        assert not link._connections

    assert await at_every_step(nothing, act, check) > 10


# -- scripted peers --


@covers(
    "ScriptedPeer.handshake", "ScriptedPeer.expect", "ScriptedPeer.expect_request", "ScriptedPeer.respond",
    "ScriptedPeer.refuse", "ScriptedPeer.send", "ScriptedPeer.expect_end", "ScriptedPeer.aclose",
)  # fmt: skip
async def test_a_peer(autojump_clock: object) -> None:
    """A script that is cancelled leaves a peer that can be closed, and a client that notices."""
    peer: ScriptedPeer

    async def client(stream: trio.abc.Stream) -> None:
        async with open_channel(stream=stream) as line:
            with trio.move_on_after(1):
                for _ in range(2):
                    with suppress(CallError):
                        await line.stub.ask(Order())

    async with trio.open_nursery() as nursery:

        async def prepare() -> None:
            nonlocal peer
            peer, stream = ScriptedPeer.pair()
            nursery.start_soon(client, stream)
            await trio.lowlevel.checkpoint()

        async def act() -> None:
            await peer.handshake()
            head = await peer.expect("HEADERS")
            await peer.refuse(head.stream_id, 5)
            request = await peer.expect_request()
            await peer.respond(request.stream_id, b"")
            await peer.send(settings_ack())
            await peer.expect_end()
            await peer.aclose()

        async def check() -> None:
            await peer.aclose()
            await trio.sleep(2)

        assert await at_every_step(prepare, act, check) > 10


# -- what there is --

USERS: Final = {
    "Locator.wait_for_update": "a protocol: the locator is its maker's",
    "Probe.__call__": "a protocol: the probe is its maker's",
}
ASYNC: Final = ("Awaitable", "AsyncIterator", "AsyncContextManager", "ResponseStream", "MessageStream", "Changes")


def test_every_public_async_function_is_cancelled() -> None:
    """Whatever is public and async is cancelled somewhere in these modules, or stands in `USERS` with a reason."""
    found = {name for module in (viewreg, viewreg.testing) for name in public_async(module)}
    assert found == COVERED.keys() | USERS.keys()


def public_async(module: Any) -> Iterator[str]:
    """The functions and methods that a module exports and that wait, or return what waits."""
    for name in module.__all__:
        exported = getattr(module, name)
        if inspect.isclass(exported):
            for attribute in dir(exported):
                if not attribute.startswith("_") or attribute.startswith("__"):
                    method = inspect.getattr_static(exported, attribute)
                    if waits(getattr(method, "__func__", method)):
                        yield f"{name}.{attribute}"
        elif waits(exported):
            yield name


def waits(function: Any) -> bool:
    """Whether it is a function of ours, and async in any way."""
    if not inspect.isfunction(function) or not function.__module__.startswith("viewreg"):
        return False
    returns = str(function.__annotations__.get("return"))
    whole = inspect.unwrap(function)
    return (
        inspect.iscoroutinefunction(whole)
        or inspect.isasyncgenfunction(whole)
        or any(text in returns for text in ASYNC)
    )
