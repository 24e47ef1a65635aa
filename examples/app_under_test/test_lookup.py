"""How an application on viewreg is tested: with values, with a cluster in memory, and with ten bad minutes of it.

Rules:
* All time is virtual: pytest-trio's `autojump_clock` jumps to the next moment at which something happens.
* Truth comes from the views themselves, asked before anything goes wrong.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
from failures import FAILURES, Failure, do
from lookup import FactLookup, LookupFailedError, replicas

from viewreg import FactPartition, InvalidArgumentError, KeyEncoding, StaticLocator, StatusCode, hash_sp, open_registry
from viewreg.rpc import CarouselRequest
from viewreg.testing import make_snapshot, make_view

if TYPE_CHECKING:
    from trio.testing import MockClock

    from viewreg import Registry
    from viewreg.testing import FakeCluster, FakeView, MemoryNetwork

    Truth: TypeAlias = dict[tuple[int, int], list[bytes]]

LOWER, UPPER = (FactPartition.nth(KeyEncoding.SPO, i, of=2) for i in range(2))
ABSENT = (1, 1)  # subject and predicate of which there is no fact

pytestmark = pytest.mark.viewreg(partitions=2, replicas=3)


# -- with values: no server, no time --


def test_replicas_are_healthy_views_of_the_right_partition() -> None:
    """Only healthy views whose partition holds the hash are asked."""
    right, ill = make_view("a:1", partition=LOWER), make_view("b:1", partition=LOWER, healthy=False)
    other = make_view("c:1", partition=UPPER)
    by_object = make_view("d:1", partition=FactPartition.nth(KeyEncoding.POS, 0, of=2))
    timeouts = make_view("e:1", partition=None)
    snapshot = make_snapshot(right, ill, other, by_object, timeouts)
    assert replicas(snapshot, LOWER.hash_range.start) == [right]
    assert replicas(snapshot, UPPER.hash_range.start) == [other]


# -- with a cluster: one thing goes wrong --


async def truth_of(registry: Registry) -> Truth:
    """Ask one view of each partition for all its facts."""
    facts = {}
    for view in {view.partition: view for view in registry.healthy_views()}.values():
        async with view.carousel().ride(CarouselRequest()) as ride:
            async for chunk in ride:  # it goes round for ever
                if chunk.facts[0].index in facts:
                    break
                facts.update({fact.index: fact for fact in chunk.facts})
    truth: Truth = defaultdict(list)
    for fact in facts.values():
        truth[fact.subject, fact.predicate].append(fact.object)
    return {**truth, ABSENT: []}


def holders(cluster: FakeCluster, pair: tuple[int, int]) -> list[FakeView]:
    """The replicas that hold the facts of a subject and predicate."""
    return [view for view in cluster.views if hash_sp(*pair) in view.partition.hash_range]


def asked(view: FakeView) -> int:
    """How many lookups it has seen."""
    return sum(call.method == "ReadFactsSP.lookupSP" for call in view.calls)


async def test_all_facts_are_found(viewreg_registry: Registry, autojump_clock: MockClock) -> None:
    """Every fact of every partition is found, and what is not there is not."""
    lookup = FactLookup(viewreg_registry)
    truth = await truth_of(viewreg_registry)
    assert len(truth) > 100
    for pair, objects in truth.items():
        assert await lookup.objects(*pair) == objects


async def test_replicas_share_the_load(
    viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock
) -> None:
    """All replicas of a partition are asked, and no view that does not hold the fact."""
    lookup = FactLookup(viewreg_registry, rng=Random(7))
    for _ in range(60):
        await lookup.objects(*ABSENT)
    for view in viewreg_cluster.views:
        assert asked(view) > 10 if view in holders(viewreg_cluster, ABSENT) else asked(view) == 0


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_another_replica_is_asked(
    failure: Failure, viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock
) -> None:
    """One good replica is enough, however the others fail, whether the registry has noticed that or not."""
    truth = await truth_of(viewreg_registry)
    lookup = FactLookup(viewreg_registry, try_time=0.5)
    pair = min(truth.keys() - {ABSENT})
    bad, worse, _ = holders(viewreg_cluster, pair)
    await do(failure.begin, viewreg_cluster, bad)
    await do(failure.begin, viewreg_cluster, worse)
    for _ in range(10):
        began = trio.current_time()
        assert await lookup.objects(*pair) == truth[pair]
        assert trio.current_time() - began <= 2 * 0.5


async def test_a_replica_may_change_sides(
    viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock
) -> None:
    """A view that serves other facts by the time an attempt at another one has failed is not asked."""
    truth = await truth_of(viewreg_registry)
    lookup = FactLookup(viewreg_registry, try_time=0.5)
    pair = min(truth.keys() - {ABSENT})
    slow, changing, _ = holders(viewreg_cluster, pair)
    await slow.hang()

    async def look_up() -> None:
        assert await lookup.objects(*pair) == truth[pair]

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(look_up)
        await trio.sleep(0.1)
        await changing.restart(partition=UPPER if changing.partition == LOWER else LOWER)


async def test_it_waits_for_a_replica(
    viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """While a whole partition is away, a lookup waits; it ends soon after the first replica is back."""
    truth = await truth_of(viewreg_registry)
    pair = min(truth.keys() - {ABSENT})
    away = holders(viewreg_cluster, pair)
    for view in away:
        view.kill()

    async def come_back() -> None:
        await trio.sleep(5)
        await away[0].restart()

    nursery.start_soon(come_back)
    began = trio.current_time()
    assert await FactLookup(viewreg_registry).objects(*pair) == truth[pair]
    assert 5 <= trio.current_time() - began < 5 + 1.5


async def test_it_gives_up(viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock) -> None:
    """When no replica answers, a lookup ends when its time is over, and says what became of the last attempt."""
    for view in holders(viewreg_cluster, ABSENT):
        await view.hang()
    began = trio.current_time()
    with pytest.raises(LookupFailedError, match=r"subject 1, predicate 1: no answer in 5 s; tcp://.*TooSlowError"):
        await FactLookup(viewreg_registry, total_time=5).objects(*ABSENT)
    assert trio.current_time() - began == pytest.approx(5)


async def test_it_gives_up_without_any_view(viewreg_network: MemoryNetwork, autojump_clock: MockClock) -> None:
    """An empty cluster is no reason to wait for ever."""
    async with open_registry(StaticLocator(), dial=viewreg_network.dial) as registry:
        with pytest.raises(LookupFailedError, match="there is no healthy view of it"):
            await FactLookup(registry).objects(*ABSENT)


async def test_a_refusal_is_no_failure_of_the_server(
    viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock
) -> None:
    """What every replica would refuse is raised at once, and not asked of the next one."""
    for view in viewreg_cluster.views:
        await view.fail(StatusCode.INVALID_ARGUMENT, "no such index")
    with pytest.raises(InvalidArgumentError, match="no such index"):
        await FactLookup(viewreg_registry).objects(*ABSENT)
    assert sum(map(asked, viewreg_cluster.views)) == 1


async def test_a_replica_knows_how_long_it_has(
    viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock
) -> None:
    """The time for one attempt goes to the server; and the server learns that it was given up."""
    only, *others = holders(viewreg_cluster, ABSENT)
    for view in others:
        viewreg_cluster.remove(view)
    await only.hang()
    with pytest.raises(LookupFailedError):
        await FactLookup(viewreg_registry, try_time=0.25, total_time=0.25).objects(*ABSENT)
    calls = await only.wait_for_calls(lambda calls: calls[-1].cancelled)
    assert calls[-1].timeout == pytest.approx(0.25)


# -- with a cluster: everything goes wrong --


async def let_all_go_wrong(cluster: FakeCluster, rng: Random) -> None:
    """For ten minutes: every failure there is, to two of three replicas, for 17 s; at last, the loss of a partition."""
    for failure in FAILURES.values():
        partition = rng.choice((LOWER, UPPER))
        victims = rng.sample([view for view in cluster.views if view.partition == partition], 2)
        for act in failure:
            for view in victims:
                await do(act, cluster, view)
            await trio.sleep(17 if act is failure.begin else 14)
    lost = [view for view in cluster.views if view.partition == LOWER]
    for view in lost:
        view.kill()
    await trio.sleep(5)
    for view in lost:
        await view.restart()
    await trio.sleep_until(600)


async def test_ten_bad_minutes(
    viewreg_cluster: FakeCluster, viewreg_registry: Registry, autojump_clock: MockClock
) -> None:
    """Through ten minutes of failures, every lookup is answered, truly and in its time."""
    truth = await truth_of(viewreg_registry)
    rng = Random(1)
    lookup = FactLookup(viewreg_registry, total_time=10, rng=rng)
    took = []

    async def look_up() -> None:
        pair = rng.choice(list(truth))
        began = trio.current_time()
        assert await lookup.objects(*pair) == truth[pair]
        took.append(trio.current_time() - began)

    async def keep_looking_up() -> None:
        while True:
            lookups.start_soon(look_up)
            await trio.sleep(0.5)

    async with trio.open_nursery() as lookups, trio.open_nursery() as load:
        load.start_soon(keep_looking_up)
        await let_all_go_wrong(viewreg_cluster, rng)
        load.cancel_scope.cancel()
    assert len(took) >= 1_190
    assert max(took) < 10
    assert sorted(took)[len(took) * 9 // 10] < 0.1  # and nine of ten have not noticed anything
