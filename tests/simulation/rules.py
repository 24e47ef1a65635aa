"""What design.md promises in numbers (sections 3 and 5), and what a probe's answer means: written down for the model.

Rules:
* Nothing of viewreg but public types: a number that changes there by mistake is found here.
* While the event loop stalls nothing can be done in time: upper bounds are extended by `Stalls`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from attrs import frozen
from google.protobuf.message import DecodeError

from viewreg import Event, FactPartition, Feature, HashRange, InvalidValueError, KeyEncoding
from viewreg.rpc import StatsResult

EPSILON: Final = 1e-6  # seconds; what floats may be wrong by

PROBE_TIMEOUT: Final = 5.0
PROBE_EARLIEST, PROBE_LATEST = 9.0, 11.0  # from start to start: 10 s +- 10 %
PROBE_RETRY: Final = 1.0  # after a failed probe
ON_DEMAND: Final = 0.5  # at most one probe or dial that calls ask for in so long
CONNECT_TIMEOUT: Final = 5.0
BACKOFF_INITIAL, BACKOFF_GROWTH, BACKOFF_JITTER, BACKOFF_LATEST = 0.1, 1.6, 0.2, 1.0
PING_AFTER, PING_TIMEOUT = 8.0, 2.0  # of silence; for its answer
PINGS_BETWEEN_ANSWERS: Final = 2
PING_WITHOUT_STRIKE: Final = 300.0
PING_RAREST: Final = 86_400.0  # however often a server complains of them
RESENT: Final = 8  # times that a refused call is sent again
CLOSING: Final = 0.1  # for the last words of a connection
DISCOVERY_BACKOFF: Final = 30.0

SILENCE_NOTICED: Final = 10.5  # a frozen or cut server that was good is not healthy after that
BACK_AFTER_REFUSING: Final = 1.3  # a server that refused is healthy again, so long after it listens
# The worst that a good server has to wait for: a dial that was lost, a backoff, a probe that was lost, its repetition.
BACK_AFTER_ANYTHING: Final = CONNECT_TIMEOUT + BACKOFF_LATEST + PROBE_TIMEOUT + PROBE_RETRY


@frozen
class Counts:
    """What is not the same in all worlds."""

    rise: int  # good probes that make a view healthy
    fall: int  # failed ones that make it unhealthy
    drain: float  # seconds that calls in flight of a removed endpoint have


def backoff(failures: int) -> tuple[float, float]:
    """How long a server is left alone after so many failures in a row, of which the last may be the first: from, to."""
    highest = BACKOFF_LATEST / (1 + BACKOFF_JITTER)
    grown = min(BACKOFF_INITIAL * BACKOFF_GROWTH ** min(max(failures, 1) - 1, 20), highest)
    return grown * (1 - BACKOFF_JITTER), grown * (1 + BACKOFF_JITTER)


class Stalls:
    """How long the event loop has stood still, and when that ended. Upper bounds are extended by it."""

    def __init__(self) -> None:
        self._known: Final[list[tuple[float, float]]] = []  # end and duration

    def add(self, end: float, duration: float) -> None:
        """It stood still until then, for so long."""
        self._known.append((end, duration))

    def since(self, moment: float) -> float:
        """How long it has stood still in stalls that ended after that moment."""
        total = 0.0
        for end, duration in reversed(self._known):
            if end <= moment - duration:
                break
            total += duration
        return total


NO_FEATURES: Final = Feature(0)


@frozen
class Verdict:
    """What one probe says by design.md section 3, "Manners"."""

    event: Event
    features: Feature = NO_FEATURES
    partition: FactPartition | None = None


FAILED: Final = Verdict(Event.PROBE_FAILED)
NOT_UNDERSTOOD: Final = Verdict(Event.PROBE_NOT_UNDERSTOOD)


@lru_cache(256)
def verdict(status: int | None, messages: tuple[bytes, ...]) -> Verdict:
    """What a finished probe says; status None is a reset."""
    if status != 0 or len(messages) != 1:
        return FAILED
    try:
        stats = StatsResult.FromString(messages[0])
    except DecodeError:
        return FAILED
    served = stats.hashPartition
    encoding = {1: KeyEncoding.SPO, 2: KeyEncoding.POS}.get(served.encoding)
    if not stats.viewType.startswith("diskview/") or encoding is None:
        return NOT_UNDERSTOOD
    try:
        partition = FactPartition(encoding, HashRange(served.start, served.end or None))
    except InvalidValueError:
        return NOT_UNDERSTOOD
    kind = Feature.HASH_SP if encoding is KeyEncoding.SPO else Feature.HASH_PO
    return Verdict(Event.PROBE_OK, Feature.DIAGNOSTICS | Feature.CAROUSEL | kind, partition)
