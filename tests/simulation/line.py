"""The model of one connection, from its dial on: what the client may send on it, and when.

Rules:
* It is a `wire.Witness`: it is told what passes, and tells its tenure what that means.
* What is wrong goes to `Tenure.suspect`: an endpoint that was removed in that very moment may do as it likes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from simulation.rules import (
    CLOSING,
    CONNECT_TIMEOUT,
    EPSILON,
    PING_TIMEOUT,
    PING_WITHOUT_STRIKE,
    PINGS_BETWEEN_ANSWERS,
    PROBE_TIMEOUT,
    RESENT,
    Verdict,
    verdict,
)
from simulation.wire import REFUSED_STREAM

if TYPE_CHECKING:
    from simulation.tenure import Tenure
    from simulation.wire import Answer

_CALM_DOWN = 11  # an error code


@define
class _Probe:
    since: float
    stream_id: int | None  # None: refused, and to be sent again
    refusals: int = 0
    maybe_old: bool = False  # it may be the one before, sent again in the very moment in which its time was up


class Line:
    """One dial and the connection that comes of it. It is a `wire.Witness`."""

    def __init__(self, tenure: Tenure) -> None:
        self.began = self.heard = self.up_since = self.last_used = trio.current_time()
        self.probe: _Probe | None = None
        self.pending: Verdict | None = None  # read in this moment, and not judged yet
        self.answered = False  # a probe was good on it
        self.answered_late = False  # or too late
        self.follows_answered = False  # and on the one that it gracefully replaced
        self.pinged: float | None = None  # when a PING went that nothing has answered
        self.pings = 0  # since the server last answered a call
        self.pings_unanswered = 0  # since it last answered one that the client still waited for
        self.ping_after = tenure.ping_after  # seconds of silence
        self.given_up = False  # the client has a reason to close it
        self.cut_short = False  # the client has closed it, with calls in flight and without a reason
        self.leaving = False  # and another one, once its calls have ended
        self._asked_last = -PING_WITHOUT_STRIKE
        self._tenure: Final = tenure
        self._up = False
        self.calls: Final[dict[int, int]] = {}  # numbers of calls in flight, by stream

    @property
    def silent_at(self) -> float:
        """When silence ends it."""
        return math.inf if self.pinged is None else self.pinged + PING_TIMEOUT

    @property
    def explains_losses(self) -> bool:
        """Whether calls on it may have been lost."""
        return (self.given_up and not self.cut_short) or self._tenure.cuts_calls

    def refused(self) -> None:
        """The dial has failed."""
        self._over()

    def abandoned(self) -> None:
        """The dial was given up."""
        due = self.began + CONNECT_TIMEOUT
        if trio.current_time() < due - EPSILON or self._tenure.is_late(due):
            self._tenure.suspect(f"a dial given up after {trio.current_time() - self.began:.3f} s")
        self._over()

    def on_greeting(self) -> None:
        self._up, self.up_since = True, trio.current_time()
        self._tenure.came_up(self)

    def connected(self) -> None:
        """The dial has succeeded."""
        self.heard, self.ping_after = trio.current_time(), self._tenure.ping_after

    def on_bytes(self) -> None:
        self._tenure.touched = True
        self.heard = self._tenure.heard = trio.current_time()
        self.pinged = None

    def on_nonsense(self) -> None:
        self._lost()

    def on_goaway(self, code: int, last_stream_id: int) -> None:
        for stream_id in [stream_id for stream_id in self.calls if stream_id > last_stream_id]:
            self._tenure.ledger.unprocessed(self.calls.pop(stream_id))
        if code != 0:
            if code == _CALM_DOWN and not self.given_up:
                self._tenure.complained_of_pings()
            self._lost()
        else:
            self.leaving, self.last_used = True, trio.current_time()
            self._tenure.leaves(self)

    def on_request(self, stream_id: int, call: int | None) -> None:
        self._tenure.touched = True
        if call is not None:
            self.calls[stream_id] = call
            self._tenure.ledger.sent(call, self)
            return
        now, waiting = trio.current_time(), self.probe is not None and self.probe.stream_id is None
        if self.probe is not None and waiting and now < self.probe.since + PROBE_TIMEOUT:
            self.probe.stream_id = stream_id
            return
        self._tenure.judge(self, doubt=waiting)
        if self.probe is not None and self is self._tenure.current:
            self._tenure.suspect("two probes at a time")
        self._tenure.probes(self)
        self.probe = _Probe(now, stream_id, maybe_old=waiting)

    def on_data(self) -> None:
        self.pings = 0

    def on_answer(self, stream_id: int, answer: Answer) -> None:
        self._tenure.touched = True
        self.pings = 0
        if stream_id in self.calls:
            self.last_used = trio.current_time()
            if self._tenure.ledger.answered(self.calls.pop(stream_id), answer):
                self.pings_unanswered = 0
            return
        probe = self.probe
        if probe is None or probe.stream_id != stream_id:
            return
        found = verdict(answer.status, answer.messages)
        if trio.current_time() >= probe.since + PROBE_TIMEOUT:
            self.probe = None
            self._tenure.told_late(self, found)
            return
        self.pings_unanswered = 0
        if answer.reset == REFUSED_STREAM and probe.refusals < RESENT:
            probe.stream_id, probe.refusals = None, probe.refusals + 1
        else:
            self.probe, self.pending = None, found

    def on_reset(self, stream_id: int) -> None:
        self._tenure.touched = True
        call = self.calls.pop(stream_id, None)
        if call is not None:
            self.last_used = trio.current_time()
            self._tenure.ledger.reset(call)
        probe, now = self.probe, trio.current_time()
        if probe is None or probe.stream_id != stream_id or self is not self._tenure.current:
            return
        if probe.maybe_old and now == probe.since:
            self.probe = None
            self._tenure.probes_again()
        elif now < probe.since + PROBE_TIMEOUT - EPSILON or self._tenure.is_late(probe.since + PROBE_TIMEOUT):
            self._tenure.suspect(f"a probe given up after {now - probe.since:.3f} s")

    def on_ping(self) -> None:
        self._tenure.touched = True
        now = trio.current_time()
        if now < self.heard + self.ping_after - EPSILON:
            self._tenure.suspect(f"a PING after {now - self.heard:.3f} s of silence")
        if self is self._tenure.current:
            self._tenure.check_pace()
        self.pings += 1
        self.pings_unanswered += 1
        if self.pings > PINGS_BETWEEN_ANSWERS and now < self._asked_last + PING_WITHOUT_STRIKE - EPSILON:
            self._tenure.suspect(f"the server got {self.pings} PINGs and sent nothing in between")
        self.pinged = self._asked_last = now

    def on_end(self) -> None:
        self._lost()

    def on_close(self) -> None:
        patience = self.began + CONNECT_TIMEOUT if not self._up else self.silent_at
        if not self.given_up and trio.current_time() < patience - EPSILON:
            self.cut_short = bool(self.calls)
            if not self.leaving:
                self._tenure.suspect("a connection closed that was well")
        if self is self._tenure.current and self._tenure.is_late(self.silent_at + CLOSING):
            self._tenure.suspect("a silent connection closed late")
        self._lost()
        self._tenure.lines.pop(self, None)

    def _lost(self) -> None:
        self.given_up, self.last_used = True, trio.current_time()
        for call in self.calls.values():
            self._tenure.ledger.lost(call)
        self.calls.clear()
        self._tenure.went_down(self)

    def _over(self) -> None:
        self._tenure.lines.pop(self, None)
        self._tenure.went_down(self)
