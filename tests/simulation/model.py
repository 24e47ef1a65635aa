"""The model of a registry: which views there must be, what each must show, and what must have happened by when.

Rules:
* Written from design.md, sections 1, 3 and 5; of viewreg it knows public types only. What passed on the wire is told by
  `tenure.Line`, what the world is like by operations: whether a server is good, silent, away or bad.
* `settle` is called whenever all tasks are at rest, and looks at everything: so no wrong state is ever missed, however
  short it is.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from simulation.calls import Ledger
from simulation.rules import (
    BACK_AFTER_ANYTHING,
    BACK_AFTER_REFUSING,
    CLOSING,
    DISCOVERY_BACKOFF,
    EPSILON,
    PING_AFTER,
    PROBE_LATEST,
    PROBE_RETRY,
    SILENCE_NOTICED,
    Counts,
    Stalls,
    verdict,
)
from simulation.snapshots import Snapshots
from simulation.tenure import Tenure
from viewreg import Connectivity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from simulation.line import Line
    from viewreg import Endpoint, Registry, View

_HISTORY_LENGTH: Final = 32  # entries, the default
_LONG_AWAY: Final = 8.0  # seconds after which nothing but refused dials is left of what a server was


@define
class _Truth:
    """What a server really is, since when, and what it was before."""

    condition: str = "away"  # good, silent, away (it refuses dials), or bad
    since: float = 0.0
    before: str = "away"
    before_since: float = -math.inf
    trip: float = 0.0  # seconds that something takes one way at most
    says: bytes = b""  # of itself
    says_since: float = 0.0


class Model:
    """See the module. It outlives registries: servers and discovery go on while none is open."""

    def __init__(self, addresses: Sequence[str], counts: Counts, complain: Callable[[str], None]) -> None:
        self.stalls: Final = Stalls()
        self.ledger: Final = Ledger(complain)
        self._counts: Final = counts
        self._complain: Final = complain
        self._truths: Final = {address: _Truth() for address in addresses}
        self._tenures: Final[dict[str, Tenure]] = {}
        self._past: Final[list[tuple[float, Tenure]]] = []  # removed ones whose calls may still go on, and since when
        self._lists: list[dict[str, Endpoint]] = [{}]  # that may be in force; the newest last
        self._hard = -math.inf  # until when discovery may still be backing off
        self._failing = False
        self._snapshots = Snapshots(complain)
        self._due = -math.inf  # when something is to be looked at again

    # -- told by the world --

    def opens(self) -> None:
        """A registry is opened; nothing of the last one is left."""
        self._lists = [{}, self._lists[-1]] if self._failing else self._lists[-1:]
        self._snapshots, self._due = Snapshots(self._complain), -math.inf

    def lists(self, endpoints: dict[str, Endpoint]) -> None:
        """Discovery lists these."""
        self._lists.append(endpoints)
        self._due = -math.inf

    def discovery(self, *, failing: bool, lies: int) -> None:
        """Discovery fails from now on, or is well again; first it tells so many lies, each of which is a failure."""
        self._failing = failing
        self._hard = trio.current_time() + DISCOVERY_BACKOFF * (1 + lies)

    def stalled(self, seconds: float) -> None:
        """The event loop, and with it every server, has stood still until now."""
        self.stalls.add(trio.current_time(), seconds)
        for address, truth in self._truths.items():
            if truth.trip:
                self.disturbed(address)

    def truth(self, address: str, condition: str, trip: float, says: bytes) -> None:
        """What a server is like from now on."""
        self._check_seen(address)
        truth, now = self._truths[address], trio.current_time()
        if condition != truth.condition:
            truth.before, truth.before_since = truth.condition, truth.since
            truth.condition, truth.since = condition, now
        if trip != truth.trip:
            truth.trip = trip
            self.disturbed(address)
        if says != truth.says:
            truth.says, truth.says_since = says, now

    def disturbed(self, address: str) -> None:
        """Something happened to a server that is as it was again."""
        self._check_seen(address)
        truth = self._truths[address]
        if truth.condition == "good":
            truth.before, truth.before_since, truth.since = "bad", truth.since, trio.current_time()

    def good_for(self, address: str) -> float:
        """For how many seconds a server has been good."""
        truth = self._truths[address]
        return trio.current_time() - truth.since if truth.condition == "good" else 0.0

    def dials(self, address: str) -> Line:
        """The registry dials."""
        return self._tenure(address).dials()

    # -- at rest --

    def settle(self, registry: Registry) -> None:
        """All tasks are at rest."""
        now = trio.current_time()
        self._check_past(now)
        touched = any(tenure.touched for tenure in self._tenures.values())
        if registry.version == self._snapshots.version and not touched and now < self._due:
            self.ledger.settle(self._connectivity)
            return
        snapshot = self._snapshots.look(registry)
        views: dict[str, View] = {}
        for view in snapshot.views:
            assert view.endpoint is not None
            views[view.endpoint.host_port] = view
        self._check_listed(views)
        for address in [address for address in self._tenures if address not in views]:
            tenure = self._tenures.pop(address)
            tenure.over_since = now
            self._past.append((now, tenure))
        self._due = math.inf
        for address, view in views.items():
            tenure = self._tenure(address)
            if not tenure.touched and view is tenure.seen and now < tenure.next_due:
                self._due = min(self._due, tenure.next_due)
                continue
            if view is not tenure.seen:
                self._check_seen(address)
            assert view.endpoint is not None
            entries = registry.history(view.endpoint)
            last = (entries[-1].what, entries[-1].until) if entries else None
            tenure.settle(view, last)
            if len(entries) > _HISTORY_LENGTH or any(
                later.when < earlier.until for earlier, later in itertools.pairwise(entries)
            ):
                self._complain(f"{address}: a history out of order, or too long")
            self._check_truth(address, tenure, view)
            tenure.seen, tenure.next_due = view, tenure.due()
            self._due = min(self._due, tenure.next_due)
        self.ledger.settle(self._connectivity)

    def closed(self, registry: Registry) -> None:
        """The block of the registry was left."""
        if registry.snapshot.views or registry.version <= self._snapshots.version:
            self._complain("the registry was closed, and has not said so")
        for tenure in (*self._tenures.values(), *(tenure for _, tenure in self._past)):
            if tenure.lines:
                self._complain(f"{tenure.address}: {len(tenure.lines)} connections left open")
        self._tenures.clear()
        self._past.clear()
        self.ledger.idle()

    def _tenure(self, address: str) -> Tenure:
        tenure = self._tenures.get(address)
        if tenure is None:
            tenure = Tenure(address, self._counts, self.ledger, self.stalls, self._complain)
            self._tenures[address] = tenure
        return tenure

    def _connectivity(self, address: str) -> Connectivity:
        tenure = self._tenures.get(address)
        if tenure is None:
            return Connectivity.SHUTDOWN
        [*possible] = {state.connectivity for state in tenure.states}
        return possible[0] if len(possible) == 1 else Connectivity.READY

    def _check_listed(self, views: Mapping[str, View]) -> None:
        now = trio.current_time()
        shown = {address: view.endpoint for address, view in views.items()}
        fitting = [
            number
            for number, endpoints in enumerate(self._lists)
            if shown.keys() == endpoints.keys()
            and all(_is_same(endpoints[address], endpoint) for address, endpoint in shown.items())
        ]
        if not fitting:
            self._complain(f"views of {', '.join(shown) or 'nothing'}, which discovery does not list")
            return
        self._lists = self._lists[fitting[-1] :]
        if len(self._lists) > 1 and not self._failing and now > self._hard + self.stalls.since(self._hard):
            self._complain(f"views of {', '.join(shown) or 'nothing'}, and discovery has a newer list")

    def _check_seen(self, address: str) -> None:
        """What a view showed until now must have been right until now, before anything changes."""
        tenure = self._tenures.get(address)
        if tenure is not None and tenure.seen is not None:
            self._check_truth(address, tenure, tenure.seen)

    def _check_truth(self, address: str, tenure: Tenure, view: View) -> None:
        """What a server really is must show in time."""
        truth, now = self._truths[address], trio.current_time()
        since = max(truth.since, tenure.began)
        if truth.condition == "silent":
            # Cut towards the server alone, it may go on to answer calls for a while.
            due = max(since, tenure.heard) + SILENCE_NOTICED + tenure.ping_after - PING_AFTER
            if view.healthy and now > due + self.stalls.since(since) + EPSILON:
                self._complain(f"{address}: healthy, and silent for {now - since:.3f} s")
        if truth.condition != "good":
            return
        trips = 6 * truth.trip  # of a dial, of SETTINGS, of a probe
        rise = (self._counts.rise - 1) * (PROBE_RETRY + 2 * truth.trip)
        patience = BACK_AFTER_ANYTHING + trips + rise
        if truth.before == "away" and truth.since - truth.before_since > _LONG_AWAY and since == truth.since:
            patience = BACK_AFTER_REFUSING + trips + rise
        if not view.healthy and now > since + patience + self.stalls.since(since) + EPSILON:
            self._complain(f"{address}: not healthy, and good for {now - since:.3f} s")
        told = max(since, truth.says_since)
        found = verdict(0, (truth.says,))
        is_told = (view.features, view.partition) == (found.features, found.partition)
        if not is_told and now > told + patience + PROBE_LATEST + self.stalls.since(told) + EPSILON:
            self._complain(f"{address}: serves {found.partition} for {now - told:.3f} s, which the view does not say")

    def _check_past(self, now: float) -> None:
        for item in self._past.copy():
            since, tenure = item
            if not tenure.lines:
                self._past.remove(item)
            elif now > since + self._counts.drain + CLOSING + self.stalls.since(since) + EPSILON:
                self._complain(f"{tenure.address}: removed for {now - since:.3f} s, and not closed")


def _is_same(listed: Endpoint, shown: Endpoint | None) -> bool:
    return shown is not None and listed == shown and dict(listed.annotations) == dict(shown.annotations)
