"""All that somebody sees who only tries viewreg out: three servers in memory are found, healthy, called, and one goes.

A program of its own, in real time, so that a planted bug that spins or hangs is seen from outside.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

import viewreg
from viewreg.rpc import StatsRequest
from viewreg.testing import open_fake_cluster

GUARD = 20.0  # seconds


async def main() -> None:
    """Raises if anything is not as it should be."""
    with trio.fail_after(GUARD):
        async with open_fake_cluster(partitions=3, replicas=1) as cluster:
            async with viewreg.open_registry(**cluster.connect) as registry:
                snapshot = await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 3)
                for view in snapshot.views:
                    assert (await view.diagnostics().stats(StatsRequest())).IsInitialized()
                cluster.remove(cluster.views[0])
                snapshot = await registry.wait_until(lambda snapshot: len(snapshot.all_views()) == 2)
                for view in snapshot.healthy_views():
                    await view.diagnostics().stats(StatsRequest())
                assert len(snapshot.healthy_views()) == 2
            assert registry.all_views() == []


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve()
    assert Path(viewreg.__file__).resolve().is_relative_to(root), "this is another tree's viewreg"
    trio.run(main)
