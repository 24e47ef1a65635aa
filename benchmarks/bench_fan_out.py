"""What a fan-out costs beside the calls that it makes, for each answer.

CPU of this process, the best of several rounds. The calls are generators that have their answers ready, so what is
measured is the fan-out alone; beside it the same generators one after the other, and merged by hand, through a memory
channel of Trio's and without retries. `python benchmarks/bench_fan_out.py [--parts N] [--answers N] [--rounds N]
[--quick]`
"""

from __future__ import annotations

import argparse
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock

from viewreg import Feature, HashRange, View, open_fan_out, open_registry
from viewreg.testing import open_fake_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from viewreg import Registry

SP = Feature.HASH_SP


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(description="What a fan-out costs beside the calls that it makes.")
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--answers", type=int, default=1_000, help="of each part")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few answers and rounds, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.parts, options.answers, options.rounds = 4, 50, 2
    trio.run(measure, options.parts, options.answers, options.rounds, clock=MockClock(autojump_threshold=0))


async def measure(parts: int, answers: int, rounds: int) -> None:
    """Let each way take all answers, in turn."""

    async def call(_view: View, _part: HashRange) -> AsyncGenerator[int, None]:
        for number in range(answers):
            await trio.lowlevel.checkpoint()
            yield number

    async with open_fake_cluster(partitions=parts, replicas=1) as cluster, open_registry(**cluster.connect) as registry:
        await registry.wait_for_coverage(SP)
        ways = {"one after the other": in_turn, "merged by hand": by_hand, "open_fan_out": by_fan_out}
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, way in ways.items():
                before = time.process_time()
                taken = await way(registry, call)
                spent = time.process_time() - before
                assert taken == parts * answers
                best[name] = min(best[name], spent / taken)
    print(f"{parts} parts of {answers} answers, CPU for each answer, best of {rounds} rounds")
    for name, seconds in best.items():
        print(f"{name:24}{1e6 * seconds:8.2f} us")


async def in_turn(registry: Registry, call: Callable[[View, HashRange], AsyncGenerator[int, None]]) -> int:
    """No fan-out at all: what the generators themselves cost."""
    taken = 0
    for assignment in registry.snapshot.cover(SP):
        async with aclosing(call(assignment.view, assignment.range)) as answers:
            async for _ in answers:
                taken += 1
    return taken


async def by_hand(registry: Registry, call: Callable[[View, HashRange], AsyncGenerator[int, None]]) -> int:
    """What one would write without `open_fan_out`."""
    send, receive = trio.open_memory_channel[tuple[HashRange, View, int]](0)
    taken = 0

    async def ask(part: HashRange, view: View, own: trio.MemorySendChannel[tuple[HashRange, View, int]]) -> None:
        async with own, aclosing(call(view, part)) as answers:
            async for number in answers:
                await own.send((part, view, number))

    async with trio.open_nursery() as nursery:
        async with send:
            for assignment in registry.snapshot.cover(SP):
                nursery.start_soon(ask, assignment.range, assignment.view, send.clone())
        async for _ in receive:
            taken += 1
    return taken


async def by_fan_out(registry: Registry, call: Callable[[View, HashRange], AsyncGenerator[int, None]]) -> int:
    """The library's."""
    taken = 0
    async with open_fan_out(registry, SP, call) as answers:
        async for _ in answers:
            taken += 1
    return taken


if __name__ == "__main__":
    main()
