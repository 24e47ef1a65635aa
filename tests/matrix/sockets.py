"""The world in which faults are the kernel's: real sockets and real time, a row at a time.

Rules:
* The moments of a row wait for one another, and then the fault comes to all of them at once: so its times are waited
  for once. Only the one that leaves its block comes after them, alone.
* Nothing depends on speed: what must be is waited for, and may not come too early.
* When the row is over, no task, no file and no process is left.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import viewreg
from fleet import all_healthy
from matrix.actors import Ask, Caller, state
from matrix.cells import GOES_ON, During, Effect
from matrix.places import CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from viewreg import Connectivity, Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from matrix.kernel import KernelFault
    from matrix.places import Place
    from viewreg import Feature, Registry

GUARD: Final = 30.0  # seconds; a hung row fails by it, and no other time decides
RARELY: Final = 60.0  # seconds between probes that are not to disturb
OFTEN: Final = 0.1  # seconds between those that are waited for
HANGING: Final = Order(hang=True, answers=1)


async def play_row(fault: KernelFault) -> dict[During, Effect]:
    """What becomes of the fault at each of its moments. Raises for whatever is left."""
    files, tasks = open_files(), trio.lowlevel.current_statistics().tasks_living
    found: dict[During, Effect] = {}
    with trio.fail_after(GUARD):
        async with fault.place() as place:
            for moments in split(fault):
                row = Row(fault, place, len(moments))
                async with trio.open_nursery() as nursery:
                    for during in moments:
                        nursery.start_soon(row.play, during, found)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_files() == files
    return found


def open_files() -> int:
    """How many file descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def split(fault: KernelFault) -> list[list[During]]:
    """The moments that make sense; the last one alone."""
    moments = [during for during in During if isinstance(fault.expected(during), Effect)]
    together: list[During] = [during for during in moments if during is not During.CLOSE]
    return [together, [During.CLOSE]] if During.CLOSE in moments else [together]


class Row:
    """Several moments at one place, and one fault for all of them."""

    def __init__(self, fault: KernelFault, place: Place, parties: int) -> None:
        self.fault: Final = fault
        self.place: Final = place
        self.strike: Final = Together(place.strike, parties)
        self.heal: Final = Together(place.heal, parties)

    async def play(self, during: During, found: dict[During, Effect]) -> None:
        """Come to the moment, let the fault come, look, and see that all is good again."""
        async with trio.open_nursery() as nursery:
            moment = Moment(self, during, nursery)
            found[during] = await (moment.leave() if during is During.CLOSE else moment.stay())


class Together:
    """Something that is done once, when the last of several tasks wants it; the others wait."""

    def __init__(self, act: Callable[[], Awaitable[None]], parties: int) -> None:
        self._act: Final = act
        self._missing = parties
        self._done: Final = trio.Event()

    async def __call__(self) -> None:
        self._missing -= 1
        if self._missing:
            await self._done.wait()
        else:
            await self._act()
            self._done.set()


class Moment:
    """One registry, one call."""

    def __init__(self, row: Row, during: During, nursery: trio.Nursery) -> None:
        self._row: Final = row
        self._during: Final = during
        self._nursery: Final = nursery
        self._probe: Final = Ask()
        self._caller: Final = Caller(during, HANGING, GUARD)
        self._connects: Final = during is During.CONNECT
        self._endpoint: Final = row.place.mute if self._connects else row.place.endpoint
        self._least: Final = row.fault.effect(during).within
        self._since = -math.inf  # what came later is the fault's doing

    async def stay(self) -> Effect:
        """The fault comes while the block lasts."""
        row = self._row
        struck_before = self._connects and row.place.mute_accepts is None
        if struck_before:
            await row.strike()
        async with self._open() as registry:
            await self._arrive(registry)
            if not struck_before:
                await row.strike()
            await registry.wait_until(is_away)
            if self._caller.call == GOES_ON:
                await self._caller.end()
            found = self._look(registry)
            await row.heal()
            self._probe.order = Order()
            await registry.wait_until(all_healthy)
            await self._stub(registry).ask(Order())
        return found

    async def leave(self) -> Effect:
        """The fault comes while the block is being left."""
        async with self._open() as registry:
            await self._arrive(registry)
            self._nursery.start_soon(self._row.strike)
        await self._caller.end()
        found = self._look(registry)
        await self._row.heal()
        return found

    def _open(self) -> AbstractAsyncContextManager[Registry[Feature]]:
        impatient = self._least > 0  # otherwise no time may end what the fault is to end
        config = viewreg.Config(
            probe_interval=OFTEN if self._during is During.PROBE else RARELY,
            connect_timeout=CONNECT_TIMEOUT if impatient else GUARD,
            keepalive_interval=KEEPALIVE_INTERVAL if impatient else math.inf,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
        )
        locator = viewreg.StaticLocator([self._endpoint])
        return viewreg.open_registry(locator, config, probe=self._probe, dial=self._row.place.dial)

    def _stub(self, registry: Registry[Feature]) -> NastyStub:
        return registry.snapshot.view(self._endpoint).channel.stub(NastyStub)

    async def _arrive(self, registry: Registry[Feature]) -> None:
        if self._connects:
            if self._row.place.mute_accepts is not None:
                await self._row.place.mute_accepts.wait()
            return
        await registry.wait_until(all_healthy)
        self._since = trio.current_time()
        if self._during is During.PROBE:
            self._probe.order = HANGING
            await self._probe.hangs.wait()
        elif self._during is not During.IDLE:
            self._nursery.start_soon(self._caller.run, self._stub(registry))
            if self._during is During.STREAM:
                await self._caller.first_answer()
        await self._stub(registry).ask(Order())  # when it is answered, the server has what was sent before

    def _look(self, registry: Registry[Feature]) -> Effect:
        entries = tuple(registry.history(self._endpoint)) if registry.all_views() else ()
        news = [entry for entry in entries if entry.when > self._since and entry.what is not Event.CONNECTING]
        since = min(entry.when for entry in entries) if self._connects else self._since  # when the dial began
        after = max([since, self._caller.ended_at, *(entry.when for entry in news)]) - since
        return Effect(
            view=state(registry),
            history=tuple(f"{entry.what.value}: {entry.why}" for entry in news),
            call=self._caller.call,
            started=self._caller.started,
            answers=self._caller.answers,
            within=min(after, self._least),  # later than that is the machine's
        )


def is_away(snapshot: viewreg.Snapshot[Feature]) -> bool:
    """The connection is lost, or was never made."""
    return all(view.connectivity is Connectivity.TRANSIENT_FAILURE for view in snapshot.views)
