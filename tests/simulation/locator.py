"""Discovery in a simulated world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from viewreg import Discovery

if TYPE_CHECKING:
    from viewreg import Endpoint


class Locator:
    """A locator that fails, lies and recovers as it is told. It knows an empty list at first, version 1."""

    def __init__(self) -> None:
        self._found = Discovery(1, ())
        self._error: Exception | None = None
        self._once: Final[list[Any]] = []  # returned before anything else
        self._told = trio.Event()  # swapped whenever something is new

    @property
    def failing(self) -> bool:
        """Whether it fails now."""
        return self._error is not None

    @property
    def lies(self) -> int:
        """How many it has still to tell."""
        return len(self._once)

    def cached(self) -> Discovery:
        """See `viewreg.Locator`."""
        if self._error is not None:
            raise self._error
        return self._found

    async def wait_for_update(self, old_version: int) -> Any:
        """See `viewreg.Locator`."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._once:
                return self._once.pop(0)
            if self._error is not None:
                raise self._error
            if self._found.version > old_version:
                return self._found
            await self._told.wait()

    def lists(self, endpoints: tuple[Endpoint, ...]) -> None:
        """A new list."""
        self._found = Discovery(self._found.version + 1, endpoints)
        self._tell()

    def returns(self, anything: object) -> None:
        """Return it once, whatever it is."""
        self._once.append(anything)
        self._tell()

    def fails(self, error: Exception | None) -> None:
        """Raise this from now on, or nothing any more."""
        self._error = error
        self._tell()

    def _tell(self) -> None:
        old, self._told = self._told, trio.Event()
        old.set()

    def __str__(self) -> str:
        return "simulation:///"
