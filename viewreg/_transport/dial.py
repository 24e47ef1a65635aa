"""Opening a byte stream to an endpoint."""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError

Dial: TypeAlias = Callable[[Endpoint], Awaitable[trio.abc.Stream]]
"""Opens a stream to an endpoint. May raise anything: the endpoint's view is then unhealthy, with the error as reason.

It is called under a cancel scope with the time that is left of `Config.connect_timeout`.
"""


async def dial_tcp(endpoint: Endpoint) -> trio.abc.Stream:
    """Connect by TCP: to an address straight away, to a name as Happy Eyeballs do. Raises OSError."""
    family = _family(endpoint.host)
    if family is None:
        return await trio.open_tcp_stream(endpoint.host, endpoint.port)
    # There is nothing to race: a fleet of a thousand addresses saves a nursery and three cancel scopes for each.
    connection = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    connected = False
    try:
        await connection.connect((endpoint.host, endpoint.port))
        connected = True
    finally:
        if not connected:
            connection.close()
    return trio.SocketStream(connection)


def refuse_virtual_time(what: str, instead: str) -> None:
    """Raise `ViewregError` if this run's clock jumps when all tasks sleep: it would while bytes are on their way."""
    # Trio's MockClock by its attribute: `trio.testing` is not for programs to import.
    if getattr(trio.lowlevel.current_clock(), "autojump_threshold", math.inf) != math.inf:
        raise ViewregError(
            f"{what} under a MockClock that jumps (autojump_clock): virtual time would run past real sockets; "
            f"{instead}, or let the test run in real time"
        )


def _family(host: str) -> socket.AddressFamily | None:
    """Of an IP address; None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None
