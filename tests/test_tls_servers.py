"""TLS with real servers: grpcio in a process of its own, on loopback, in real time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from fleet import all_healthy, reason
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from servers import GUARD, Server, running
from tls import AUTHORITY, CLIENT, GOOD, NAME, STRANGER, TLS_1_2, TLS_1_3, client_context, files
from transport import KINDS, numbers, orders
from viewreg import Config, Feature, ProbeResult, Registry, StaticLocator, open_registry

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from viewreg import Channel

MIB = 1024 * 1024  # bytes
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


class Asks:
    """A probe for servers that have no statistics: one that answers is healthy."""

    no_features = Feature(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        await channel.stub(NastyStub).ask(Order(tag="probe"))
        return ProbeResult(Feature(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers' files are."""
    folder = tmp_path_factory.mktemp("tls")
    files(folder, "server", GOOD)
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder


def arguments(folder: Path) -> tuple[str, str]:
    """What makes the server speak TLS."""
    return f"--certificate={folder / 'server.pem'}", f"--key={folder / 'server.key'}"


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[Server]:
    """A server that speaks TLS."""
    with running(*arguments(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(folder: Path) -> Iterator[Server]:
    """A server that demands certificates of its clients."""
    with running(*arguments(folder), f"--client-ca={folder / 'ca.pem'}") as server:
        yield server


@asynccontextmanager
async def opened(server: Server, config: Config | None = None, **how: Any) -> AsyncIterator[Registry[Feature]]:
    """A registry of one real server."""
    with trio.fail_after(GUARD):
        locator = StaticLocator([server.endpoint])
        async with open_registry(locator, config or Config(), probe=Asks(), **how) as registry:
            yield registry


async def stub_of(registry: Registry[Feature]) -> NastyStub:
    """The stub of its one view, once that is healthy."""
    snapshot = await registry.wait_until(all_healthy)
    return snapshot.views[0].stub(NastyStub)


async def why(registry: Registry[Feature]) -> str:
    """Wait until connecting has failed, and tell why."""
    await registry.wait_until(lambda snapshot: snapshot.views[0].connectivity.name == "TRANSIENT_FAILURE")
    (view,) = registry.all_views()
    assert view.endpoint is not None
    return reason(registry, view.endpoint.host_port)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
@VERSIONS
async def test_each_kind_of_call(secure: Server, version: ssl.TLSVersion, kind: Any) -> None:
    """All kinds of calls end well over TLS; left early, the server learns of it."""
    context = client_context()
    context.minimum_version = context.maximum_version = version
    tag = f"{kind.__name__} {version.name}"
    async with opened(secure, ssl_context=context) as registry:
        stub = await stub_of(registry)
        await kind(stub, Order(answers=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kind, stub, Order(answers=1, hang=True, tag=tag))
            await secure.report("start", tag)
            nursery.cancel_scope.cancel()
        assert (await secure.report("end", tag))["early"]


async def test_large_messages_both_ways(secure: Server) -> None:
    """Messages of several MiB go both ways at once, in many calls."""
    payload = bytes(4 * MIB)
    async with opened(secure, ssl_context=client_context()) as registry:
        stub = await stub_of(registry)
        sizes: list[int] = []

        async def ask() -> None:
            answer = await stub.ask(Order(payload=payload, answer_size=len(payload)))
            sizes.append(len(answer.payload))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert sizes == [len(payload)] * 4


async def test_many_calls_at_once(secure: Server) -> None:
    """A hundred calls of all kinds share one connection."""
    async with opened(secure, ssl_context=client_context()) as registry:
        stub = await stub_of(registry)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(KINDS[number % len(KINDS)], stub, Order(answers=2, payload=bytes(1000)))
        assert await numbers(stub.talk(orders(Order(answers=2), Order(answers=1)))) == [1, 2, 1]


@VERSIONS
async def test_mutual(mutual: Server, version: ssl.TLSVersion) -> None:
    """A server that demands a client certificate takes ours."""
    context = client_context(certificate=CLIENT)
    context.maximum_version = version
    async with opened(mutual, ssl_context=context) as registry:
        await stub_of(registry)


@VERSIONS
@pytest.mark.parametrize("certificate", [None, STRANGER.issue_cert("me")], ids=["none", "strange"])
async def test_mutual_refused(mutual: Server, version: ssl.TLSVersion, certificate: Any) -> None:
    """A server that does not take our certificate, or got none, is unhealthy for that reason."""
    context = client_context(certificate=certificate)
    context.maximum_version = version
    async with opened(mutual, ssl_context=context) as registry:
        assert "client certificate" in await why(registry)


async def test_wrong_name(secure: Server) -> None:
    """The certificate of a real server is held against `server_hostname`, too."""
    async with opened(secure, ssl_context=client_context(), server_hostname="another.example") as registry:
        assert "not valid for another.example (wrong host name)" in await why(registry)


async def test_the_name_of_a_server(secure: Server) -> None:
    """A real server takes calls that are addressed to `server_hostname`."""
    async with opened(secure, ssl_context=client_context(), server_hostname=NAME) as registry:
        await (await stub_of(registry)).ask(Order())


async def test_unknown_authority(secure: Server) -> None:
    """A real server whose authority is unknown here is unhealthy for that reason."""
    async with opened(secure, ssl_context=client_context(None)) as registry:
        assert "unknown CA" in await why(registry)


async def test_plain_to_a_server_with_tls(secure: Server) -> None:
    """Without TLS, a real server that expects it is told as that."""
    async with opened(secure) as registry:
        assert "TLS" in await why(registry)


async def test_tls_to_a_plain_server(server: Server) -> None:
    """With TLS, a real server that speaks plain is told as that."""
    async with opened(server, ssl_context=client_context()) as registry:
        assert "TLS handshake failed: the server does not speak TLS here" in await why(registry)
