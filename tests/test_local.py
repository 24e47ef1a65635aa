"""Whether an address is this host's, and whether an endpoint leads back here: on real sockets."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair, open_stream_to_socket_listener

from matrix import namespaces
from viewreg import Endpoint
from viewreg._transport.local import is_local, is_own
from viewreg._transport.tls import TlsStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOWHERE, _ = memory_stream_pair()  # a stream without a socket


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "127.1", "::ffff:127.0.0.1"])
def test_loopback_is_local(host: str) -> None:
    """The whole loopback range is this host's, however it is written."""
    assert is_local(host)


@pytest.mark.parametrize(
    "host", ["198.51.100.7", "8.8.8.8", "2001:db8::7", "fe80::7%lo", "localhost", "münchen.example"]
)
def test_others_are_not(host: str) -> None:
    """Addresses of others are not this host's, and no name is, wherever it leads: names are not looked up."""
    assert not is_local(host)


@pytest.fixture
async def connected() -> AsyncIterator[trio.SocketStream]:
    """The client's end of a connection over loopback."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await open_stream_to_socket_listener(listener) as stream:
        yield stream


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [("127.0.0.1:8080", True), ("127.0.0.1:8081", False), ("198.51.100.7:8080", False), ("here.example:8080", False)],
)
def test_an_address_speaks_for_itself(endpoint: str, own: bool) -> None:
    """An endpoint by address is oneself if the address is this host's and the port is the given one."""
    assert is_own(Endpoint.parse(endpoint), NOWHERE, 8080) is own


async def test_a_name_is_where_it_leads(connected: trio.SocketStream) -> None:
    """An endpoint by name is oneself if the connection leads to this host and that port, also below TLS."""
    port = connected.socket.getpeername()[1]
    secret: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
        connected, ssl.create_default_context(), server_hostname="here.example"
    )
    for stream in (connected, secret, TlsStream(secret)):
        assert is_own(Endpoint("here.example", port), stream, port)
        assert not is_own(Endpoint("here.example", port), stream, port % 65_535 + 1)


async def test_a_proxy_here_is_not_oneself(connected: trio.SocketStream) -> None:
    """Whoever is reached through a proxy on this host, which has another port, is not oneself."""
    port = connected.socket.getpeername()[1] % 65_535 + 1
    assert not is_own(Endpoint("far.example", port), connected, port)
    assert not is_own(Endpoint("198.51.100.7", port), connected, port)


async def test_a_closed_connection_leads_nowhere(connected: trio.SocketStream) -> None:
    """A connection that has been closed meanwhile tells nothing."""
    port = connected.socket.getpeername()[1]
    await connected.aclose()
    assert not is_own(Endpoint("here.example", port), connected, port)


@pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing() or "nothing is missing")
@pytest.mark.parametrize("anything_can_be_bound", [False, True])
def test_addresses_of_interfaces(anything_can_be_bound: bool) -> None:
    """Addresses of interfaces are this host's and those behind them are not, also where everything can be bound."""

    def look() -> list[bool]:
        Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text(str(int(anything_can_be_bound)), encoding="ascii")
        return [is_local(host) for host in (namespaces.CLIENT, "127.3.2.1", namespaces.SERVER, "8.8.8.8")]

    with namespaces.open_cable() as cable:
        namespaces._ip(cable.client, "link", "set", "lo", "up")
        assert namespaces._inside(cable.client, look) == [True, True, False, False]
