"""TLS over the streams that `dial` returns.

Rules:
* The context is asked for before each dial, and ALPN is set on it just before it is used: whoever else uses the same
  context may have set something else.
* ALPN h2 is demanded: a server that has not agreed to it may speak anything, or wait for ever.
* A handshake that fails closes the stream under it, however it fails, cancellation included.
* A server that refuses the client's certificate under TLS 1.3 says so only after the handshake, or never: so an end
  before the first byte is told as what it may mean.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio
from attrs import frozen

from viewreg._boundary import describe, only_cancelled, was_reset
from viewreg._endpoint import check_host
from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._tls_words import TlsFailedError

if TYPE_CHECKING:
    from viewreg._endpoint import Endpoint

ContextSource: TypeAlias = ssl.SSLContext | Callable[[], ssl.SSLContext]
"""A context for clients; or a function that gives one, called before each dial."""

_ALPN: Final = "h2"
_DOUBT: Final = "it may demand a client certificate, or another one"  # many servers only close where that is wrong
_UNHEARD: Final = f" after the TLS handshake, before it said anything: {_DOUBT}"
_CLOSE_TIME: Final = 0.1  # seconds for close_notify to leave, when the server does not even read


@frozen
class Tls:
    """How a registry speaks TLS: where its contexts come from, and which name it asks for, if not the endpoint's."""

    source: ContextSource
    server_hostname: str | None = None

    def context(self) -> ssl.SSLContext:
        """The context for the next connection. Raises `TlsFailedError` if the user's function fails."""
        if isinstance(self.source, ssl.SSLContext):
            return self.source
        try:
            context: object = self.source()
        except Exception as error:
            raise TlsFailedError(f"the ssl_context function failed: {describe(error)}") from error
        if not isinstance(context, ssl.SSLContext):
            raise TlsFailedError(
                f"the ssl_context function returned {type(context).__name__}: expected an ssl.SSLContext"
            )
        return context

    async def secure(self, stream: trio.abc.Stream, context: ssl.SSLContext, endpoint: Endpoint) -> trio.abc.Stream:
        """Shake hands over the stream. Raises `TlsFailedError`. If it fails or is cancelled, the stream is closed."""
        secured: trio.abc.Stream | None = None
        try:
            secured = await _shake_hands(stream, context, server_name(self.server_hostname or endpoint.host))
            return secured
        finally:
            if secured is None:
                with suppress(Exception), only_cancelled():  # the stream is the user's, and may raise anything
                    await trio.aclose_forcefully(stream)


def tls_of(ssl_context: object, server_hostname: str | None) -> Tls | None:
    """What a user says of TLS, as one value; None for nothing. Raises for what can never work."""
    if ssl_context is None:
        if server_hostname is not None:
            expected = "expected it only beside ssl_context"
            raise InvalidValueError(f"server_hostname {server_hostname!r} without TLS: {expected}")
        return None
    if isinstance(ssl_context, ssl.SSLContext):
        if ssl_context.protocol is ssl.PROTOCOL_TLS_SERVER:
            raise InvalidValueError(f"ssl_context {ssl_context!r}: expected one for clients, not for servers")
    elif not callable(ssl_context):
        expected = "expected an ssl.SSLContext for clients, or a function that returns one"
        raise InvalidTypeError(f"ssl_context {ssl_context!r}: {expected}")
    if server_hostname is not None:
        check_host("server_hostname", server_hostname)
    source: Any = ssl_context  # a function may return anything; `Tls.context` looks
    return Tls(source, server_hostname)


def server_name(host: str) -> str:
    """The name that a host's certificate must be for: an IP address without its zone, a host name as ASCII."""
    address = host.partition("%")[0]
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return host.encode("idna").decode("ascii").removesuffix(".")  # no certificate has the root's dot
    return address


async def _shake_hands(stream: trio.abc.Stream, context: ssl.SSLContext, name: str) -> trio.abc.Stream:
    try:
        context.set_alpn_protocols([_ALPN])
        secured = trio.SSLStream(stream, context, server_hostname=name)
        with only_cancelled():
            await secured.do_handshake()
    except Exception as error:
        doubt = f": {_DOUBT}" if was_reset(error) else ""
        raise TlsFailedError(f"TLS handshake failed: {describe(error)}{doubt}") from error
    chosen = secured.selected_alpn_protocol()
    if chosen != _ALPN:
        said = "nothing" if chosen is None else repr(chosen)
        raise TlsFailedError(f"TLS handshake failed: the server chose {said} where HTTP/2 was demanded (ALPN h2)")
    return TlsStream(secured)


class TlsStream(trio.abc.Stream):
    """A stream over TLS as a connection wants it: an early end is explained, and closing takes next to no time."""

    def __init__(self, secured: trio.SSLStream[trio.abc.Stream]) -> None:
        self.transport_stream: Final = secured.transport_stream  # by the name that it has in Trio
        self._secured: Final = secured
        self._heard = False  # the server has sent something beyond the handshake
        self._cause: BaseException | None = None  # why sending broke it: SSLStream tells only once

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        try:
            await self._secured.send_all(data)
        except trio.BrokenResourceError as error:
            self._cause = error.__cause__
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._secured.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`. Raises `TlsFailedError` for an end before the first byte."""
        try:
            data = await self._secured.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            error.__cause__ = error.__cause__ or self._cause
            if was_reset(error) and not self._heard:
                raise TlsFailedError(f"{describe(error)}{_UNHEARD}") from error
            raise
        if not data and not self._heard:
            raise TlsFailedError(f"the server closed the connection{_UNHEARD}")
        self._heard = True
        return data

    async def aclose(self) -> None:
        """Close, with close_notify if that can leave now. An answer to it is not waited for."""
        with trio.move_on_after(_CLOSE_TIME, shield=True):
            await self._secured.aclose()
        await trio.lowlevel.checkpoint()
