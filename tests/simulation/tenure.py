"""The model of one endpoint, from its discovery to its removal: what its view must show, by what passed on the wire.

Rules:
* Written from design.md, sections 1, 3 and 5. It is told what the client sent and was told (`wire.Witness`), and when.
* Between two events of one moment the order in which tasks run may decide, so the model keeps the set of states that
  are right; the view's is then one of them, and the others are dropped.
* What is wrong is told by `complain`, when all tasks have come to rest: an endpoint that was removed in that very
  moment may do as it likes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve

from simulation.line import Line
from simulation.rules import (
    CLOSING,
    CONNECT_TIMEOUT,
    EPSILON,
    FAILED,
    ON_DEMAND,
    PING_AFTER,
    PING_RAREST,
    PINGS_BETWEEN_ANSWERS,
    PROBE_EARLIEST,
    PROBE_LATEST,
    PROBE_RETRY,
    PROBE_TIMEOUT,
    Counts,
    Stalls,
    Verdict,
    backoff,
)
from simulation.state import State, shown, text_of
from viewreg import Connectivity, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from simulation.calls import Ledger
    from viewreg import View


_SAME_GAPS: Final = 2  # in a row, between probes that are jittered: once in 10^12 probes by chance


class Tenure:
    """See the module. Made when an endpoint is discovered."""

    def __init__(
        self, address: str, counts: Counts, ledger: Ledger, stalls: Stalls, complain: Callable[[str], None]
    ) -> None:
        self.address: Final = address
        self.over_since = math.inf  # when it was removed; written by the model
        self.began: Final = trio.current_time()
        self.states = {State()}
        self.lines: Final[dict[Line, None]] = {}  # connections whose client has not closed them, and dials
        self.heard = -math.inf  # when anything was last heard of it; written by lines
        self.touched = True  # something has happened since it last came to rest
        self.seen: View | None = None  # its view then, and when it has to be looked at again; written by the model
        self.next_due = -math.inf
        self.ping_after = PING_AFTER  # on the next connection; doubled when the server complains
        self.ledger: Final = ledger
        self._counts: Final = counts
        self._stalls: Final = stalls
        self._complain: Final = complain
        self._complaints: list[str] = []  # of this moment
        self._hasty: tuple[str, float] | None = None  # a dial or probe in this moment, which a call may have asked for
        self.current: Line | None = None
        self._candidate: Line | None = None
        self._replaced: Line | None = None  # left gracefully, and nothing has come in its place yet
        self._idle_since = trio.current_time()  # when it last had neither connection nor dial
        self._dialled = -math.inf  # when the last dial began
        self._dialled_before = -math.inf  # and the one before
        self._probed = -math.inf  # when the last probe began
        self._judged_at = -math.inf  # when the last one ended
        self._gap, self._same_gaps = 0.0, 0  # between the last two probes, and how many before were as long
        self._failures = (0, 0)  # dials and connections in a row without a good probe: at least, at most
        self._settled = False  # the last probe said that all is well
        self._silenced = False  # the last probe got no answer

    # -- told by lines --

    def dials(self) -> Line:
        """A dial begins."""
        now = trio.current_time()
        self._expire()
        self.check_pace()
        if self._candidate is not None or self.current is not None:
            self.suspect("a second dial beside the one there is")
        attempt = max(self._dialled, self._probed)
        gap = now - self._idle_since
        if self._replaced is not None and self._replaced.answered:
            if now < self._dialled_before + ON_DEMAND - EPSILON:
                self.suspect(f"dialled a third time in {now - self._dialled_before:.3f} s")
        elif gap < backoff(self._failures[0])[0] - EPSILON and self._dialled > -math.inf:
            self._is_hasty(f"dialled again after {gap:.3f} s, by {self._failures[0]} failures in a row", attempt)
        self._dialled_before, self._dialled = self._dialled, now
        self._change(
            lambda state: (
                evolve(state, connectivity=Connectivity.CONNECTING, last=Event.CONNECTING, when=now)
                if state.connectivity is Connectivity.IDLE
                else state
            )
        )
        self._candidate = line = Line(self)
        self.lines[line] = None
        return line

    def came_up(self, line: Line) -> None:
        """The server's SETTINGS were read."""
        if line is self._candidate:
            replaced, self._replaced = self._replaced, None
            line.follows_answered = replaced is not None and replaced.answered
            self.current, self._candidate = line, None
            self._probed, self._settled, self._silenced = -math.inf, False, False
            now = trio.current_time()
            self._change(lambda state: state.up(now, replaced=replaced is not None))

    def went_down(self, line: Line) -> None:
        """The connection, or the dial, is over."""
        now = trio.current_time()
        if line is self.current:
            self.current, self._idle_since = None, now
            self._has_ended(line, 1)
            self._either(line.pending, lambda state: state.down(Event.LOST, now))
        elif line is self._candidate:
            self._candidate = self._replaced = None
            self._idle_since = now
            self._has_ended(line, 1)
            self._change(lambda state: state.down(Event.CONNECT_FAILED, now))

    def leaves(self, line: Line) -> None:
        """The server goes gracefully: the view stays as it is, if there was reason to believe in it."""
        if line is not self.current:
            return
        now = trio.current_time()
        self.current, self._replaced, self._idle_since = None, line, now
        self._has_ended(line, 0)
        good = line.answered or line.follows_answered
        before = self.states
        if good:
            self._either(line.pending, lambda state: evolve(state, last=Event.REPLACING, when=now))
        elif not line.answered_late and (line.pending is None or line.pending.event is not Event.PROBE_OK):
            self._replaced = None
            self._either(line.pending, lambda state: state.down(Event.LOST, now))
        else:  # its first answer came in the same breath: nobody knows which is seen first
            judged = set() if line.pending is None else self._judged(before, line.pending)
            down = {state.down(Event.LOST, now) for state in before | judged}
            self._either(line.pending, lambda state: evolve(state, last=Event.REPLACING, when=now))
            self.states |= down

    def probes(self, line: Line) -> None:
        """A probe begins."""
        if line is not self.current:
            return
        now = trio.current_time()
        self.check_pace()
        gap = now - self._probed
        by_chance = self._settled and gap <= PROBE_LATEST + EPSILON  # a longer one is how long the program stood still
        self._same_gaps = self._same_gaps + 1 if by_chance and abs(gap - self._gap) < EPSILON else 0
        self._gap = gap
        if self._same_gaps >= _SAME_GAPS:
            self.suspect(f"probed {self._same_gaps + 2} times, each {gap:.6f} s after the last one")
        least = PROBE_EARLIEST if self._settled else PROBE_RETRY
        if gap < least - EPSILON and not self._silenced:
            self._is_hasty(f"probed again after {gap:.3f} s", self._probed)
        self._probed, self._silenced = now, False

    def judge(self, line: Line, *, doubt: bool = False) -> None:
        """What the probe has said, or not said, by now. `doubt`: its answer may still come in this moment."""
        now = trio.current_time()
        if line is not self.current:
            return
        if line.pending is not None:
            self.states = self._judged(self.states, line.pending)
            self._settled = line.pending.event is Event.PROBE_OK and all(state.healthy for state in self.states)
            line.answered = line.answered or line.pending.event is Event.PROBE_OK
            line.pending, self._judged_at = None, now
        probe = line.probe
        if probe is not None and now >= probe.since + PROBE_TIMEOUT:
            line.probe, self._judged_at = None, now
            failed = self._judged(self.states, FAILED)
            # What arrives late clears the server, for this process may have been too busy to hear it.
            late = doubt or line.heard >= probe.since + PROBE_TIMEOUT
            self.states = self.states | failed if late else failed
            self._settled, self._silenced = False, True

    def probes_again(self) -> None:
        """What looked like a new probe was the end of the last one."""
        self._silenced = True

    @property
    def cuts_calls(self) -> bool:
        """Whether it was removed so long ago that calls in flight are cut."""
        return trio.current_time() >= self.over_since + self._counts.drain - EPSILON

    def complained_of_pings(self) -> None:
        """The server has sent GOAWAY ENHANCE_YOUR_CALM."""
        self.ping_after = min(2 * self.ping_after, PING_RAREST)

    def _has_ended(self, line: Line, after_good: int) -> None:
        """A dial or connection has ended: if a probe was good on it, failures are counted anew."""
        at_least, at_most = self._failures
        doubt = line.answered_late or line.pending is not None
        self._failures = (
            after_good if line.answered or doubt else at_least + 1,
            after_good if line.answered else at_most + 1,
        )

    def _is_hasty(self, what: str, attempt: float) -> None:
        """It is right if a call has asked for it since the last attempt, and that was long enough ago."""
        if trio.current_time() < attempt + ON_DEMAND - EPSILON:
            self.suspect(what)
        else:
            self._hasty = (what, attempt)

    def told_late(self, line: Line, found: Verdict) -> None:
        """An answer was read in the moment in which the patience with it ended: it counts, or says nothing."""
        if line is self.current:
            self.states = self.states | self._judged(self.states, found)
            line.answered_late = line.answered_late or found.event is Event.PROBE_OK
            self._settled = self._silenced = True
            self._judged_at = trio.current_time()

    def suspect(self, what: str) -> None:
        """Complain, unless the endpoint is removed in this very moment."""
        self._complaints.append(what)

    # -- at rest --

    def settle(self, view: View, last: tuple[Event, float] | None) -> None:
        """All tasks are at rest: the view must show one of the states that are right."""
        self.touched = False
        line = self.current
        if line is not None:
            self.judge(line)
        self._expire()
        self.check_pace()
        for line in self.lines:
            if (
                line not in (self.current, self._candidate)
                and not line.calls
                and self.is_late(line.last_used + CLOSING)
            ):
                self.suspect("a connection is left open that nobody uses")
        if self._hasty is not None and not self.ledger.wants(self.address, self._hasty[1]):
            self.suspect(self._hasty[0])
        self._hasty = None
        seen = (view.connectivity, view.healthy, view.features, view.partition, last)
        right = {state for state in self.states if shown(state) == seen}
        if right:
            self.states = right
        else:
            expected = " or ".join(sorted(text_of(shown(state)) for state in self.states))
            self.suspect(f"the view is {text_of(seen)}, expected {expected}")
        for complaint in self._complaints:
            self._complain(f"{self.address}: {complaint}")
        self._complaints.clear()

    def _expire(self) -> None:
        """A connection ends by silence, a dial by lasting too long; that they are closed comes a little later."""
        candidate = self._candidate
        if candidate is not None and trio.current_time() >= candidate.began + CONNECT_TIMEOUT:
            candidate.given_up = True
            self.went_down(candidate)
        line = self.current
        if line is not None and trio.current_time() >= line.silent_at:
            line.given_up = True
            self.went_down(line)

    def due(self) -> float:
        """When something may have to happen next, as far as the wire tells."""
        line, candidate = self.current, self._candidate
        if candidate is not None:
            return candidate.began + CONNECT_TIMEOUT
        if line is None or len(self.lines) > 1:
            return -math.inf  # soon: look at every moment
        if line.probe is not None:
            probe = line.probe.since + PROBE_TIMEOUT
        else:
            probe = self._probed + (PROBE_LATEST if self._settled else PROBE_RETRY)
        return min(line.heard + line.ping_after, line.silent_at, probe)

    def check_pace(self) -> None:
        """What should have begun by now; asked at rest, and when it does begin."""
        now, line = trio.current_time(), self.current
        if line is None:
            if self._candidate is None and self._dialled == -math.inf and now > self._idle_since + EPSILON:
                self.suspect("not dialled at once")
            earliest = self._dialled_before + ON_DEMAND if self._replaced is not None else 0.0
            at_once = self._replaced is not None and self._replaced.answered
            patience = 0.0 if at_once else backoff(self._failures[1])[1]
            latest = max(self._idle_since + patience, earliest)
            asked = self.ledger.refused.get(self.address, -math.inf)
            if asked > self._idle_since and self._replaced is None:
                latest = min(latest, max(asked, self._dialled + ON_DEMAND, self._probed + ON_DEMAND))
            if self._candidate is None and self.is_late(latest):
                self.suspect(f"not dialled for {now - self._idle_since:.3f} s")
            return
        if line.probe is None:
            latest = self._probed + (PROBE_LATEST if self._settled else PROBE_RETRY)
            if self.is_late(max(latest, self._judged_at, line.up_since)):
                self.suspect(f"not probed for {now - max(self._probed, line.up_since):.3f} s")
        patient = line.pings_unanswered >= PINGS_BETWEEN_ANSWERS
        if line.pinged is None and not patient and self.is_late(line.heard + line.ping_after):
            self.suspect(f"no PING after {now - line.heard:.3f} s of silence")

    def is_late(self, due: float) -> bool:
        """Whether something that was due then comes too late now."""
        return trio.current_time() > due + self._stalls.since(due) + EPSILON

    # -- states --

    def _change(self, step: Callable[[State], State]) -> None:
        self.states = {step(state) for state in self.states}
        self.touched = True

    def _either(self, pending: Verdict | None, step: Callable[[State], State]) -> None:
        """Something happens in the moment in which an answer was read: that may have been judged before, or never."""
        if pending is not None:
            self.states = self.states | self._judged(self.states, pending)
        self._change(step)

    def _judged(self, states: Iterable[State], found: Verdict) -> set[State]:
        now = trio.current_time()
        return {state.judged(found, self._counts.rise, self._counts.fall, now) for state in states}
