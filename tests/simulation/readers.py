"""Those who read and wait: each checks what it is told, and can tell whether it should have been told more.

Rules:
* A reader that waits for the next change has seen the newest version. What it was told, one change after the other,
  adds up to the newest snapshot.
* A waiter returns in the moment in which its condition holds, with a snapshot for which it holds; when the registry was
  closed and it no longer can, with `RegistryClosedError`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import trio

from simulation.rules import EPSILON
from simulation.snapshots import is_served
from viewreg import Feature, RegistryClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg import Change, Registry, Snapshot, View


class Reads(Protocol):
    """Who reads the registry, in a task of its own."""

    @property
    def scope(self) -> trio.CancelScope:
        """To be cancelled when nobody needs it any more."""
        ...

    async def run(self) -> None:
        """Read until it has what it wants, or for ever."""

    def check(self) -> str:
        """All tasks are at rest. Returns what is wrong."""
        ...


class Reader:
    """Reads `changes`, and pauses after each one. `tell` is told of each view that was there, is new, or is gone."""

    def __init__(self, name: str, registry: Registry, pause: float, tell: Callable[[str, View | None], None]) -> None:
        self.scope: Final = trio.CancelScope()
        self.name: Final = name
        self._registry: Final = registry
        self._pause: Final = pause
        self._tell: Final = tell
        self._version, self._last_changed = -1, -math.inf
        self._views: dict[str, View] = {}
        self._waiting = True
        self._wrong = ""

    async def run(self) -> None:
        with self.scope:
            async for change in self._registry.changes():
                self._waiting = False
                self._take(change)
                if self._pause:
                    await trio.sleep(self._pause)
                self._waiting = True
            if self._views:
                self._wrong = "the changes have ended, and views are left"
        self._waiting = False

    def _take(self, change: Change) -> None:
        new = change.new
        if change.old.version != self._version or new.version <= self._version:
            self._wrong = f"from version {self._version}: a change from {change.old.version} to {new.version}"
        if new.last_changed <= self._last_changed:
            self._wrong = f"changed at {self._last_changed!r} and then at {new.last_changed!r}"
        self._version, self._last_changed = new.version, new.last_changed
        for view in change.removed:
            del self._views[_address(view)]
            self._tell(_address(view), None)
        for view in (*change.added, *change.updated):
            self._views[_address(view)] = view
            self._tell(_address(view), view)
        if {_address(view): view for view in new.views} != self._views:
            self._wrong = f"the changes do not add up to version {new.version}"

    def check(self) -> str:
        if not self._wrong and self._waiting and self._version != self._registry.version:
            return f"{self.name} waits, and has not seen version {self._registry.version}"
        return f"{self.name}: {self._wrong}" if self._wrong else ""


class Waiter:
    """Waits for one thing, and is done."""

    def __init__(self, name: str, registry: Registry, what: str, amount: str, note: Callable[[str], None]) -> None:
        self.scope: Final = trio.CancelScope()
        self.name: Final = name
        self._registry: Final = registry
        self._what: Final = what
        self._amount: Final = amount
        self._note: Final = note
        self._seen = registry.last_changed
        self._waiting = True
        self._closed = False
        self._wrong = ""

    async def run(self) -> None:
        registry = self._registry
        with self.scope:
            try:
                if self._what == "change":
                    snapshot = await registry.wait_for_change(self._seen)
                elif self._what == "stable":
                    snapshot = await registry.wait_for_stable(float(self._amount))
                elif self._what == "served":
                    snapshot = await registry.wait_for_coverage(Feature.HASH_SP, int(self._amount))
                else:
                    snapshot = await registry.wait_until(self._holds)
            except RegistryClosedError:
                self._closed = True
            else:
                if not self._holds(snapshot):
                    self._wrong = f"returned version {snapshot.version} too early"
                self._note(f"{self.name} returned version {snapshot.version}")
        self._waiting = False

    def _holds(self, snapshot: Snapshot, slack: float = EPSILON) -> bool:
        if self._what == "change":
            return snapshot.last_changed > self._seen
        if self._what == "stable":
            quiet = trio.current_time() - snapshot.last_changed
            return quiet >= float(self._amount) - slack or not snapshot.views
        if self._what == "served":
            return is_served(snapshot, Feature.HASH_SP, int(self._amount))
        if self._what == "count":
            return len(snapshot.healthy_views()) >= int(self._amount)
        return any(view.healthy and _address(view) == self._amount for view in snapshot.views)

    def check(self) -> str:
        snapshot = self._registry.snapshot
        if self._closed and self._holds(snapshot):
            return f"{self.name} was told that the registry was closed, though what it waits for is there"
        if self._waiting and not self._wrong and snapshot.views and self._holds(snapshot, -EPSILON):
            return f"{self.name} waits, though what it waits for is there"
        return f"{self.name}: {self._wrong}" if self._wrong else ""


def _address(view: View) -> str:
    assert view.endpoint is not None
    return view.endpoint.host_port
