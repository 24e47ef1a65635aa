"""TLS of a registry, in memory and in virtual time: what is demanded, what it says of failures, and what it closes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import viewreg
from fleet import all_healthy, reason, stats
from memory import BUFFER
from peers import H2View
from tls import (
    ADDRESS,
    AUTHORITY,
    CLIENT,
    NAME,
    TLS_1_2,
    TLS_1_3,
    client_context,
    files,
    open_over,
    open_tls_view,
    server_context,
)
from viewreg import Config, Endpoint, UnavailableError
from viewreg._boundary import describe
from viewreg._transport.tls import Tls, server_name
from viewreg.rpc import CarouselStub, LogStatusRequest
from viewreg.testing import MemoryNetwork, ScriptedPeer
from viewreg.testing.frames import data, headers, message, settings, trailers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    Serve = Callable[[trio.abc.Stream], Awaitable[object]]

SOON = 0.05  # seconds, less than the shortest backoff
TIMEOUT = Config().connect_timeout


# -- all is well --


async def test_a_registry_over_tls(autojump_clock: MockClock) -> None:
    """Over TLS a view becomes healthy and answers; requests say https, the context has ALPN h2, all is closed."""
    network = MemoryNetwork()
    async with open_tls_view(network) as server, open_over(network) as registry:
        view = (await registry.wait_until(all_healthy)).view(ADDRESS)
        await view.carousel().logStatus(LogStatusRequest())
        await view.channel.waiting().stub(CarouselStub).logStatus(LogStatusRequest())
        assert {request.header(b":scheme") for request in server.requests} == {b"https"}
        assert {request.header(b":authority") for request in server.requests} == {ADDRESS.encode()}
        assert len(server.requests) == 3
    assert not network.link(ADDRESS).connections


async def test_a_name_for_all(autojump_clock: MockClock) -> None:
    """With `server_hostname`, certificates are for that name, and requests are addressed to it."""
    network, address = MemoryNetwork(), "10.0.0.1:7"
    async with (
        open_tls_view(network, address=address) as server,
        open_over(network, address=address, server_hostname=NAME) as registry,
    ):
        await registry.wait_until(all_healthy)
    assert [request.header(b":authority") for request in server.requests] == [NAME.encode()]


async def test_without_tls_nothing_changes(autojump_clock: MockClock) -> None:
    """Without `ssl_context` requests say http."""
    network = MemoryNetwork()
    server = H2View(stats())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, [network.listen(ADDRESS)])
        async with viewreg.open_registry(viewreg.StaticLocator([ADDRESS]), dial=network.dial) as registry:
            await registry.wait_until(all_healthy)
        nursery.cancel_scope.cancel()
    assert [request.header(b":scheme") for request in server.requests] == [b"http"]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_mutual_tls(version: ssl.TLSVersion, autojump_clock: MockClock) -> None:
    """A server that demands a client certificate gets the one of the context."""
    network = MemoryNetwork()
    demanding = server_context(demands=AUTHORITY, version=version)
    async with open_tls_view(network, demanding), open_over(network, client_context(certificate=CLIENT)) as registry:
        await registry.wait_until(all_healthy)


HOSTS = {
    "view.example": "view.example",
    "view.example.": "view.example",
    "bücher.example": "xn--bcher-kva.example",
    "10.0.0.1": "10.0.0.1",
    "::1": "::1",
    "fe80::1%eth0": "fe80::1",
    "a_b": "a_b",
}


@pytest.mark.parametrize(("host", "name"), HOSTS.items())
def test_names_that_are_asked_for(host: str, name: str) -> None:
    """The name in a certificate: IDNA for a name, without the root's dot; an address without its zone."""
    assert server_name(Endpoint(host, 1).host) == name


# -- what a connection lives through --


async def test_a_server_that_goes_away(autojump_clock: MockClock) -> None:
    """A server that says GOAWAY over TLS is replaced by another connection, and stays healthy."""
    network = MemoryNetwork()
    async with open_tls_view(network) as server, open_over(network) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        server.go_away()
        await trio.sleep(1)
        assert server.connections_made == 2
        assert registry.version == version


async def test_a_server_that_freezes(autojump_clock: MockClock) -> None:
    """A server that stands still over TLS is found by the keepalive, and fails its calls."""
    network = MemoryNetwork()
    async with open_tls_view(network) as server, open_over(network, config=Config(probe_interval=3600)) as registry:
        await registry.wait_until(all_healthy)
        server.frozen = True
        with pytest.raises(UnavailableError, match="no answer to a keepalive PING"):
            await registry.snapshot.view(ADDRESS).carousel().logStatus(LogStatusRequest())
        assert trio.current_time() == pytest.approx(10.0)


async def test_a_server_that_breaks_off(autojump_clock: MockClock) -> None:
    """An end without close_notify, and a reset, are told as on a connection without TLS."""
    network = MemoryNetwork()
    async with open_tls_view(network), open_over(network) as registry:
        for break_off, why in [
            (network.link(ADDRESS).close, "connection lost: the server closed the connection"),
            (network.link(ADDRESS).reset, "connection lost: Connection reset by peer (ECONNRESET)"),
        ]:
            await registry.wait_until(all_healthy)
            break_off()
            await registry.wait_until(lambda snapshot: not all_healthy(snapshot))
            assert why in map(str, registry.history(ADDRESS))


async def test_a_call_that_is_left(autojump_clock: MockClock) -> None:
    """A call that is cancelled over TLS is reset on the server, and the connection serves the next one."""
    network = MemoryNetwork()
    async with open_tls_view(network) as server, open_over(network) as registry:
        view = (await registry.wait_until(all_healthy)).view(ADDRESS)
        server.hang = True
        with trio.move_on_after(1) as scope:
            await view.carousel().logStatus(LogStatusRequest())
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert [code for _, code in server.resets] == [8]
        server.hang = False
        await view.carousel().logStatus(LogStatusRequest())
        assert server.connections_made == 1


async def test_a_peer_that_is_spelled_out(autojump_clock: MockClock) -> None:
    """A ScriptedPeer works over TLS: what it says in many small records is put together."""
    near, far = memory_stream_pair()
    secured = trio.SSLStream(far, server_context(), server_side=True)

    async def dial(endpoint: Endpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return near

    locator = viewreg.StaticLocator([ADDRESS])
    async with (
        viewreg.open_registry(locator, dial=dial, ssl_context=client_context()) as registry,
        ScriptedPeer(secured) as peer,
    ):
        await peer.handshake()
        request = await peer.expect_request()
        answer = headers(1) + data(1, message(stats().SerializeToString())) + trailers(1)
        for byte in answer:
            await peer.send(bytes([byte]))
        await registry.wait_until(all_healthy)
        assert request.path == "/rpc.Diagnostics/stats"


# -- certificates that change --


async def test_a_certificate_that_changes_on_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A function is asked for each connection: the certificate that is on disk when a server is dialled is used."""
    network, seen = MemoryNetwork(), []
    demanding = server_context(demands=AUTHORITY)

    def context() -> ssl.SSLContext:
        made = client_context()
        made.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        return made

    async def look(stream: trio.SSLStream[Any]) -> None:
        await stream.do_handshake()
        certificate: Any = stream.getpeercert()
        seen.append(certificate["subjectAltName"][0][1])
        await stream.aclose()

    files(tmp_path, "client", AUTHORITY.issue_cert("old.example"))
    async with trio.open_nursery() as nursery:
        listener: trio.SSLListener[Any] = trio.SSLListener(network.listen(ADDRESS), demanding)
        nursery.start_soon(trio.serve_listeners, look, [listener])
        async with open_over(network, context):
            await trio.sleep(SOON)
            files(tmp_path, "client", AUTHORITY.issue_cert("new.example"))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert seen[0] == "old.example"
    assert set(seen[1:]) == {"new.example"}


async def test_a_function_is_asked_before_the_dial(autojump_clock: MockClock) -> None:
    """While the function fails nothing is dialled: servers see no connections in vain. Mended, all is well."""
    network, broken = MemoryNetwork(), True

    def context() -> ssl.SSLContext:
        if broken:
            raise FileNotFoundError(2, "whatever")
        return client_context()

    async with open_tls_view(network) as server, open_over(network, context) as registry:
        await trio.sleep(10)
        expected = "the ssl_context function failed: No such file or directory (ENOENT)"
        assert expected in reason(registry, ADDRESS)
        assert server.connections_made == 0
        broken = False
        await registry.wait_until(all_healthy)


async def test_ones_own_alpn_does_not_matter(autojump_clock: MockClock) -> None:
    """A context that somebody else uses for HTTP/1 too is set to h2 for each connection anew."""
    network, context = MemoryNetwork(), client_context()
    async with open_tls_view(network) as server, open_over(network, context) as registry:
        await registry.wait_until(all_healthy)
        context.set_alpn_protocols(["http/1.1"])
        server.cut()
        await registry.wait_until(lambda snapshot: not all_healthy(snapshot))
        await registry.wait_until(all_healthy)


# -- cancellation and closing --


async def test_cancelled_in_the_handshake(autojump_clock: MockClock) -> None:
    """An endpoint that is removed in the middle of its handshake leaves no stream open."""
    network, locator = MemoryNetwork(), viewreg.StaticLocator([ADDRESS])
    network.listen(ADDRESS)
    async with viewreg.open_registry(locator, dial=network.dial, ssl_context=client_context()):
        await trio.sleep(SOON)
        assert network.link(ADDRESS).connections
        locator.set([])
        await trio.sleep(SOON)
        assert not network.link(ADDRESS).connections


class Stubborn(trio.abc.Stream):
    """A memory stream that cannot be closed without an error."""

    def __init__(self) -> None:
        self.stream, self.far = memory_stream_pair()
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()
        raise ZeroDivisionError("even this fails")


@pytest.mark.parametrize("passes", range(8))
async def test_secure_closes_what_it_was_given(passes: int) -> None:
    """Cancelled at any step, `secure` closes the stream, and raises the cancellation only."""
    stream = Stubborn()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Tls(client_context()).secure, stream, client_context(), Endpoint(NAME, 1))
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert stream.closed


async def test_why_sending_broke_it() -> None:
    """After sending has failed, receiving tells why as well."""
    network = MemoryNetwork()
    async with open_tls_view(network):
        raw = await network.dial(Endpoint.parse(ADDRESS))
        stream = await Tls(client_context()).secure(raw, client_context(), Endpoint.parse(ADDRESS))
        await stream.receive_some()  # SETTINGS
        network.link(ADDRESS).reset()
        for attempt in (lambda: stream.send_all(b"x"), stream.receive_some):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await attempt()
            assert describe(caught.value) == "Connection reset by peer (ECONNRESET)"
        await stream.aclose()


async def test_leaving_says_goodbye(autojump_clock: MockClock) -> None:
    """Leaving the block sends close_notify: Trio's own servers see a clean end. It takes no time."""
    network, ends = MemoryNetwork(), []

    async def serve(stream: trio.SSLStream[Any]) -> None:
        await stream.send_all(settings())
        while await stream.receive_some():
            pass
        ends.append("clean")

    async with trio.open_nursery() as nursery:
        listener: trio.SSLListener[Any] = trio.SSLListener(network.listen(ADDRESS), server_context())
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with open_over(network):
            await trio.sleep(SOON)
            began = trio.current_time()
        assert trio.current_time() == began
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ends == ["clean"]


async def test_closing_towards_a_server_that_reads_nothing(autojump_clock: MockClock) -> None:
    """A server that takes no goodbye, because it reads nothing, holds up the end for a tenth of a second only."""
    network, endpoint = MemoryNetwork(), Endpoint.parse(ADDRESS)
    async with open_tls_view(network):
        raw = await network.dial(endpoint)
        stream = await Tls(client_context()).secure(raw, client_context(), endpoint)
        listener = network.link(ADDRESS).listener
        assert listener is not None
        await wait_all_tasks_blocked()  # the server has read all there is
        listener.freeze()
        await raw.send_all(bytes(BUFFER))
        began = trio.current_time()
        await trio.aclose_forcefully(stream)
        assert trio.current_time() - began == pytest.approx(0.1)
        assert not network.link(ADDRESS).connections
