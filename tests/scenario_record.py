"""What is seen of a registry while a scenario is played, and the lines that tell it.

Rules:
* Each version is seen: after every step of every task the registry is asked whether it changed.
* What one line of `do`, or the passing of time, brings about in one moment at several endpoints has no order: it is
  listed by endpoint. At one endpoint it has.
* A view is told by the words of its own text, and what is new about it by those that differ.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

import trio
import trio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from viewreg import Feature, HistoryEntry, Registry, Snapshot, View

_VIEW: Final = re.compile(
    r'View\{Endpoint:"tcp://(?P<host_port>.*)" Partition:(?P<partition>.*) Features:(?P<features>.*)'
    r" Healthy:(?P<healthy>true|false)\}"
)
_TIME: Final = r"\d+(?:\.\d+)?"
_RANGE: Final = re.compile(rf"({_TIME}) to ({_TIME}) s\b")
_FRESH: Final = {"": "IDLE", "Partition:": "", "Features:": "", "Healthy:": "false"}


class Recorder(trio.abc.Instrument):
    """Sees every version of a registry, and what is new in its histories."""

    def __init__(self) -> None:
        self.known: Final[dict[str, View[Feature]]] = {}  # the last view of every endpoint that ever was
        self.step = 0  # counts actions; written by the stage
        self._registry: Registry[Feature] | None = None
        self._snapshot: Snapshot[Feature] | None = None  # the last that was seen
        self._changes: list[tuple[float, int, str, str]] = []  # when, at which step, the first endpoint, what
        self._histories: dict[str, tuple[HistoryEntry, ...]] = {}  # as they were last looked at

    def follow(self, registry: Registry[Feature]) -> None:
        """Begin: what is there already is one change, if there is anything."""
        self._registry = registry
        if registry.version:
            self._see(registry.snapshot, 1)
        self._snapshot = registry.snapshot

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """For Trio."""
        if self._registry is not None and self._snapshot is not None:
            steps = self._registry.version - self._snapshot.version
            if steps:
                self._see(self._registry.snapshot, steps)

    def _see(self, new: Snapshot[Feature], steps: int) -> None:
        old, self._snapshot = self._snapshot, new
        before, after = {} if old is None else by_address(old.views), by_address(new.views)
        added = [view for key, view in after.items() if key not in before]
        removed = [view for key, view in before.items() if key not in after]
        updated = [view for key, view in after.items() if key in before and not view.is_same_as(before[key])]
        text = described(before, added, removed, updated)
        if steps != 1:
            text = f"{steps} versions in one step: {text}"
        if old is not None and old.last_changed >= new.last_changed:
            text += f"; last_changed went from {old.last_changed!r} to {new.last_changed!r}"
        first = min(map(address, (*added, *removed, *updated)), default="")
        self._changes.append((round(new.last_changed, 6), self.step, first, text))
        self.known.update(after)
        for view in removed:
            self._histories.pop(address(view), None)  # when it comes back, its history begins anew

    def changes(self) -> list[str]:
        """Those since the last question, one for each version; by endpoint within one moment of one step."""
        found, self._changes = self._changes, []
        return [timed(when, text) for when, _, _, text in sorted(found, key=lambda change: change[:3])]

    def history(self) -> dict[str, list[str]]:
        """What is new since the last question, and what was counted up; by endpoint."""
        if self._registry is None:
            return {}
        new: dict[str, list[str]] = {}
        for host_port in by_address(self._registry.snapshot.views):
            entries = tuple(self._registry.history(host_port))
            old = self._histories.get(host_port, ())
            self._histories[host_port] = entries
            lines = [_entry(entry) for entry in _news(old, entries)]
            if lines:
                new[host_port] = lines
        return new


# -- texts --


def fields(view: View[Feature]) -> dict[str, str]:
    """What a view says, as its text has it, its connectivity first and its annotations last."""
    found = _VIEW.fullmatch(str(view))
    assert found is not None, f"not the text of a view: {view}"
    said = {"": view.connectivity.value}
    said |= {f"{name.capitalize()}:": found[name] for name in ("partition", "features", "healthy")}
    notes = {} if view.endpoint is None else view.endpoint.annotations
    return said | {f"{key}=": notes[key] for key in sorted(notes)}


def described(
    before: Mapping[str, View[Feature]],
    added: Iterable[View[Feature]],
    removed: Iterable[View[Feature]],
    updated: Iterable[View[Feature]],
) -> str:
    """A change: of each view that is there, what is new about it."""

    def news(view: View[Feature]) -> str:
        old = fields(before[address(view)]) if address(view) in before else _FRESH
        new = fields(view)
        names = [*new, *(name for name in old if name not in new)]
        return " ".join(
            [address(view), *(name + new.get(name, "") for name in names if new.get(name) != old.get(name))]
        )

    parts = {
        "added": [news(view) for view in added],
        "removed": [address(view) for view in removed],
        "updated": [news(view) for view in updated],
    }
    return "; ".join(f"{verb} {', '.join(items)}" for verb, items in parts.items() if items) or "nothing"


def address(view: View[Feature]) -> str:
    """Host and port."""
    assert view.endpoint is not None
    return view.endpoint.host_port


def by_address(views: Iterable[View[Feature]]) -> dict[str, View[Feature]]:
    """The views, in their order."""
    return {address(view): view for view in views}


def seconds(when: float) -> str:
    """A time to the microsecond, no longer than it must be."""
    return f"{when:.6f}".rstrip("0").rstrip(".")


def timed(when: float, what: str) -> str:
    """A line that begins with its time."""
    return f"{seconds(when)} s: {what}"


def in_order(noted: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """By time; within a moment what ends comes last, for two connections of one server have no order."""
    return sorted(noted, key=lambda item: (round(item[0], 6), item[1] == "closed"))


def _news(old: Sequence[HistoryEntry], new: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    """Entries that are not in the old history, which may have lost its first ones, and those that were counted up."""
    for lost in range(len(old) + 1):
        pairs = list(itertools.zip_longest(old[lost:], new))
        if all(was is None or (now is not None and _began_alike(was, now)) for was, now in pairs):
            return [now for was, now in pairs if was != now]
    raise AssertionError("every history goes on from an empty one")


def _began_alike(one: HistoryEntry, other: HistoryEntry) -> bool:
    return (one.what, one.why, one.when) == (other.what, other.why, other.when)


def in_words_of(said: list[str], found: list[str]) -> list[str]:
    """What was found; a line whose times lie in the ranges that were said, "9 to 11 s", as it was said."""
    pairs = itertools.zip_longest(said, found)
    return [line if mine is None or not _fits(mine, line) else mine for mine, line in pairs if line is not None]


def _fits(said: str, found: str) -> bool:
    texts, least, most = (_RANGE.split(said)[first::3] for first in range(3))
    times = re.fullmatch(rf"({_TIME}) s".join(map(re.escape, texts)), found)
    if times is None:
        return False
    return all(float(a) <= float(at) <= float(b) for a, at, b in zip(least, times.groups(), most, strict=True))


def _entry(entry: HistoryEntry) -> str:
    return timed(entry.when, str(entry)) + (f" until {seconds(entry.until)} s" if entry.times > 1 else "")


def seen(snapshot: Snapshot[Feature]) -> str:
    """Which snapshot somebody got."""
    return f"version {snapshot.version}"


def flat(items: Iterable[tuple[str, str]]) -> list[str]:
    """One line each."""
    return [f"{key}: {value}" for key, value in items]


def lists(groups: Mapping[str, Iterable[str]]) -> list[str]:
    """One line each, group by group."""
    return [f"{key}: {line}" for key in sorted(groups) for line in groups[key]]
