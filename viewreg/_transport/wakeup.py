"""One task sleeps, anyone wakes it: the cheapest way to wait in Trio, under every call's every wait."""

from __future__ import annotations

import trio


class Wakeup:
    """A wake-up call for one task at a time. One that comes while nobody sleeps is kept for the next sleeper.

    A woken task looks again at what it waits for: wake-ups carry nothing, and may come for nothing.
    """

    __slots__ = ("_due", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._due = False

    def wake(self) -> None:
        """Wake the sleeper, now or when it next goes to sleep. Synchronous, for the Trio thread."""
        if self._task is None:
            self._due = True
        else:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def sleep(self) -> None:
        """Wait for a wake-up. A checkpoint. Raises `trio.BusyResourceError` if another task sleeps here."""
        if self._due:
            self._due = False
            await trio.lowlevel.checkpoint()
            return
        if self._task is not None:
            raise trio.BusyResourceError("another task is waiting here already")
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
