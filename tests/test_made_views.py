"""`make_view` and `make_snapshot`: values as a registry makes them, for unit tests without a server."""

from __future__ import annotations

import enum
import io
from typing import Any

import pytest

from viewreg import (
    Connectivity,
    Endpoint,
    FactPartition,
    Feature,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    ViewregError,
)
from viewreg.testing import make_snapshot, make_view

POS = FactPartition.nth(KeyEncoding.POS, 1, of=4)


def test_a_view_without_arguments() -> None:
    """It is what most tests want: healthy, and able to look up by subject and predicate."""
    view = make_view()
    assert view.healthy
    assert view.provides(Feature.DIAGNOSTICS, Feature.CAROUSEL, Feature.HASH_SP)
    assert str(view.partition) == "SPO: 0x00.. - ∞"
    assert view.connectivity is Connectivity.READY


def test_features_follow_the_partition() -> None:
    """As with `StatsProbe`: the encoding decides which lookups there are, and without a partition there are none."""
    assert make_view(partition=POS).features == Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_PO
    assert make_view(partition=None).features == Feature.DIAGNOSTICS


def test_what_is_said_is_kept() -> None:
    """Address, features, health and connectivity are what the test says."""
    view = make_view("[::1]:9", features=Feature.CAROUSEL, healthy=False, connectivity=Connectivity.IDLE)
    assert view.endpoint == Endpoint("::1", 9)
    assert (view.features, view.healthy, view.connectivity) == (Feature.CAROUSEL, False, Connectivity.IDLE)
    assert make_view(Endpoint("a", 1), healthy=False).connectivity is Connectivity.TRANSIENT_FAILURE


def test_features_of_ones_own() -> None:
    """Any enum.Flag will do, as with a probe of one's own."""

    class Mine(enum.Flag):
        SEARCH = enum.auto()

    snapshot = make_snapshot(make_view(features=Mine.SEARCH, partition=None))
    assert len(snapshot.healthy_views(Mine.SEARCH)) == 1
    assert snapshot.summary()["search_views"] == 1


def test_there_is_no_server() -> None:
    """Asking for a stub says that the view was made by hand."""
    with pytest.raises(ViewregError, match="made by hand"):
        make_view().diagnostics()


def test_a_snapshot() -> None:
    """Views stand in a registry's order, can be found by address, and the ages are those of the imaginary run."""
    snapshot = make_snapshot("b:1", make_view("a:9", healthy=False), "a:10", version=7, last_changed=100.0, age=2.5)
    assert [str(view.endpoint) for view in snapshot.views] == ["tcp://a:10", "tcp://a:9", "tcp://b:1"]
    assert snapshot.view("a:9").healthy is False
    assert (snapshot.version, snapshot.last_changed) == (7, 100.0)
    assert snapshot.summary()["time_since_last_change"] == 2.5
    assert snapshot.summary()["healthy_views"] == 2
    text = io.StringIO()
    snapshot.dump(text)
    assert text.getvalue().count("View{") == 3


def test_an_empty_snapshot() -> None:
    """It has nothing, and asks for nothing."""
    assert make_snapshot().summary()["all_views"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"address": "a"}, InvalidValueError, "'a'"),
        ({"address": 5}, InvalidTypeError, "address 5: expected an Endpoint or a HOST:PORT text"),
        ({"partition": "SPO"}, InvalidTypeError, "partition 'SPO': expected a FactPartition"),
        ({"partition": None, "features": Feature.HASH_SP}, InvalidValueError, "partition"),
        ({"features": 3}, InvalidTypeError, "features 3: expected a Feature"),
        ({"connectivity": "READY"}, InvalidTypeError, "connectivity 'READY'"),
        ({"connectivity": Connectivity.IDLE}, InvalidValueError, "connectivity IDLE of a healthy view: expected READY"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    """What no registry would say is refused, with the value and what is allowed."""
    with pytest.raises(error, match=match):
        make_view(**arguments)


def test_bad_snapshots() -> None:
    """An address that comes twice, and what is no view, are refused."""
    with pytest.raises(InvalidValueError, match="a:1 comes more than once"):
        make_snapshot("a:1", "a:1")
    with pytest.raises(InvalidTypeError, match="view 5"):
        make_snapshot(5)  # type: ignore[arg-type]
