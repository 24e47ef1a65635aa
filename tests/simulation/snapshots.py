"""The model of what readers get: which versions there may be, and what holds of the snapshot of each.

Rules:
* A version is a change that can be seen: no two share a time, and none shows what the one before showed.
* How the hash space is served is worked out anew, by comparing numbers: it changes only where a range begins or ends.
* Snapshots that nobody has read for long are not kept: design.md, section 3, "changes", says how many are.
"""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from weakref import ref

from viewreg import Feature, HashRange, KeyEncoding, NotServedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg import Registry, Snapshot, View

SPACES: Final = {Feature.HASH_SP: KeyEncoding.SPO, Feature.HASH_PO: KeyEncoding.POS}

_REMEMBERED: Final = 64  # snapshots that were read
_READERS: Final = 20  # who may each hold one beside these; there are far fewer
_LOOKED_AT: Final = (HashRange.FULL, HashRange(0, 10))  # the servers of a simulation serve all, or a few small hashes


class Snapshots:
    """All that one registry has shown so far."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self.version = -1
        self._last_changed = -math.inf
        self._views: tuple[View, ...] | None = None  # of the last snapshot
        self._read: list[ref[Snapshot]] = []  # those that are still kept by somebody
        self._complain: Final = complain

    def look(self, registry: Registry) -> Snapshot:
        """Read the newest one."""
        version, last_changed, snapshot = registry.version, registry.last_changed, registry.snapshot
        if version < self.version or last_changed < self._last_changed:
            self._complain(f"version {version} at {last_changed!r} after version {self.version}")
        if (version == self.version) != (last_changed == self._last_changed):
            self._complain(f"version {version} at {last_changed!r}: only one of them has moved")
        if version != self.version:
            if version == self.version + 1 and snapshot.views == self._views:
                self._complain(f"version {version} shows what version {self.version} showed")
            if snapshot.views != tuple(sorted(snapshot.views, key=_original_order)):
                self._complain(f"version {version} has its views out of order")
            for feature in SPACES:
                if wrong := wrong_with(registry, snapshot, feature):
                    self._complain(f"version {version}, {feature}: {wrong}")
            self._read = [read for read in self._read if read() is not None]
            self._read.append(ref(snapshot))
            if len(self._read) > _REMEMBERED + _READERS:
                self._complain(f"{len(self._read)} snapshots are kept")
        self.version, self._last_changed, self._views = version, last_changed, snapshot.views
        return snapshot


def _original_order(view: View) -> tuple[str, str]:
    assert view.endpoint is not None
    return view.endpoint.host, str(view.endpoint.port)


def parts_of(snapshot: Snapshot, feature: Feature, space: HashRange) -> list[tuple[int, int, list[View]]]:
    """The space, cut wherever anybody's range begins or ends: first hash, the one after the last, and who serves it."""
    serving = [
        (view, view.partition.hash_range)
        for view in snapshot.views
        if view.healthy and feature in view.features and view.partition and view.partition.encoding is SPACES[feature]
    ]
    cuts = {space.start, space.stop}
    cuts.update(cut for _, served in serving for cut in (served.start, served.stop) if space.start < cut < space.stop)
    return [
        (start, stop, [view for view, served in serving if served.start <= start and stop <= served.stop])
        for start, stop in pairwise(sorted(cuts))
    ]


def is_served(snapshot: Snapshot, feature: Feature, replicas: int) -> bool:
    """Whether each hash is served so many times."""
    return all(len(views) >= replicas for _, _, views in parts_of(snapshot, feature, HashRange.FULL))


def wrong_with(registry: Registry, snapshot: Snapshot, feature: Feature) -> str:
    """What is wrong with how it says that the space of a feature is served, and with whom it chooses for a call."""
    for space in _LOOKED_AT:
        parts = parts_of(snapshot, feature, space)
        coverage = snapshot.coverage(feature, space=space)
        if [(part.range.start, part.range.stop, list(part.views)) for part in coverage.parts] != parts:
            return f"{coverage} does not say who serves what"
        if (coverage.min_replicas > 0) != coverage.complete or coverage.complete != all(views for _, _, views in parts):
            return f"{coverage} does not say whether all is served"
        if any(coverage.at(one).range.start != start for start, stop, _ in parts for one in (start, stop - 1)):
            return f"{coverage} does not say where a hash belongs"
        try:
            assignments = coverage.cover()
        except NotServedError as error:
            if coverage.complete or error.gaps != coverage.gaps:
                return f"{coverage}, and yet it cannot be covered: {error}"
            continue
        ends = [(one.range.start, one.range.stop) for one in assignments]
        if ends[0][0] != space.start or ends[-1][1] != space.stop or any(a[1] != b[0] for a, b in pairwise(ends)):
            return f"{coverage} is covered by {ends}"
        for start, stop, views in parts:
            (asked,) = (one.view for one in assignments if one.range.start < stop and start < one.range.stop)
            if asked not in views:
                return f"{asked} is asked for {start} to {stop}"
        left_out = assignments[0].view
        with suppress(NotServedError):
            if left_out in [one.view for one in coverage.cover(without={left_out})]:
                return f"{left_out} is asked, and was to be left out"
    healthy = [view for view in snapshot.views if view.healthy and feature in view.features]
    try:
        picked = registry.pick(feature)
    except NotServedError:
        return "nobody is picked" if healthy else ""
    return "" if picked in healthy else f"{picked} is picked"
