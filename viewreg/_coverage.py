"""How the hash space is served: which parts of it, by how many, where the gaps are, and how to ask for each hash once.

Rules:

* SPO and POS are two hash spaces. A coverage is about one of them; which one, a feature says, or else the caller.
* What serves a range is opaque here: it is handed in, and handed back in the order in which it was handed in.
* The space is split at every boundary of what was handed in, so all that serve a hash of a part serve the whole part.
"""

from __future__ import annotations

import enum
import heapq
import sys
from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

from attrs import field, frozen

from viewreg._errors import InvalidTypeError, InvalidValueError, NotServedError, check_int, check_type
from viewreg._feature import Feature, feature_text
from viewreg._partition import HashRange, KeyEncoding

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

V = TypeVar("V")

_NAMED_IN_ERRORS: Final = 5  # gaps that an error lists; a dead fleet has one for each partition

_ENCODINGS: Final = {Feature.HASH_SP: KeyEncoding.SPO, Feature.HASH_PO: KeyEncoding.POS}


@frozen
class Replicas(Generic[V]):
    """A range of hashes, and all that serve it: each of them serves all of it."""

    range: HashRange
    views: tuple[V, ...]
    """None, if it is a gap."""


@frozen
class Assignment(Generic[V]):
    """Who is to be asked for a range of hashes."""

    range: HashRange
    view: V


_Span: TypeAlias = tuple[int, int, V]  # start, stop, view: a plain tuple, for there may be ten thousand


@frozen
class Coverage(Generic[V]):
    """How a range of the hash space is served. Made by `Snapshot.coverage`; immutable, and true of one moment."""

    encoding: KeyEncoding
    """Which hash space it is about."""

    space: HashRange
    """What of it was looked at."""

    parts: tuple[Replicas[V], ...]
    """All of `space`, sorted and disjoint: split wherever anybody's range begins or ends, gaps included."""

    ranges: tuple[Replicas[V], ...]
    """The parts that are served: sorted and disjoint, each with the views that serve it."""

    gaps: tuple[HashRange, ...]
    """The parts that nobody serves: sorted, and no two of them touch."""

    min_replicas: int
    """How many views serve a hash at least; 0 if there is a gap."""

    _spans: tuple[_Span[V], ...] = field(repr=False)
    _starts: tuple[int, ...] = field(repr=False)  # of `parts`

    @property
    def complete(self) -> bool:
        """Whether every hash is served."""
        return not self.gaps

    def thin(self, n: int) -> tuple[Replicas[V], ...]:
        """The parts that fewer than `n` (at least 1) views serve, gaps included: sorted, each with those that do.

        `thin(2)` is what one more failure may turn into gaps. Raises `InvalidValueError` or `InvalidTypeError`.
        """
        check_int("n", n, 1)
        return tuple(part for part in self.parts if len(part.views) < n)

    def at(self, hash: int) -> Replicas[V]:  # noqa: A002 (the field's word)
        """The part that a hash belongs to. Raises `InvalidValueError` or `InvalidTypeError` outside of `space`."""
        check_int("hash", hash, self.space.start, self.space.stop - 1)
        return self.parts[bisect_right(self._starts, hash) - 1]

    def replicas(self, range: HashRange) -> tuple[V, ...]:  # noqa: A002 (the field's word)
        """The views that serve all of a range: those that could take an `Assignment` over from its view.

        Raises `InvalidValueError` or `InvalidTypeError` for a range that is not within `space`.
        """
        start, stop = self._within(range)
        return tuple(view for first, last, view in self._spans if first <= start and last >= stop)

    def cover(
        self,
        range: HashRange | None = None,  # noqa: A002 (the field's word)
        prefer: Callable[[V], float] | None = None,
        *,
        without: Container[V] = (),
    ) -> list[Assignment[V]]:
        """Whom to ask so that each hash of `range` (None: all of `space`) is asked for exactly once. In its order.

        Of all ways the one with the fewest assignments is taken; of these the one with the smallest sum of what
        `prefer` says of its views: a finite number or a bool, smaller is better, asked once for each view. Without it,
        and where sums are equal, it is always the same one: so say what you prefer if many ask. Nobody in `without` is
        assigned: cover the range of an assignment that failed without its view.

        Raises `NotServedError`, which has the gaps, if that leaves any; `InvalidValueError` or `InvalidTypeError`
        for a range that is not within `space`, and for a preference that is no finite number.
        """
        start, stop = (self.space.start, self.space.stop) if range is None else self._within(range)
        spans = [span for span in self._spans if span[0] < stop and span[1] > start and span[2] not in without]
        last = _cheapest_chain(start, stop, _cheapest_spans(start, stop, spans, prefer))
        if last is None:
            gaps = tuple(part.range for part in _parts(start, stop, _clipped(start, stop, spans)) if not part.views)
            raise NotServedError(f"nobody serves {self.encoding.name}: {_gaps_text(gaps)}", gaps)
        assignments: list[Assignment[V]] = []
        while last is not None:
            assignments.append(Assignment(HashRange(last.start, stop), last.view))
            stop, last = last.start, last.before
        return assignments[::-1]

    def __str__(self) -> str:
        served = f"at least {self.min_replicas} times" if self.complete else f"but for {_gaps_text(self.gaps)}"
        return f"{self.encoding.name}: {self.space} served {served}"

    def _within(self, range: HashRange) -> tuple[int, int]:  # noqa: A002 (the field's word)
        check_type("range", range, HashRange, "a HashRange")
        if range.start < self.space.start or range.stop > self.space.stop:
            raise InvalidValueError(f"range {range}: expected one within {self.space}")
        return range.start, range.stop


def coverage_of(
    encoding: KeyEncoding,
    served: Iterable[tuple[HashRange, V]],
    space: HashRange = HashRange.FULL,
) -> Coverage[V]:
    """Work out how `space` is served by these: each with the range that it serves. O(n log n), and O(the answer)."""
    start, stop = space.start, space.stop
    spans = _clipped(start, stop, [(range.start, range.stop, view) for range, view in served])  # noqa: A001
    parts = tuple(_parts(start, stop, spans))
    return Coverage(
        encoding,
        space,
        parts,
        tuple(part for part in parts if part.views),
        tuple(part.range for part in parts if not part.views),
        min(len(part.views) for part in parts),
        tuple(spans),
        tuple(part.range.start for part in parts),
    )


def encoding_for(feature: enum.Flag, encoding: KeyEncoding | None) -> KeyEncoding:
    """The hash space that a feature is about: SPO for HASH_SP, POS for HASH_PO, else the one that is given.

    Raises `InvalidValueError` if none is given, or another than the feature's own, `InvalidTypeError` for wrong types.
    """
    check_type("feature", feature, enum.Flag, "a member of an enum.Flag, such as Feature.HASH_SP")
    if encoding is not None:
        check_type("encoding", encoding, KeyEncoding, "KeyEncoding.SPO, KeyEncoding.POS or None")
    own = own_encodings(feature)
    if len(own) > 1:
        raise InvalidValueError(f"feature {feature_text(feature)}: expected HashSP or HashPO, for no view has both")
    if encoding is None:
        if not own:
            named = feature_text(feature) or "(none)"
            raise InvalidValueError(f"feature {named}: expected HashSP or HashPO, or else an encoding beside it")
        return own[0]
    if own and encoding is not own[0]:
        text = f"encoding {encoding.name} with feature {feature_text(feature)}"
        raise InvalidValueError(f"{text}: expected {own[0].name} or None")
    return encoding


def own_encodings(features: enum.Flag) -> list[KeyEncoding]:
    """The encodings that a view's partition would have to have for all of the features that go by one."""
    if not isinstance(features, Feature):
        return []
    return [encoding for feature, encoding in _ENCODINGS.items() if feature in features]


# -- splitting the space --


def _clipped(start: int, stop: int, spans: Iterable[_Span[V]]) -> list[_Span[V]]:
    return [
        (first if first > start else start, last if last < stop else stop, view)  # noqa: FURB136 (min and max are slow)
        for first, last, view in spans
        if first < stop and last > start
    ]


def _parts(start: int, stop: int, spans: list[_Span[V]]) -> Iterator[Replicas[V]]:
    beginning, ending = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for number, (first, last, _) in enumerate(spans):
        beginning[first].append(number)
        ending[last].append(number)
    serving: set[int] = set()
    for point, following in pairwise(sorted({start, stop, *beginning, *ending})):
        serving.difference_update(ending.get(point, ()))
        serving.update(beginning.get(point, ()))
        yield Replicas(HashRange(point, following), tuple([spans[number][2] for number in sorted(serving)]))


def _gaps_text(gaps: tuple[HashRange, ...]) -> str:
    more = f" and {len(gaps) - _NAMED_IN_ERRORS} more" if len(gaps) > _NAMED_IN_ERRORS else ""
    return ", ".join(map(str, gaps[:_NAMED_IN_ERRORS])) + more


# -- covering it --


class _Link(NamedTuple, Generic[V]):
    """A chain of spans without a gap, from its last one back to the first."""

    start: int
    stop: int
    view: V
    before: _Link[V] | None


def _cheapest_spans(
    start: int, stop: int, spans: list[_Span[V]], prefer: Callable[[V], float] | None
) -> list[tuple[int, int, float, V]]:
    """Of all that serve the same of a range the one with the smallest cost, with it; sorted by start and stop."""
    found: dict[tuple[int, int], tuple[float, V]] = {}
    for first, last, view in _clipped(start, stop, spans):
        cost = 0.0 if prefer is None else _cost(prefer(view), view)
        known = found.get((first, last))
        if known is None or cost < known[0]:
            found[first, last] = cost, view
    return [(first, last, *found[first, last]) for first, last in sorted(found)]


def _cost(preference: object, view: object) -> float:
    if not isinstance(preference, int | float):
        raise InvalidTypeError(f"prefer({view}) returned {preference!r}: expected a finite number")
    if not abs(preference) <= sys.float_info.max:  # nor NaN, nor an int that no float can hold
        raise InvalidValueError(f"prefer({view}) returned {preference!r}: expected a finite number; see `without`")
    return preference


def _cheapest_chain(start: int, stop: int, spans: list[tuple[int, int, float, V]]) -> _Link[V] | None:
    """The chain from `start` to `stop` with the fewest links, and then the smallest cost; None if there is a gap.

    Whoever joins a chain joins the cheapest that reaches its own start. That one lies on top of a heap, once those that
    end before it are thrown away: they are of no use any more, because starts only grow.
    """
    chains: list[tuple[int, float, int, _Link[V]]] = []  # links, cost, what makes it unique, chain

    def cheapest_to(point: int) -> tuple[int, float, _Link[V] | None] | None:
        if point == start:
            return 0, 0.0, None
        while chains and chains[0][3].stop < point:
            heapq.heappop(chains)
        return (chains[0][0], chains[0][1], chains[0][3]) if chains else None

    for number, (first, last, cost, view) in enumerate(spans):
        joint = cheapest_to(first)
        if joint is None:
            return None
        links, so_far, before = joint
        heapq.heappush(chains, (links + 1, so_far + cost, number, _Link(first, last, view, before)))
    whole = cheapest_to(stop)
    return None if whole is None else whole[2]
