"""The calls that a fake view has seen: the log that its test reads, wherever the view runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio
from attrs import field, frozen

from viewreg._http2.metadata import Metadata
from viewreg._transport.purerpc import StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED: Final = 10_000  # calls


@frozen
class FakeCall:
    """One call that a fake view has seen."""

    method: str
    """Such as "Diagnostics.stats" or "Carousel.ride"; of services outside the package `rpc`: "acme.Search.find"."""

    timeout: float | None
    """Seconds that its client gave it, None without a deadline."""

    metadata: Metadata = field(default=(), repr=False)  # it may hold secrets
    """What its client sent: (name, value) pairs, in order."""

    code: StatusCode | None = None
    """The status it ended with, None while it is open.

    CANCELLED if its client gave it up or went away, UNAVAILABLE if the view stopped or died.
    """

    @property
    def cancelled(self) -> bool:
        """Its client gave it up, or went away."""
        return self.code is StatusCode.CANCELLED


class CallLog:
    """The calls of one fake view, the last 10,000. Written by whatever serves them; `announce` wakes who waits."""

    def __init__(self) -> None:
        self._calls: dict[int, FakeCall] = {}  # by our own numbers, oldest first
        self._open: dict[int, None] = {}  # numbers of those that have not ended
        self._seen = 0
        self._news = trio.Event()  # set, and replaced, by `announce`

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        """All, oldest first."""
        return tuple(self._calls.values())

    @property
    def open(self) -> int:
        """How many have not ended."""
        return len(self._open)

    def started(self, method: str, timeout: float | None, metadata: Metadata) -> int:
        """A call began. Returns a number for it."""
        self._seen += 1
        self._open[self._seen] = None
        self._calls[self._seen] = FakeCall(method, timeout, metadata)
        if len(self._calls) > _REMEMBERED:
            del self._calls[next(iter(self._calls))]
        self.announce()
        return self._seen

    def ended(self, number: int, code: StatusCode) -> None:
        """It ended."""
        del self._open[number]
        if call := self._calls.get(number):
            self._calls[number] = attrs.evolve(call, code=code)
        self.announce()

    def all_ended(self) -> None:
        """What served them is gone."""
        for number in tuple(self._open):
            self.ended(number, StatusCode.UNAVAILABLE)

    def announce(self) -> None:
        """Something has changed: here, or in the view whose log it is."""
        news, self._news = self._news, trio.Event()
        news.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; it is asked now, and whenever something was announced. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._news.wait()
