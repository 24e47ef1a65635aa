"""What is known of one endpoint: its connectivity, what its probes said, and how it came to that.

Rules:
* Transitions are data: `_TRANSITIONS` says where an event leads from a state; what it does not name cannot happen.
* A failed connection stays TRANSIENT_FAILURE until READY, however often it is tried (gRPC A62): so a dead endpoint
  changes nothing that anyone sees, and a registry with dead endpoints is stable.
* A call that failed says nothing new about what the server serves; an answer that cannot be understood takes what was
  known away; a good answer replaces it.
* What people ask for afterwards, when and why, is in the `History`; it never makes two healths differ.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Final, Generic

import attrs
from attrs import field, frozen
from typing_extensions import TypeVar

from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._feature import Feature
from viewreg._partition import FactPartition

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound=enum.Flag, default=Feature)

LONGEST_REASON: Final = 200  # characters of a reason that are kept: a hostile server may send 64 KiB each second

NEEDS_PARTITION: Final = Feature.CAROUSEL | Feature.HASH_PO | Feature.HASH_SP


class Connectivity(enum.Enum):
    """The five states of a gRPC channel, by gRPC's names."""

    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    READY = "READY"
    TRANSIENT_FAILURE = "TRANSIENT_FAILURE"
    SHUTDOWN = "SHUTDOWN"


class Event(enum.Enum):
    """What can happen to an endpoint; the values are the words that history uses."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    CONNECT_FAILED = "connecting failed"
    REPLACING = "replacing the connection"
    LOST = "connection lost"
    PROBE_OK = "probe answered"
    PROBE_NOT_SERVING = "not serving"
    PROBE_FAILED = "probe failed"
    PROBE_NOT_SENT = "probe not sent"
    PROBE_NOT_UNDERSTOOD = "probe not understood"
    REMOVED = "removed"


def check_partition(features: enum.Flag, partition: FactPartition | None) -> None:
    """Raise `InvalidValueError` for features of the original that make no sense without a partition."""
    if partition is None and isinstance(features, Feature) and features & NEEDS_PARTITION:
        raise InvalidValueError(f"features {features}: expected a partition with {features & NEEDS_PARTITION}")


def _is_flag(_instance: object, attribute: attrs.Attribute[F], value: F) -> None:
    if not isinstance(value, enum.Flag):
        raise InvalidTypeError(f"{attribute.name} {value!r}: expected a member of an enum.Flag, such as Feature")


def _is_partition(
    _instance: object, attribute: attrs.Attribute[FactPartition | None], value: FactPartition | None
) -> None:
    if value is not None and not isinstance(value, FactPartition):
        raise InvalidTypeError(f"{attribute.name} {value!r}: expected a FactPartition or None")


@frozen
class ProbeResult(Generic[F]):
    """What a probe found out: what the server serves, and whether it does so now.

    Raises `InvalidValueError` for CAROUSEL, HASH_PO or HASH_SP without a partition, `InvalidTypeError` for wrong types.
    """

    features: F = field(validator=_is_flag)
    partition: FactPartition | None = field(default=None, validator=_is_partition)
    serving: bool = True
    reason: str = ""
    """Why it is not serving, in words for the history."""

    def __attrs_post_init__(self) -> None:
        check_partition(self.features, self.partition)


_S: Final = Connectivity
_TRANSITIONS: Final[dict[tuple[Connectivity, Event], Connectivity]] = {
    (_S.IDLE, Event.CONNECTING): _S.CONNECTING,
    (_S.CONNECTING, Event.CONNECTING): _S.CONNECTING,
    (_S.CONNECTING, Event.CONNECTED): _S.READY,
    (_S.CONNECTING, Event.CONNECT_FAILED): _S.TRANSIENT_FAILURE,
    (_S.READY, Event.PROBE_OK): _S.READY,
    (_S.READY, Event.PROBE_NOT_SERVING): _S.READY,
    (_S.READY, Event.PROBE_FAILED): _S.READY,
    (_S.READY, Event.PROBE_NOT_SENT): _S.READY,
    (_S.READY, Event.PROBE_NOT_UNDERSTOOD): _S.READY,
    (_S.READY, Event.LOST): _S.TRANSIENT_FAILURE,
    # Make before break: the view stays as it is until the first replacement is there, or fails.
    (_S.READY, Event.REPLACING): _S.READY,
    (_S.READY, Event.CONNECTING): _S.READY,
    (_S.READY, Event.CONNECTED): _S.READY,
    (_S.READY, Event.CONNECT_FAILED): _S.TRANSIENT_FAILURE,
    (_S.TRANSIENT_FAILURE, Event.CONNECTING): _S.TRANSIENT_FAILURE,
    (_S.TRANSIENT_FAILURE, Event.CONNECTED): _S.READY,
    (_S.TRANSIENT_FAILURE, Event.CONNECT_FAILED): _S.TRANSIENT_FAILURE,
    **{(state, Event.REMOVED): _S.SHUTDOWN for state in Connectivity},
}


@frozen
class Health(Generic[F]):
    """What is known of one endpoint now. Immutable: `after` returns the next one."""

    features: F
    partition: FactPartition | None = None
    connectivity: Connectivity = Connectivity.IDLE
    healthy: bool = False
    successes: int = 0
    """Good probes in a row on this connection, or the one it gracefully replaced; not counted past `rise`."""
    failures: int = 0
    """Failed probes in a row since the last good one; not counted past `fall`."""
    is_self: bool = False
    """The last connection led to this program's own server."""

    def shows_as(self, other: Health[F]) -> bool:
        """Whether a view of it says the same."""
        return (
            self.connectivity is other.connectivity
            and self.healthy is other.healthy
            and self.features == other.features
            and self.partition == other.partition
            and self.is_self is other.is_self
        )

    def after(
        self,
        event: Event,
        *,
        rise: int,
        fall: int,
        no_features: F,
        result: ProbeResult[F] | None = None,
        is_self: bool | None = None,
    ) -> Health[F]:
        """The health after one event; the very same object if nothing changed.

        `result` comes with PROBE_OK and PROBE_NOT_SERVING, `is_self` with CONNECTED. Raises KeyError for an event that
        cannot happen here.
        """
        connectivity = _TRANSITIONS[self.connectivity, event]
        features, partition, healthy = self.features, self.partition, self.healthy
        successes, failures = self.successes, self.failures
        if event in (Event.PROBE_OK, Event.PROBE_NOT_SERVING):
            assert result is not None
            features, partition = result.features, result.partition
        elif event is Event.PROBE_NOT_UNDERSTOOD:
            features, partition = no_features, None
        if event is Event.PROBE_OK:
            successes, failures = min(successes + 1, rise), 0
            healthy = healthy or successes >= rise
        elif event in (Event.PROBE_FAILED, Event.PROBE_NOT_SERVING, Event.PROBE_NOT_UNDERSTOOD):
            successes, failures = 0, min(failures + 1, fall)
            healthy = healthy and failures < fall
        elif connectivity is not Connectivity.READY or self.connectivity is not Connectivity.READY:
            successes, failures, healthy = 0, 0, False
        is_self = self.is_self if is_self is None else is_self
        after = Health(features, partition, connectivity, healthy, successes, failures, is_self)
        return self if after == self else after


@frozen
class HistoryEntry:
    """Something that happened to an endpoint, once or several times in a row for the same reason."""

    what: Event
    why: str
    """In an operator's words; may be empty where there is nothing to say."""
    when: float
    """Trio time, in seconds, when it happened first."""
    wall: float
    """The same as Unix time."""
    times: int = 1
    until: float = field(default=attrs.Factory(lambda self: self.when, takes_self=True))
    """Trio time when it happened last."""

    def __str__(self) -> str:
        text = f"{self.what.value}: {self.why}" if self.why else self.what.value
        return f"{text} ({self.times} times)" if self.times > 1 else text


class History:
    """The last entries of one endpoint, oldest first, at most `length` of them. Written by its supervisor only."""

    __slots__ = ("_entries", "_wall_clock")

    def __init__(self, length: int, wall_clock: Callable[[], float]) -> None:
        self._entries: Final[deque[HistoryEntry]] = deque(maxlen=length)
        self._wall_clock: Final = wall_clock

    def add(self, what: Event, why: str, now: float) -> bool:
        """Note it. Returns whether it is news: the last entry's repetition is not, and is only counted."""
        why = reason_text(why)
        last = self._entries[-1] if self._entries else None
        if last is not None and last.what is what and last.why == why:
            self._entries[-1] = HistoryEntry(what, why, last.when, last.wall, last.times + 1, now)
            return False
        self._entries.append(HistoryEntry(what, why, now, self._wall_clock()))
        return True

    def entries(self) -> tuple[HistoryEntry, ...]:
        """A copy, oldest first."""
        return tuple(self._entries)

    def reason(self) -> str:
        """Why the endpoint is as it is: its last entry's text."""
        return str(self._entries[-1]) if self._entries else ""


def reason_text(why: str) -> str:
    """What a server, a probe or an exception said, fit for one line of a log: nothing invisible, and not too long."""
    text = "".join([char if char.isprintable() else repr(char)[1:-1] for char in why[:LONGEST_REASON]])
    return text if len(why) <= LONGEST_REASON else f"{text} ..."
