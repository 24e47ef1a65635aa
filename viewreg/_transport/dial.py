"""Opening a byte stream to an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from viewreg._endpoint import Endpoint

Dial: TypeAlias = "Callable[[Endpoint], Awaitable[trio.abc.Stream]]"
"""Opens a stream to an endpoint. May raise anything: the endpoint's view is then unhealthy, with the error as reason.

It is called under a cancel scope with the time that is left of `Config.connect_timeout`.
"""


async def dial_tcp(endpoint: Endpoint) -> trio.abc.Stream:
    """Connect by TCP: all addresses of the host, as Happy Eyeballs do. Raises OSError."""
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)
