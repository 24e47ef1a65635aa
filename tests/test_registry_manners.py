"""How a registry begins and ends: nothing outlives its block, and every wait ends."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import viewreg
from fleet import CLOSED, INSTANT, Does, all_healthy, open_fleet, tasks
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from transport import orders
from viewreg import Discovery, Endpoint, Feature, RegistryClosedError, UnavailableError
from viewreg.rpc import DiagnosticsStub, StatsRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from viewreg import Change, Registry

A, B = "a:1", "b:1"


# -- entering --


async def test_entering_does_not_wait(autojump_clock: MockClock) -> None:
    """Entering takes no time, however dead the network is and however slow the locator."""

    class Slow:
        def cached(self) -> Discovery:
            return Discovery(0, ())

        async def wait_for_update(self, old_version: int) -> Discovery:
            await trio.sleep(100)
            return Discovery(old_version + 1, (Endpoint("a", 1),))

    async with open_fleet() as fleet:
        fleet[A].does = Does.BLACK_HOLE
        with trio.fail_after(INSTANT):
            async with fleet.open(A):
                pass
            async with viewreg.open_registry(Slow(), dial=fleet.dial):
                pass


async def test_a_call_in_the_first_step(autojump_clock: MockClock) -> None:
    """A call of any kind may be made as soon as its view is there, whichever task has its turn first."""
    for _ in range(20):
        async with open_fleet() as fleet, fleet.open(A) as registry:
            calls = registry.snapshot.view(A).stub(NastyStub).talk(orders(Order(payload=b"at once")))
            async with calls as answers:
                assert [answer.payload async for answer in answers] == [b"at once"]


async def test_entering_a_cancelled_scope(autojump_clock: MockClock) -> None:
    """A scope that is cancelled already ends the block before it begins, and nothing is left."""
    async with open_fleet() as fleet:
        before = await tasks()
        with trio.fail_after(INSTANT), trio.CancelScope() as scope:
            scope.cancel()
            async with fleet.open(A):
                pytest.fail("the block has begun")
        assert scope.cancelled_caught
        assert not fleet.streams
        assert await tasks() == before


# -- leaving --


async def test_leaving_closes_everything(autojump_clock: MockClock) -> None:
    """When the block is left, every task has ended and every stream is closed, whatever each server was about."""
    async with open_fleet() as fleet:
        before = await tasks()
        for host_port, does in zip("abcdef", Does, strict=False):
            fleet[f"{host_port}:1"].does = does
        async with fleet.open(*[f"{host}:1" for host in "abcdef"]):
            await trio.sleep(2.5)
        assert not fleet.streams
        assert await tasks() == before


async def test_leaving_is_quick(autojump_clock: MockClock) -> None:
    """Leaving waits for no call and for no server: a frozen one costs nothing."""
    async with open_fleet() as fleet:
        async with fleet.open(A, B) as registry:
            await registry.wait_until(all_healthy)
            fleet[A].freeze()
            left = trio.current_time()
        assert trio.current_time() - left <= CLOSED


async def test_empty_afterwards(autojump_clock: MockClock) -> None:
    """After the block the registry can be read and is empty, and its version and time have moved once more."""
    async with open_fleet() as fleet:
        async with fleet.open(A) as registry:
            seen = await registry.wait_until(all_healthy)
        assert registry.all_views() == registry.healthy_views() == []
        assert registry.snapshot.views == ()
        assert registry.last_changed > seen.last_changed
        assert registry.version > seen.version
        assert registry.summary()["all_views"] == 0
        file = io.StringIO()
        registry.dump(file, reasons=True)
        assert file.getvalue() == "View Registry\nLast changed: 0s ago\n"
        with pytest.raises(viewreg.UnknownViewError):
            registry.history(A)


async def test_closing_is_one_change(autojump_clock: MockClock) -> None:
    """Closing is one version, however many views there were."""
    async with open_fleet(simple=True) as fleet:
        async with fleet.open(*[f"h{number}:1" for number in range(20)]) as registry:
            await registry.wait_until(all_healthy)
            version = registry.version
        assert registry.version == version + 1


async def test_empty_after_a_last_set(autojump_clock: MockClock) -> None:
    """A list that discovery finds in the last moment of the block brings nothing back."""
    async with open_fleet() as fleet:
        async with fleet.open() as registry:
            await wait_all_tasks_blocked()
            fleet.locator.set([A])
        assert registry.all_views() == []
        assert not fleet[A].dials


async def test_waits_end_when_it_closes(autojump_clock: MockClock) -> None:
    """Closing ends every wait: by returning where what was waited for is true now, else by RegistryClosedError."""
    ended: dict[str, Any] = {}

    async def wait(name: str, what: Callable[[], Any]) -> None:
        try:
            ended[name] = await what()
        except RegistryClosedError as error:
            ended[name] = error

    async with open_fleet() as fleet, trio.open_nursery() as nursery, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        seen = registry.last_changed
        nursery.start_soon(wait, "change", lambda: registry.wait_for_change(seen))
        nursery.start_soon(wait, "late change", lambda: registry.wait_for_change(seen + 1000))
        nursery.start_soon(wait, "stable", lambda: registry.wait_for_stable(1000))
        nursery.start_soon(wait, "empty", lambda: registry.wait_until(lambda at: not at.views))
        nursery.start_soon(wait, "more", lambda: registry.wait_until(lambda at: len(at.views) > 1))
        await wait_all_tasks_blocked()
        assert not ended
    assert all(ended[name] is registry.snapshot for name in ("change", "stable", "empty"))
    assert all(isinstance(ended[name], RegistryClosedError) for name in ("late change", "more"))


async def test_waits_after_it_is_closed(autojump_clock: MockClock) -> None:
    """Waits that begin after the closing end likewise, and are checkpoints."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        seen = registry.last_changed
    for wait in (registry.wait_for_change(seen), registry.wait_for_change(-math.inf), registry.wait_for_stable(1000)):
        with assert_checkpoints(), trio.fail_after(INSTANT):
            assert (await wait).views == ()
    assert (await registry.wait_until(lambda at: not at.views)) is registry.snapshot
    for never in (registry.wait_for_change(registry.last_changed), registry.wait_until(lambda at: bool(at.views))):
        with assert_checkpoints(), pytest.raises(RegistryClosedError):
            await never


async def test_changes_end(autojump_clock: MockClock) -> None:
    """Closing gives everyone who follows one last change with all views removed, and then the end."""
    got: list[Change[Feature]] = []

    async def follow(registry: Registry[Feature]) -> None:
        got.extend([change async for change in registry.changes()])

    async with open_fleet() as fleet, trio.open_nursery() as nursery, fleet.open(A, B) as registry:
        nursery.start_soon(follow, registry)
        await registry.wait_until(all_healthy)
        await wait_all_tasks_blocked()
    assert len(got[-1].removed) == 2
    assert got[-1].new.views == ()
    assert sum(bool(change.removed) for change in got) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(registry.changes(since=registry.snapshot.version))


async def test_changes_end_for_a_slow_reader(autojump_clock: MockClock) -> None:
    """Who was about something else when the registry was closed is told of it, too: one last change, then the end."""
    async with open_fleet() as fleet:
        async with fleet.open(A, B) as registry:
            await registry.wait_until(all_healthy)
            changes = registry.changes()
            await anext(changes)
        left = [change async for change in changes]
    assert [len(change.removed) for change in left] == [2]
    assert left[0].new.views == ()


async def test_calls_after_the_block(autojump_clock: MockClock) -> None:
    """A view that was kept fails every call at once, also those that wait; a call in flight fails as well."""
    async with open_fleet() as fleet, trio.open_nursery() as nursery:
        async with fleet.open(A) as registry:
            view = (await registry.wait_until(all_healthy)).view(A)
            fleet[A].view.hang = True

            async def hangs() -> None:
                with pytest.raises(UnavailableError):
                    await view.diagnostics().stats(StatsRequest())

            nursery.start_soon(hangs)
            await fleet[A].view.wait_requests(2)
        for channel in (view.channel, view.channel.waiting()):
            with trio.fail_after(INSTANT), pytest.raises(UnavailableError, match="the registry was closed"):
                await channel.stub(DiagnosticsStub).stats(StatsRequest())
