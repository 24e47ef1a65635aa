"""Reading and writing plain sockets past Trio's `SocketStream`, which costs more than the rest of a small call.

Rules:
* Only for sockets that have nothing in between, on systems where a socket is a file. Any other stream is used as it is.
* What is written here is written in one step that can neither block nor be cancelled.
* Reading waits until there is something. Trio reads first, which always fails on a connection that waits for an answer.
* The stream still owns the socket, and whoever made it may close it: so its file is asked for each time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from viewreg._boundary import only_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READ_SIZE: Final = 64 * 1024  # bytes; larger reads only delay the first message in them


def file_of(stream: trio.abc.Stream) -> Callable[[], int] | None:
    """What tells the file under a stream, -1 after it was closed; None if there is more to the stream than a file."""
    if type(stream) is trio.SocketStream and os.name == "posix":
        return stream.socket.fileno
    return None


def receiver(stream: trio.abc.Stream) -> Callable[[], Awaitable[bytes | bytearray]]:
    """A function that waits for bytes and returns some, or none at the end. It raises like the stream, or OSError."""
    file = file_of(stream)
    if file is None:
        return lambda: _receive_from(stream)
    wait_readable, read = trio.lowlevel.wait_readable, os.read

    async def receive_some() -> bytes:
        while True:
            await wait_readable(file())
            try:
                return read(file(), READ_SIZE)
            except BlockingIOError:  # announced in vain
                continue

    return receive_some


async def _receive_from(stream: trio.abc.Stream) -> bytes | bytearray:
    with only_cancelled():  # the stream is the user's, and may raise and return anything
        data: object = await stream.receive_some(READ_SIZE)
    if not isinstance(data, bytes | bytearray):
        raise TypeError(f"receive_some returned {type(data).__name__}: expected bytes")
    return data


def write_at_once(file: Callable[[], int], data: bytes) -> int:
    """Write what the kernel takes now. Returns how many bytes. Raises OSError if the connection is lost."""
    try:
        return os.write(file(), data)
    except BlockingIOError:
        return 0
