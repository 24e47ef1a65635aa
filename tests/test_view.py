"""View: what it says, its text, and the stubs that call its server."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from fleet import all_healthy, open_fleet
from viewreg import (
    Connectivity,
    Endpoint,
    FactPartition,
    Feature,
    HashRange,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    View,
    ViewregError,
)
from viewreg.rpc import DiagnosticsStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from viewreg import Channel

NOTHING = Feature(0)
POS = FactPartition.nth(KeyEncoding.POS, 0, of=2)
DISK = Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_PO


def view(
    features: Any = NOTHING,
    partition: FactPartition | None = None,
    endpoint: Endpoint | None = None,
    *,
    healthy: bool = False,
) -> View[Any]:
    """A view made by hand."""
    return View(endpoint, partition, features, Connectivity.READY, healthy)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (view(), "View{Endpoint: Partition: Features: Healthy:false}"),
        (
            view(Feature.CAROUSEL, POS, Endpoint("example.com", 80)),
            'View{Endpoint:"tcp://example.com:80" Partition:[POS: 0x00.. - 0x80..] Features:Carousel Healthy:false}',
        ),
        (
            view(DISK, FactPartition(KeyEncoding.POS, HashRange.FULL), Endpoint("::1", 80), healthy=True),
            (
                'View{Endpoint:"tcp://[::1]:80" Partition:[POS: 0x00.. - ∞] '
                "Features:Diagnostics,Carousel,HashPO Healthy:true}"
            ),
        ),
        (
            view(DISK | Feature.HASH_SP, POS),
            (
                "View{Endpoint: Partition:[POS: 0x00.. - 0x80..] "
                "Features:Diagnostics,Carousel,HashPO,HashSP Healthy:false}"
            ),
        ),
    ],
)
def test_text(made: View[Feature], text: str) -> None:
    """The text is the original's to the letter; parts that are not there stay empty."""
    assert str(made) == text


def test_provides() -> None:
    """A view provides what it has every one of, combinations included; asked for nothing it says True."""
    made = view(DISK, POS)
    assert made.provides()
    assert made.provides(Feature.DIAGNOSTICS, Feature.HASH_PO)
    assert made.provides(Feature.DIAGNOSTICS | Feature.HASH_PO)
    assert not made.provides(Feature.DIAGNOSTICS, Feature.HASH_SP)
    assert not made.provides(Feature.DIAGNOSTICS | Feature.HASH_SP)
    assert made.provides(Feature(0))


@pytest.mark.parametrize("feature", [Feature.CAROUSEL, Feature.HASH_PO, Feature.HASH_SP, DISK])
def test_facts_need_a_partition(feature: Feature) -> None:
    """A view that serves facts always has a partition."""
    with pytest.raises(InvalidValueError, match="expected a partition"):
        view(feature)


def test_views_are_values() -> None:
    """Views that say the same are equal and hash alike; nothing in them can be changed."""
    one, two = view(DISK, POS, Endpoint("a", 1)), view(DISK, POS, Endpoint("a", 1))
    assert one == two
    assert len({one, two}) == 1
    assert one != view(DISK, POS, Endpoint("a", 2))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.healthy = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("features", "partition"),
    [
        ([], None),
        ([Feature.DIAGNOSTICS], None),
        ([Feature.HASH_SP], FactPartition(KeyEncoding.SPO, HashRange.FULL)),
        ([Feature.HASH_PO, Feature.CAROUSEL], FactPartition(KeyEncoding.POS, HashRange.FULL)),
    ],
)
def test_with_features_for_testing(features: list[Feature], partition: FactPartition | None) -> None:
    """A copy has exactly the features asked for, and the full range where one of them needs a partition."""
    made = view().with_features_for_testing(*features)
    assert made.partition == partition
    assert all(made.provides(feature) for feature in features)
    assert sum(feature in made.features for feature in Feature) == len(features)
    assert view(DISK, POS).with_features_for_testing(Feature.HASH_PO).partition == POS


def test_with_features_of_ones_own_for_testing() -> None:
    """The same with a flag of one's own, which needs no partition."""

    class Colour(enum.Flag):
        RED = enum.auto()
        BLUE = enum.auto()

    made = view(Colour(0)).with_features_for_testing(Colour.RED, Colour.BLUE)
    assert made.features is Colour.RED | Colour.BLUE
    assert str(made) == "View{Endpoint: Partition: Features:RED,BLUE Healthy:false}"


def test_a_view_made_by_hand_has_no_channel() -> None:
    """Asking a view without server for its channel says so."""
    with pytest.raises(ViewregError, match="has no channel"):
        view().diagnostics()


STUBS: list[tuple[Callable[[View[Feature]], Any], str]] = [
    (lambda found: found.diagnostics(), "DiagnosticsStub"),
    (lambda found: found.carousel(), "CarouselStub"),
    (lambda found: found.hash_po(), "ReadFactsPOStub"),
    (lambda found: found.hash_sp(), "ReadFactsSPStub"),
]


@pytest.mark.parametrize(("stub", "name"), STUBS)
async def test_stubs(stub: Callable[[View[Feature]], Any], name: str, autojump_clock: MockClock) -> None:
    """Each of the four stubs is of its class, made once for an endpoint, also for later views of it."""
    async with open_fleet() as fleet, fleet.open("a:1") as registry:
        early = registry.snapshot.view("a:1")
        late = (await registry.wait_until(all_healthy)).view("a:1")
        assert type(stub(early)).__name__ == name
        assert stub(late) is stub(early)
        assert late.channel is early.channel


async def test_any_stub(autojump_clock: MockClock) -> None:
    """`stub` takes any class that purerpc generated, and refuses anything else by name."""
    async with open_fleet() as fleet, fleet.open("a:1") as registry:
        found = (await registry.wait_until(all_healthy)).view("a:1")
        assert found.stub(DiagnosticsStub) is found.diagnostics()

        def no_stub(channel: Channel) -> object:
            return object()

        with pytest.raises(InvalidTypeError, match="no_stub"):
            found.stub(no_stub)
