"""The registry at one moment, and the difference between two moments. Immutable, and safe to read from any thread.

Rules:
* A snapshot is never half made, and never changes. What it works out on request it keeps, for the next who asks.
* The texts of `dump` and the keys of `summary` are the original's, in Python's spelling.
"""

from __future__ import annotations

import enum
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Final, Generic, Protocol, cast

from attrs import field, frozen
from trio.abc import Clock
from typing_extensions import TypeVar

from viewreg._coverage import Assignment, Coverage, coverage_of, encoding_for
from viewreg._endpoint import Endpoint
from viewreg._errors import UnknownViewError, check_type
from viewreg._feature import Feature
from viewreg._partition import HashRange, KeyEncoding, hash_po, hash_sp
from viewreg._view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

F = TypeVar("F", bound=enum.Flag, default=Feature)

_ANSWERS_KEPT: Final = 64  # combinations of features, of those that anybody asks a snapshot for
_NAMED_IN_ERRORS: Final = 20  # known endpoints that an error lists; a fleet may have thousands


class TextSink(Protocol):
    """Anything that text can be written to."""

    def write(self, text: str, /) -> object:
        """Take the text."""


@frozen(eq=False, repr=False, slots=False)
class Snapshot(Generic[F]):
    """All views at one version of the registry. Two snapshots of one registry with the same version are the same."""

    version: int
    """Strictly increasing from one change to the next."""

    last_changed: float
    """Trio time of the change that led here, in seconds; strictly increasing as well."""

    views: tuple[View[F], ...]
    """Sorted by host, then by port as a text, which is the original's order; each endpoint once."""

    _no_features: F
    _clock: Clock  # of the Trio run; so that ages can be told in any thread
    _healthy: dict[tuple[F, ...], tuple[View[F], ...]] = field(factory=dict, init=False)
    _coverages: dict[tuple[F, KeyEncoding, HashRange], Coverage[View[F]]] = field(factory=dict, init=False)

    def all_views(self) -> list[View[F]]:
        """All views, healthy or not: a fresh list, the caller's to change."""
        return list(self.views)

    def healthy_views(self, *features: F) -> list[View[F]]:
        """The healthy views that provide all of the features: a fresh list, the caller's to change.

        None of them is this program's own server (`View.is_self`).
        """
        found = self._healthy.get(features)
        if found is None:
            # Waiters ask after every change: so this must be quick, though it looks at every view.
            healthy = [view for view in self.views if view.healthy and not view.is_self]
            found = tuple([view for view in healthy if view.provides(*features)] if features else healthy)
            if len(self._healthy) < _ANSWERS_KEPT:
                self._healthy[features] = found
        return list(found)

    def coverage(
        self, feature: F, *, encoding: KeyEncoding | None = None, space: HashRange = HashRange.FULL
    ) -> Coverage[View[F]]:
        """How `space` is served by the healthy views that provide a feature. Worked out once for each snapshot.

        HASH_SP is about SPO and HASH_PO about POS; with any other feature, `encoding` says which hash space is meant.
        A view whose partition is of the other kind, or that has none, serves nothing of it, whatever it provides.

        Raises `InvalidValueError` or `InvalidTypeError` for a feature without an encoding, or with a wrong one.
        """
        self.check_feature(feature)
        check_type("space", space, HashRange, "a HashRange")
        key = (feature, encoding_for(feature, encoding), space)
        found = self._coverages.get(key)
        if found is None:
            found = coverage_of(key[1], self._serving(feature, key[1]), space)
            if len(self._coverages) < _ANSWERS_KEPT:
                self._coverages[key] = found
        return found

    def check_feature(self, feature: object) -> None:
        """Raise `InvalidTypeError` for a feature of another kind than that of the views."""
        check_type("feature", feature, type(self._no_features), f"a {type(self._no_features).__name__}")

    def cover(
        self,
        feature: F,
        range: HashRange = HashRange.FULL,  # noqa: A002 (the field's word)
        prefer: Callable[[View[F]], float] | None = None,
        *,
        encoding: KeyEncoding | None = None,
        without: Container[View[F]] = (),
    ) -> list[Assignment[View[F]]]:
        """Whom to ask so that each hash of `range` is asked for exactly once, with the fewest calls.

        See `Coverage.cover` for what is preferred then and for what is raised, and `coverage` for `encoding`.
        """
        return self.coverage(feature, encoding=encoding).cover(range, prefer, without=without)

    def for_hash(self, feature: F, hash: int, *, encoding: KeyEncoding | None = None) -> list[View[F]]:  # noqa: A002 (the field's word)
        """The healthy views that provide a feature and serve a hash: a fresh list, empty if there are none.

        Raises `InvalidValueError` or `InvalidTypeError` for what is no hash, and as `coverage` does.
        """
        return list(self.coverage(feature, encoding=encoding).at(hash).views)

    def for_fact(
        self,
        feature: F,
        *,
        subject: int | None = None,
        predicate: int | None = None,
        object: bytes | None = None,  # noqa: A002 (the field's word, as in `hash_po`)
        encoding: KeyEncoding | None = None,
    ) -> list[View[F]]:
        """The healthy views that provide a feature and serve a fact: a fresh list, empty if there are none.

        Subject and predicate are needed for SPO, predicate and object for POS; the third part makes no difference.
        Raises `InvalidValueError` or `InvalidTypeError` for a part that is missing or wrong, and as `coverage` does.
        """
        encoding = encoding_for(feature, encoding)
        # A missing part is a wrong one, of the type of None: the hashes say so.
        if encoding is KeyEncoding.SPO:
            return self.for_hash(feature, hash_sp(cast("int", subject), cast("int", predicate)), encoding=encoding)
        return self.for_hash(feature, hash_po(cast("int", predicate), cast("bytes", object)), encoding=encoding)

    def view(self, endpoint: Endpoint | str) -> View[F]:
        """The view of an endpoint, or of "host:port". Raises `UnknownViewError`, which names the known ones."""
        key = endpoint_key(endpoint)
        try:
            return self._by_key[key]
        except KeyError:
            raise unknown_view(key, self._by_key) from None

    def time_since_last_change(self) -> float:
        """Seconds since `last_changed`, by the run's clock."""
        return max(0.0, self._clock.current_time() - self.last_changed)

    def dump(self, file: TextSink | None = None) -> None:
        """Write the registry as the original does: when it changed, then a line a view. None is sys.stdout."""
        write_dump(self, file, lambda _view: "")

    def summary(self) -> dict[str, float | int]:
        """A few numbers, fit for logging's `extra`.

        Seconds since the last change, how many views there are, how many are healthy, and for each feature how many of
        the healthy ones provide it.
        """
        healthy = self.healthy_views()
        return {
            "time_since_last_change": self.time_since_last_change(),
            "all_views": len(self.views),
            "healthy_views": len(healthy),
            **{
                f"{feature.name or feature.value}_views".lower(): sum(feature in view.features for view in healthy)
                for feature in type(self._no_features)
            },
        }

    def _serving(self, feature: F, encoding: KeyEncoding) -> list[tuple[HashRange, View[F]]]:
        return [
            (partition.hash_range, view)
            for view in self.healthy_views(feature)
            if (partition := view.partition) is not None and partition.encoding is encoding
        ]

    @cached_property
    def _by_key(self) -> dict[str, View[F]]:
        return {view.endpoint.host_port: view for view in self.views if view.endpoint is not None}

    def __repr__(self) -> str:
        return f"<Snapshot {self.version}: {len(self.views)} views, {len(self.healthy_views())} healthy>"


@frozen
class Change(Generic[F]):
    """What is different between two snapshots, in their order."""

    old: Snapshot[F]
    new: Snapshot[F]
    added: tuple[View[F], ...]
    """Views of endpoints that `old` did not have."""
    removed: tuple[View[F], ...]
    """Views of endpoints that `new` does not have, as they were."""
    updated: tuple[View[F], ...]
    """Views of endpoints that both have and that say something new, as they are now."""


def change_between(old: Snapshot[F], new: Snapshot[F]) -> Change[F]:
    """The change from one snapshot to another."""
    before, after = old._by_key, new._by_key  # noqa: SLF001 (the same module)
    return Change(
        old,
        new,
        added=tuple(view for key, view in after.items() if key not in before),
        removed=tuple(view for key, view in before.items() if key not in after),
        updated=tuple(
            view for key, view in after.items() if (was := before.get(key)) is not None and not view.is_same_as(was)
        ),
    )


def how_many_serve(snapshot: Snapshot[F], feature: F, hash: int, encoding: KeyEncoding) -> int:  # noqa: A002 (the field's word)
    """How often a hash is served, without working out the coverage: for who asks once of each snapshot."""
    return sum(
        partition.encoding is encoding and hash in partition.hash_range and view.provides(feature)
        for view in snapshot.views
        if view.healthy and not view.is_self and (partition := view.partition) is not None
    )


def endpoint_key(endpoint: Endpoint | str) -> str:
    """The identity of an endpoint that may be given as text. Raises for a text that names none."""
    if isinstance(endpoint, Endpoint):
        return endpoint.host_port
    check_type("endpoint", endpoint, str, "an Endpoint or a HOST:PORT text")
    return Endpoint.parse(endpoint).host_port


def unknown_view(key: str, known: Iterable[str]) -> UnknownViewError:
    """The error for an endpoint that is not there."""
    names = sorted(known)
    listed = ", ".join(names[:_NAMED_IN_ERRORS]) or "none"
    more = f" and {len(names) - _NAMED_IN_ERRORS} more" if len(names) > _NAMED_IN_ERRORS else ""
    return UnknownViewError(f"no view of {key}; known endpoints: {listed}{more}")


def write_dump(snapshot: Snapshot[F], file: TextSink | None, note: Callable[[View[F]], str]) -> None:
    """Write a snapshot for people; `note` may add a line below a view."""
    lines = ["View Registry", f"Last changed: {duration_text(snapshot.time_since_last_change())} ago"]
    for index, view in enumerate(snapshot.views):
        lines.append(f"{index}: {view}")
        if text := note(view):
            lines.append(f"   {text}")
    (sys.stdout if file is None else file).write("\n".join(lines) + "\n")


def duration_text(seconds: float) -> str:
    """Seconds in Go's notation, rounded to tenths: "0s", "300ms", "1.2s", "1m15.3s", "25h1m1.3s"."""
    tenths = int(seconds * 10 + 0.5)
    if tenths == 0:
        return "0s"
    if tenths < 10:  # noqa: PLR2004 (below a second Go counts in milliseconds)
        return f"{tenths * 100}ms"
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{tenths // 10}.{tenths % 10}s" if tenths % 10 else f"{tenths // 10}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
