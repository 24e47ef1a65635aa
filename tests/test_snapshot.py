"""Snapshot and Change: reading, the original's texts and keys, and what is different between two."""

from __future__ import annotations

import io
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fleet import hosts
from viewreg import (
    Connectivity,
    Endpoint,
    FactPartition,
    Feature,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    Snapshot,
    UnknownViewError,
    View,
)
from viewreg._snapshot import change_between, duration_text

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
