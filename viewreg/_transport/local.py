"""Whether an endpoint leads back to this program: to an address of this host, and to the port of one's own server.

Rules:

* An address is this host's if a socket can be bound to it. The kernel knows all interfaces with their aliases, and the
  whole loopback range; what the standard library tells of them is less.
* Where everything can be bound (Linux' ip_nonlocal_bind), binding tells nothing. There an address is this host's if the
  way to it begins at it, or on the loopback interface: that finds all but secondary addresses.
* No name is looked up: a name is this host's if the connection that was made to it leads here.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from viewreg._transport.tls import TlsStream

if TYPE_CHECKING:
    from viewreg._endpoint import Endpoint

_Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]

# Addresses that no host should have, for they are reserved for documentation (RFC 5737, RFC 3849). Odd ones of these,
# because tests have hosts there.
_NOBODYS: Final = {socket.AF_INET: ("203.0.113.171", 0), socket.AF_INET6: ("2001:db8:9c1e::5b3d", 0)}
_ANY_PORT: Final = 9  # no datagram is sent there


def is_own(endpoint: Endpoint, stream: trio.abc.Stream, port: int) -> bool:
    """Whether the endpoint, to which the stream was opened, is `port` of this host.

    An address says so itself, whatever the stream; a name does by its stream's other end, if that is a socket. Whoever
    dials through a proxy on this host is not taken in: the other end has the proxy's port.
    """
    address = _parsed(endpoint.host)
    if address is not None:
        return endpoint.port == port and _is_local(address)
    peer = _peer(stream)
    return peer is not None and peer[1] == port and is_local(peer[0])


def is_local(host: str) -> bool:
    """Whether this is an address of this host. False for a name. Makes a socket or two, sends nothing, never waits."""
    address = _parsed(host)
    return address is not None and _is_local(address)


def _is_local(address: _Address) -> bool:
    family, where = address
    if not _can_bind(family, where):
        return False
    return not _can_bind(family, _NOBODYS[family]) or way_begins_at(*address)


def way_begins_at(family: socket.AddressFamily, where: tuple[Any, ...]) -> bool:
    """Whether the kernel's way to an address begins at this very address, or on the loopback interface."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((where[0], _ANY_PORT, *where[2:]))
            begins = probe.getsockname()[0]
        except OSError:  # there is no way
            return False
    return bool(begins == where[0]) or ipaddress.ip_address(begins.partition("%")[0]).is_loopback


def _can_bind(family: socket.AddressFamily, where: tuple[Any, ...]) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(where)
        except OSError:
            return False
    return True


def _parsed(host: str) -> _Address | None:
    """An address of either family, with its scope id, as the kernel takes it; None for a name."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    family, _, _, _, where = found[0]
    return family, where


def _peer(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Address and port of the other end, below TLS, too; None if there is no socket under the stream."""
    while isinstance(stream, trio.SSLStream | TlsStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        peer = stream.socket.getpeername()
    except OSError:  # it has been closed meanwhile
        return None
    return (peer[0], peer[1]) if isinstance(peer, tuple) else None  # a Unix socket has a path
