"""What coverage costs in a large fleet: working it out, reading it, and covering the hash space.

CPU of this process, the best of several rounds; everything is in memory. `python benchmarks/bench_coverage.py
[--views N] [--partitions N] [--rounds N] [--quick]`
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from viewreg import FactPartition, Feature, HashRange, KeyEncoding, Snapshot, View
from viewreg.testing import make_snapshot, make_view

if TYPE_CHECKING:
    from collections.abc import Callable

SP = Feature.HASH_SP
ASKED = 50.0  # ms for the coverage of 10,000 views over 1,000 partitions


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description="What coverage costs in a large fleet.")
    parser.add_argument("--views", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few views and rounds, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.views, options.partitions, options.rounds = 500, 50, 3
    views = fleet(options.views, options.partitions)
    print(f"{options.views} views over {options.partitions} partitions, CPU, best of {options.rounds} rounds")
    report(views, options.partitions, options.rounds)


def fleet(views: int, partitions: int) -> list[View]:
    """Healthy views, spread evenly."""
    parts = [FactPartition.nth(KeyEncoding.SPO, i, of=partitions) for i in range(partitions)]
    return [make_view(f"host{i}.example:80", partition=parts[i % partitions]) for i in range(views)]


def report(views: list[View], partitions: int, rounds: int) -> None:
    """Measure what is done once for each snapshot, and what is done often."""
    fresh = make_snapshot(*views)
    once = min(spent(lambda: again(fresh).coverage(SP), 1) for _ in range(rounds))
    print(f"{'coverage, once for each snapshot':48}{1e3 * once:10.2f} ms (asked: {ASKED:g})")
    part = FactPartition.nth(KeyEncoding.SPO, partitions // 2, of=partitions).hash_range
    reads: dict[str, tuple[Callable[[], object], int]] = {
        "coverage, when it is known": (lambda: fresh.coverage(SP), 5000),
        "for_hash": (lambda: fresh.for_hash(SP, 2**63), 5000),
        "for_fact": (lambda: fresh.for_fact(SP, subject=1, predicate=2), 5000),
        "cover everything": (lambda: fresh.cover(SP), 1),
        "cover everything, by preference": (lambda: fresh.cover(SP, HashRange.FULL, port), 1),
        "cover one part": (lambda: fresh.cover(SP, part), 20),
    }
    for name, (read, times) in reads.items():
        best = min(spent(read, times) for _ in range(rounds))
        print(f"{name:48}{1e6 * best:10.2f} us")


def again(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, which nobody has asked yet."""
    return Snapshot(snapshot.version, snapshot.last_changed, snapshot.views, Feature(0), snapshot._clock)  # noqa: SLF001


def port(view: View) -> float:
    """A preference that looks at the view."""
    return 0 if view.endpoint is None else view.endpoint.port


def spent(work: Callable[[], object], times: int) -> float:
    """CPU seconds of doing it once."""
    before = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - before) / times


if __name__ == "__main__":
    main()
