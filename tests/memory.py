"""Connections on a network in memory, and what tests ask of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from viewreg import Endpoint
from viewreg.testing import Direction, MemoryListener, MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Stream: TypeAlias = trio.abc.HalfCloseableStream
BUFFER: Final = 64 * 1024  # bytes
A: Final = Endpoint("a", 1)
TO_SERVER: Final = Direction.TO_SERVER
TO_CLIENT: Final = Direction.TO_CLIENT


async def connect(network: MemoryNetwork) -> tuple[Stream, Stream, MemoryListener]:
    """A connection to A: the client's end and the server's, and who listens."""
    listener = network.link(A).listener or network.listen(A)
    client = await network.dial(A)
    return client, await listener.accept(), listener


async def pair() -> tuple[Stream, Stream]:
    """The two ends of a connection on a network of its own."""
    return (await connect(MemoryNetwork()))[:2]


async def clogged_pair() -> tuple[Stream, Stream]:
    """The same, its buffers full."""
    ends = await pair()
    for end in ends:
        await end.send_all(bytes(BUFFER))
    return ends


async def receive_all(stream: Stream, most: int | None = None) -> bytes:
    """All bytes up to the end."""
    received = b""
    while data := await stream.receive_some(most):
        received += data
    return received


async def arrivals(stream: Stream) -> list[tuple[float, int]]:
    """When how many bytes came, up to the end; and when that came, as 0 bytes."""
    found: list[tuple[float, int]] = []
    while not found or found[-1][1]:
        data = await stream.receive_some()
        found.append((trio.current_time(), len(data)))
    return found


async def outcome(call: Awaitable[object]) -> object:
    """What a call returned; or the errno under the error that it raised, or "closed"."""
    try:
        return await call
    except trio.BrokenResourceError as error:
        return error.__cause__.errno if isinstance(error.__cause__, OSError) else error
    except trio.ClosedResourceError:
        return "closed"


async def is_stuck(call: Callable[..., Awaitable[object]], *args: object) -> bool:
    """Whether a call has not returned after a thousand seconds."""
    with trio.move_on_after(1000) as scope:
        await call(*args)
    return scope.cancelled_caught
