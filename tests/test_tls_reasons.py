"""TLS that fails: what the registry says of each way in which it can, and what it refuses at once."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import viewreg
from fleet import reason
from tls import (
    ADDRESS,
    AUTHORITY,
    CLIENT,
    EXPIRED,
    NAME,
    OTHER_NAME,
    STRANGER,
    TLS_1_2,
    TLS_1_3,
    UNKNOWN,
    TlsEnd,
    client_context,
    files,
    open_over,
    open_tls_view,
    server_context,
)
from viewreg import Config, Event, InvalidTypeError, InvalidValueError, UnavailableError
from viewreg.rpc import StatsRequest
from viewreg.testing import MemoryNetwork
from viewreg.testing.frames import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from viewreg._transport.tls import ContextSource

    Serve = Callable[[trio.abc.Stream], Awaitable[object]]

SOON = 0.05  # seconds, less than the shortest backoff
TIMEOUT = Config().connect_timeout


async def said(serve: Serve, ssl_context: ContextSource | None = None, *, address: str = ADDRESS, **more: Any) -> str:
    """What a registry says of a server that treats each connection like this; and that it has closed them all."""
    network = MemoryNetwork()

    async def one(stream: trio.abc.Stream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await serve(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, one, [network.listen(address)])
        async with open_over(network, ssl_context, address=address, **more) as registry:
            await trio.sleep(TIMEOUT + SOON)
            assert not registry.snapshot.view(address).healthy
            why = {str(entry.why) for entry in registry.history(address) if entry.what is not Event.CONNECTING}
        assert not network.link(address).connections
        nursery.cancel_scope.cancel()
    assert len(why) == 1, why
    return why.pop()


async def shake_hands_and(stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
    """A server that answers the handshake, tells what it dislikes, and closes after the first bytes of the client."""
    end = TlsEnd(stream, context)
    if await end.shake_hands():
        await stream.receive_some()


def key_that_does_not_fit(folder: Path) -> ssl.SSLContext:
    """A user's function with a mistake in its files."""
    context = client_context()
    context.load_cert_chain(files(folder, "one", CLIENT)[0], files(folder, "two", OTHER_NAME)[1])
    return context


async def test_a_key_that_does_not_fit(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A function whose key and certificate do not belong together makes its views say so."""
    why = await said(shake_hands_in_vain, partial(key_that_does_not_fit, tmp_path))
    assert why == "the ssl_context function failed: the private key does not fit the certificate"


async def shake_hands_in_vain(stream: trio.abc.Stream) -> None:
    """A server that should not be reached."""
    raise AssertionError("it was dialled")


@pytest.mark.parametrize("returned", [None, "context", ssl.SSLContext], ids=["None", "str", "type"])
async def test_a_function_that_returns_nonsense(returned: object, autojump_clock: MockClock) -> None:
    """A function that returns no context makes its views unhealthy, and the reason names the type."""
    function: Any = lambda: returned  # noqa: E731
    why = await said(shake_hands_in_vain, function)
    assert why == f"the ssl_context function returned {type(returned).__name__}: expected an ssl.SSLContext"


async def test_a_context_for_servers(autojump_clock: MockClock) -> None:
    """A function that returns a context for servers fails each handshake, with OpenSSL's words."""
    why = await said(trio.abc.Stream.aclose, server_context)
    assert why.startswith("TLS handshake failed: TLS: Cannot create a client socket with a PROTOCOL_TLS_SERVER")


# -- reasons --


async def close(stream: trio.abc.Stream) -> None:
    """A server that closes when it has heard something."""
    await stream.receive_some()


async def hang(stream: trio.abc.Stream) -> None:
    """A server that takes the connection and never says anything."""
    await trio.sleep_forever()


async def say(words: bytes, stream: trio.abc.Stream) -> None:
    """A server that does not know TLS."""
    await stream.receive_some()
    await stream.send_all(words)
    await stream.receive_some()


def answers(certificate: Any = None, **how: Any) -> Serve:
    """A server that answers the handshake with this context."""
    context = server_context(**how) if certificate is None else server_context(certificate, **how)
    return lambda stream: shake_hands_and(stream, context)


async def reset(stream: trio.abc.Stream) -> None:
    """A server that closes while there is something left to read: the client finds the connection broken."""
    await stream.receive_some(1)


async def say_goodbye(stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
    """A server that shakes hands, and then says close_notify."""
    end = TlsEnd(stream, context)
    await end.shake_hands()
    with suppress(ssl.SSLWantReadError):
        end.tls.unwrap()
    await end.flush()
    await stream.receive_some()


async def shake_hands_and_reset(stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
    """A server that shakes hands, and resets the connection."""
    await TlsEnd(stream, context).shake_hands()
    await stream.receive_some(1)


UNHEARD = "after the TLS handshake, before it said anything: it may demand a client certificate, or another one"
PLAIN = "TLS handshake failed: the server does not speak TLS here"
REFUSED = "the server refused the client certificate, or that there is none (TLS alert: unknown ca)"
REASONS: dict[str, tuple[Serve, Callable[[], ssl.SSLContext], str]] = {
    "wrong host name": (answers(OTHER_NAME), client_context, f"not valid for {NAME} (wrong host name)"),
    "expired": (answers(EXPIRED), client_context, "the server's certificate, or one above it, has expired"),
    "unknown CA": (answers(UNKNOWN), client_context, "an authority that is not trusted here (unknown CA)"),
    "our CA unknown": (answers(), partial(client_context, None), "that is not trusted here (unknown CA)"),
    "no ALPN": (answers(alpn=()), client_context, "the server chose nothing where HTTP/2 was demanded (ALPN h2)"),
    "other ALPN": (answers(alpn=["http/1.1"]), client_context, "the server chose nothing where HTTP/2 was demanded"),
    "HTTP/1": (partial(say, b"HTTP/1.1 400 Bad Request\r\n\r\n"), client_context, PLAIN),
    "HTTP/2": (partial(say, settings()), client_context, PLAIN),
    "closes": (close, client_context, "TLS handshake failed: the server closed the connection: it may demand a client"),
    "hangs": (hang, client_context, "no answer to the TLS handshake within 5 s"),
    "no client certificate, TLS 1.2": (
        answers(demands=AUTHORITY, version=TLS_1_2),
        client_context,
        "TLS handshake failed: the server takes nothing that it was offered, or demands a client certificate",
    ),
    "no client certificate, TLS 1.3": (
        answers(demands=AUTHORITY, version=TLS_1_3),
        client_context,
        "the server demands a client certificate, and got none (TLS alert)",
    ),
    "strange client certificate, TLS 1.2": (
        answers(demands=AUTHORITY, version=TLS_1_2),
        lambda: client_context(certificate=STRANGER.issue_cert("me")),
        f"TLS handshake failed: {REFUSED}",
    ),
    "strange client certificate, TLS 1.3": (
        answers(demands=AUTHORITY, version=TLS_1_3),
        lambda: client_context(certificate=STRANGER.issue_cert("me")),
        REFUSED,
    ),
    "leaves after the handshake": (answers(), client_context, f"the server closed the connection {UNHEARD}"),
    "says goodbye after the handshake": (
        lambda stream: say_goodbye(stream, server_context()),
        client_context,
        f"the server closed the connection {UNHEARD}",
    ),
    "resets after the handshake": (
        lambda stream: shake_hands_and_reset(stream, server_context()),
        client_context,
        f"Connection reset by peer (ECONNRESET) {UNHEARD}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("serve", "context", "why"), REASONS.values(), ids=REASONS)
async def test_why(serve: Serve, context: Callable[[], ssl.SSLContext], why: str, autojump_clock: MockClock) -> None:
    """A server with which TLS fails is unhealthy, its history says why, and every stream is closed."""
    assert why in await said(serve, context())


async def test_what_a_call_says(autojump_clock: MockClock) -> None:
    """A call of a view with which TLS fails raises UnavailableError with that reason."""
    network = MemoryNetwork()
    async with open_tls_view(network, server_context(EXPIRED)), open_over(network) as registry:
        await trio.sleep(SOON)
        with pytest.raises(UnavailableError, match="has expired") as caught:
            await registry.snapshot.view(ADDRESS).diagnostics().stats(StatsRequest())
        assert not caught.value.started


ALERT = bytes.fromhex("15030300020246")  # fatal: protocol_version


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (partial(say, ALERT), "the server expects TLS: it answered with a TLS alert"),
        (close, "the server closed the connection before it said anything: it may expect TLS"),
        (reset, "Connection reset by peer (ECONNRESET) before it said anything: it may expect TLS"),
    ],
    ids=["alert", "end", "reset"],
)
async def test_plain_to_a_tls_server(serve: Serve, why: str, autojump_clock: MockClock) -> None:
    """A registry that speaks plain to a server that expects TLS says what may be wrong."""
    assert why in await said_plain(serve)


async def said_plain(serve: Serve) -> str:
    """What a registry without TLS says of a server."""
    network = MemoryNetwork()

    async def one(stream: trio.abc.Stream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await serve(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, one, [network.listen(ADDRESS)])
        async with viewreg.open_registry(viewreg.StaticLocator([ADDRESS]), dial=network.dial) as registry:
            await trio.sleep(SOON)
            why = reason(registry, ADDRESS)
        nursery.cancel_scope.cancel()
    return why


# -- arguments --


def dialled_over(**arguments: Any) -> None:
    """Give `open_registry` these arguments; nothing is opened."""
    viewreg.open_registry("static:///a:1", **arguments)


@pytest.mark.parametrize(
    "context", [True, "context", object(), [ssl.create_default_context()]], ids=lambda c: type(c).__name__
)
def test_what_is_no_context(context: object) -> None:
    """What is neither a context nor a function is refused at once, and the message names it."""
    with pytest.raises(
        InvalidTypeError, match=r"^ssl_context .*: expected an ssl.SSLContext for clients, or a function"
    ):
        dialled_over(ssl_context=context)


def test_a_context_for_servers_is_refused() -> None:
    """A context that can only serve is refused at once."""
    with pytest.raises(InvalidValueError, match=r"^ssl_context <ssl.SSLContext .*: expected one for clients"):
        dialled_over(ssl_context=server_context())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (5, InvalidTypeError),
        (b"a", InvalidTypeError),
        ("", InvalidValueError),
        ("a b", InvalidValueError),
        ("[::1]", InvalidValueError),
        ("a:1", InvalidValueError),
    ],
)
def test_what_is_no_name(name: object, kind: type[Exception]) -> None:
    """A server name that no certificate can have is refused at once, and the message names it."""
    with pytest.raises(kind, match=r"^server_hostname .*: expected an IP address without brackets, or a host name"):
        dialled_over(ssl_context=client_context(), server_hostname=name)


def test_a_name_without_tls() -> None:
    """A server name without TLS would check nothing, and is refused."""
    with pytest.raises(
        InvalidValueError, match=r"^server_hostname 'a' without TLS: expected it only beside ssl_context"
    ):
        dialled_over(server_hostname="a")
