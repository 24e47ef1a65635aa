"""What `import viewreg` offers: names, docstrings, home, and values that travel."""

from __future__ import annotations

import inspect
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import viewreg
from fleet import all_healthy, open_fleet
from viewreg import (
    Assignment,
    Backoff,
    Config,
    Connectivity,
    Discovery,
    DiscoveryStatus,
    Endpoint,
    EndpointDiff,
    Event,
    FactPartition,
    Feature,
    HashRange,
    HistoryEntry,
    KeyEncoding,
    ProbeResult,
    StatsProbe,
    View,
    ViewregError,
)
from viewreg._coverage import coverage_of

if TYPE_CHECKING:
    import enum

    from trio.testing import MockClock

DEFINED = {
    name: found
    for name in viewreg.__all__
    if isinstance(found := getattr(viewreg, name), type) or inspect.isfunction(found)
}
FOREIGN = {"StatusCode"}  # purerpc's own


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is sorted, names what exists and every public name there is."""
    assert viewreg.__all__ == sorted(set(viewreg.__all__))
    visible = {
        name
        for name, found in vars(viewreg).items()
        if not name.startswith("_") and not inspect.ismodule(found) and name not in {"annotations", "TYPE_CHECKING"}
    }
    assert visible == set(viewreg.__all__)


@pytest.mark.parametrize("name", sorted(DEFINED.keys() - FOREIGN))
def test_home_and_docstring(name: str) -> None:
    """Every class and function says that it lives in viewreg, and has a docstring of its own."""
    found = DEFINED[name]
    assert found.__module__ == "viewreg"
    assert found.__doc__
    assert found.__doc__.strip()
    if isinstance(found, type):
        assert "__doc__" in vars(found)


CLASSES = sorted(name for name, found in DEFINED.items() if isinstance(found, type) and name not in FOREIGN)


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_have_docstrings(name: str) -> None:
    """Every public method and property of a public class has a docstring."""
    found = DEFINED[name]
    missing = [
        attribute
        for attribute, member in vars(found).items()
        if not attribute.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
        and not inspect.getdoc(getattr(found, attribute))
    ]
    assert missing == []


def test_the_interface() -> None:
    """The names of the documented interface are there."""
    promised = {
        "Assignment", "Change", "Config", "Connectivity", "Coverage", "Discovery", "DiscoveryStatus", "Endpoint",
        "FactPartition", "Feature", "HashRange", "KeyEncoding", "Locator", "NotServedError", "Probe",
        "ProbeAnswerError", "ProbeResult", "Registry", "RegistryClosedError", "Replicas", "Snapshot",
        "StaticLocator", "StatsProbe", "UnavailableError", "View", "hash_po", "hash_sp", "open_registry",
    }  # fmt: skip
    assert promised <= set(viewreg.__all__)


PARTITION = FactPartition(KeyEncoding.POS, HashRange(5, None))
ENDPOINT = Endpoint("a", 1, annotations={"zone": "x"})
VALUES: list[Any] = [
    Backoff(),
    Config(rise=2),
    ENDPOINT,
    EndpointDiff((ENDPOINT,), (), ()),
    Discovery(3, (ENDPOINT,)),
    DiscoveryStatus(3, 1.5, "why"),
    HashRange(5, None),
    PARTITION,
    ProbeResult(Feature.HASH_PO, PARTITION, serving=False, reason="full"),
    HistoryEntry(Event.LOST, "why", 1.0, 2.0),
    View(ENDPOINT, PARTITION, Feature.HASH_PO, Connectivity.READY, healthy=True),
    View(ENDPOINT, PARTITION, Feature.HASH_PO, Connectivity.READY, healthy=True, is_self=True),
    coverage_of(KeyEncoding.POS, [(HashRange(5, None), ENDPOINT)]),
    Assignment(HashRange(5, None), ENDPOINT),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_travel(value: Any) -> None:
    """A value that is pickled comes back equal."""
    assert pickle.loads(pickle.dumps(value)) == value


async def test_a_live_view_travels(autojump_clock: MockClock) -> None:
    """A view of a registry is pickled without its channel: what it says travels, the way to its server does not."""
    async with open_fleet() as fleet, fleet.open("a:1") as registry:
        view = (await registry.wait_until(all_healthy)).view("a:1")
        twin = pickle.loads(pickle.dumps(view))
        assert twin == view
        with pytest.raises(ViewregError, match="has no channel"):
            twin.diagnostics()


@pytest.mark.parametrize("kind", [Connectivity, Event, Feature, KeyEncoding])
def test_members_travel(kind: type[enum.Enum]) -> None:
    """Members of enums come back as themselves."""
    assert all(pickle.loads(pickle.dumps(member)) is member for member in kind)


def test_probes_have_a_text() -> None:
    """The default probe is recognisable in messages."""
    assert repr(StatsProbe()) == "StatsProbe()"
