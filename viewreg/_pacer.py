"""How many dials may begin at once, without the dead starving the living.

Rules:
* A slot is held until the dial has ended, but for no longer than `hold` seconds: so any number of black holes only
  slow the others down a little, whatever the connect timeout.
* First come, first served.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import trio

from viewreg._transport.wakeup import Wakeup

if TYPE_CHECKING:
    from types import TracebackType


class Pacer:
    """A semaphore whose permits run out. One for each registry."""

    def __init__(self, slots: int, hold: float) -> None:
        self._slots: Final = slots
        self._hold: Final = hold
        self._held: Final[OrderedDict[Slot, float]] = OrderedDict()  # slot -> when it runs out, in that order
        self._queue: Final[deque[Wakeup]] = deque()

    async def slot(self) -> Slot:
        """Wait for a slot, and take it; give it back by `with`. Cancelled, nothing is taken. A checkpoint."""
        await trio.lowlevel.checkpoint()
        if self._queue or not self._has_room():
            await self._wait_for_turn()
        slot = Slot(self)
        self._held[slot] = trio.current_time() + self._hold
        return slot

    def give_back(self, slot: Slot) -> None:
        """The dial has ended. Does nothing for a slot that has run out."""
        if self._held.pop(slot, None) is not None and self._queue:
            self._queue[0].wake()

    def _has_room(self) -> bool:
        now = trio.current_time()
        while self._held and next(iter(self._held.values())) <= now:
            self._held.popitem(last=False)
        return len(self._held) < self._slots

    async def _wait_for_turn(self) -> None:
        turn = Wakeup()
        self._queue.append(turn)
        try:
            while self._queue[0] is not turn or not self._has_room():
                # Only the first in the queue needs the clock: it wakes when the oldest slot runs out.
                first = self._queue[0] is turn
                with trio.move_on_at(next(iter(self._held.values())) if first else float("inf")):
                    await turn.sleep()
        finally:
            self._queue.remove(turn)
            if self._queue:
                self._queue[0].wake()


class Slot:
    """The right to dial, for a while."""

    __slots__ = ("_pacer",)

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._pacer.give_back(self)
