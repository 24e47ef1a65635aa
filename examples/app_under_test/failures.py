"""What can go wrong with a view server, and with the way to it: a table, to choose from.

Rules:
* A failure has a beginning and an end, both of which get the cluster and a view.
* It does not know what time it is: how long things stay bad is up to the test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Final, NamedTuple

from viewreg import FactPartition, HashRange, StatusCode
from viewreg.testing import Direction, FakeCluster, FakeView, Link

Act = Callable[[FakeCluster, FakeView], Awaitable[None] | None]


class Failure(NamedTuple):
    """One thing that goes wrong, and what makes it well again."""

    begin: Act
    end: Act


async def do(act: Act, cluster: FakeCluster, view: FakeView) -> None:
    """Begin a failure, or end it."""
    done = act(cluster, view)
    if isawaitable(done):
        await done


def _link(cluster: FakeCluster, view: FakeView) -> Link:
    return cluster.network.link(view.endpoint)


def _refuse(cluster: FakeCluster, view: FakeView) -> None:
    _link(cluster, view).refuse()
    _link(cluster, view).reset()


def _black_hole(cluster: FakeCluster, view: FakeView) -> None:
    _link(cluster, view).black_hole()
    _link(cluster, view).reset()


async def _serve_other_facts(_: FakeCluster, view: FakeView) -> None:
    await view.restart(partition=_opposite(view.partition))


def _opposite(partition: FactPartition) -> FactPartition:
    """Return the other one of two."""
    start, end = partition.hash_range.start, partition.hash_range.end
    return FactPartition(partition.encoding, HashRange(0, start) if end is None else HashRange(end, None))


def _answer(_: FakeCluster, view: FakeView) -> Awaitable[None]:
    return view.answer()


def _restart(_: FakeCluster, view: FakeView) -> Awaitable[None]:
    return view.restart()


def _restore(cluster: FakeCluster, view: FakeView) -> None:
    _link(cluster, view).restore()


FAILURES: Final = {
    # The server.
    "kill": Failure(lambda _, view: view.kill(), _restart),
    "stop": Failure(lambda _, view: view.stop(), _restart),
    "freeze": Failure(lambda _, view: view.freeze(), lambda _, view: view.thaw()),
    "move": Failure(lambda _, view: view.move(), lambda _, view: view.move()),
    "other facts": Failure(_serve_other_facts, _serve_other_facts),
    # What it answers.
    "hang": Failure(lambda _, view: view.hang(), _answer),
    "slow": Failure(lambda _, view: view.slow(3), _answer),
    "fail": Failure(lambda _, view: view.fail(StatusCode.UNAVAILABLE, "out of order"), _answer),
    "lie": Failure(lambda _, view: view.lie(viewType="megaview"), _answer),
    "garble": Failure(lambda _, view: view.garble(), _answer),
    # The way to it.
    "cut": Failure(lambda cluster, view: _link(cluster, view).cut(), _restore),
    "half cut": Failure(lambda cluster, view: _link(cluster, view).cut(Direction.TO_CLIENT), _restore),
    "delay": Failure(lambda cluster, view: _link(cluster, view).delay(0.1, jitter=0.05), _restore),
    "limit": Failure(lambda cluster, view: _link(cluster, view).limit(200), _restore),
    "reset": Failure(
        lambda cluster, view: _link(cluster, view).reset(), lambda cluster, view: _link(cluster, view).reset()
    ),
    "refuse": Failure(_refuse, _restore),
    "black hole": Failure(_black_hole, _restore),
    # What discovery says.
    "unlisted": Failure(lambda cluster, view: cluster.remove(view), lambda cluster, view: cluster.add(view)),
}
