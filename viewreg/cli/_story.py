"""What the steps of the demo share: the cluster, the registry, the clock, and how a line of the story looks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from viewreg._locator import StaticLocator
from viewreg._open import open_registry
from viewreg.cli._output import say, seconds_text
from viewreg.testing import open_fake_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AsyncExitStack

    from viewreg._partition import FactPartition
    from viewreg._registry import Registry
    from viewreg._snapshot import Snapshot
    from viewreg._view import View
    from viewreg.testing import FakeView


class TooLateError(Exception):
    """Something did not happen in time, or not as it should."""


class Story:
    """See the module. What it starts ends with `stack`."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.registry: Registry
        self.fakes: Final[dict[str, FakeView]] = {}  # by name; written by `start`
        self.times: Final[list[float]] = []  # seconds that noticing took; written by `took` and `noticed`
        self.frozen_at = 0.0  # written by the step that freezes
        self._stack: Final = stack
        self._locator: Final = StaticLocator()
        self._began: Final = trio.current_time()

    # -- the cluster --

    async def start(self, name: str, partition: FactPartition) -> None:
        """Start a server."""
        self.fakes[name] = await self._stack.enter_async_context(open_fake_view(partition=partition))

    async def open_registry(self) -> None:
        """Open the registry on all servers."""
        self.list_all()
        self.registry = await self._stack.enter_async_context(open_registry(self._locator))

    def list_all(self, *, but: str = "") -> None:
        """Tell the registry of all servers, but one."""
        self._locator.set(fake.endpoint for name, fake in self.fakes.items() if name != but)

    def view(self, name: str, snapshot: Snapshot | None = None) -> View:
        """What the registry knows of a server, now or in a snapshot."""
        return (snapshot or self.registry.snapshot).view(self.fakes[name].endpoint)

    def has(self, name: str, snapshot: Snapshot) -> bool:
        """Whether a snapshot has a view of a server."""
        return any(view.endpoint == self.fakes[name].endpoint for view in snapshot.views)

    # -- time --

    async def pause(self) -> None:
        """Give whoever reads along a moment."""
        await trio.sleep(1)

    async def wait(self, what: str, seconds: float, predicate: Callable[[Snapshot], bool]) -> None:
        """Wait until the registry says so."""
        with self.guard(what, seconds):
            await self.registry.wait_until(predicate)

    @contextmanager
    def guard(self, what: str, seconds: float) -> Iterator[None]:
        """Raise `TooLateError` if the block takes longer."""
        try:
            with trio.fail_after(seconds):
                yield
        except trio.TooSlowError:
            raise TooLateError(f"{what}: did not happen within {seconds:g} s") from None

    def since(self, moment: float) -> str:
        """How long ago that was, as a text."""
        return seconds_text(trio.current_time() - moment)

    def took(self, moment: float) -> str:
        """The same, and it goes into the statistics of what was noticed."""
        self.times.append(trio.current_time() - moment)
        return self.since(moment)

    # -- words --

    def tell(self, *parts: str | tuple[str, str]) -> None:
        """Write a line with the time since the beginning."""
        say((f"{trio.current_time() - self._began:5.1f} s  ", "dim"), *parts)

    def more(self, *parts: str | tuple[str, str]) -> None:
        """Write a line that goes on where the last one ended."""
        say(" " * 9, *parts)

    def healthy(self, name: str, since: float, what: str) -> None:
        """Write that it is healthy."""
        self.more((f"{name} is healthy", "green"), f" {self.took(since)} after {what}.")

    def noticed(self, name: str, since: float) -> None:
        """Write that it is unhealthy, since when and why: the history knows, even if nobody was watching."""
        history = self.registry.history(self.fakes[name].endpoint)
        entry = next(entry for entry in history if entry.when >= since)
        self.times.append(entry.when - since)
        self.more((f"{name} is unhealthy", "red"), f", which was noticed after {seconds_text(entry.when - since)}:")
        self.more(f"{entry}.")

    def show(self) -> None:
        """Write a line for each server."""
        for name, fake in self.fakes.items():
            view = self.view(name)
            self.more(f"{name}  {fake.endpoint.host_port}  process {fake.pid}  {view.features}  [{view.partition}]")
