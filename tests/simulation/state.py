"""What a view shows of one endpoint, what is counted behind it, and how events change that.

Rules:
* Written from design.md, section 3, "Manners", and section 5: `rise` and `fall`, and what a probe's end says.
* A state is a value; nothing here knows of the wire, or of time but as a number.
"""

from __future__ import annotations

from attrs import evolve, frozen

from simulation.rules import NO_FEATURES, Verdict
from viewreg import Connectivity, Event, FactPartition, Feature


@frozen
class State:
    """What a view shows, what it has counted, and the last word of its history."""

    connectivity: Connectivity = Connectivity.IDLE
    healthy: bool = False
    features: Feature = NO_FEATURES
    partition: FactPartition | None = None
    good: int = 0  # probes in a row
    bad: int = 0
    last: Event | None = None
    when: float = 0.0

    def down(self, event: Event, now: float) -> State:
        """The connection is gone, or there was none to be had."""
        return self._anew(Connectivity.TRANSIENT_FAILURE, event, now)

    def up(self, now: float, *, replaced: bool) -> State:
        """A connection is there. Only one that was gracefully replaced hands its health on."""
        if replaced and self.connectivity is Connectivity.READY:
            return evolve(self, last=Event.CONNECTED, when=now)
        return self._anew(Connectivity.READY, Event.CONNECTED, now)

    def judged(self, found: Verdict, rise: int, fall: int, now: float) -> State:
        """A probe said so."""
        if found.event is Event.PROBE_OK:
            good = min(self.good + 1, rise)
            state = evolve(self, features=found.features, partition=found.partition, good=good, bad=0)
            state = evolve(state, healthy=self.healthy or good >= rise)
        else:
            bad = min(self.bad + 1, fall)
            state = evolve(self, good=0, bad=bad, healthy=self.healthy and bad < fall)
            if found.event is Event.PROBE_NOT_UNDERSTOOD:
                state = evolve(state, features=NO_FEATURES, partition=None)
        return evolve(state, last=found.event, when=now)

    def _anew(self, connectivity: Connectivity, event: Event, now: float) -> State:
        return evolve(self, connectivity=connectivity, healthy=False, good=0, bad=0, last=event, when=now)


Shown = tuple[Connectivity, bool, Feature, FactPartition | None, tuple[Event, float] | None]


def shown(state: State) -> Shown:
    """What can be seen of it."""
    last = None if state.last is None else (state.last, state.when)
    return state.connectivity, state.healthy, state.features, state.partition, last


def text_of(shown: Shown) -> str:
    """The same in words."""
    connectivity, healthy, features, partition, last = shown
    word = "nothing" if last is None else f"{last[0].value!r} at {last[1]:.6f}"
    kind = "healthy" if healthy else "unhealthy"
    return f"{connectivity.name} {kind} [{features} {partition}] after {word}"
