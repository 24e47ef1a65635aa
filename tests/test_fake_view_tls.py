"""Fake views that speak TLS: in memory and on loopback, through a whole life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from fleet import all_healthy, reason
from servers import GUARD
from tls import AUTHORITY, CLIENT, client_context, server_context
from viewreg import Connectivity, Feature, InvalidTypeError, InvalidValueError, StaticLocator, open_registry
from viewreg.rpc import StatsRequest
from viewreg.testing import MemoryNetwork, open_fake_cluster, open_fake_view

if TYPE_CHECKING:
    import ssl

    from trio.testing import MockClock


def unset(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, without ALPN: the view sets it."""
    context.set_alpn_protocols(["http/1.1"])
    return context


async def test_a_life_in_memory(autojump_clock: MockClock) -> None:
    """A view in memory speaks TLS: it is killed, restarted, frozen and thawed as any other."""
    network = MemoryNetwork()
    async with (
        open_fake_view(where=network, host="view.example", ssl_context=unset(server_context())) as fake,
        open_registry(StaticLocator([fake.endpoint]), dial=network.dial, ssl_context=client_context()) as registry,
    ):
        view = (await registry.wait_until(all_healthy)).views[0]
        assert (await view.diagnostics().stats(StatsRequest())).viewType == "diskview/rocksdb"
        for begin, end in ((fake.kill, fake.restart), (fake.freeze, fake.thaw)):
            begin()
            await registry.wait_until(lambda snapshot: not all_healthy(snapshot))
            done: Any = end()
            if done is not None:
                await done
            await registry.wait_until(all_healthy)


async def test_mutual_on_loopback() -> None:
    """A view on loopback demands a client certificate, if its context does: without one it is unhealthy."""
    context = server_context(demands=AUTHORITY)
    with trio.fail_after(GUARD):
        async with open_fake_view(where="loopback", ssl_context=context) as fake:
            locator = StaticLocator([fake.endpoint])
            async with open_registry(locator, ssl_context=client_context(certificate=CLIENT)) as registry:
                await registry.wait_until(all_healthy)
            async with open_registry(locator, ssl_context=client_context()) as registry:
                failed = Connectivity.TRANSIENT_FAILURE
                await registry.wait_until(lambda snapshot: snapshot.views[0].connectivity is failed)
                assert "client certificate" in reason(registry, fake.endpoint.host_port)


async def test_a_cluster(autojump_clock: MockClock) -> None:
    """All views of a cluster speak TLS with the one context; who does not is told so."""
    async with open_fake_cluster(partitions=2, replicas=2, ssl_context=unset(server_context())) as cluster:
        async with open_registry(
            **cluster.connect, ssl_context=client_context(), server_hostname="view.example"
        ) as registry:
            await registry.wait_for_coverage(Feature.HASH_SP, replicas=2)
        async with open_registry(**cluster.connect) as registry:
            await trio.sleep(1)
            assert "TLS" in reason(registry, "view-0:8080")


@pytest.mark.parametrize(
    ("where", "context", "kind", "text"),
    [
        ("loopback", True, InvalidTypeError, "expected an ssl.SSLContext for servers"),
        ("loopback", client_context(), InvalidValueError, "expected one for servers, not for clients"),
        ("process", server_context(), InvalidValueError, "expected none for a view in a process of its own"),
    ],
    ids=["no context", "client's", "process"],
)
async def test_contexts_that_cannot_serve(where: Any, context: Any, kind: type[Exception], text: str) -> None:
    """What is no context for servers, and any for a process of its own, is refused."""
    with pytest.raises(kind, match=f"^ssl_context .*: {text}"):
        await open_fake_view(where=where, ssl_context=context).__aenter__()
