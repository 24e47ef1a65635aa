"""View servers for tests: true ones, that a test can make fail, hang, lie, freeze and die at any moment.

    async with open_fake_view(partition=FactPartition.nth(KeyEncoding.SPO, 0, of=3)) as view:
        async with open_registry(StaticLocator([view.endpoint])) as registry:
            await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 1)
            view.kill()

`import viewreg` does not import this package: it needs the messages of package `rpc`, which a program may have itself.
"""

from __future__ import annotations

from viewreg.testing._fake_view import FakeCall, FakeView, open_fake_view

__all__ = ["FakeCall", "FakeView", "open_fake_view"]

for _exported in (FakeCall, FakeView, open_fake_view):
    _exported.__module__ = "viewreg.testing"
del _exported
