"""How fast a cluster in a test is: virtual seconds of 12 views and a registry at its defaults, in one real second.

    python benchmarks/bench_testing.py [--rounds 3] [--seconds 2000] [--quick]

Nothing goes wrong meanwhile: each view is probed every 10 s and sent a keepalive PING in between, by HTTP/2 in memory.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import trio
from trio.testing import MockClock

from viewreg import open_registry
from viewreg.testing import open_fake_cluster

PARTITIONS, REPLICAS = 4, 3
ASKED = 1000  # virtual seconds in a real one


async def measure(seconds: float) -> tuple[float, int]:
    """How long the virtual seconds take, in real ones, and how many probes were answered in them."""
    views = PARTITIONS * REPLICAS
    async with (
        open_fake_cluster(partitions=PARTITIONS, replicas=REPLICAS) as cluster,
        open_registry(**cluster.connect) as registry,
    ):
        await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == views)
        before = sum(len(view.calls) for view in cluster.views)
        started = time.perf_counter()
        await trio.sleep(seconds)
        took = time.perf_counter() - started
        return took, sum(len(view.calls) for view in cluster.views) - before


def main() -> None:
    """Measure, and print a line for each round."""
    parser = argparse.ArgumentParser(description="How fast a cluster in a test is.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2000.0, help="virtual ones in each round")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    options = parser.parse_args()
    rounds, seconds = (1, 100.0) if options.quick else (options.rounds, options.seconds)
    speeds = []
    for number in range(rounds):
        took, probes = trio.run(measure, seconds, clock=MockClock(autojump_threshold=0))
        speeds.append(seconds / took)
        print(f"round {number + 1}: {seconds:g} virtual s, {probes} probes, in {took:.2f} s: {speeds[-1]:.0f} to 1")
    print(f"median: {median(speeds):.0f} virtual seconds in a real one (asked: {ASKED})")


if __name__ == "__main__":
    main()
