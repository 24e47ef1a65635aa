"""Real sockets for tests that look at bytes: both ends in the hands of one test, and neither ever blocks."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[socket.socket, socket.socket]

GUARD = 10.0  # seconds; a hung test fails by it, and no other time matters


@contextmanager
def tcp_pair() -> Iterator[Pair]:
    """Both ends of a connection; the first has the smallest buffer that the kernel gives, and no delay."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


def stream_of(end: socket.socket) -> trio.SocketStream:
    """The same socket as Trio's stream."""
    return trio.SocketStream(trio.socket.from_stdlib_socket(end))


def reset(end: socket.socket) -> None:
    """Close it so that the other end finds the connection broken."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


def arrived(end: socket.socket) -> bytes:
    """What lies there to be read; nothing is waited for."""
    found = b""
    try:
        while part := end.recv(1 << 20):
            found += part
    except BlockingIOError:
        pass
    return found


def fill(end: socket.socket) -> int:
    """Write zeros until the kernel takes no more. Returns how many."""
    total = 0
    try:
        while True:
            total += end.send(bytes(65_536))
    except BlockingIOError:
        return total


async def read_to(end: socket.socket, size: int) -> bytes:
    """Read until there are so many bytes, or more."""
    found = b""
    while len(found) < size:
        await trio.lowlevel.wait_readable(end)
        found += arrived(end)
    return found
