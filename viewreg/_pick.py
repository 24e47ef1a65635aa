"""Choosing one view for one call: near, quick, and not busy.

Rules:

* Who comes into question is worked out once for each version of the registry, and again after a second, because round
  trips change without a new version.
* Of these two are drawn, and the one with fewer calls in flight is taken. If everyone took the least busy of all, those
  who look at the same moment would all run to the same view; two at random spread nearly as well.
* Nothing is counted for it: the connections know anyway how many calls are in flight.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, Generic, NamedTuple

from typing_extensions import TypeVar

from viewreg._errors import InvalidValueError, NotServedError, check_type
from viewreg._feature import Feature, feature_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from trio.abc import Clock

    from viewreg._coverage import Coverage
    from viewreg._partition import KeyEncoding
    from viewreg._snapshot import Snapshot
    from viewreg._view import View

F = TypeVar("F", bound=enum.Flag, default=Feature)

ZONE: Final = "zone"  # the annotation of an endpoint that says where it is
WINDOW: Final = 0.015  # seconds that a round trip may take longer than the best one: localThresholdMS of MongoDB
REFRESH: Final = 1.0  # seconds after which round trips are looked at again
_KEPT: Final = 64  # different questions whose answers are kept


class _Parts(NamedTuple, Generic[F]):
    coverage: Coverage[View[F]]
    choices: dict[int, Sequence[View[F]]]
    """By where the part begins; of those parts that were asked for."""


class Picker(Generic[F]):
    """See the module. One for each registry; `new_rng` is called at the first choice, and not before."""

    def __init__(self, clock: Clock, new_rng: Callable[[], Random]) -> None:
        self._now: Final = clock.current_time
        self._new_rng: Final = new_rng
        self._random: Callable[[], float] | None = None
        # What is kept of the snapshot, until then. Written by `pick` and what it calls.
        self._snapshot: Snapshot[F] | None = None
        self._until = -math.inf
        self._choices: dict[tuple[F, str | None], Sequence[View[F]]] = {}
        self._parts: dict[tuple[F, KeyEncoding | None, str | None], _Parts[F]] = {}

    def pick(
        self,
        snapshot: Snapshot[F],
        feature: F,
        hash: int | None,  # noqa: A002 (the field's word)
        encoding: KeyEncoding | None,
        zone: str | None,
    ) -> View[F]:
        """One view of the newest snapshot. See `Registry.pick`."""
        now = self._now()
        if snapshot is not self._snapshot or now >= self._until:
            self._snapshot, self._until = snapshot, now + REFRESH
            self._choices.clear()
            self._parts.clear()
        if hash is not None:
            views = self._for_hash(snapshot, feature, hash, encoding, zone)
        elif encoding is not None:
            raise InvalidValueError(f"encoding {encoding}: expected None without a hash")
        else:
            views = self._choices.get((feature, zone)) or self._for_feature(snapshot, feature, zone)
        count = len(views)
        if count == 1:
            return views[0]
        random = self._random or self._begin()
        first, second = int(random() * count), int(random() * (count - 1))
        one, other = views[first], views[second + (second >= first)]
        return one if one.channel.calls_in_flight <= other.channel.calls_in_flight else other

    def least_busy(self, view: View[F]) -> float:
        """Smaller is better. See `Registry.least_busy`."""
        return view.channel.calls_in_flight + (self._random or self._begin())()

    def _begin(self) -> Callable[[], float]:
        self._random = self._new_rng().random
        return self._random

    def _for_feature(self, snapshot: Snapshot[F], feature: F, zone: str | None) -> Sequence[View[F]]:
        snapshot.check_feature(feature)
        views = snapshot.healthy_views(feature)
        if not views:
            raise NotServedError(f"no healthy view provides {feature_text(feature) or 'anything'}")
        choices = _best(views, zone)
        if len(self._choices) < _KEPT:
            self._choices[feature, zone] = choices
        return choices

    def _for_hash(
        self,
        snapshot: Snapshot[F],
        feature: F,
        hash: int,  # noqa: A002 (the field's word)
        encoding: KeyEncoding | None,
        zone: str | None,
    ) -> Sequence[View[F]]:
        parts = self._parts.get((feature, encoding, zone))
        if parts is None:
            parts = _Parts(snapshot.coverage(feature, encoding=encoding), {})
            if len(self._parts) < _KEPT:
                self._parts[feature, encoding, zone] = parts
        coverage, choices = parts
        part = coverage.at(hash)
        found = choices.get(part.range.start)
        if found is None:
            if not part.views:
                raise NotServedError(f"nobody serves {coverage.encoding.name}: {part.range}", (part.range,))
            found = choices[part.range.start] = _best(part.views, zone)
        return found


def _best(views: Sequence[View[F]], zone: str | None) -> Sequence[View[F]]:
    """Those in the zone, if there are any; and of these the quick ones, with those of which nothing is known yet."""
    if zone is not None:
        check_type("zone", zone, str, "a str or None")
        views = [view for view in views if _zone(view) == zone] or views
    trips = [view.channel.round_trip for view in views]
    limit = min((trip for trip in trips if trip is not None), default=math.inf) + WINDOW
    return [view for view, trip in zip(views, trips, strict=True) if trip is None or trip <= limit]


def _zone(view: View[F]) -> str | None:
    return None if view.endpoint is None else view.endpoint.annotations.get(ZONE)
