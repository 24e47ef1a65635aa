"""Waiting for coverage, and coverage of a registry's own servers, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from fleet import Does, all_healthy, hosts, open_fleet, reason, stats, unhealthy
from viewreg import (
    Channel,
    FactPartition,
    Feature,
    HashRange,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    ProbeResult,
    RegistryClosedError,
    open_registry,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from fleet import Fleet
    from viewreg import Registry

SP = Feature.HASH_SP
MIDDLE = 2**63
LOW, LOW_TOO, HIGH = "a:1", "b:1", "c:1"


def halves(fleet: Fleet) -> None:
    """Two servers of the lower half, one of the upper."""
    fleet[LOW].view.stats = fleet[LOW_TOO].view.stats = stats("SPO", 0, MIDDLE)
    fleet[HIGH].view.stats = stats("SPO", MIDDLE)


async def test_wait_for_coverage(autojump_clock: MockClock) -> None:
    """The wait ends in the very version in which the last hash is served often enough, with its snapshot."""
    async with open_fleet() as fleet:
        halves(fleet)
        fleet[HIGH].does = fleet[LOW].does = Does.REFUSE
        async with fleet.open(LOW, LOW_TOO, HIGH) as registry:
            await trio.sleep(5)
            assert registry.snapshot.coverage(SP).gaps == (HashRange(MIDDLE, None),)
            fleet[HIGH].does = Does.SERVE
            found = await registry.wait_for_coverage(SP)
            assert trio.current_time() < 7
            assert hosts(found.healthy_views()) == [LOW_TOO, HIGH]
            fleet[LOW].does = Does.SERVE
            found = await registry.wait_for_coverage(SP, 2, space=HashRange(0, MIDDLE))
            assert hosts(assignment.view for assignment in found.cover(SP)) == [LOW, HIGH]
            with trio.move_on_after(60) as scope:
                await registry.wait_for_coverage(SP, replicas=2)
            assert scope.cancelled_caught


async def test_it_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """Waiting for coverage that is there already is a checkpoint and takes no time."""
    async with open_fleet() as fleet:
        halves(fleet)
        async with fleet.open(LOW, HIGH) as registry:
            await registry.wait_for_coverage(SP)
            with assert_checkpoints():
                await registry.wait_for_coverage(SP)
            assert trio.current_time() < 1


async def test_coverage_that_moves_away(autojump_clock: MockClock) -> None:
    """Whoever waits is not misled by parts that come and go: only what holds at one moment counts."""
    async with open_fleet() as fleet:
        halves(fleet)
        fleet[HIGH].does = Does.REFUSE
        waited: list[str] = []
        async with fleet.open(LOW, HIGH) as registry:

            async def wait() -> None:
                waited.extend(hosts((await registry.wait_for_coverage(SP)).healthy_views()))

            await registry.wait_until(lambda at: at.view(LOW).healthy)
            fleet.nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            fleet[LOW].does, fleet[HIGH].does = Does.REFUSE, Does.SERVE
            fleet[LOW].cut()
            await registry.wait_until(lambda at: at.view(HIGH).healthy)
            await wait_all_tasks_blocked()
            assert waited == []
            fleet[LOW].does = Does.SERVE
            await registry.wait_until(all_healthy)
            await wait_all_tasks_blocked()
            assert waited == [LOW, HIGH]


async def test_waiting_costs_little(autojump_clock: MockClock) -> None:
    """As long as one hash is known to be served too rarely, the coverage is not worked out at every change."""
    async with open_fleet() as fleet:
        halves(fleet)
        fleet[HIGH].does = fleet[LOW_TOO].does = Does.REFUSE
        async with fleet.open(LOW, HIGH) as registry, trio.open_nursery() as nursery:
            await registry.wait_until(lambda at: at.view(LOW).healthy)
            nursery.start_soon(registry.wait_for_coverage, SP)
            await wait_all_tasks_blocked()
            assert registry.snapshot._coverages
            fleet.locator.set([LOW, LOW_TOO, HIGH])
            await registry.wait_until(lambda at: len(at.views) == 3)
            await wait_all_tasks_blocked()
            assert registry.snapshot._coverages == {}
            fleet[HIGH].does = Does.SERVE


async def test_closing_ends_the_wait(autojump_clock: MockClock) -> None:
    """When the registry is closed, whoever waits for coverage is told; what is covered no more cannot be waited for."""
    async with open_fleet() as fleet, fleet.open(LOW) as registry:
        halves(fleet)
        await registry.wait_until(all_healthy)
    with pytest.raises(RegistryClosedError):
        await registry.wait_for_coverage(SP)


@pytest.mark.parametrize(
    ("feature", "options", "kind"),
    [
        (SP, {"replicas": 0}, InvalidValueError),
        (SP, {"replicas": 1.5}, InvalidTypeError),
        (SP, {"space": range(5)}, InvalidTypeError),
        (SP, {"encoding": KeyEncoding.POS}, InvalidValueError),
        (Feature.DIAGNOSTICS, {}, InvalidValueError),
        ("HashSP", {}, InvalidTypeError),
    ],
)
async def test_nonsense_is_refused_at_once(
    feature: Any, options: dict[str, Any], kind: type[Exception], autojump_clock: MockClock
) -> None:
    """What can never be covered is an error at once, and not a wait for ever."""
    async with open_fleet() as fleet, fleet.open() as registry:
        with pytest.raises(kind):
            await registry.wait_for_coverage(feature, **options)


async def test_a_snapshot_stays_as_it_is(autojump_clock: MockClock) -> None:
    """What a snapshot says of coverage does not change when a server goes; the next snapshot says it."""
    async with open_fleet() as fleet, fleet.open(LOW) as registry:
        old = await registry.wait_for_coverage(SP)
        fleet[LOW].cut()
        new = await registry.wait_until(unhealthy(LOW))
        assert (old.coverage(SP).complete, new.coverage(SP).complete) == (True, False)
        assert new.for_hash(SP, 0) == []


class Liar:
    """A probe that finds HASH_SP where the partition is one of POS."""

    no_features = Feature(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        return ProbeResult(SP, FactPartition(KeyEncoding.POS, HashRange.FULL))


async def test_what_may_not_be_is_left_out(autojump_clock: MockClock) -> None:
    """A view that claims lookups which its partition cannot have covers nothing, and its history says why."""
    async with open_fleet() as fleet, open_registry("static:///a:1", probe=Liar(), dial=fleet.dial) as registry:
        found: Registry[Feature] = registry
        await found.wait_until(all_healthy)
        assert found.snapshot.coverage(SP).gaps == (HashRange.FULL,)
        assert reason(found, LOW) == (
            "probe answered: serves HashSP [POS: 0x00.. - ∞], "
            "which counts for no hash: HashSP goes with SPO, HashPO with POS"
        )
