"""Watched: nobody who waits misses the newest value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from viewreg._watch import Watched

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_publishing_counts(autojump_clock: MockClock) -> None:
    """Each publication is the newest value and one version more, and is no checkpoint."""
    watched = Watched("a", version=3)
    with assert_no_checkpoints():
        assert watched.publish("b") == 4
    assert (watched.value, watched.version) == ("b", 4)


async def test_waiting_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """Waiting for what is there already is a checkpoint, and gives the newest value."""
    watched = Watched("a", version=3)
    with assert_checkpoints():
        assert await watched.wait_past(2) == "a"
    with trio.CancelScope() as scope:
        scope.cancel()
        await watched.wait_past(2)
    assert scope.cancelled_caught


async def test_waiting_waits(autojump_clock: MockClock) -> None:
    """A version that is not there yet is waited for; slow readers skip to the newest."""
    watched = Watched(0)
    got: list[int] = []

    async def read() -> None:
        got.append(await watched.wait_past(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for value in range(1, 5):
            await wait_all_tasks_blocked()
            assert bool(got) is (watched.version > 2)
            watched.publish(value)
            if value == 3:
                watched.publish(33)  # in the same step: the first is never seen
    assert got == [33]


async def test_a_thousand_wait(autojump_clock: MockClock) -> None:
    """One publication wakes all who wait, and one who waits no more disturbs nobody."""
    watched = Watched(0)
    woken = 0

    async def wait() -> None:
        nonlocal woken
        assert await watched.wait_past(0) == 1
        woken += 1

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(wait)
        with trio.move_on_after(1):
            await wait()
        watched.publish(1)
    assert woken == 1000


@pytest.mark.parametrize("order", ["wait first", "publish first"])
async def test_no_lost_wake_up(order: str, autojump_clock: MockClock) -> None:
    """A publication between looking and waiting is not missed."""
    watched = Watched(0)
    seen = watched.version
    if order == "publish first":
        watched.publish(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.wait_past, seen)
        await wait_all_tasks_blocked()
        if order == "wait first":
            watched.publish(1)
        with trio.fail_after(0.001):
            assert await watched.wait_past(seen) == 1
