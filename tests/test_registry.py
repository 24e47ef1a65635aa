"""The registry as readers and waiters see it, on a fleet in memory, in virtual time."""

from __future__ import annotations

import io
import itertools
import math
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from fleet import INSTANT, Does, all_healthy, hosts, open_fleet, stats, unhealthy
from viewreg import Config, Connectivity, Discovery, Endpoint, Feature
from viewreg._health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from viewreg import Snapshot

A, B, C = "a:1", "b:1", "c:1"

# -- reading --


async def test_views_are_there_at_once(autojump_clock: MockClock) -> None:
    """When the block begins, the endpoints that the locator knows are views, IDLE and without features."""
    async with open_fleet() as fleet, fleet.open(B, A) as registry:
        assert [view.connectivity for view in registry.all_views()] == [Connectivity.IDLE] * 2
        assert hosts(registry.snapshot.views) == [A, B]
        assert registry.healthy_views() == []
        assert registry.snapshot.views[0].features == Feature(0)


async def test_the_order_is_the_originals(autojump_clock: MockClock) -> None:
    """A snapshot's views are sorted by host and then by port as a text, each endpoint once, whatever comes and goes."""
    async with open_fleet(simple=True) as fleet, fleet.open("b:9", "a:9", "b:10", "a:10", "a:9") as registry:
        assert hosts(registry.snapshot.views) == ["a:10", "a:9", "b:10", "b:9"]
        fleet.locator.set(["b:10", "a:100", "a:9"])
        found = await registry.wait_until(lambda at: len(at.views) == 3)
        assert hosts(found.views) == ["a:100", "a:9", "b:10"]
        await registry.wait_until(all_healthy)
        assert hosts(registry.snapshot.views) == ["a:100", "a:9", "b:10"]


async def test_lists_are_fresh(autojump_clock: MockClock) -> None:
    """What a reader does to its lists changes nothing for others."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        registry.all_views().clear()
        registry.healthy_views().clear()
        assert hosts(registry.all_views()) == hosts(registry.healthy_views()) == [A]


async def test_healthy_views_by_feature(autojump_clock: MockClock) -> None:
    """Healthy views are selected by the features that the servers said they have."""
    async with open_fleet() as fleet:
        fleet[B].view.stats = stats("POS")
        async with fleet.open(A, B, C) as registry:
            fleet[C].does = Does.REFUSE
            await registry.wait_until(lambda at: len(at.healthy_views()) == 2)
            assert hosts(registry.healthy_views(Feature.HASH_SP)) == [A]
            assert hosts(registry.healthy_views(Feature.HASH_PO, Feature.CAROUSEL)) == [B]
            assert hosts(registry.healthy_views(Feature.CAROUSEL)) == [A, B]


async def test_a_snapshot_is_made_once(autojump_clock: MockClock) -> None:
    """The snapshot is the same object until something changes, and old ones stay what they were."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        old = await registry.wait_until(all_healthy)
        assert registry.snapshot is old
        fleet[A].cut()
        new = await registry.wait_until(unhealthy(A))
        assert new is not old
        assert old.views[0].healthy
        assert new.version > old.version


async def test_versions_and_times_increase(autojump_clock: MockClock) -> None:
    """No two versions share a number or a time, however many changes one instant brings."""
    async with open_fleet(simple=True) as fleet, fleet.open() as registry:
        seen: list[tuple[int, float]] = [(registry.version, registry.last_changed)]
        original = registry._advance

        def advance() -> None:
            original()
            seen.append((registry.version, registry.last_changed))

        registry._advance = advance  # type: ignore[method-assign]
        fleet.locator.set([f"h{number}:1" for number in range(200)])
        await registry.wait_until(all_healthy)
        assert trio.current_time() == 0.0
    assert len(seen) > 600
    for (version, when), (next_version, next_when) in itertools.pairwise(seen):
        assert next_version > version
        assert next_when > when
    assert seen[-1][1] < INSTANT


async def test_changing_is_no_checkpoint(autojump_clock: MockClock) -> None:
    """The state changes in one step: what a supervisor found out, and what discovery lists."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        handle = registry._handles[A]
        with assert_no_checkpoints():
            registry._discovered(Discovery(100, (Endpoint("a", 1), Endpoint("b", 1))))
            registry._apply(handle, Health(Feature(0)))
        assert hosts(registry.all_views()) == [A, B]
        assert registry.healthy_views() == []


async def test_stale_writers_are_dropped(autojump_clock: MockClock) -> None:
    """Whoever speaks for an endpoint that has been removed changes nothing, not even if it was added again."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        stale = registry._handles[A]
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        fleet.locator.set([A])
        await registry.wait_until(all_healthy)
        version = registry.version
        registry._apply(stale, Health(Feature(0)))
        assert registry.version == version
        assert hosts(registry.healthy_views()) == [A]


async def test_dump_with_reasons(autojump_clock: MockClock) -> None:
    """With reasons the dump says below each view what last happened to it."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        fleet[A].does = Does.REFUSE
        await trio.sleep(0.05)
        file = io.StringIO()
        registry.dump(file, reasons=True)
        assert file.getvalue() == (
            "View Registry\n"
            "Last changed: 100ms ago\n"
            '0: View{Endpoint:"tcp://a:1" Partition: Features: Healthy:false}\n'
            "   connecting failed: Connection refused (ECONNREFUSED)\n"
        )


async def test_summary(autojump_clock: MockClock) -> None:
    """The registry's summary is that of its newest snapshot, and fit for logging's `extra`."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        await trio.sleep(2)
        found = registry.summary()
        assert found["all_views"] == found["healthy_views"] == found["hash_sp_views"] == 2
        assert found["time_since_last_change"] == pytest.approx(2, abs=INSTANT)
        assert found.keys().isdisjoint(vars(__import__("logging").makeLogRecord({})))


async def test_reading_from_a_thread(autojump_clock: MockClock) -> None:
    """A snapshot may be read in any thread."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        found = await registry.wait_until(all_healthy)

        def read() -> tuple[int, str, int, int]:
            file = io.StringIO()
            found.dump(file)
            return (
                len(found.healthy_views(Feature.HASH_SP)),
                file.getvalue(),
                len(found.summary()),
                len(found.all_views()),
            )

        count, text, keys, every = await trio.to_thread.run_sync(read)
        assert (count, keys, every) == (2, 7, 2)
        assert text.startswith("View Registry\nLast changed: ")
        assert text.count("View{") == 2


# -- waiting --


async def test_every_wait_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """Each wait is a checkpoint also when its condition holds already, and takes no time then."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        waits: list[Callable[[], Any]] = [
            lambda: registry.wait_for_change(-math.inf),
            lambda: registry.wait_for_stable(0),
            lambda: registry.wait_for_stable(-1),
            lambda: registry.wait_until(all_healthy),
            lambda: registry.changes().__anext__(),
            registry.snapshot.view(A).channel.wait_ready,
        ]
        for wait in waits:
            with assert_checkpoints(), trio.fail_after(INSTANT):
                await wait()


async def test_wait_for_change(autojump_clock: MockClock) -> None:
    """Waiting for a change after what one has seen returns at the next one, with the snapshot that has it."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        seen = registry.last_changed
        with trio.move_on_after(20):
            await registry.wait_for_change(seen)
            pytest.fail("nothing has changed")
        fleet[A].cut()
        found = await registry.wait_for_change(seen)
        assert found.last_changed > seen
        assert not found.views[0].healthy


async def test_wait_for_stable(autojump_clock: MockClock) -> None:
    """Stable is when nothing has changed for so long: counted from the last change, which may lie in the past."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        await trio.sleep(1.5)
        await registry.wait_for_stable(2)
        assert trio.current_time() == pytest.approx(2, abs=INSTANT)
        await registry.wait_for_stable(2)
        assert trio.current_time() == pytest.approx(2, abs=INSTANT)

        async def cut() -> None:
            await trio.sleep(1)
            fleet[A].cut()

        fleet.nursery.start_soon(cut)
        await registry.wait_for_stable(4)
        assert trio.current_time() >= 7


async def test_a_dead_endpoint_is_stable(autojump_clock: MockClock) -> None:
    """An endpoint that refuses for a minute changes nothing after its first failure, however often it is tried."""
    async with open_fleet() as fleet:
        fleet[C].does = Does.REFUSE
        async with fleet.open(A, B, C) as registry:
            await registry.wait_until(lambda at: len(at.healthy_views()) == 2)
            await trio.lowlevel.checkpoint()
            await registry.wait_until(lambda at: at.view(C).connectivity is Connectivity.TRANSIENT_FAILURE)
            version, changed = registry.version, registry.last_changed
            await registry.wait_for_stable(2)
            assert trio.current_time() == pytest.approx(2, abs=INSTANT)
            await trio.sleep(60)
            assert (registry.version, registry.last_changed) == (version, changed)
            assert len(fleet[C].dials) > 50
            assert registry.history(C)[-1].times > 50


async def test_predicates_may_raise(autojump_clock: MockClock) -> None:
    """What a predicate raises comes out of `wait_until`, at once or later."""
    async with open_fleet() as fleet, fleet.open(A) as registry:

        def picky(snapshot: Snapshot[Feature]) -> bool:
            if snapshot.healthy_views():
                raise ValueError("not like this")
            return False

        with pytest.raises(ValueError, match="not like this"):
            await registry.wait_until(picky)
        with pytest.raises(ValueError, match="not like this"):
            await registry.wait_until(picky)


async def test_a_thousand_waiters(autojump_clock: MockClock) -> None:
    """One change wakes all who wait for it, and each gets the same snapshot."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        woken: list[Snapshot[Feature]] = []

        async def wait() -> None:
            woken.append(await registry.wait_until(unhealthy(A)))

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            fleet[A].cut()
        assert len(woken) == 1000
        assert len({found.version for found in woken}) == 1


# -- changes --


async def test_changes_begin_with_what_is_there(autojump_clock: MockClock) -> None:
    """The first change brings all views as additions; then each one what is different."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        changes = registry.changes()
        first = await anext(changes)
        assert (hosts(first.added), first.removed, first.updated) == ([A, B], (), ())
        assert first.old.views == ()
        fleet[A].does = Does.REFUSE
        fleet[A].cut()
        second = await anext(changes)
        assert (second.added, second.removed, hosts(second.updated)) == ((), (), [A])
        assert second.old is first.new
        fleet.locator.set([B, C])
        third = await anext(changes)
        assert (hosts(third.added), hosts(third.removed), third.updated) == ([C], [A], ())


async def test_slow_readers_skip(autojump_clock: MockClock) -> None:
    """Who reads slowly gets one change for all that happened, and never loses the newest."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        changes = registry.changes()
        await anext(changes)
        fleet.locator.set([A, B])
        await trio.sleep(30)
        fleet.locator.set([B, C])
        await trio.sleep(30)
        change = await anext(changes)
        assert (hosts(change.added), hosts(change.removed)) == ([B, C], [A])
        assert change.new is registry.snapshot
        with trio.move_on_after(5) as scope:
            await anext(changes)
        assert scope.cancelled_caught


async def test_changes_since(autojump_clock: MockClock) -> None:
    """From a version that was read one gets what changed since; from an unknown one everything as additions."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        old = await registry.wait_until(all_healthy)
        fleet.locator.set([B, C])
        await registry.wait_until(lambda at: hosts(at.healthy_views()) == [B, C])
        change = await anext(registry.changes(since=old.version))
        assert change.old is old
        assert (hosts(change.added), hosts(change.removed)) == ([C], [A])
        for unknown in (10_000, -5):
            change = await anext(registry.changes(since=unknown))
            assert (hosts(change.added), change.removed) == ([B, C], ())
        with trio.move_on_after(5) as scope:
            await anext(registry.changes(since=registry.snapshot.version))
        assert scope.cancelled_caught


async def test_snapshots_are_remembered_for_a_while(autojump_clock: MockClock) -> None:
    """The last 64 snapshots that were read can be asked for, an older one counts as unknown."""
    async with open_fleet(simple=True) as fleet, fleet.open() as registry:
        read = []
        for number in range(70):
            registry._discovered(Discovery(number + 10, (Endpoint("h", number + 1),)))
            read.append(registry.snapshot)
        assert (await anext(registry.changes(since=read[-64].version))).old is read[-64]
        assert (await anext(registry.changes(since=read[-65].version))).old.views == ()


async def test_cancelled_readers_lose_nothing(autojump_clock: MockClock) -> None:
    """A reader that is cancelled while it waits gets the same change when it asks again."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        changes = registry.changes()
        await registry.wait_until(all_healthy)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(changes)
        assert hosts((await anext(changes)).added) == [A]


async def test_a_new_channel_is_a_change(autojump_clock: MockClock) -> None:
    """A view whose endpoint went and came back is news, though it says the same: its old channel is dead."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        old = await registry.wait_until(all_healthy)
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        fleet.locator.set([A])
        new = await registry.wait_until(all_healthy)
        assert new.view(A).channel is not old.view(A).channel
        change = await anext(registry.changes(since=old.version))
        assert hosts(change.updated) == [A] or (hosts(change.added), hosts(change.removed)) == ([A], [A])


class LowerEnd(Random):
    """Always draws the lower end, and is made of something else than a seed."""

    def __init__(self, point: float) -> None:
        super().__init__(0)
        self.point = point

    def random(self) -> float:
        return self.point


async def test_a_generator_of_ones_own(autojump_clock: MockClock) -> None:
    """A subclass of Random decides itself: it is used as it is, however it is made."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(probe_jitter=0.1), rng=LowerEnd(0.0)) as registry:
        await registry.wait_until(all_healthy)
        await trio.sleep(45.5)
        assert fleet[A].probes == 6  # every 9 s instead of every 10
