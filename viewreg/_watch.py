"""A value that others wait for: its newest state, a number that grows with each, and nobody misses the last one.

Rules:
* Publishing is synchronous and never waits for a reader. Slow readers skip values and never lose the newest.
* The event is swapped first and set then; whoever wakes looks at the version again.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Watched(Generic[T]):
    """The newest value. Written by one owner, awaited by any number of tasks; in the Trio thread."""

    __slots__ = ("_changed", "value", "version")

    def __init__(self, value: T, version: int = 0) -> None:
        self.value: T = value  # written by `publish`
        self.version = version  # written by `publish`
        self._changed: trio.Event | None = None  # made when somebody waits

    def publish(self, value: T) -> int:
        """Make this the newest value, and wake all who wait. Returns its version."""
        self.value = value
        self.version += 1
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()
        return self.version

    async def wait_past(self, version: int) -> T:
        """Wait for a version above the given one, and return the newest value. Always a checkpoint."""
        if self.version > version:
            await trio.lowlevel.checkpoint()
        while self.version <= version:
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()
        return self.value
