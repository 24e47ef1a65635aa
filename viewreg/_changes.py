"""Following a registry: what is different from what one has seen, as often as one asks."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Generic, Self

import trio
from typing_extensions import TypeVar

from viewreg._feature import Feature
from viewreg._snapshot import Change, Snapshot, change_between

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg._watch import Watched

F = TypeVar("F", bound=enum.Flag, default=Feature)


class Changes(Generic[F]):
    """An async iterator of `Change`: the first one brings what is there as additions, or what changed since a version.

    It owns nothing: drop it whenever you like. Who reads slowly skips versions and never loses the newest. A `since`
    that is not among the last 64 snapshots that anybody read counts as none. When the registry is closed, one last
    change removes all views, and the iteration ends.
    """

    def __init__(
        self,
        old: Snapshot[F],
        changed: Watched[float],
        newest: Callable[[], Snapshot[F]],
        is_closed: Callable[[], bool],
    ) -> None:
        self._old = old  # what was seen last
        self._changed: Final = changed
        self._newest: Final = newest
        self._is_closed: Final = is_closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[F]:
        """The next change. Cancelled, nothing is lost."""
        old = self._old
        if self._is_closed() and self._changed.version <= old.version:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        await self._changed.wait_past(old.version)
        self._old = self._newest()
        return change_between(old, self._old)
