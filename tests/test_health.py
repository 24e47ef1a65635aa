"""Health: the table of transitions, what each event leaves behind, and the history."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import pytest

from viewreg import (
    Connectivity,
    Event,
    FactPartition,
    Feature,
    HistoryEntry,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    ProbeResult,
)
from viewreg._health import Health, History

if TYPE_CHECKING:
    from collections.abc import Iterable

IDLE, CONNECTING, READY = Connectivity.IDLE, Connectivity.CONNECTING, Connectivity.READY
FAILED, SHUTDOWN = Connectivity.TRANSIENT_FAILURE, Connectivity.SHUTDOWN
GOOD, BAD, PUZZLING, NOT_SERVING = (
    Event.PROBE_OK,
    Event.PROBE_FAILED,
    Event.PROBE_NOT_UNDERSTOOD,
    Event.PROBE_NOT_SERVING,
)

# From each state: where each event leads; what is missing cannot happen.
TABLE: dict[Connectivity, dict[Event, Connectivity]] = {
    IDLE: {Event.CONNECTING: CONNECTING, Event.REMOVED: SHUTDOWN},
    CONNECTING: {
        Event.CONNECTING: CONNECTING,
        Event.CONNECTED: READY,
        Event.CONNECT_FAILED: FAILED,
        Event.REMOVED: SHUTDOWN,
    },
    READY: {
        Event.CONNECTING: READY,
        Event.CONNECTED: READY,
        Event.CONNECT_FAILED: FAILED,
        Event.REPLACING: READY,
        Event.LOST: FAILED,
        GOOD: READY,
        BAD: READY,
        PUZZLING: READY,
        NOT_SERVING: READY,
        Event.PROBE_NOT_SENT: READY,
        Event.REMOVED: SHUTDOWN,
    },
    FAILED: {
        Event.CONNECTING: FAILED,
        Event.CONNECTED: READY,
        Event.CONNECT_FAILED: FAILED,
        Event.REMOVED: SHUTDOWN,
    },
    SHUTDOWN: {Event.REMOVED: SHUTDOWN},
}

SPO = FactPartition.nth(KeyEncoding.SPO, 0, of=2)
POS = FactPartition.nth(KeyEncoding.POS, 1, of=2)
SERVES_SP = ProbeResult(Feature.HASH_SP, SPO)
SERVES_PO = ProbeResult(Feature.HASH_PO, POS)


def after(
    health: Health[Feature], *events: Event | ProbeResult[Feature], rise: int = 1, fall: int = 1
) -> Health[Feature]:
    """The health after these events; a result stands for a probe that found it."""
    for item in events:
        event, result = (item, None) if isinstance(item, Event) else (GOOD if item.serving else NOT_SERVING, item)
        health = health.after(event, rise=rise, fall=fall, no_features=Feature(0), result=result)
    return health


def up(*events: Event | ProbeResult[Feature], rise: int = 1, fall: int = 1) -> Health[Feature]:
    """The health of a new endpoint that is connected, after these events."""
    return after(Health(Feature(0)), Event.CONNECTING, Event.CONNECTED, *events, rise=rise, fall=fall)


def test_which_server_it_is() -> None:
    """Whether it is oneself is told by a connection and holds until the next one tells otherwise; views show it."""
    own, other = (
        Health(Feature(0), connectivity=Connectivity.CONNECTING).after(
            Event.CONNECTED, rise=1, fall=1, no_features=Feature(0), is_self=is_self
        )
        for is_self in (True, False)
    )
    assert (own.is_self, other.is_self) == (True, False)
    assert not own.shows_as(other)
    assert after(own, SERVES_SP, Event.LOST, Event.CONNECTING).is_self
    replaced = after(own, SERVES_SP, Event.REPLACING, Event.CONNECTING)
    assert not replaced.after(Event.CONNECTED, rise=1, fall=1, no_features=Feature(0), is_self=False).is_self


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", Connectivity)
def test_every_transition(state: Connectivity, event: Event) -> None:
    """Every event leads from every state to where the table says, and raises where the table says nothing."""
    health = Health(Feature.DIAGNOSTICS, connectivity=state)
    result = ProbeResult(Feature.DIAGNOSTICS) if event in (GOOD, NOT_SERVING) else None
    expected = TABLE[state].get(event)
    if expected is None:
        with pytest.raises(KeyError):
            health.after(event, rise=1, fall=1, no_features=Feature(0), result=result)
    else:
        assert health.after(event, rise=1, fall=1, no_features=Feature(0), result=result).connectivity is expected


def test_failure_is_sticky() -> None:
    """However often an endpoint that failed is tried, its health is the very same object until it is READY."""
    failed = after(Health(Feature(0)), Event.CONNECTING, Event.CONNECT_FAILED)
    assert after(failed, Event.CONNECTING) is failed
    assert after(failed, Event.CONNECTING, Event.CONNECT_FAILED) is failed
    assert after(failed, Event.CONNECTING, Event.CONNECTED).connectivity is READY


def test_repeated_probes_change_nothing() -> None:
    """The same good answer, and the same failure, again and again leave the very same object."""
    good = up(SERVES_SP)
    assert after(good, SERVES_SP) is good
    bad = after(good, BAD)
    assert after(bad, BAD) is bad


@pytest.mark.parametrize("rise", [1, 2, 5])
def test_rise(rise: int) -> None:
    """A view is healthy with the rise-th good probe in a row, no sooner; a failure in between starts the count anew."""
    health = up(*[SERVES_SP] * (rise - 1), rise=rise)
    assert not health.healthy
    assert after(health, SERVES_SP, rise=rise).healthy
    assert after(health, BAD, *[SERVES_SP] * (rise - 1), rise=rise).healthy is False
    assert after(health, BAD, *[SERVES_SP] * rise, rise=rise).healthy


@pytest.mark.parametrize(
    "bad", [BAD, PUZZLING, ProbeResult(Feature(0), serving=False)], ids=["failed", "puzzling", "not serving"]
)
@pytest.mark.parametrize("fall", [1, 2, 5])
def test_fall(fall: int, bad: Event | ProbeResult[Feature]) -> None:
    """A healthy view is unhealthy with the fall-th bad probe in a row, no sooner; a good one starts the count anew."""
    healthy = up(SERVES_SP, fall=fall)
    assert after(healthy, *[bad] * (fall - 1), fall=fall).healthy is True
    assert after(healthy, *[bad] * fall, fall=fall).healthy is False
    assert after(healthy, *[bad] * (fall - 1), SERVES_SP, *[bad] * (fall - 1), fall=fall).healthy is True


@pytest.mark.parametrize("event", [Event.LOST, Event.CONNECT_FAILED, Event.REMOVED])
def test_a_lost_connection_is_unhealthy_at_once(event: Event) -> None:
    """Without connection a view is unhealthy whatever fall is, and the counts begin anew on the next connection."""
    lost = after(up(SERVES_SP, SERVES_SP, fall=3, rise=2), event, fall=3, rise=2)
    assert not lost.healthy
    if event is not Event.REMOVED:
        again = after(lost, Event.CONNECTING, Event.CONNECTED, SERVES_SP, fall=3, rise=2)
        assert not again.healthy
        assert after(again, SERVES_SP, fall=3, rise=2).healthy


def test_a_graceful_replacement_keeps_the_count() -> None:
    """Replacing a connection gracefully neither makes the view unhealthy nor counts its probes anew."""
    replaced = (Event.REPLACING, Event.CONNECTING, Event.CONNECTED)
    healthy = up(SERVES_SP)
    assert after(healthy, *replaced) is healthy
    rising = after(up(SERVES_SP, rise=2), *replaced, SERVES_SP, rise=2)
    assert rising.healthy
    assert not after(healthy, Event.REPLACING, Event.CONNECTING, Event.CONNECT_FAILED).healthy


def test_a_failed_call_keeps_features() -> None:
    """A failed probe call, a lost connection and a new one leave features and partition."""
    for events in ([BAD], [Event.LOST], [Event.LOST, Event.CONNECTING, Event.CONNECTED, BAD]):
        health = after(up(SERVES_SP), *events)
        assert (health.features, health.partition) == (Feature.HASH_SP, SPO)


def test_a_misunderstood_answer_clears() -> None:
    """An answer that cannot be understood takes features and partition away."""
    health = after(up(SERVES_SP), PUZZLING)
    assert (health.features, health.partition, health.healthy) == (Feature(0), None, False)


def test_a_different_answer_replaces() -> None:
    """A different answer replaces features and partition, whether the server serves or not."""
    health = after(up(SERVES_SP), SERVES_PO)
    assert (health.features, health.partition, health.healthy) == (Feature.HASH_PO, POS, True)
    resting = after(health, ProbeResult(Feature.HASH_SP, SPO, serving=False))
    assert (resting.features, resting.partition, resting.healthy) == (Feature.HASH_SP, SPO, False)


def test_counts_do_not_show() -> None:
    """Two healths that differ only in their counts show as the same view."""
    one, two = up(SERVES_SP, rise=3), up(SERVES_SP, SERVES_SP, rise=3)
    assert one != two
    assert one.shows_as(two)
    for other in (up(SERVES_SP), up(SERVES_PO, rise=3), after(one, Event.LOST), up(rise=3)):
        assert not one.shows_as(other)


# -- results of probes --


@pytest.mark.parametrize(
    "feature", [Feature.CAROUSEL, Feature.HASH_PO, Feature.HASH_SP, Feature.DIAGNOSTICS | Feature.HASH_SP]
)
def test_results_need_a_partition(feature: Feature) -> None:
    """What serves facts serves a partition: a result without one is refused, and says what it needs."""
    with pytest.raises(InvalidValueError, match="expected a partition"):
        ProbeResult(feature)


@pytest.mark.parametrize(
    ("features", "partition", "words"),
    [
        (5, None, "features 5: expected a member of an enum.Flag"),
        ("HashSP", None, "features 'HashSP': expected a member of an enum.Flag"),
        (Feature(0), "all", "partition 'all': expected a FactPartition or None"),
    ],
)
def test_results_of_wrong_types(features: Any, partition: Any, words: str) -> None:
    """A result of wrong types is refused where it is made."""
    with pytest.raises(InvalidTypeError, match=words):
        ProbeResult(features, partition)


def test_a_flag_of_ones_own_needs_nothing() -> None:
    """Only the original's features demand a partition; another flag's may be anything."""

    class Colour(enum.Flag):
        CAROUSEL = enum.auto()

    assert ProbeResult(Colour.CAROUSEL).partition is None


# -- history --


def history(length: int, items: Iterable[tuple[Event, str]]) -> History:
    """A history to which these were added, one each second."""
    found = History(length, lambda: 1e9)
    for now, (event, why) in enumerate(items):
        found.add(event, why, float(now))
    return found


def test_history_collapses_repeats() -> None:
    """The same thing for the same reason, again and again, is one entry that counts and knows first and last."""
    found = history(10, [(Event.CONNECT_FAILED, "refused")] * 4 + [(Event.CONNECT_FAILED, "timed out")])
    assert found.entries() == (
        HistoryEntry(Event.CONNECT_FAILED, "refused", when=0.0, wall=1e9, times=4, until=3.0),
        HistoryEntry(Event.CONNECT_FAILED, "timed out", when=4.0, wall=1e9),
    )
    assert found.entries()[1].until == 4.0


def test_history_says_what_is_news() -> None:
    """`add` returns whether the entry is a new one."""
    found = History(10, lambda: 0.0)
    assert found.add(BAD, "x", 0.0)
    assert not found.add(BAD, "x", 1.0)
    assert found.add(BAD, "y", 2.0)
    assert found.add(GOOD, "y", 3.0)


def test_history_is_bounded() -> None:
    """Only the last entries are kept, oldest first."""
    found = history(3, [(BAD, str(number)) for number in range(100)])
    assert [entry.why for entry in found.entries()] == ["97", "98", "99"]


def test_history_reason() -> None:
    """The reason is the last entry's text, with how often it happened; nothing when nothing has."""
    assert history(3, []).reason() == ""
    assert history(3, [(BAD, "no answer in time")]).reason() == "probe failed: no answer in time"
    assert history(3, [(BAD, "no answer in time")] * 3).reason() == "probe failed: no answer in time (3 times)"
    assert history(3, [(Event.CONNECTED, "")]).reason() == "connected"


def test_history_is_copied() -> None:
    """Entries that were handed out do not change when more happens."""
    found = history(3, [(BAD, "x")])
    before = found.entries()
    found.add(BAD, "x", 9.0)
    assert before[0].times == 1
