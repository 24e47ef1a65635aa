"""More calls than the server takes at once: who waits, who goes first, and that nobody waits for ever."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from servers import running
from transport import KINDS, Measured, note, open_channel, open_scripted, unary_unary
from viewreg._config import Config
from viewreg._transport.channel import Channel
from viewreg._transport.status import CallError, UnavailableError
from viewreg.testing.frames import data, headers, rst_stream, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

MAX_CONCURRENT_STREAMS = 0x3


@pytest.mark.parametrize("overload_protection", [0, 1])
async def test_more_calls_than_streams(overload_protection: int) -> None:
    """500 calls of all kinds at once on a server that takes 10 all end well; never are more than 10 open.

    With overload protection, its default, grpcio refuses streams while it has not yet cleared up after earlier ones.
    """
    finished: list[str] = []
    with running(**{"max_concurrent_streams": 10, "http.overload_protection": overload_protection}) as server:
        async with open_channel(server.endpoint) as line:
            await line.channel.wait_ready()
            await wait_all_tasks_blocked()
            measured = Measured(line)
            trio.lowlevel.add_instrument(measured)

            async def call(kind: Kind) -> None:
                await kind(line.stub, Order(payload=b"a", answers=2, pause=0.001))
                finished.append("call")

            async def probe() -> None:
                finished.append("probe asked")
                await Channel(line.subchannel, probe=True).stub(NastyStub).ask(Order(tag="probe"))
                finished.append("probe")

            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    for number in range(500):
                        nursery.start_soon(call, KINDS[number % len(KINDS)])
                    await wait_all_tasks_blocked()
                    nursery.start_soon(probe)
            trio.lowlevel.remove_instrument(measured)
    assert finished.count("call") == 500
    overtaken = finished.index("probe") - finished.index("probe asked")
    note(f"{overtaken} calls ended between the probe's beginning and its end")
    if not overload_protection:
        # The ten that were there first may end before it, and those that started beside it. A server that refuses it,
        # as it does others, decides itself when it is the probe's turn.
        assert overtaken <= 100
    assert measured.streams == 10
    assert not line.subchannel._calls


async def test_the_queue_is_in_order_and_probes_go_first(autojump_clock: object) -> None:
    """Calls that wait for a stream begin in their order, probes ahead of them, and as many as the server now allows."""
    async with open_scripted(settings={MAX_CONCURRENT_STREAMS: 1}) as (line, peer), trio.open_nursery() as nursery:
        probe = Channel(line.subchannel, probe=True).stub(NastyStub)
        for stub, name in [(line.stub, "first"), (line.stub, "second"), (line.stub, "third"), (probe, "probe")]:
            nursery.start_soon(unary_unary, stub, Order(tag=name))
            await wait_all_tasks_blocked()
        begun = []
        for stream_id in (1, 3):
            request = await peer.expect_request()
            assert request.stream_id == stream_id
            begun.append(Order.FromString(request.message).tag)
            await wait_all_tasks_blocked()
            assert line.open_streams == 1
            await peer.respond(stream_id, b"")
        request = await peer.expect_request()
        begun.append(Order.FromString(request.message).tag)
        await peer.send(settings({MAX_CONCURRENT_STREAMS: 2}))
        begun.append(Order.FromString((await peer.expect_request()).message).tag)
        assert begun == ["first", "probe", "second", "third"]
        assert line.open_streams == 2
        await peer.respond(5, b"")
        await peer.respond(7, b"")


@pytest.mark.parametrize("how", ["trailers-only", "reset", "cancelled", "malformed", "too large"])
async def test_every_end_of_a_call_frees_its_stream(autojump_clock: object, how: str) -> None:
    """However a call ends, the next in the queue begins."""
    config = Config(max_message_size=10)
    async with open_scripted(config, {MAX_CONCURRENT_STREAMS: 1}) as (line, peer), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def first() -> None:
            with scope, suppress(CallError):
                await line.stub.ask(Order())
                pytest.fail("it ended well")

        nursery.start_soon(first)
        await peer.expect_request()
        nursery.start_soon(line.stub.ask, Order())
        await wait_all_tasks_blocked()
        if how == "trailers-only":
            await peer.refuse(1, 5)
        elif how == "reset":
            await peer.send(rst_stream(1, 2))
        elif how == "malformed":
            await peer.send(headers(1, ((b"no", b"status"),)))
        elif how == "too large":
            await peer.send(headers(1), data(1, b"\0\0\0\0\x0b"))
        else:
            scope.cancel()
        await peer.expect("HEADERS", stream_id=3)
        await peer.respond(3, b"")


async def test_calls_in_the_queue_when_the_connection_is_lost(autojump_clock: object) -> None:
    """Calls that wait for a stream fail with the connection, not started; those of `waiting()` go on waiting."""
    async with open_scripted(settings={MAX_CONCURRENT_STREAMS: 1}) as (line, peer), trio.open_nursery() as nursery:
        started: list[bool] = []

        async def call(channel: Channel) -> None:
            with pytest.raises(UnavailableError) as caught:
                await channel.stub(NastyStub).ask(Order())
            started.append(caught.value.started)

        for channel in (line.channel, line.channel, line.channel.waiting()):
            nursery.start_soon(call, channel)
            await wait_all_tasks_blocked()
        await peer.expect_request()
        await peer.aclose()
        await wait_all_tasks_blocked()
        assert sorted(started) == [False, True]
        line.subchannel.close("closed")
        await wait_all_tasks_blocked()
        assert sorted(started) == [False, False, True]


async def test_stream_ids_run_out(autojump_clock: object) -> None:
    """With the last stream id used up, the connection is let go, so that another one is opened."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        line.connection.http2._next_stream_id = 2**31 - 1
        nursery.start_soon(line.stub.ask, Order())
        await peer.expect("HEADERS", stream_id=2**31 - 1)
        await peer.respond(2**31 - 1, b"")
        await wait_all_tasks_blocked()
        assert [kind for kind, _ in line.told][:2] in (["ready", "draining"], ["ready", "lost"])
