"""Pacer: so many dials at once, and the dead do not starve the living."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from viewreg._pacer import Pacer

if TYPE_CHECKING:
    from trio.testing import MockClock


async def take(pacer: Pacer, name: int, taken: list[tuple[int, float]], hold: float) -> None:
    """Dial for `hold` seconds; note who began when."""
    with await pacer.slot():
        taken.append((name, trio.current_time()))
        await trio.sleep(hold)


async def test_a_free_slot_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """A slot that is free costs no time, and is a checkpoint."""
    with assert_checkpoints(), trio.fail_after(0.001):
        slot = await Pacer(1, 0.25).slot()
    with slot:
        pass


async def test_first_come_first_served(autojump_clock: MockClock) -> None:
    """Whoever waits gets a slot as soon as one is given back, in the order of coming."""
    pacer, taken = Pacer(2, 100.0), list[tuple[int, float]]()
    async with trio.open_nursery() as nursery:
        for name in range(6):
            nursery.start_soon(take, pacer, name, taken, 1.0)
            await wait_all_tasks_blocked()
    assert [name for name, _when in taken] == [0, 1, 2, 3, 4, 5]
    assert [when for _name, when in taken] == [0, 0, 1, 1, 2, 2]


async def test_slots_run_out(autojump_clock: MockClock) -> None:
    """A dial that takes for ever holds its slot for `hold` seconds: those that wait go on by fours each 0.25 s."""
    pacer, taken = Pacer(4, 0.25), list[tuple[int, float]]()
    async with trio.open_nursery() as nursery:
        for name in range(16):
            nursery.start_soon(take, pacer, name, taken, 5.0)
            await wait_all_tasks_blocked()
    assert [when for _name, when in taken] == pytest.approx([0.0] * 4 + [0.25] * 4 + [0.5] * 4 + [0.75] * 4)


async def test_each_slot_runs_out_by_itself(autojump_clock: MockClock) -> None:
    """A slot that was taken later runs out later."""
    pacer, taken = Pacer(2, 0.25), list[tuple[int, float]]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, pacer, 0, taken, 5.0)
        await trio.sleep(0.1)
        for name in (1, 2, 3):
            nursery.start_soon(take, pacer, name, taken, 5.0)
            await wait_all_tasks_blocked()
    assert [when for _name, when in taken] == pytest.approx([0.0, 0.1, 0.25, 0.35])


async def test_a_slot_that_ran_out_is_not_given_back_twice(autojump_clock: MockClock) -> None:
    """Giving back a slot that had run out makes no room that is not there."""
    pacer, taken = Pacer(1, 0.25), list[tuple[int, float]]()
    async with trio.open_nursery() as nursery:
        for name, hold in enumerate([0.3, 10.0, 10.0]):
            nursery.start_soon(take, pacer, name, taken, hold)
            await wait_all_tasks_blocked()
    assert [when for _name, when in taken] == pytest.approx([0.0, 0.25, 0.5])


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_who_gives_up_takes_nothing(which: int, autojump_clock: MockClock) -> None:
    """Whoever is cancelled in the queue, at its head, inside or at its end, holds up nobody."""
    pacer, taken = Pacer(1, 100.0), list[tuple[int, float]]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, pacer, 99, taken, 1.0)
        await wait_all_tasks_blocked()
        scopes = [trio.CancelScope() for _ in range(3)]

        async def wait(name: int) -> None:
            with scopes[name]:
                await take(pacer, name, taken, 1.0)

        for name in range(3):
            nursery.start_soon(wait, name)
            await wait_all_tasks_blocked()
        scopes[which].cancel()
    others = [name for name in range(3) if name != which]
    assert taken == [(99, 0.0), (others[0], 1.0), (others[1], 2.0)]


async def test_cancelled_with_the_slot_in_reach(autojump_clock: MockClock) -> None:
    """Who is cancelled in the very step in which its turn comes passes the turn on."""
    pacer, taken = Pacer(1, 100.0), list[tuple[int, float]]()
    async with trio.open_nursery() as nursery:
        slot = await pacer.slot()
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await take(pacer, 1, taken, 0.0)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        nursery.start_soon(take, pacer, 2, taken, 0.0)
        await wait_all_tasks_blocked()
        scope.cancel()
        with slot:
            pass
        await wait_all_tasks_blocked()
    assert [name for name, _when in taken] == [2]
