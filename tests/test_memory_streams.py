"""Streams in memory are what sockets are to a Trio program."""

from __future__ import annotations

import errno
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    check_two_way_stream,
    wait_all_tasks_blocked,
)

from memory import (
    BUFFER,
    A,
    Stream,
    clogged_pair,
    connect,
    is_stuck,
    outcome,
    pair,
    receive_all,
)
from viewreg.testing import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def test_two_way_stream(autojump_clock: MockClock) -> None:
    """Connections keep all promises that Trio's streams make."""
    await check_two_way_stream(pair, clogged_pair)


async def test_half_closeable_stream(autojump_clock: MockClock) -> None:
    """Connections keep all promises that Trio's half-closeable streams make."""
    await check_half_closeable_stream(pair, clogged_pair)


async def test_the_buffer(autojump_clock: MockClock) -> None:
    """64 KiB can be sent that nobody reads, not a byte more; room is what was read."""
    client, server = await pair()
    await client.send_all(bytes(BUFFER - 1))
    await client.wait_send_all_might_not_block()
    await client.send_all(b"x")
    assert await is_stuck(client.wait_send_all_might_not_block)
    assert await is_stuck(client.send_all, b"y")
    assert await server.receive_some(10) == bytes(10)
    await client.send_all(bytes(10))
    assert await is_stuck(client.send_all, b"z")
    assert len(await server.receive_some()) == BUFFER  # "y" and "z" never had room


async def test_what_is_sent_is_a_copy(autojump_clock: MockClock) -> None:
    """A sender may change its bytearray afterwards; a view of wider items is sent whole."""
    client, server = await pair()
    data = bytearray(b"abc")
    await client.send_all(data)
    data[:] = b"xyz"
    await client.send_all(memoryview(bytes(8)).cast("I"))
    assert await server.receive_some() == b"abc" + bytes(8)


async def test_wrong_arguments_of_streams(autojump_clock: MockClock) -> None:
    """What is no bytes is not sent, and a text or a number is not taken for bytes."""
    client, server = await pair()
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            await client.send_all(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_bytes 0: expected a whole number of at least 1$"):
        await server.receive_some(0)


async def test_one_task_in_each_direction(autojump_clock: MockClock) -> None:
    """A second task in the same direction gets BusyResourceError, and the first goes on."""
    client, _ = await clogged_pair()
    _, mute = await pair()
    listener = MemoryNetwork().listen(A)
    waits: list[Callable[[], Awaitable[object]]] = [
        mute.receive_some,
        partial(client.send_all, b"x"),
        client.wait_send_all_might_not_block,
        listener.accept,
    ]
    for wait in waits:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await wait()
            assert len(nursery.child_tasks) == 1
            nursery.cancel_scope.cancel()


# The same on sockets and in memory. Without a MockClock: on a link that takes no time, nothing here does.


async def socket_pair() -> tuple[Stream, Stream]:
    """The two ends of a connection on loopback."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return client, await listener.accept()


PairMaker: TypeAlias = "Callable[[], Awaitable[tuple[Stream, Stream]]]"
on_both = pytest.mark.parametrize("make", [pair, socket_pair], ids=["memory", "sockets"])


async def send_until_broken(stream: Stream) -> None:
    """On a socket only a later write shows that the first one came to nobody."""
    with trio.fail_after(5):
        while True:
            await stream.send_all(b"x")


@on_both
async def test_a_close_after_bytes(make: PairMaker) -> None:
    """After a close what was sent can be read, then the end, again and again; sending is soon a broken pipe."""
    client, server = await make()
    async with client, server:
        await server.send_all(b"abc")
        await server.aclose()
        assert [await client.receive_some() for _ in range(3)] == [b"abc", b"", b""]
        await client.send_all(b"x")
        assert await outcome(send_until_broken(client)) == errno.EPIPE


@on_both
async def test_a_close_with_bytes_unread(make: PairMaker) -> None:
    """Who closes with bytes unread sends a reset."""
    client, server = await make()
    async with client, server:
        await client.send_all(b"abc")
        assert await server.receive_some(1) == b"a"
        await server.aclose()
        assert await outcome(client.receive_some()) == errno.ECONNRESET


@on_both
async def test_a_close_wakes_a_sender(make: PairMaker) -> None:
    """Who waits for room is told that the other end was closed."""
    client, server = await make()
    async with client, server, trio.open_nursery() as nursery:

        async def send() -> None:
            assert await outcome(client.send_all(bytes(50_000_000))) == errno.ECONNRESET

        nursery.start_soon(send)
        await server.receive_some(1)
        await server.aclose()


@on_both
async def test_half_closing(make: PairMaker) -> None:
    """After `send_eof` the other end reads the end and may go on sending; `send_eof` twice is nothing."""
    client, server = await make()
    async with client, server:
        await client.send_all(b"abc")
        await client.send_eof()
        await client.send_eof()
        assert await receive_all(server) == b"abc"
        await server.send_all(b"def")
        await server.aclose()
        assert await receive_all(client) == b"def"
        assert await outcome(client.send_all(b"")) == "closed"


async def socket_pair_not_accepted() -> Stream:
    """A connection whose listener closes before it has accepted."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    await listener.aclose()
    return client


async def pair_not_accepted() -> Stream:
    """The same in memory."""
    network = MemoryNetwork()
    listener = network.listen(A)
    client = await network.dial(A)
    await listener.aclose()
    return client


@pytest.mark.parametrize("make", [pair_not_accepted, socket_pair_not_accepted], ids=["memory", "sockets"])
async def test_a_listener_that_closes_before_it_accepts(make: Callable[[], Awaitable[Stream]]) -> None:
    """A connection that was never accepted is reset when its listener closes."""
    async with await make() as client:
        assert await outcome(client.receive_some()) == errno.ECONNRESET


async def socket_pair_reset() -> tuple[Stream, Stream]:
    """A connection that breaks after the server has sent "abc"."""
    client, server = await socket_pair()
    assert isinstance(server, trio.SocketStream)
    await server.send_all(b"abc")
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await server.aclose()
    return client, server


async def pair_reset() -> tuple[Stream, Stream]:
    """The same in memory."""
    network = MemoryNetwork()
    client, server, _ = await connect(network)
    await server.send_all(b"abc")
    network.link(A).reset()
    return client, server


@pytest.mark.parametrize("make", [pair_reset, socket_pair_reset], ids=["memory", "sockets"])
async def test_a_reset_after_bytes(make: PairMaker) -> None:
    """What had arrived before a reset can be read, then there is ECONNRESET."""
    client, server = await make()
    async with client, server:
        assert await client.receive_some() == b"abc"
        assert await outcome(client.receive_some()) == errno.ECONNRESET
