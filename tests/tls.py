"""Certificates for tests, contexts made of them, and servers over TLS that do what a test needs.

Rules:
* One authority signs for all tests, made when this module is imported. Nothing is written to disk, but by `files`.
* OpenSSL compares dates with the true time, in virtual time too.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import trio
import trustme

import viewreg
from fleet import stats
from peers import H2View

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from viewreg import Feature, Registry
    from viewreg._transport.tls import ContextSource
    from viewreg.testing import MemoryNetwork

NAME: Final = "view.example"
ADDRESS: Final = f"{NAME}:1"
AUTHORITY: Final = trustme.CA()
STRANGER: Final = trustme.CA()  # an authority that nobody trusts
GOOD: Final = AUTHORITY.issue_cert(NAME, "127.0.0.1", "::1")
OTHER_NAME: Final = AUTHORITY.issue_cert("other.example")
UNKNOWN: Final = STRANGER.issue_cert(NAME)
CLIENT: Final = AUTHORITY.issue_cert("client.example")
_PAST: Final = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)
_FUTURE: Final = datetime(2100, 1, 1, tzinfo=UTC), datetime(2100, 2, 1, tzinfo=UTC)
EXPIRED: Final = AUTHORITY.issue_cert(NAME, not_before=_PAST[0], not_after=_PAST[1])
NOT_YET: Final = AUTHORITY.issue_cert(NAME, not_before=_FUTURE[0], not_after=_FUTURE[1])
TLS_1_2: Final = ssl.TLSVersion.TLSv1_2
TLS_1_3: Final = ssl.TLSVersion.TLSv1_3


def client_context(
    trusts: trustme.CA | None = AUTHORITY, certificate: trustme.LeafCert | None = None
) -> ssl.SSLContext:
    """What a user gives to `open_registry`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusts is not None:
        trusts.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def server_context(
    certificate: trustme.LeafCert = GOOD,
    *,
    alpn: Sequence[str] = ("h2",),
    demands: trustme.CA | None = None,
    version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """What a server has; `demands` signs the client certificates that it takes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if demands is not None:
        demands.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def files(folder: Path, name: str, certificate: trustme.LeafCert) -> tuple[str, str]:
    """Write a certificate and its key to disk, over what is there. Returns the two paths."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return str(chain), str(key)


@asynccontextmanager
async def open_tls_view(
    network: MemoryNetwork, context: ssl.SSLContext | None = None, address: str = ADDRESS
) -> AsyncIterator[H2View]:
    """A view server in memory that speaks TLS, by Trio's own streams."""
    view = H2View(stats())
    listener: trio.SSLListener[Any] = trio.SSLListener(network.listen(address), context or server_context())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, view.serve, [listener])
        yield view
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_over(
    network: MemoryNetwork, ssl_context: ContextSource | None = None, *, address: str = ADDRESS, **more: Any
) -> AsyncIterator[Registry[Feature]]:
    """A registry of one server on the network, over TLS."""
    ssl_context = ssl_context or client_context()
    locator = viewreg.StaticLocator([address])
    async with viewreg.open_registry(locator, dial=network.dial, ssl_context=ssl_context, **more) as registry:
        yield registry


class TlsEnd:
    """A server's end of TLS by hand. What Trio's does not: it sends its alerts, and can leave in the middle."""

    def __init__(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
        self.stream: Final = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: Final = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> bool:
        """Answer until the handshake is done. False: it failed, and the client has been told by an alert."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                data = await self.stream.receive_some()
                self._incoming.write(data) if data else self._incoming.write_eof()
            except ssl.SSLError:
                await self.flush()
                return False
            else:
                await self.flush()
                return True

    async def flush(self) -> None:
        """Send what is due."""
        data = self._outgoing.read()
        if data:
            await self.stream.send_all(data)
