"""Listening on a network in memory: accepting, closing, freezing and being killed."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    wait_all_tasks_blocked,
)

from memory import (
    BUFFER,
    A,
    Stream,
    connect,
    is_stuck,
    outcome,
    receive_all,
)
from viewreg import ViewregError
from viewreg.testing import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def test_serve_listeners(autojump_clock: MockClock) -> None:
    """A listener serves with `trio.serve_listeners`, and its endpoint is what a locator needs."""

    async def echo(stream: Stream) -> None:
        async with stream:
            await stream.send_all(await receive_all(stream))

    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        listener = network.listen("a:1")
        await nursery.start(trio.serve_listeners, echo, [listener])
        async with await network.dial(listener.endpoint) as client:
            await client.send_all(b"abc")
            await client.send_eof()
            assert await receive_all(client) == b"abc"
        nursery.cancel_scope.cancel()
    assert listener.endpoint == A


async def test_an_address_in_use(autojump_clock: MockClock) -> None:
    """One listens at an address at a time: the next may when the first has closed, though connections live on."""
    network = MemoryNetwork()
    client, server, listener = await connect(network)
    with pytest.raises(ViewregError, match=r"^a:1: in use already; close the listener there first, or listen at anoth"):
        network.listen("a:1")
    with assert_checkpoints():
        await listener.aclose()
    await listener.aclose()
    network.listen("a:1")
    await client.send_all(b"abc")
    assert await server.receive_some() == b"abc"


async def test_a_closed_listener(autojump_clock: MockClock) -> None:
    """Closing wakes who accepts, with ClosedResourceError; dials are refused from then on."""
    network = MemoryNetwork()
    listener = network.listen(A)
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            assert await outcome(listener.accept()) == "closed"

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        listener.close()
    with assert_checkpoints():
        await accept()
    with pytest.raises(ConnectionRefusedError):
        await network.dial(A)


async def test_kill(autojump_clock: MockClock) -> None:
    """A killed host ends its connections, by a reset where it had bytes unread; its tasks are told that it is dead."""
    network = MemoryNetwork()
    client, server, listener = await connect(network)
    unread, reader, _ = await connect(network)
    waiting = await network.dial(A)
    await server.send_all(b"abc")
    await unread.send_all(b"x")
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            assert await outcome(server.receive_some()) == errno.ECONNABORTED

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        listener.kill()
    assert await receive_all(client) == b"abc"
    await reader.aclose()
    assert await outcome(unread.receive_some()) == errno.ECONNRESET
    assert await outcome(unread.send_all(b"x")) == errno.ECONNRESET
    assert await outcome(waiting.receive_some()) == errno.ECONNRESET
    with assert_checkpoints():
        assert await outcome(server.send_all(b"x")) == errno.ECONNABORTED
    with assert_checkpoints():
        assert await outcome(server.receive_some()) == errno.ECONNABORTED
    await server.aclose()
    with pytest.raises(ConnectionRefusedError):
        await network.dial(A)
    network.listen(A)
    await network.dial(A)


async def test_freeze(autojump_clock: MockClock) -> None:
    """A frozen host takes dials and a buffer of bytes, and does nothing until it is thawed."""
    network = MemoryNetwork()
    client, server, listener = await connect(network)
    await client.send_all(b"first, ")
    listener.freeze()
    late = await network.dial(A)
    await late.send_all(b"late")
    assert await is_stuck(listener.accept)
    assert await is_stuck(server.receive_some)
    assert await is_stuck(server.send_all, b"x")
    await client.send_all(bytes(BUFFER - 7))
    assert await is_stuck(client.send_all, b"x")
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            for stream in (await listener.accept(), server):
                assert await stream.receive_some(5) in {b"late", b"first"}
                await stream.send_all(b"answer")

        nursery.start_soon(serve)
        await trio.sleep(1)
        listener.thaw()
    assert await client.receive_some() == await late.receive_some() == b"answer"


async def test_a_frozen_host_dies(autojump_clock: MockClock) -> None:
    """A frozen host can be killed, and its tasks can be cancelled and close their ends."""
    network = MemoryNetwork()
    client, server, listener = await connect(network)
    other, closed, _ = await connect(network)
    listener.freeze()
    with assert_checkpoints():
        await closed.aclose()
    assert await other.receive_some() == b""
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            assert await outcome(server.receive_some()) == errno.ECONNABORTED

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        listener.kill()
    assert await client.receive_some() == b""


async def test_the_backlog(autojump_clock: MockClock) -> None:
    """A listener that accepts nobody takes 4,096 dials; the next one is lost."""
    network = MemoryNetwork()
    listener = network.listen(A)
    for _ in range(4096):
        await network.dial(A)
    assert await is_stuck(network.dial, A)
    await listener.accept()
    await network.dial(A)


# -- cancellation --


async def cancelled_dial(network: MemoryNetwork, client: Stream, server: Stream) -> None:
    """Under way to the server for a second, and back."""
    network.link(A).delay(1)
    await network.dial(A)


async def cancelled_dial_at_a_cut(network: MemoryNetwork, client: Stream, server: Stream) -> None:
    """Until the cut is healed."""
    network.link(A).cut()
    await network.dial(A)


async def cancelled_accept(network: MemoryNetwork, client: Stream, server: Stream) -> None:
    """Until somebody dials."""
    listener = network.link(A).listener
    assert listener is not None
    await listener.accept()


async def cancelled_receive(network: MemoryNetwork, client: Stream, server: Stream) -> None:
    """Until something comes."""
    await client.receive_some()


async def cancelled_receive_under_way(network: MemoryNetwork, client: Stream, server: Stream) -> None:
    """Until what is under way has come."""
    network.link(A).delay(10)
    await server.send_all(b"late")
    await client.receive_some()


async def cancelled_send(network: MemoryNetwork, client: Stream, server: Stream) -> None:
    """Until there is room."""
    await client.send_all(bytes(BUFFER + 1))


@pytest.mark.parametrize(
    "wait",
    [
        cancelled_dial,
        cancelled_dial_at_a_cut,
        cancelled_accept,
        cancelled_receive,
        cancelled_receive_under_way,
        cancelled_send,
    ],
)
@pytest.mark.parametrize("after", [-math.inf, 0.5, 1.5])
async def test_cancellation(
    wait: Callable[[MemoryNetwork, Stream, Stream], Awaitable[None]], after: float, autojump_clock: MockClock
) -> None:
    """Whatever waits can be cancelled at any time: nothing is left behind or lost, and all can be done again."""
    network = MemoryNetwork()
    client, server, listener = await connect(network)
    link = network.link(A)
    with trio.move_on_at(after) as scope:
        await wait(network, client, server)
    assert scope.cancelled_caught
    assert link.connections == 1
    link.restore()
    await client.send_eof()
    assert set(await receive_all(server)) <= {0}
    await server.send_all(b"abc")
    await server.send_eof()
    assert (await receive_all(client)).removeprefix(b"late") == b"abc"
    await client.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.dial, A)
        await listener.accept()
    assert link.connections == 1
