"""The callers of a soak, the ledger of their calls, and what must be true of it beside the servers' logs.

Rules:
* Each call has a number of its own, which goes with it as metadata. Nobody calls again with the same number: so a
  server's log has it at most once, unless something between has sent it twice.
* A call ends by its answer, a `CallError` or its deadline; every call has one.
* Callers take whatever view is healthy, and never wait for a better one.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import trio
from attrs import define, field

from soak_servers import CHUNKS, ID
from viewreg import CallError, Feature, UnavailableError
from viewreg.rpc import CarouselRequest, LogStatusRequest, StatsRequest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from viewreg import Registry, View

LATE: Final = 2.0  # seconds after its deadline at which a call must have ended, on a machine as busy as this
_REST: Final = (0.0, 0.05)  # seconds between two calls of a caller
_DEADLINES: Final = (0.02, 3.0)  # seconds

ANSWERED: Final = "answered"
LEFT: Final = "left"  # by its caller, before its last answer
OUT_OF_TIME: Final = "out of time"


@define
class Call:
    """One call. Written by its caller."""

    number: int
    name: str  # of the method, and where it went
    deadline: float  # Trio's time
    outcome: str = ""  # "" until it has ended; else one of the above, or the name of a status
    ended: float = 0.0
    started: bool = True  # whether the server may have seen it


@define
class Ledger:
    """All calls of a soak."""

    calls: list[Call] = field(factory=list)

    def begin(self, name: str, deadline: float) -> Call:
        """Note a call that is about to be made."""
        call = Call(len(self.calls) + 1, name, deadline)
        self.calls.append(call)
        return call

    @property
    def outcomes(self) -> Counter[str]:
        """How many calls ended how."""
        return Counter(call.outcome for call in self.calls)

    @property
    def latest(self) -> float:
        """How long after its deadline a call ended, at worst."""
        return max((call.ended - call.deadline for call in self.calls if call.outcome), default=0.0)

    def faults(self, ran: Iterable[int], lag: float) -> list[str]:
        """Hold it against what the servers have run: what is wrong, one line each. This program was late by `lag`."""
        found: list[str] = []
        times = Counter(ran)
        for call in self.calls:
            count, who = times.pop(call.number, 0), f"call {call.number}, {call.name}, "
            if not call.outcome:
                found.append(who + "has not ended")
            elif call.ended > call.deadline + LATE + 2 * lag:
                found.append(who + f"ended {call.ended - call.deadline:.1f} s after its deadline")
            if count > 1:
                found.append(who + f"was run {count} times")
            if not count and call.outcome in (ANSWERED, LEFT):
                found.append(who + f"was {call.outcome}, and no server has run it")
            if count and not call.started:
                found.append(who + f"ended as {call.outcome}, not started, and a server has run it")
        return found + [f"call {number} was run, and nobody made it" for number in times]


async def call_until(due: float, registry: Registry[Feature], ledger: Ledger, rng: Random) -> None:
    """Call one view after the other until the time has come."""
    while trio.current_time() < due:
        await trio.sleep(rng.uniform(*_REST))
        views = registry.healthy_views(Feature.CAROUSEL)
        if views:
            await _call(rng.choice(views), ledger, rng)


async def _call(view: View[Feature], ledger: Ledger, rng: Random) -> None:
    assert view.endpoint is not None
    method, outcome = rng.choice([_stats, _log_status, _ride]), OUT_OF_TIME
    deadline = trio.current_time() + rng.uniform(*_DEADLINES)
    call = ledger.begin(f"{method.__name__[1:]} at {view.endpoint.host_port}", deadline)
    with trio.move_on_at(deadline):  # which ends nothing but the call
        try:
            outcome = await method(view, {ID: str(call.number)}, rng)
        except CallError as error:
            outcome = error.code.name
            if isinstance(error, UnavailableError):
                call.started = error.started
    call.outcome, call.ended = outcome, trio.current_time()


async def _stats(view: View[Feature], metadata: dict[str, str], _rng: Random) -> str:
    await view.diagnostics().stats(StatsRequest(), metadata=metadata)
    return ANSWERED


async def _log_status(view: View[Feature], metadata: dict[str, str], _rng: Random) -> str:
    await view.carousel().logStatus(LogStatusRequest(), metadata=metadata)
    return ANSWERED


async def _ride(view: View[Feature], metadata: dict[str, str], rng: Random) -> str:
    leave_at = rng.choice([1, 2, CHUNKS // 2, None])
    count = 0
    async with view.carousel().ride(CarouselRequest(), metadata=metadata) as ride:
        async for _ in ride:
            count += 1
            if count == leave_at:
                return LEFT
    return ANSWERED
