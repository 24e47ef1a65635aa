"""A simulated world: servers, a network, discovery, a registry and a program that uses it, and the model beside them.

Rules:
* `run` does the operations of one trace, one by one, each when all tasks are at rest. It returns the trace: what was
  done, what came of it, and what was wrong, if anything was: then the world ends there.
* Same seed and operations, same trace: nothing here asks a clock but Trio's, or draws from anything but seeded chance.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

import viewreg._transport.purerpc  # noqa: F401  # first: purerpc cannot be imported beside h2 4 without it
from simulation.deeds import DEEDS
from simulation.locator import Locator
from simulation.model import Model
from simulation.operations import HOSTS
from simulation.readers import Reader, Waiter
from simulation.rules import Counts
from simulation.schedule import seeded
from simulation.servers import Server
from simulation.wire import Tap
from viewreg import Config, open_registry
from viewreg.testing import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from simulation.readers import Reads
    from simulation.trace import Recipe
    from viewreg import Endpoint, Registry, View

_NAME: Final = "viewreg simulation"  # before every seed: Python mixes the text well
_RESTLESS: Final = 10_000  # passes of the scheduler in one moment; some twenty are usual
_PROMPT: Final = 0.15  # seconds one way, past which a server is not called good


class LeaveError(Exception):
    """By this the program leaves its registry."""


def run(recipe: Recipe, **knobs: Any) -> Outcome:
    """Run a world, from its beginning to its end in virtual time, or until something is wrong.

    `knobs` are fields of `Config` of which the model does not know: so it can be seen to find what they make wrong.
    """
    clock = MockClock(autojump_threshold=0)
    world = World(recipe, clock, knobs)
    with seeded(f"{_NAME} {recipe.seed}"), _quiet():
        try:
            trio.run(world.run, clock=clock)
        except Exception as error:  # noqa: BLE001 (a bug of viewreg's may be anything, and is what is looked for)
            world.outcome.fails(error)
    return world.outcome


@contextmanager
def _quiet() -> Iterator[None]:
    """What servers do wrong here is no news: nothing is logged."""
    logger = logging.getLogger("viewreg")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class Outcome:
    """The lines of a trace; what was wrong first, and when; and what was raised, if that was it."""

    def __init__(self, header: str) -> None:
        self.lines: Final[list[str]] = [header]
        self.wrong = ""
        self.at = math.inf
        self.now = 0.0  # of the last line
        self.error: Exception | None = None

    def note(self, what: str) -> None:
        """Add a line."""
        self.now = trio.current_time()
        self.lines.append(f"{self.now:.6f} {what}")

    def fails(self, error: Exception) -> None:
        """Something was raised that nobody had to catch."""
        self.error, self.at = error, self.now
        leaf: BaseException = error
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        self.wrong = f"raised {leaf!r}"
        self.lines.append(f"{self.now:.6f} wrong: {self.wrong}")

    @property
    def text(self) -> str:
        """The whole trace."""
        return "\n".join(self.lines) + "\n"


class World:
    """See the module. Made outside of Trio, and run once."""

    def __init__(self, recipe: Recipe, clock: MockClock, knobs: Mapping[str, Any]) -> None:
        self._recipe: Final = recipe
        rng = Random(f"{_NAME} {recipe.seed} config")
        rise, fall, drain = rng.choice((1, 1, 1, 2)), rng.choice((1, 1, 1, 2)), rng.choice((10.0, 10.0, 0.0))
        self._stubborn: Final = rng.random() < 0.5  # a dial that is cancelled fails
        self.outcome: Final = Outcome(recipe.header)
        self.config: Final = evolve(Config(rise=rise, fall=fall, drain_timeout=drain), **knobs)
        self.model: Final = Model(HOSTS, Counts(rise, fall, drain), self.complain)
        self.clock: Final = clock
        self._network: Final = MemoryNetwork(recipe.seed)
        self.locator: Final = Locator()
        self.servers: Final[dict[str, Server]] = {}
        self._scope: Final = trio.CancelScope()
        self.nursery: trio.Nursery
        self._others = 0  # tasks that live when there is nothing of the registry's
        self._opened = 0  # registries, so far
        self.registry: Registry | None = None
        self._is_leaving = self._raises = self._lists_last = False
        self._left = trio.Event()  # what the registry's block waits for
        self._program = trio.CancelScope()  # around that block
        self._closed: Registry | None = None  # left, and not looked at yet
        self.tasks: Final[dict[str, Reads]] = {}  # readers and waiters, by number

    # -- running --

    async def run(self) -> None:
        """Do the operations, wait for the end, and leave the registry if one is open."""
        trio.lowlevel.add_instrument(AtRest(self._settle, lambda: self.complain("the tasks do not come to rest")))
        with self._scope:
            async with trio.open_nursery() as self.nursery:
                for host in HOSTS:
                    self.servers[host] = Server(host, self._network, self.nursery, self.model.ledger.taken)
                self._others = trio.lowlevel.current_statistics().tasks_living
                for operation in self._recipe.operations:
                    await trio.sleep_until(operation.at)
                    await wait_all_tasks_blocked()
                    self.note(f"> {operation}")
                    DEEDS[operation.verb](self, *operation.words)
                    self._tell_truth()
                await trio.sleep_until(self._recipe.seconds)
                await wait_all_tasks_blocked()
                if self.registry is not None:
                    self.note("the program ends")
                    self.close_registry("by-leaving")
                    await trio.sleep(1)
                self.nursery.cancel_scope.cancel()
        self.note(f"wrong: {self.outcome.wrong}" if self.outcome.wrong else "the end")

    def note(self, what: str) -> None:
        """A line of the trace."""
        self.outcome.note(what)

    def complain(self, what: str) -> None:
        """Something is wrong: the first ends the world."""
        if not self.outcome.wrong:
            self.outcome.wrong, self.outcome.at = what, trio.current_time()
            self._scope.cancel()

    def _settle(self) -> None:
        """All tasks are at rest."""
        if self.outcome.wrong:
            return
        if self._closed is not None:
            registry, self._closed = self._closed, None
            self.model.closed(registry)
            self._check_nothing_left()
        if self.registry is not None and not self._is_leaving:
            self.model.settle(self.registry)
        for task in self.tasks.values():
            if wrong := task.check():
                self.complain(wrong)

    def _check_nothing_left(self) -> None:
        """A registry was closed, and all tasks are at rest."""
        for task in self.tasks.values():
            if isinstance(task, Waiter):
                self.complain(f"{task.name} waits for a registry that was closed")
        ours = self._others + len(self.tasks) + sum(server.tasks for server in self.servers.values())
        living = trio.lowlevel.current_statistics().tasks_living
        if living != ours:
            self.complain(f"{living - ours} tasks are left after the registry was closed")
        for host, server in self.servers.items():
            if server.link.connections:
                self.complain(f"{server.link.connections} connections to {host} are left after the registry was closed")

    def _tell_truth(self) -> None:
        for host, server in self.servers.items():
            self.model.truth(host, _condition(server), server.delay, server.truth)

    # -- the program --

    def open_registry(self) -> None:
        """Open one, unless one is open."""
        if self.registry is None and self._closed is None:
            self.nursery.start_soon(self._live)

    def close_registry(self, how: str) -> None:
        """Leave the block of the registry, in one of four ways."""
        if self.registry is None or self._is_leaving:
            return
        self._is_leaving = True
        if how == "by-cancelling":
            self._program.cancel()
        elif how == "by-raising":
            self._raises = True
            self._left.set()
        else:
            self._lists_last = how == "by-listing"
            self._left.set()

    async def _live(self) -> None:
        self._opened += 1
        self._is_leaving = self._raises = self._lists_last = False
        self._left, self._program = trio.Event(), trio.CancelScope()
        rng = Random(f"{_NAME} {self._recipe.seed} registry {self._opened}")
        registry: Registry | None = None
        self.model.opens()
        try:
            with self._program, suppress(LeaveError):
                async with open_registry(
                    self.locator, self.config, dial=self._dial, rng=rng, wall_clock=lambda: 1e9
                ) as registry:
                    self.registry = registry
                    self.start_task("0", Reader("reader 0", registry, 0.0, self._shown))
                    await self._left.wait()
                    if self._raises:
                        raise LeaveError
                    if self._lists_last:  # in the last moment: it must not come into force
                        DEEDS["list"](self, *HOSTS)
        finally:
            self.registry, self._closed = None, registry
            self.note("the registry is closed")

    async def _dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        address = endpoint.host_port
        line = self.model.dials(address)
        self.note(f"{address} is dialled")
        try:
            stream = await self._network.dial(endpoint)
        except OSError:
            line.refused()
            raise
        except trio.Cancelled:
            line.abandoned()
            if self._stubborn:  # as a function of the user's may do: nothing may come of it
                raise OSError("cancelled") from None
            raise
        line.connected()
        return Tap(stream, line)

    def _shown(self, address: str, view: View | None) -> None:
        if view is None:
            self.note(f"{address} is gone")
        else:
            annotations = "" if view.endpoint is None else ",".join(view.endpoint.annotations.values())
            self.note(f"{view} {view.connectivity.name} {annotations}".rstrip())

    def start_task(self, number: str, task: Reads) -> None:
        """Start a reader or waiter."""

        async def run() -> None:
            await task.run()
            del self.tasks[number]
            if wrong := task.check():
                self.complain(wrong)

        if number not in self.tasks:
            self.tasks[number] = task
            self.nursery.start_soon(run)


def _condition(server: Server) -> str:
    if server.frozen or server.cut:
        return "silent"
    if not server.listening:
        return "away" if server.dials != "black-hole" else "bad"
    well = (server.dials, server.greeting, server.behavior) == ("accept", "settings", "answer")
    return "good" if well and server.answers_pings and server.delay <= _PROMPT else "bad"


class AtRest(trio.abc.Instrument):
    """Calls `then` whenever all tasks wait, before the clock jumps; and `never` if that does not come about."""

    def __init__(self, then: Callable[[], None], never: Callable[[], None]) -> None:
        self._then: Final = then
        self._never: Final = never
        self._passes = 0  # of the scheduler, since all tasks waited

    def before_io_wait(self, timeout: float) -> None:
        self._passes += 1
        statistics = trio.lowlevel.current_statistics()
        if statistics.tasks_runnable == 0 and statistics.seconds_to_next_deadline > 0:
            self._passes = 0
            self._then()
        elif self._passes % _RESTLESS == 0:
            self._never()
