"""Registries and real servers over real sockets: names, IPv6, and connections that a grpcio server ends by age."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import h2.exceptions
import pytest
import trio

import viewreg
from fleet import all_healthy, stats
from load import Ask, Load
from nasty.nasty_grpc import NastyStub
from peers import H2View
from servers import running
from transport import note
from viewreg import Connectivity, Event
from viewreg.rpc import StatsRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GUARD = 20.0  # seconds; a hung test fails by it, and no other time decides
LOAD = 3.0  # seconds of calls; longer on a slow machine, until the server has ended enough connections
CALLERS = 4  # of unary calls


GOOD = [Event.CONNECTING, Event.CONNECTED, Event.PROBE_OK]

# -- addresses --


@asynccontextmanager
async def listening(host: str) -> AsyncIterator[tuple[H2View, int]]:
    """A view that listens at this address only, and its port."""
    view = H2View(stats())

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(h2.exceptions.ProtocolError):  # h2 answers nothing any more once the client has sent GOAWAY
            await view.serve(stream)

    listeners = await trio.open_tcp_listeners(0, host=host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield view, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def has_ipv6() -> bool:
    """Whether this machine can listen at ::1."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


class Resolver(trio.abc.HostnameResolver):
    """Knows one name, `view.test`, with both addresses of this machine."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, host: object, port: object, *_: object, **__: object) -> Any:
        await trio.lowlevel.checkpoint()
        assert host in (b"view.test", "view.test")
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in self.addresses]
        return [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for family, address in zip(families, self.addresses, strict=True)
        ]

    async def getnameinfo(self, sockaddr: object, flags: int) -> Any:
        raise NotImplementedError


async def found_as(address: str, view: H2View) -> None:
    """A registry finds the server under this address at the first dial, and tells it what it was called."""
    async with viewreg.open_registry(f"static:///{address}") as registry:
        snapshot = await registry.wait_until(all_healthy)
        await snapshot.view(address).diagnostics().stats(StatsRequest())
        assert [entry.what for entry in registry.history(address)][:3] == GOOD
    assert len(view.requests) >= 2
    assert {request.header(b":authority") for request in view.requests} == {address.encode()}
    assert view.connections_made == 1


@pytest.mark.parametrize(
    ("listens", "text"),
    [
        ("127.0.0.1", "127.0.0.1:{}"),
        ("127.0.0.1", "localhost:{}"),
        pytest.param("::1", "[::1]:{}", marks=needs_ipv6),
    ],
    ids=["IPv4", "name", "IPv6"],
)
async def test_an_address_in_every_notation(listens: str, text: str) -> None:
    """A server is reached by either kind of address and by name, and is told what it was called, brackets included."""
    with trio.fail_after(GUARD):
        async with listening(listens) as (view, port):
            await found_as(text.format(port), view)


@needs_ipv6
@pytest.mark.parametrize("listens", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("order", [("127.0.0.1", "::1"), ("::1", "127.0.0.1")], ids=["IPv4 first", "IPv6 first"])
async def test_a_name_with_two_addresses(order: tuple[str, str], listens: str) -> None:
    """A server that listens at one of its name's two addresses is found at the first dial, whichever comes first."""
    trio.socket.set_custom_hostname_resolver(Resolver(*order))
    with trio.fail_after(GUARD):
        async with listening(listens) as (view, port):
            await found_as(f"view.test:{port}", view)


@needs_ipv6
async def test_a_name_whose_addresses_all_refuse() -> None:
    """A name at whose addresses nobody listens is unhealthy, with the system's words for it."""
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "::1"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"view.test:{listener.getsockname()[1]}"
    with trio.fail_after(GUARD):
        async with viewreg.open_registry(f"static:///{address}") as registry:
            await registry.wait_until(lambda now: now.view(address).connectivity is Connectivity.TRANSIENT_FAILURE)
            assert "ECONNREFUSED" in registry.history(address)[1].why


# -- connections that the server ends by age, under load --


@pytest.mark.parametrize("age", [300, 1000])
async def test_connections_end_by_age_under_load(age: int) -> None:
    """While a server ends each connection by age its view stays healthy, and no call fails."""
    with running(max_connection_age_ms=age, max_connection_age_grace_ms=10_000) as server, trio.fail_after(GUARD):
        locator = viewreg.StaticLocator([server.endpoint])
        async with viewreg.open_registry(locator, probe=Ask()) as registry:
            view = (await registry.wait_until(all_healthy)).view(server.endpoint)
            version, due = registry.version, trio.current_time() + LOAD

            def replaced() -> int:
                return sum(entry.what is Event.REPLACING for entry in registry.history(server.endpoint))

            load = Load(view.stub(NastyStub), lambda: trio.current_time() >= due and replaced() >= 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.stream)
                for _ in range(CALLERS):
                    nursery.start_soon(load.unary)
            assert registry.version == version
            assert registry.healthy_views() == [view]
            assert {entry.what for entry in registry.history(server.endpoint)} <= {*GOOD, Event.REPLACING}
            note(f"age {age} ms: {dict(load.ended)}, replaced {replaced()} times")
        assert load.ended["unary"] > 100
        assert load.ended["stream"] >= 2
