"""Reading and writing plain sockets past Trio's stream: what is read, what is written, and which streams are plain."""

from __future__ import annotations

import ssl
from socket import SHUT_WR
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from sockets import GUARD, arrived, reset, stream_of, tcp_pair
from viewreg._transport.plain import READ_SIZE, file_of, receiver, write_at_once

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from sockets import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a TCP connection."""
    with tcp_pair() as ends:
        yield ends


async def test_only_plain_sockets_have_a_file(pair: Pair) -> None:
    """A stream with anything between it and its socket, TLS for one, is used by its own methods."""
    near, _far = pair
    plain = stream_of(near)
    memory, _other = trio.testing.memory_stream_pair()
    assert file_of(plain) is not None
    tls = trio.SSLStream(plain, ssl.create_default_context(), server_hostname="view.example")
    assert file_of(tls) is None
    assert file_of(memory) is None


class Thief(trio.abc.Instrument):
    """Takes what has arrived after the kernel has announced it and before the reader looks: once."""

    def __init__(self, victim: socket.socket) -> None:
        self.victim = victim
        self.taken = b""

    def after_io_wait(self, timeout: float) -> None:
        if not self.taken:
            self.taken = arrived(self.victim)


async def test_bytes_that_were_announced_in_vain(pair: Pair) -> None:
    """A reader that finds nothing where something was announced waits again."""
    near, far = pair
    stream = stream_of(near)
    received: list[bytes | bytearray] = []

    async def read() -> None:
        received.append(await receiver(stream)())

    thief = Thief(near)
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(thief)
            far.send(b"stolen")
            while not thief.taken:
                await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(thief)
            assert received == []
            far.send(b"read")
    assert received == [b"read"]


async def test_reading_is_bounded_and_ends(pair: Pair) -> None:
    """One read gives at most `READ_SIZE` bytes and none at the end."""
    near, far = pair
    receive_some = receiver(stream_of(near))
    with trio.fail_after(GUARD):
        sent = far.send(bytes(4 * READ_SIZE))
        found = 0
        while found < sent:
            part = await receive_some()
            assert 0 < len(part) <= READ_SIZE
            found += len(part)
        far.shutdown(SHUT_WR)
        assert await receive_some() == b""


async def test_reading_from_a_broken_connection(pair: Pair) -> None:
    """A connection that was reset raises the system's error, which the history tells in its words."""
    near, far = pair
    receive_some = receiver(stream_of(near))
    reset(far)
    with trio.fail_after(GUARD), pytest.raises(ConnectionResetError):
        await receive_some()


def test_writing_to_a_lost_connection_tells_why(pair: Pair) -> None:
    """A write at once to a connection that is lost, or to a file that is none, raises what the kernel says."""
    near, far = pair
    assert write_at_once(near.fileno, b"abc") == 3
    near.shutdown(SHUT_WR)
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        write_at_once(near.fileno, b"abc")
    with pytest.raises(OSError, match="Bad file"):
        write_at_once(lambda: -1, b"abc")
    assert arrived(far) == b"abc"
