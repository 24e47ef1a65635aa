"""The promises of coverage and cover, against a model that looks at every hash of a small space, one by one."""

from __future__ import annotations

import enum
import itertools
import math
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewreg._coverage import Assignment, Coverage, Replicas, coverage_of, encoding_for
from viewreg._errors import InvalidTypeError, InvalidValueError, NotServedError
from viewreg._feature import Feature
from viewreg._partition import HashRange, KeyEncoding

SPO, POS = KeyEncoding.SPO, KeyEncoding.POS
SIZE = 12  # hashes of the small space


@attrs.frozen
class World:
    """Some hashes at the bottom or the top of the space, and who serves which of them. Who serves is a number."""

    space: HashRange
    served: list[tuple[HashRange, int]]

    @property
    def hashes(self) -> range:
        return range(self.space.start, self.space.stop)

    def serving(self, point: int) -> tuple[int, ...]:
        """The model: everybody is asked for every hash."""
        return tuple(view for served, view in self.served if served.start <= point < served.stop)

    def runs(self, wanted: Any) -> list[HashRange]:
        """The longest ranges of hashes that are wanted."""
        found = []
        for is_wanted, group in itertools.groupby(self.hashes, wanted):
            if is_wanted:
                points = list(group)
                found.append(HashRange(points[0], points[-1] + 1))
        return found

    def coverage(self) -> Coverage[int]:
        return coverage_of(SPO, self.served, self.space)


@st.composite
def worlds(draw: st.DrawFn, most: int = 8) -> World:
    """Any world; ranges may stick out of it where there is room, and several views may serve the same."""
    base = draw(st.sampled_from([0, 1000, 2**64 - SIZE]))
    space = draw(ranges_within(base, base + SIZE))
    served = draw(st.lists(ranges_within(base, base + SIZE), max_size=most))
    return World(space, [(found, view) for view, found in enumerate(served)])


@st.composite
def ranges_within(draw: st.DrawFn, start: int, stop: int) -> HashRange:
    """Any range between two points."""
    first = draw(st.integers(start, stop - 1))
    return HashRange(first, draw(st.integers(first + 1, stop)))


@given(worlds())
def test_everyone_is_found_at_every_hash(world: World) -> None:
    """At each hash there are exactly those that serve it, in the order in which they were given."""
    coverage = world.coverage()
    assert [coverage.at(point).views for point in world.hashes] == [world.serving(point) for point in world.hashes]
    assert all(point in coverage.at(point).range for point in world.hashes)


@given(worlds())
def test_parts_ranges_and_gaps(world: World) -> None:
    """The parts are the space, in order; ranges are those that are served, gaps the others, which never touch."""
    coverage = world.coverage()
    assert [point for part in coverage.parts for point in range(part.range.start, part.range.stop)] == [*world.hashes]
    assert coverage.ranges == tuple(part for part in coverage.parts if part.views)
    assert list(coverage.gaps) == world.runs(lambda point: not world.serving(point))
    boundaries = {point for served, _ in world.served for point in (served.start, served.stop)}
    inner = {part.range.start for part in coverage.parts} - {world.space.start}
    assert inner == boundaries & set(world.hashes) - {world.space.start}


@given(worlds(), st.integers(1, 4))
def test_how_often(world: World, n: int) -> None:
    """The fewest replicas, whether it is complete, and the thin parts are those of the hashes."""
    coverage = world.coverage()
    counts = {point: len(world.serving(point)) for point in world.hashes}
    assert coverage.min_replicas == min(counts.values())
    assert coverage.complete is all(counts.values()) is (coverage.min_replicas > 0)
    thin = [point for part in coverage.thin(n) for point in range(part.range.start, part.range.stop)]
    assert thin == [point for point in world.hashes if counts[point] < n]


@given(worlds(), st.data())
def test_replicas_of_a_range(world: World, data: st.DataObject) -> None:
    """Those that could take a range over serve each hash of it."""
    wanted = data.draw(ranges_within(world.space.start, world.space.stop))
    everywhere = [set(world.serving(point)) for point in range(wanted.start, wanted.stop)]
    assert set(world.coverage().replicas(wanted)) == set.intersection(*everywhere)


@given(worlds(most=6), st.data())
def test_cover(world: World, data: st.DataObject) -> None:
    """Each hash is asked for once, of somebody that serves it, with the fewest calls and then the smallest sum."""
    wanted = data.draw(ranges_within(world.space.start, world.space.stop))
    without = data.draw(st.sets(st.integers(0, 5)))
    costs = data.draw(st.lists(st.integers(-3, 3) | st.booleans(), min_size=6, max_size=6))
    points = range(wanted.start, wanted.stop)
    serves = {view: {p for p in points if view in world.serving(p)} for _, view in world.served if view not in without}
    ways = [
        (size, sum(costs[view] for view in chosen))
        for size in range(1, len(serves) + 1)
        for chosen in itertools.combinations(serves, size)
        if set().union(*(serves[view] for view in chosen)) == set(points)
    ]
    coverage = world.coverage()
    if not ways:
        with pytest.raises(NotServedError) as caught:
            coverage.cover(wanted, costs.__getitem__, without=without)
        served = set().union(*serves.values())
        assert list(caught.value.gaps) == World(wanted, []).runs(lambda point: point not in served)
        return
    found = coverage.cover(wanted, costs.__getitem__, without=without)
    asked = [(point, a.view) for a in found for point in range(a.range.start, a.range.stop)]
    assert [point for point, _ in asked] == [*points]
    assert all(point in serves[view] for point, view in asked)
    assert (len(found), sum(costs[a.view] for a in found)) == min(ways)


def test_cover_prefers_fewer_calls() -> None:
    """One call to somebody that nobody likes is better than two to favourites."""
    served = [(HashRange(0, 5), "a"), (HashRange(5, None), "b"), (HashRange.FULL, "far")]
    coverage = coverage_of(SPO, served)
    assert coverage.cover(prefer={"a": 0, "b": 0, "far": 99}.__getitem__) == [Assignment(HashRange.FULL, "far")]
    halves = [Assignment(HashRange(0, 5), "a"), Assignment(HashRange(5, None), "b")]
    assert coverage.cover(without=["far"]) == halves


@pytest.mark.parametrize("dear", [{"a", "b"}, {"c", "d"}, {"a", "d"}, {"b", "c"}, {"a"}, {"d"}])
def test_cover_prefers_the_smaller_sum(dear: set[str]) -> None:
    """Of several ways with as many calls the one whose views cost less together is taken, wherever they differ."""
    served = [(HashRange(0, 6), "a"), (HashRange(5, None), "b"), (HashRange(0, 5), "c"), (HashRange(3, None), "d")]
    found = coverage_of(SPO, served).cover(prefer=dear.__contains__)
    assert len(found) == 2
    assert dear.isdisjoint(assignment.view for assignment in found)


def test_the_order_is_that_of_the_views() -> None:
    """Within a part views are in the order in which they were given, however many came and went before."""
    served = [(HashRange(0, 5) if number in (1, 8, 16) else HashRange(5, None), number) for number in range(20)]
    assert coverage_of(SPO, served).at(0).views == (1, 8, 16)


def test_a_failed_part_is_taken_over() -> None:
    """When a view of a cover fails, its range is covered by others: by a replica, or by several views in part."""
    served = [
        (HashRange(0, 10), "a"), (HashRange(10, None), "b"), (HashRange(10, None), "c"), (HashRange(0, 4), "d"),
        (HashRange(2, 11), "e"),
    ]  # fmt: skip
    coverage = coverage_of(SPO, served)
    first, second = coverage.cover()
    assert (first.view, second.view) == ("a", "b")
    assert coverage.replicas(second.range) == ("b", "c")
    assert coverage.cover(second.range, without={"b"}) == [Assignment(second.range, "c")]
    assert coverage.replicas(first.range) == ("a",)
    assert coverage.cover(first.range, without={"a"}) == [
        Assignment(HashRange(0, 2), "d"), Assignment(HashRange(2, 10), "e"),
    ]  # fmt: skip


def test_preferences_are_asked_once() -> None:
    """Everybody that comes into question is asked for once, and nobody else."""
    asked: list[str] = []

    def prefer(view: str) -> float:
        asked.append(view)
        return 0

    served = [(HashRange(0, 5), "a"), (HashRange(0, 5), "b"), (HashRange(5, None), "c"), (HashRange.FULL, "d")]
    coverage_of(SPO, served).cover(HashRange(1, 3), prefer, without={"d"})
    assert sorted(asked) == ["a", "b"]


def test_nobody() -> None:
    """Without anybody there is one gap, and nothing that could be covered."""
    nothing: Coverage[str] = coverage_of(POS, [])
    assert nothing.parts == nothing.thin(1) == (Replicas(HashRange.FULL, ()),)
    assert (nothing.ranges, nothing.gaps, nothing.min_replicas) == ((), (HashRange.FULL,), 0)
    assert not nothing.complete
    with pytest.raises(NotServedError, match=r"^nobody serves POS: 0x00\.\. - ∞$") as caught:
        nothing.cover()
    assert caught.value.gaps == (HashRange.FULL,)
    assert pickle.loads(pickle.dumps(caught.value)).gaps == (HashRange.FULL,)


def test_texts() -> None:
    """The text of a coverage says how good it is; a dead fleet's names a few gaps and counts the rest."""
    half = HashRange(0, 2**63)
    assert str(coverage_of(SPO, [(HashRange.FULL, "a"), (half, "b")])) == ("SPO: 0x00.. - ∞ served at least 1 times")
    assert str(coverage_of(SPO, [(half, "a")])) == "SPO: 0x00.. - ∞ served but for 0x80.. - ∞"
    holes = coverage_of(SPO, [(HashRange(i, i + 1), i) for i in range(0, 2000, 2)])
    assert str(holes).endswith(" and 995 more")
    with pytest.raises(NotServedError, match=r" and 995 more$") as caught:
        holes.cover()
    assert caught.value.gaps == holes.gaps


@pytest.mark.parametrize("bad", [HashRange(3, 10), HashRange(5, None), HashRange(0, 2), "0-5", None])
def test_ranges_outside_are_refused(bad: Any) -> None:
    """What a coverage has not looked at it says nothing about; what is no range is refused."""
    coverage = coverage_of(SPO, [(HashRange.FULL, "a")], HashRange(4, 9))
    kind = InvalidValueError if isinstance(bad, HashRange) else InvalidTypeError
    with pytest.raises(kind, match=r"^range "):
        coverage.replicas(bad)
    if bad is not None:
        with pytest.raises(kind, match=r"^range "):
            coverage.cover(bad)


@pytest.mark.parametrize("bad", [3, 9, -1, 2**64, True, 4.0, None])
def test_hashes_outside_are_refused(bad: Any) -> None:
    """What is no hash of the space is refused, with the space."""
    coverage = coverage_of(SPO, [(HashRange.FULL, "a")], HashRange(4, 9))
    with pytest.raises((InvalidValueError, InvalidTypeError), match=r"^hash .* from 4 to 8$"):
        coverage.at(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400, None, "near"])
def test_preferences_are_numbers(bad: Any) -> None:
    """A preference that is no finite number is refused, with the view."""
    with pytest.raises(
        (InvalidValueError, InvalidTypeError), match=r"^prefer\(a\) returned .*: expected a finite number"
    ):
        coverage_of(SPO, [(HashRange.FULL, "a")]).cover(prefer=lambda _view: bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5])
def test_thin_takes_a_count(bad: Any) -> None:
    """How many are enough is a whole number of at least 1."""
    with pytest.raises((InvalidValueError, InvalidTypeError), match=r"^n "):
        coverage_of(SPO, [(HashRange.FULL, "a")]).thin(bad)


class Colour(enum.Flag):
    RED = enum.auto()


@pytest.mark.parametrize(
    ("feature", "given", "expected"),
    [
        (Feature.HASH_SP, None, SPO),
        (Feature.HASH_PO, None, POS),
        (Feature.HASH_SP, SPO, SPO),
        (Feature.CAROUSEL | Feature.HASH_PO, None, POS),
        (Feature.CAROUSEL, POS, POS),
        (Colour.RED, SPO, SPO),
        (Colour(0), POS, POS),
    ],
)
def test_which_space(feature: enum.Flag, given: KeyEncoding | None, expected: KeyEncoding) -> None:
    """HASH_SP is about SPO, HASH_PO about POS, everything else about what is given."""
    assert encoding_for(feature, given) is expected


@pytest.mark.parametrize(
    ("feature", "given", "kind", "text"),
    [
        (Feature.CAROUSEL, None, InvalidValueError, "feature Carousel: expected HashSP or HashPO, or else an encoding"),
        (Feature(0), None, InvalidValueError, "feature (none): expected HashSP or HashPO, or else an encoding"),
        (Colour.RED, None, InvalidValueError, "feature RED: expected HashSP or HashPO, or else an encoding"),
        (Feature.HASH_SP, POS, InvalidValueError, "encoding POS with feature HashSP: expected SPO or None"),
        (Feature.HASH_SP | Feature.HASH_PO, SPO, InvalidValueError, "feature HashPO,HashSP: expected HashSP or HashPO"),
        ("HashSP", None, InvalidTypeError, "feature 'HashSP': expected a member of an enum.Flag"),
        (Feature.HASH_SP, "SPO", InvalidTypeError, "encoding 'SPO': expected KeyEncoding.SPO, KeyEncoding.POS or None"),
    ],
)
def test_which_space_is_unclear(feature: Any, given: Any, kind: type[Exception], text: str) -> None:
    """Where nothing says which space is meant, or two things say it differently, that is an error that says so."""
    with pytest.raises(kind) as caught:
        encoding_for(feature, given)
    assert str(caught.value).startswith(text)
