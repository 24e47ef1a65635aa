"""Chaos, and a reconciliation: real servers to which everything happens that can, callers, and the truth at the end.

    python tests/soak.py --minutes 3 --seed 7

Servers on grpcio and on purerpc, each a process, are killed, stopped, frozen, cut off, moved, removed and started anew
while callers call whatever is healthy. At the end the callers' ledger is held against the servers' logs: every call has
ended, none ran twice, none was answered that did not run, none ran of which it was said that it had not started. The
views were right within the promised times, give or take a busy machine, and nothing is left behind. The figures go to
standard output. The exit code is 1 if anything is wrong.

The seed decides what happens to whom, and who calls what; when it happens is up to the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from attrs import define, field, frozen
from trio.testing import wait_all_tasks_blocked

import viewreg
from soak_calls import Ledger, call_until
from soak_events import Life, Promises, Report, World
from soak_servers import Kind, Server, logged, open_relay
from transport import note

if TYPE_CHECKING:
    from soak_events import Seen
    from viewreg import Feature, Snapshot

_SETTLED: Final = 120.0  # seconds after which everything that has begun must have ended; it takes some fifteen
_TICK: Final = 0.05  # seconds
_STARTING: Final = 4  # servers at the same time; more only wait for one another


@frozen(kw_only=True)
class Settings:
    """How large, how long, and by which rules."""

    seconds: float
    seed: int
    servers: int = 50
    callers: int = 20
    pace: float = 1.0  # by which the pauses between events are multiplied
    config: viewreg.Config = field(factory=viewreg.Config)


@define
class Result:
    """What came of it."""

    settings: Settings
    report: Report = field(factory=Report)
    ledger: Ledger = field(factory=Ledger)
    ran: list[int] = field(factory=list)  # the numbers of calls, as often as a server has run them
    lag: float = 0.0  # seconds by which this program was late itself, at worst
    left: list[str] = field(factory=list)  # of what was left behind, one line each

    @property
    def faults(self) -> list[str]:
        """What is wrong, one line each."""
        return [*self.report.faults(self.lag), *self.ledger.faults(self.ran, self.lag), *self.left]

    def table(self) -> str:
        """The figures."""
        settings, seen, outcomes = self.settings, self.report.seen, self.ledger.outcomes
        lines = [
            f"seed {settings.seed}: {settings.servers} servers, {settings.callers} callers, {settings.seconds:g} s",
            f"{'event':12}{'times':>7}{'began':>9}{'promised':>10}{'ended':>9}{'promised':>10}   (seconds, at worst)",
        ]
        for event in sorted({event for event, _ in seen}):
            times = max(len(seen[event, "began"]), len(seen[event, "ended"]))
            cells = [*_worst(seen[event, "began"]), *_worst(seen[event, "ended"])]
            lines.append(f"{event:12}{times:7}{cells[0]:>9}{cells[1]:>10}{cells[2]:>9}{cells[3]:>10}")
        lines += [f"{'calls':24}{len(self.ledger.calls):10}"]
        lines += [f"    {outcome:20}{count:10}" for outcome, count in outcomes.most_common()]
        refused = sum(not call.started for call in self.ledger.calls)
        lines += [
            f"{'failed, not started':24}{refused:10}",
            f"{'run by servers':24}{len(self.ran):10}",
            f"{'false alarms':24}{len(self.report.alarms):10}",
            f"{'ended after a deadline':24}{self.ledger.latest:10.3f} s at worst",
            f"{'late ourselves':24}{self.lag:10.3f} s at worst",
        ]
        return "\n".join(lines)


def _worst(found: list[Seen]) -> tuple[str, str]:
    if not found:
        return "", ""
    worst = max(found, key=lambda seen: seen.took)
    return f"{worst.took:.3f}", f"{worst.promise:.1f}" if worst.promise else "at once"


async def soak(settings: Settings) -> Result:
    """Do it all."""
    result, before = Result(settings), await _resources()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            lives = await _open_lives(stack, result, Path(folder))
            await _live(lives, result)
        result.ran = [*logged(Path(folder))]
    after = await _resources()
    result.left = [
        f"{what}: {before[what]} before, {after[what]} after" for what in before if before[what] != after[what]
    ]
    return result


async def _open_lives(stack: AsyncExitStack, result: Result, folder: Path) -> list[Life]:
    """Start the servers: by turns on grpcio and purerpc, two of four behind a relay."""
    starting = trio.CapacityLimiter(_STARTING)

    async def start(server: Server) -> None:
        async with starting:
            await server.start(0)

    servers = [Server([*Kind][number % 2], folder, str(number)) for number in range(result.settings.servers)]
    async with trio.open_nursery() as nursery:
        for server in servers:
            stack.push_async_callback(server.close)
            nursery.start_soon(start, server)
    relays = [await stack.enter_async_context(open_relay(s)) if n % 4 > 1 else None for n, s in enumerate(servers)]
    return [Life(server, relay, result.report) for server, relay in zip(servers, relays, strict=True)]


async def _live(lives: list[Life], result: Result) -> None:
    """Open a registry, and let everything happen."""
    settings, rng, locator = result.settings, Random(result.settings.seed), viewreg.StaticLocator()

    def locate() -> None:
        locator.set([life.endpoint for life in lives if life.listed])

    def is_right(snapshot: Snapshot[Feature]) -> bool:
        return len(snapshot.views) == len(lives) and all(life.is_right(snapshot) for life in lives)

    locate()
    async with viewreg.open_registry(locator, settings.config, rng=Random(rng.random())) as registry:
        with trio.fail_after(_SETTLED):
            await registry.wait_until(is_right)
        due, promises = trio.current_time() + settings.seconds, Promises(settings.config)
        world = World(registry, promises, locate, due, settings.pace)
        with trio.move_on_at(due + _SETTLED) as scope:
            async with trio.open_nursery() as watching:
                watching.start_soon(_measure_lag, result)
                async with trio.open_nursery() as nursery:
                    for life in lives:
                        nursery.start_soon(life.live, world, Random(rng.random()))
                    for _ in range(settings.callers):
                        nursery.start_soon(call_until, due, registry, result.ledger, Random(rng.random()))
                watching.cancel_scope.cancel()
        if scope.cancelled_caught:
            result.report.errors.append("not everything that began has ended")
        with trio.move_on_after(_SETTLED):
            await registry.wait_until(is_right)
        if not is_right(registry.snapshot):
            result.report.errors.append(f"the views are not right in the end: {registry.snapshot}")


async def _measure_lag(result: Result) -> None:
    while True:
        due = trio.current_time() + _TICK
        await trio.sleep_until(due)
        result.lag = max(result.lag, trio.current_time() - due)


async def _resources() -> dict[str, int]:
    """What must be as many after as before."""
    await wait_all_tasks_blocked()
    return {
        "open files": _open_files(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "child processes": _children(),
    }


def _open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def _children() -> int:
    return sum(len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children"))


def main() -> int:
    """Do as the command line says. Returns the exit code."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long things happen")
    parser.add_argument("--seed", type=int, default=7, help="of what happens")
    parser.add_argument("--servers", type=int, default=50, help="how many; half of them on grpcio")
    parser.add_argument("--callers", type=int, default=20, help="how many call at a time")
    args = parser.parse_args()
    settings = Settings(seconds=60 * args.minutes, seed=args.seed, servers=args.servers, callers=args.callers)
    result = trio.run(soak, settings)
    verdict = [f"wrong: {fault}" for fault in result.faults] or ["nothing is wrong"]
    note("\n".join([result.table(), *verdict]))
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
