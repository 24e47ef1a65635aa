"""For tests of programs that use viewreg: true view servers, a network in memory, a whole cluster inside a test.

    async def test_failover(autojump_clock):
        async with open_fake_cluster(partitions=2, replicas=2) as cluster:
            async with open_registry(**cluster.connect) as registry:
                await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 4)
                cluster.views[0].kill()
                await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 3)

* `open_fake_cluster`, `open_fake_view`: servers that a test can make fail, hang, lie, freeze, move and die; in memory,
  on loopback, or in processes of their own.
* `MemoryNetwork`: what lies between: delays, cuts, resets, black holes.
* `ScriptedPeer`, `frames`: a server that says exactly the HTTP/2 frames that a test writes down.
* `make_view`, `make_snapshot`: values for unit tests, without any server.

`import viewreg` does not import this package: it needs the messages of package `rpc`, which a program may have itself.
"""

from __future__ import annotations

from viewreg.testing._calls import FakeCall
from viewreg.testing._cluster import FakeCluster, open_fake_cluster
from viewreg.testing._fake_view import FakeView, open_fake_view
from viewreg.testing._link import Direction, Link
from viewreg.testing._made import make_snapshot, make_view
from viewreg.testing._network import MemoryListener, MemoryNetwork
from viewreg.testing._peer import PeerRequest, ScriptedPeer

__all__ = [
    "Direction",
    "FakeCall",
    "FakeCluster",
    "FakeView",
    "Link",
    "MemoryListener",
    "MemoryNetwork",
    "PeerRequest",
    "ScriptedPeer",
    "make_snapshot",
    "make_view",
    "open_fake_cluster",
    "open_fake_view",
]

for _exported in (
    Direction,
    FakeCall,
    FakeCluster,
    FakeView,
    Link,
    MemoryListener,
    MemoryNetwork,
    PeerRequest,
    ScriptedPeer,
    make_snapshot,
    make_view,
    open_fake_cluster,
    open_fake_view,
):
    _exported.__module__ = "viewreg.testing"
del _exported
