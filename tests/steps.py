"""Cancelling a program at each of its steps: what several test modules share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


F = TypeVar("F")

COVERED: Final[dict[str, str]] = {}  # public async functions, and what is cancelled while it uses them


def covers(*names: str) -> Callable[[F], F]:
    """Mark what is cancelled at every step by the public async functions that it uses."""

    def mark(act: F) -> F:
        COVERED.update(dict.fromkeys(names, getattr(act, "__name__", "")))
        return act

    return mark


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task is about to make its k-th step; without a task, when any is."""

    def __init__(self, task: trio.lowlevel.Task | None, k: int, scope: trio.CancelScope) -> None:
        self.task, self.left, self.scope = task, k, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is None or task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def at_every_step(
    prepare: Callable[[], Awaitable[None]],
    act: Callable[[], Awaitable[None]],
    check: Callable[[], Awaitable[None]],
) -> int:
    """Do it all again and again, and cancel `act` at the first step of any task, then at the second, until it ends.

    Returns at how many. After `check`, which may wait for what `prepare` has begun, the tasks must be those of before.
    """
    k = 1
    while True:
        before = await living()
        await prepare()
        with trio.CancelScope() as scope:
            instrument = CancelAt(None, k, scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                await act()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        try:
            await check()
            after = await living()
            assert after == before, f"left: {after - before}; gone: {before - after}"
        except BaseException as error:
            error.add_note(f"cancelled at step {k}" if scope.cancel_called else "not cancelled")
            raise
        if not scope.cancel_called:
            return k - 1
        k += 1


async def living() -> Counter[str]:
    """The names of all tasks, once none of them has anything left to do."""
    await wait_all_tasks_blocked()
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return Counter(task.name for task in _with_children(root))


def _with_children(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _with_children(child)
