"""Who may call when: before the server is known, while it is there, away, going away, or gone for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from servers import GUARD, running
from transport import numbers, open_channel, orders
from viewreg._transport.status import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servers import Server
    from viewreg._transport.channel import Channel


async def attempt(channel: Channel) -> str:
    """Call; tell the answer's payload, or why the call did not start."""
    try:
        return (await channel.stub(NastyStub).ask(Order(payload=b"answered"))).payload.decode()
    except UnavailableError as error:
        return error.details if not error.started else f"started: {error.details}"


async def test_calls_wait_while_nobody_knows(server: Server) -> None:
    """Before the first connection is tried to the end calls of all kinds wait; then they are answered."""
    async with open_channel(server.endpoint) as line:
        assert not line.told
        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(line.stub.ask, Order())
                nursery.start_soon(numbers, line.stub.listen(Order(answers=3)))
                nursery.start_soon(line.stub.tell, orders(Order()))
                nursery.start_soon(numbers, line.stub.talk(orders(Order(answers=3))))
        assert line.told == [("ready", "")]


async def test_calls_fail_at_once_while_the_server_is_away(server: Server) -> None:
    """While the server is known to be away each kind of call fails with the reason, and has not started."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        line.connection.close("pulled the plug")
        await trio.testing.wait_all_tasks_blocked()
        stub = line.stub
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: stub.ask(Order()),
            lambda: numbers(stub.listen(Order())),
            lambda: stub.tell(orders()),
            lambda: numbers(stub.talk(orders())),
            stub.talk,
        ]
        for call in calls:
            with pytest.raises(UnavailableError, match="pulled the plug") as caught:
                with trio.fail_after(GUARD):
                    await call()
            assert not caught.value.started
            assert caught.value.endpoint == server.endpoint


async def test_waiting_calls_survive_being_away(server: Server) -> None:
    """Calls of `waiting()` and `wait_ready` outlast a connection that is lost, and end with the next one."""
    async with open_channel(server.endpoint) as first:
        await first.channel.wait_ready()
        first.connection.close("pulled the plug")
        answers: list[str] = []

        async def call() -> None:
            answers.append(await attempt(first.channel.waiting()))

        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                nursery.start_soon(first.channel.wait_ready)
                await trio.testing.wait_all_tasks_blocked()
                assert answers == []
                async with open_channel(server.endpoint) as second:
                    await second.channel.wait_ready()
                    first.subchannel.ready(second.connection)
                    while not answers:  # noqa: ASYNC110
                        await trio.sleep(0.01)
        assert answers == ["answered"]


async def test_every_call_fails_once_it_is_closed(server: Server) -> None:
    """A closed endpoint refuses calls that wait as well as new ones, at once and for ever."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        line.subchannel.replacing()
        details: list[str] = []

        async def call(channel: Channel) -> None:
            details.append(await attempt(channel))

        async def wait() -> None:
            try:
                await line.channel.wait_ready()
            except UnavailableError as error:
                details.append(error.details)

        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, line.channel)
                nursery.start_soon(call, line.channel.waiting())
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                line.subchannel.close("removed")
            assert details == ["removed"] * 3
            assert await attempt(line.channel) == "removed"
            assert await attempt(line.channel.waiting()) == "removed"
            with pytest.raises(UnavailableError, match="removed"):
                await line.channel.wait_ready()


async def test_a_graceful_stop_lets_calls_finish() -> None:
    """A server's graceful stop ends no call; new ones wait for the outcome; then the connection is let go."""
    with running() as server:
        async with open_channel(server.endpoint) as line:
            with trio.fail_after(GUARD * 2):
                async with line.stub.listen(Order(tag="stop", answers=5, pause=0.05)) as answers:
                    first = await anext(answers)
                    server.stop(GUARD)
                    assert [first.number, *await numbers(answers)] == [1, 2, 3, 4, 5]
                while line.lost is None:  # noqa: ASYNC110 (nobody tells)
                    await trio.sleep(0.01)
        # Servers say twice that they are going: that they will, and which calls they still take.
        assert list(dict.fromkeys(kind for kind, _ in line.told)) == ["ready", "draining", "lost"]


async def test_leaving_the_block_closes_the_socket(server: Server) -> None:
    """When the block around a connection is left, its calls have ended, the server knows, and the socket is closed."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    with pytest.raises(UnavailableError, match="closed by this side"):
                        await line.stub.ask(Order(tag="block", hang=True))

                nursery.start_soon(call)
                await server.report("start", "block")
                line.nursery.cancel_scope.cancel()
    stream = line.connection._stream
    assert isinstance(stream, trio.SocketStream)
    assert stream.socket.fileno() == -1
    assert (await server.report("end", "block"))["early"]
