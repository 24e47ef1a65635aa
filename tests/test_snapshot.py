"""Snapshot and Change: reading, the original's texts and keys, and what is different between two."""

from __future__ import annotations

import enum
import io
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fleet import hosts
from viewreg import (
    Assignment,
    Connectivity,
    Endpoint,
    FactPartition,
    Feature,
    HashRange,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    NotServedError,
    Snapshot,
    UnknownViewError,
    View,
    ViewregError,
    hash_po,
    hash_sp,
)
from viewreg._snapshot import change_between, duration_text, how_many_serve

SPO = FactPartition.nth(KeyEncoding.SPO, 0, of=2)
SERVES = Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_SP


def view(host_port: str, features: Feature = SERVES, *, healthy: bool = True, **annotations: str) -> View[Feature]:
    """A view of this endpoint, made by hand."""
    parsed = Endpoint.parse(host_port)
    endpoint = Endpoint(parsed.host, parsed.port, annotations=annotations)
    return View(endpoint, SPO, features, Connectivity.READY, healthy)


def snapshot(
    *views: View[Feature], version: int = 1, last_changed: float = 0.0, clock: Any = None
) -> Snapshot[Feature]:
    """A snapshot of these views."""
    return Snapshot(version, last_changed, views, Feature(0), clock or MockClock())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.049, "0s"),
        (0.05, "100ms"),
        (0.3, "300ms"),
        (0.94, "900ms"),
        (0.96, "1s"),
        (1.0, "1s"),
        (1.2, "1.2s"),
        (59.94, "59.9s"),
        (59.96, "1m0s"),
        (60.0, "1m0s"),
        (75.3, "1m15.3s"),
        (3599.96, "1h0m0s"),
        (3600.0, "1h0m0s"),
        (3660.1, "1h1m0.1s"),
        (90061.3, "25h1m1.3s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations are rounded to tenths and written as Go writes them."""
    assert duration_text(seconds) == text


async def test_dump(autojump_clock: MockClock) -> None:
    """The dump is the original's to the letter."""
    found = snapshot(
        view("a:1"),
        view("b:2", Feature.DIAGNOSTICS, healthy=False),
        last_changed=trio.current_time(),
        clock=autojump_clock,
    )
    await trio.sleep(75.3)
    file = io.StringIO()
    found.dump(file)
    assert file.getvalue() == (
        "View Registry\n"
        "Last changed: 1m15.3s ago\n"
        '0: View{Endpoint:"tcp://a:1" Partition:[SPO: 0x00.. - 0x80..] '
        "Features:Diagnostics,Carousel,HashSP Healthy:true}\n"
        '1: View{Endpoint:"tcp://b:2" Partition:[SPO: 0x00.. - 0x80..] Features:Diagnostics Healthy:false}\n'
    )


def test_dump_goes_to_the_stdout_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file the dump goes to what sys.stdout is now."""
    snapshot().dump()
    assert capsys.readouterr().out == "View Registry\nLast changed: 0s ago\n"


def test_lists_are_fresh() -> None:
    """Lists are the caller's to change: the next reader gets what is true."""
    found = snapshot(view("a:1"))
    found.all_views().clear()
    found.healthy_views().clear()
    found.healthy_views(Feature.HASH_SP).clear()
    assert len(found.all_views()) == len(found.healthy_views()) == len(found.healthy_views(Feature.HASH_SP)) == 1


def test_healthy_views() -> None:
    """Only healthy views are given, and of these only those that provide all that is asked for."""
    one, two, three = view("a:1"), view("b:1", Feature.DIAGNOSTICS), view("c:1", healthy=False)
    found = snapshot(one, two, three)
    assert found.healthy_views() == [one, two]
    assert found.healthy_views(Feature.HASH_SP) == [one]
    assert found.healthy_views(Feature.DIAGNOSTICS | Feature.CAROUSEL) == [one]
    assert found.healthy_views(Feature.DIAGNOSTICS, Feature.CAROUSEL) == [one]
    assert found.healthy_views(Feature.HASH_PO) == []


def test_what_a_snapshot_remembers_is_bounded() -> None:
    """However many combinations of features are asked for, in whatever order, few answers are kept; all are right."""
    one = view("a:1")
    found = snapshot(one)
    for length in range(1, 300):
        assert found.healthy_views(*[Feature.DIAGNOSTICS] * length) == [one]
    assert found.healthy_views(*[Feature.HASH_PO] * 300) == []
    assert len(found._healthy) <= 64


def serving(
    host_port: str, i: int, of: int, *, encoding: KeyEncoding = KeyEncoding.SPO, healthy: bool = True
) -> View[Feature]:
    """A view that serves one of so many partitions."""
    feature = Feature.HASH_SP if encoding is KeyEncoding.SPO else Feature.HASH_PO
    partition = FactPartition.nth(encoding, i, of=of)
    return View(Endpoint.parse(host_port), partition, Feature.CAROUSEL | feature, Connectivity.READY, healthy)


A, B, C, D = serving("a:1", 0, 2), serving("b:1", 1, 2), serving("c:1", 1, 2), serving("d:1", 1, 2, healthy=False)
PO = serving("e:1", 0, 1, encoding=KeyEncoding.POS)
MIDDLE = 2**63


def test_coverage() -> None:
    """Healthy views with the feature and a partition of its kind count, and no others."""
    bare = View(Endpoint("f", 1), None, Feature.DIAGNOSTICS, Connectivity.READY, healthy=True)
    found = snapshot(A, B, C, D, PO, bare)
    coverage = found.coverage(Feature.HASH_SP)
    assert [part.views for part in coverage.ranges] == [(A,), (B, C)]
    assert (coverage.encoding, coverage.min_replicas, coverage.complete) == (KeyEncoding.SPO, 1, True)
    assert [part.views for part in found.coverage(Feature.HASH_PO).ranges] == [(PO,)]
    assert found.coverage(Feature.CAROUSEL, encoding=KeyEncoding.POS) == found.coverage(Feature.HASH_PO)
    assert found.coverage(Feature.HASH_SP, space=HashRange(MIDDLE, None)).min_replicas == 2
    assert found.coverage(Feature.DIAGNOSTICS, encoding=KeyEncoding.SPO).gaps == (HashRange.FULL,)


def test_a_view_serves_by_its_partition() -> None:
    """A view that claims HASH_SP over a POS partition serves nothing by subject and predicate."""
    liar = View(Endpoint("a", 1), PO.partition, Feature.HASH_SP, Connectivity.READY, healthy=True)
    assert snapshot(liar).coverage(Feature.HASH_SP).gaps == (HashRange.FULL,)


def test_coverage_is_worked_out_once() -> None:
    """A snapshot remembers coverages, though not more than a few; all are right."""
    found = snapshot(A, B)
    assert found.coverage(Feature.HASH_SP) is found.coverage(Feature.HASH_SP, encoding=KeyEncoding.SPO)
    for start in range(100):
        assert found.coverage(Feature.HASH_SP, space=HashRange(start, None)).space.start == start
    assert len(found._coverages) == 64


def test_cover() -> None:
    """Each hash has exactly one view, the preferred; without somebody it is another one, or an error with the gaps."""
    found = snapshot(A, B, C)
    lower, upper = HashRange(0, MIDDLE), HashRange(MIDDLE, None)
    assert found.cover(Feature.HASH_SP) == [Assignment(lower, A), Assignment(upper, B)]
    assert found.cover(Feature.HASH_SP, prefer=lambda view: view is B) == [Assignment(lower, A), Assignment(upper, C)]
    assert found.cover(Feature.HASH_SP, upper, without={B}) == [Assignment(upper, C)]
    assert found.cover(Feature.CAROUSEL, upper, encoding=KeyEncoding.SPO) == [Assignment(upper, B)]
    with pytest.raises(NotServedError) as caught:
        found.cover(Feature.HASH_SP, without={A})
    assert caught.value.gaps == (lower,)


def test_for_hash() -> None:
    """The views of a hash are found on either side of a boundary, in a list that is the caller's."""
    found = snapshot(A, B, C, D, PO)
    assert found.for_hash(Feature.HASH_SP, MIDDLE - 1) == [A]
    assert found.for_hash(Feature.HASH_SP, MIDDLE) == found.for_hash(Feature.HASH_SP, 2**64 - 1) == [B, C]
    found.for_hash(Feature.HASH_SP, 0).clear()
    assert found.for_hash(Feature.HASH_SP, 0) == [A]
    assert found.for_hash(Feature.CAROUSEL, 0, encoding=KeyEncoding.POS) == [PO]
    assert snapshot(B).for_hash(Feature.HASH_SP, 0) == []


def test_for_fact() -> None:
    """The views of a fact are those of its hash: by subject and predicate, or by predicate and object."""
    found = snapshot(*[serving(f"h{i}:1", i % 8, 8, encoding=list(KeyEncoding)[i // 8]) for i in range(16)])
    for number in range(50):
        fact: dict[str, Any] = {"subject": number, "predicate": number + 1, "object": bytes([number])}
        by_sp = found.for_hash(Feature.HASH_SP, hash_sp(number, number + 1))
        by_po = found.for_hash(Feature.HASH_PO, hash_po(number + 1, bytes([number])))
        assert found.for_fact(Feature.HASH_SP, **fact) == by_sp
        assert found.for_fact(Feature.HASH_SP, subject=number, predicate=number + 1) == by_sp
        assert found.for_fact(Feature.HASH_PO, **fact) == by_po
        assert found.for_fact(Feature.CAROUSEL, **fact, encoding=KeyEncoding.POS) == by_po


@pytest.mark.parametrize(
    ("feature", "parts", "text"),
    [
        (Feature.HASH_SP, {"predicate": 1}, "subject None: expected a whole number from 0 to"),
        (Feature.HASH_SP, {"subject": 1}, "predicate None: expected a whole number from 0 to"),
        (Feature.HASH_PO, {"subject": 1, "predicate": 1}, "object None: expected bytes"),
    ],
)
def test_for_fact_needs_the_parts(feature: Feature, parts: dict[str, Any], text: str) -> None:
    """A part of a fact that the hash is made of and that is missing is named."""
    with pytest.raises(InvalidTypeError) as caught:
        snapshot(A).for_fact(feature, **parts)
    assert str(caught.value).startswith(text)


class Colour(enum.Flag):
    RED = enum.auto()


@pytest.mark.parametrize(
    ("feature", "options", "text"),
    [
        (Feature.DIAGNOSTICS, {}, "feature Diagnostics: expected HashSP or HashPO"),
        (Colour.RED, {"encoding": KeyEncoding.SPO}, "feature <Colour.RED: 1>: expected a Feature"),
        (Feature.HASH_SP, {"space": "all"}, "space 'all': expected a HashRange"),
    ],
)
def test_coverage_of_nonsense(feature: Any, options: dict[str, Any], text: str) -> None:
    """A feature without a hash space, one of another kind and what is no range are refused."""
    with pytest.raises(ViewregError) as caught:
        snapshot(A).coverage(feature, **options)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("encoding", KeyEncoding)
def test_counting_for_one_hash(encoding: KeyEncoding) -> None:
    """How many serve one hash is what the coverage says of it."""
    found = snapshot(A, B, C, D, PO)
    for point in (0, MIDDLE - 1, MIDDLE):
        counted = how_many_serve(found, Feature.CAROUSEL, point, encoding)
        assert counted == len(found.for_hash(Feature.CAROUSEL, point, encoding=encoding))
    assert how_many_serve(found, Feature.DIAGNOSTICS, 0, encoding) == 0


def test_view_by_endpoint() -> None:
    """A view is found by its endpoint or its address, whatever the annotations; an unknown one names the known."""
    one = view("a:1", zone="x")
    found = snapshot(one, view("b:1"))
    assert found.view("a:1") is found.view(Endpoint("a", 1)) is found.view("tcp://a:1") is one
    with pytest.raises(UnknownViewError, match="no view of c:1; known endpoints: a:1, b:1"):
        found.view("c:1")
    with pytest.raises(KeyError):
        found.view("c:1")
    with pytest.raises(UnknownViewError, match="known endpoints: none"):
        snapshot().view("c:1")


def test_errors_of_a_large_fleet_are_short() -> None:
    """The error for an unknown endpoint among thousands names a few and counts the rest."""
    found = snapshot(*[view(f"h{number}:1") for number in range(5000)])
    with pytest.raises(UnknownViewError, match="and 4980 more") as caught:
        found.view("c:1")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("bad", "kind"), [("a", InvalidValueError), ("a:0", InvalidValueError), (5, InvalidTypeError)])
def test_view_by_nonsense(bad: Any, kind: type[Exception]) -> None:
    """What is no endpoint is refused as such."""
    with pytest.raises(kind):
        snapshot().view(bad)


def test_summary() -> None:
    """The keys are the original's in snake case; features are counted over healthy views only."""
    clock = MockClock()
    found = snapshot(view("a:1"), view("b:1", Feature.DIAGNOSTICS), view("c:1", healthy=False), clock=clock)
    clock.jump(1.25)
    assert found.summary() == {
        "time_since_last_change": 1.25,
        "all_views": 3,
        "healthy_views": 2,
        "diagnostics_views": 2,
        "carousel_views": 1,
        "hash_po_views": 0,
        "hash_sp_views": 1,
    }


def test_change() -> None:
    """A change tells added, removed and updated views apart; views that say the same are no update."""
    old = snapshot(view("a:1"), view("b:1"), view("c:1"), view("d:1"))
    new = snapshot(view("b:1"), view("c:1", healthy=False), view("d:1", zone="x"), view("e:1"), version=2)
    change = change_between(old, new)
    assert (change.old, change.new) == (old, new)
    assert hosts(change.added) == ["e:1"]
    assert hosts(change.removed) == ["a:1"]
    assert hosts(change.updated) == ["c:1", "d:1"]
    assert change.updated[0] is new.view("c:1")
    assert change.removed[0] is old.view("a:1")
