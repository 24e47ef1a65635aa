"""A whole cluster inside a test: what it is made of, what can happen to it, and that it happens the same way again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio
from trio.testing import MockClock

from viewreg import (
    Connectivity,
    Feature,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    ViewregError,
    open_registry,
)
from viewreg.rpc import StatsRequest
from viewreg.testing import FakeCluster, MemoryNetwork, open_fake_cluster, open_fake_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg import Registry, Snapshot

GUARD = 10.0  # seconds; the machine may be busy


def healthy(count: int) -> Callable[[Snapshot], bool]:
    """So many views are healthy."""
    return lambda snapshot: len(snapshot.healthy_views()) == count


async def test_what_it_is_made_of(autojump_clock: MockClock) -> None:
    """Equal parts, each served by so many replicas, which stand next to each other."""
    async with open_fake_cluster(partitions=4, replicas=3) as cluster, open_registry(**cluster.connect) as registry:
        snapshot = await registry.wait_until(healthy(12))
        assert [str(view.partition) for view in cluster.views[2:7]] == [
            "SPO: 0x00.. - 0x40..",
            "SPO: 0x40.. - 0x80..",
            "SPO: 0x40.. - 0x80..",
            "SPO: 0x40.. - 0x80..",
            "SPO: 0x80.. - 0xC0..",
        ]
        for view in cluster.views:
            assert snapshot.view(view.endpoint).partition == view.partition
        assert str(cluster.views[11].endpoint) == "tcp://view-11:8080"
        assert repr(cluster) == "<FakeCluster of 12 views, 12 running, 12 listed>"


async def test_both_encodings(autojump_clock: MockClock) -> None:
    """One cluster may serve both hash spaces."""
    encodings = (KeyEncoding.SPO, KeyEncoding.POS)
    async with (
        open_fake_cluster(partitions=2, replicas=1, encodings=encodings) as cluster,
        open_registry(**cluster.connect) as registry,
    ):
        snapshot = await registry.wait_until(healthy(4))
        assert len(snapshot.healthy_views(Feature.HASH_SP)) == len(snapshot.healthy_views(Feature.HASH_PO)) == 2


async def test_a_days_work(autojump_clock: MockClock) -> None:
    """Views stop, freeze, restart, move and leave discovery; the registry follows, and the others stay healthy."""
    async with open_fake_cluster(partitions=2, replicas=2) as cluster, open_registry(**cluster.connect) as registry:
        first, second, third, fourth = cluster.views
        await registry.wait_until(healthy(4))

        await first.stop()
        await registry.wait_until(healthy(3))
        assert registry.snapshot.view(first.endpoint).connectivity is Connectivity.TRANSIENT_FAILURE
        await first.restart()
        await registry.wait_until(healthy(4))

        second.freeze()
        await registry.wait_until(healthy(3))
        second.thaw()
        await registry.wait_until(healthy(4))

        before = third.endpoint
        await third.move(partition=fourth.partition)
        await registry.wait_until(
            lambda s: len(s.healthy_views()) == 4 and third.endpoint in [v.endpoint for v in s.views]
        )
        assert third.endpoint != before
        assert before not in [view.endpoint for view in registry.all_views()]

        cluster.remove(fourth)
        await registry.wait_until(lambda snapshot: len(snapshot.views) == 3)
        assert fourth.running
        cluster.add(fourth)
        await registry.wait_until(healthy(4))

        cluster.network.link(first.endpoint).reset()
        await registry.wait_until(healthy(3))
        await registry.wait_until(healthy(4))


async def test_leaving_ends_everything(autojump_clock: MockClock) -> None:
    """After the block no task and no connection is left, frozen views included."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_fake_cluster(partitions=2, replicas=1) as cluster, open_registry(**cluster.connect) as registry:
        await registry.wait_until(healthy(2))
        cluster.views[0].freeze()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert [cluster.network.link(view.endpoint).connections for view in cluster.views] == [0, 0]


async def test_an_error_of_the_body_leaves_as_itself(autojump_clock: MockClock) -> None:
    """No ExceptionGroup, so that a failed assertion in a test looks like one."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_fake_cluster(partitions=1, replicas=2):
            raise error
    assert caught.value is error


async def trouble(seed: int) -> list[tuple[float, str]]:
    """What a registry saw of a cluster with slow, uneven links on which servers come and go, and when."""
    seen: list[tuple[float, str]] = []
    async with open_fake_cluster(partitions=3, replicas=1, seed=seed) as cluster:
        for view in cluster.views:
            cluster.network.link(view.endpoint).delay(0.05, jitter=0.03)
        async with open_registry(**cluster.connect) as registry:
            await registry.wait_until(healthy(3))
            for index, view in enumerate(cluster.views):
                await trio.sleep(10 + index)
                view.kill()
                await registry.wait_until(healthy(2))
                await trio.sleep(2 + index)
                await view.restart()
                await registry.wait_until(healthy(3))
            for view in cluster.views:
                history = registry.history(view.endpoint)
                seen += [(round(entry.when, 9), f"{view.endpoint} {entry.what}") for entry in history]
    return seen


def test_the_same_seed_the_same_story() -> None:
    """All that is random comes from the seed, to the nanosecond; the order in which Trio runs tasks does not show."""
    first, again, third, other = [
        trio.run(trouble, seed, clock=MockClock(autojump_threshold=0)) for seed in (7, 7, 7, 8)
    ]
    assert first == again == third
    assert first != other
    assert [what for _, what in first] == [what for _, what in other]


async def test_a_network_of_ones_own(autojump_clock: MockClock) -> None:
    """A cluster may share a network with other servers; on it, names are its own."""
    network = MemoryNetwork()
    async with (
        open_fake_view(where=network) as other,
        open_fake_cluster(where=network, partitions=1, replicas=1) as cluster,
    ):
        assert cluster.network is network
        cluster.locator.set([other.endpoint, *[view.endpoint for view in cluster.views]])
        async with open_registry(**cluster.connect) as registry:
            await registry.wait_until(healthy(2))


@pytest.mark.parametrize("where", ["loopback", "process"])
async def test_on_sockets(where: Literal["loopback", "process"]) -> None:
    """The same cluster on real sockets, in real time."""
    with trio.fail_after(3 * GUARD):
        async with open_fake_cluster(partitions=2, replicas=1, where=where) as cluster:
            async with open_registry(**cluster.connect) as registry:
                await registry.wait_until(healthy(2))
                cluster.views[0].kill()
                await registry.wait_until(healthy(1))
                await cluster.views[0].restart()
                await registry.wait_until(healthy(2))
                for view in registry.all_views():
                    await view.diagnostics().stats(StatsRequest())
            with pytest.raises(ViewregError, match="has no network of its own"):
                _ = cluster.network


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"partitions": 0}, InvalidValueError, "partitions 0: expected a whole number from 1 to 256"),
        ({"replicas": 101}, InvalidValueError, "replicas 101: expected a whole number from 1 to 100"),
        ({"replicas": 2.0}, InvalidTypeError, "replicas 2.0"),
        ({"encodings": ()}, InvalidValueError, r"encodings \(\): expected an iterable"),
        ({"encodings": KeyEncoding.SPO}, InvalidTypeError, "encodings .*: expected an iterable"),
        ({"encodings": ["SPO"]}, InvalidTypeError, "encodings 'SPO'"),
        ({"encodings": [KeyEncoding.SPO] * 2}, InvalidValueError, "at most once"),
        ({"seed": "x"}, InvalidTypeError, "seed 'x'"),
        ({"where": "cloud"}, InvalidTypeError, "where 'cloud'"),
        ({"facts": -1}, InvalidValueError, "facts -1"),
    ],
)
async def test_bad_arguments(
    autojump_clock: MockClock, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    """What cannot be is refused, with the value and what is allowed."""
    with pytest.raises(error, match=match):
        async with open_fake_cluster(**arguments):
            pass


async def test_what_discovery_cannot_do(autojump_clock: MockClock) -> None:
    """Removing what is not listed, adding what is, and a view of another cluster: each says so."""
    async with (
        open_fake_cluster(partitions=1, replicas=1) as cluster,
        open_fake_cluster(partitions=1, replicas=1) as other,
    ):
        [view] = cluster.views
        with pytest.raises(ViewregError, match="discovery lists it already"):
            cluster.add(view)
        cluster.remove(view)
        with pytest.raises(ViewregError, match="discovery does not list it"):
            cluster.remove(view)
        with pytest.raises(InvalidValueError, match=r"expected one of cluster\.views"):
            cluster.remove(other.views[0])
        await view.stop()
        with pytest.raises(ViewregError, match="has ended: restart it first"):
            await view.stop()
        assert isinstance(cluster, FakeCluster)


async def seen_by(registry: Registry) -> list[str]:
    """The addresses of all views."""
    return [str(view.endpoint) for view in registry.all_views()]


async def test_moving_while_not_listed(autojump_clock: MockClock) -> None:
    """A view that discovery does not list may move; nobody hears of it before it is added."""
    async with open_fake_cluster(partitions=1, replicas=1) as cluster, open_registry(**cluster.connect) as registry:
        [view] = cluster.views
        cluster.remove(view)
        await view.move()
        await registry.wait_for_stable(1)
        assert await seen_by(registry) == []
        cluster.add(view)
        await registry.wait_until(healthy(1))
        assert await seen_by(registry) == [str(view.endpoint)]
