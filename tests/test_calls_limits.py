"""Messages too large or unreadable, slow readers, slow servers: what it costs, and whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Answer, Order
from servers import GUARD
from transport import KINDS, Measured, note, open_channel, open_scripted, orders, stream_unary, unary_unary
from viewreg._config import Config
from viewreg._http2.flow import CONNECTION_WINDOW, STREAM_WINDOW
from viewreg._http2.frames import ErrorCode
from viewreg._transport.connection import OUTBOX_LIMIT
from viewreg._transport.status import CallError, InternalError, ResourceExhaustedError, UnimplementedError
from viewreg.testing.frames import data, headers, message, settings, trailers, window_update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from nasty.nasty_grpc import NastyStub
    from servers import Server

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])

MIB = 1024 * 1024  # bytes
INITIAL_WINDOW_SIZE = 0x4


# -- messages that fail their call, and only that --


@kinds
async def test_a_message_too_large_fails_its_call_alone(server: Server, kind: Kind) -> None:
    """A message past `max_message_size` is RESOURCE_EXHAUSTED, with both sizes; its call ends there, others go on."""
    async with open_channel(server.endpoint, Config(max_message_size=1000)) as line:
        with trio.fail_after(GUARD * 2):
            async with line.stub.listen(Order(answers=2, hang=True)) as other:
                assert (await anext(other)).number == 1
                order = Order(tag=f"large {kind.__name__}", answers=1, answer_size=5_000_000, hang=True)
                if kind.__name__ in ("unary_unary", "stream_unary"):
                    order.hang = False
                with pytest.raises(ResourceExhaustedError, match=r"5000\d\d\d bytes.*1000"):
                    await kind(line.stub, order)
                await server.report("end", order.tag)
                await unary_unary(line.stub, Order())
                assert (await anext(other)).number == 2
        assert line.open_streams == 0
        assert line.lost is None


async def test_the_largest_message_is_allowed(server: Server) -> None:
    """`max_message_size` is the last size that is taken: one byte more is too large, before it was received."""
    size = len(Answer(number=1, payload=bytes(100_000), requests=1).SerializeToString())
    async with open_channel(server.endpoint, Config(max_message_size=size)) as line:
        assert len((await line.stub.ask(Order(answer_size=100_000))).payload) == 100_000
    async with open_channel(server.endpoint, Config(max_message_size=size - 1)) as line:
        await line.channel.wait_ready()
        measured = Measured(line)
        trio.lowlevel.add_instrument(measured)
        with pytest.raises(ResourceExhaustedError):
            await line.stub.ask(Order(answer_size=100_000))
        trio.lowlevel.remove_instrument(measured)
        assert measured.held <= 65_536 + 16_384


async def test_answers_before_the_one_too_large_are_given(server: Server) -> None:
    """Of a stream of answers those before the one that is too large are given; the server's call ends."""
    async with open_channel(server.endpoint, Config(max_message_size=1000)) as line:
        with trio.fail_after(GUARD * 2):
            requests = orders(Order(tag="third", answers=2), Order(answers=1, answer_size=2000, hang=True))
            received = []
            with pytest.raises(ResourceExhaustedError, match=r"20\d\d bytes"):  # noqa: PT012 (and what came before)
                async for answer in line.stub.talk(requests):
                    received.append(answer.number)  # noqa: PERF401 (a comprehension would lose them)
            assert received == [1, 2]
            assert (await server.report("end", "third"))["early"]
        assert line.open_streams == 0


@pytest.mark.parametrize("garbage", [b"\xff", b"\x08", b"\x12\x7fshort", b"\0" * 1000], ids=repr)
@kinds
async def test_an_undecodable_message_fails_its_call_alone(server: Server, kind: Kind, garbage: bytes) -> None:
    """Bytes that are no message are INTERNAL and say of what type they are not; others go on."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD * 2):
            async with line.stub.listen(Order(answers=2, hang=True)) as other:
                assert (await anext(other)).number == 1
                with pytest.raises(InternalError, match="Answer") as caught:
                    await kind(line.stub, Order(answers=1, garbage=garbage))
                assert caught.value.__cause__ is not None
                await unary_unary(line.stub, Order())
                assert (await anext(other)).number == 2
        assert line.open_streams == 0
        assert line.lost is None


@kinds
async def test_a_compressed_message_fails_its_call_alone(autojump_clock: object, kind: Kind) -> None:
    """A message with the compressed flag, which was not offered, is INTERNAL; its stream is reset, others go on."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        errors: list[CallError] = []

        async def call() -> None:
            with pytest.raises(InternalError, match="compressed") as caught:
                await kind(line.stub, Order(answers=1))
            errors.append(caught.value)

        nursery.start_soon(call)
        await peer.expect("HEADERS", stream_id=1)
        nursery.start_soon(line.stub.ask, Order())
        await peer.expect("HEADERS", stream_id=3)
        await peer.send(headers(1), data(1, message(b"", compressed=True)))
        assert (await peer.expect("RST_STREAM", stream_id=1)).code == ErrorCode.CANCEL
        await wait_all_tasks_blocked()
        assert len(errors) == 1
        # What was on its way is dropped; the other call is answered.
        await peer.send(data(1, message(b"x")), trailers(1))
        await peer.respond(3, b"")
        await wait_all_tasks_blocked()
        assert line.open_streams == 0
        assert line.lost is None


@pytest.mark.parametrize("kind", [unary_unary, stream_unary], ids=["unary_unary", "stream_unary"])
async def test_more_than_one_answer_is_not_waited_for(autojump_clock: object, kind: Kind) -> None:
    """Behind the one answer of a call its first byte too many ends it: no second message is held beside the first."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        ended: list[float] = []

        async def call() -> None:
            with pytest.raises(UnimplementedError, match="more than one answer"):
                await kind(line.stub, Order(answers=1))
            ended.append(trio.current_time())

        nursery.start_soon(call)
        await peer.expect("HEADERS", stream_id=1)
        await peer.send(headers(1), data(1, message(b"") + message(b"x")[:1]))
        assert (await peer.expect("RST_STREAM", stream_id=1)).code == ErrorCode.CANCEL
        await wait_all_tasks_blocked()
        assert ended == [0.0]
        assert line.open_streams == 0


# -- slow readers --


async def test_a_slow_reader_holds_little(server: Server) -> None:
    """60 MB streamed to a reader that takes its time: no more is held than the largest message."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        measured = Measured(line)
        trio.lowlevel.add_instrument(measured)
        received = 0
        with trio.fail_after(30):
            async with line.stub.listen(Order(answers=60, answer_size=MIB)) as answers:
                async for answer in answers:
                    received += len(answer.payload)
                    await trio.sleep(0.002)
                    if answer.number % 20 == 0:
                        await unary_unary(line.stub, Order())
        trio.lowlevel.remove_instrument(measured)
        assert received == 60 * MIB
        note(f"held at most {measured.held} bytes")
        assert measured.held <= MIB + 100  # the message, and its prefix and fields


async def test_a_reader_that_stopped_holds_a_window(server: Server) -> None:
    """Answers that nobody reads stop at the stream's window, small ones too; many such streams starve no other call."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:

                async def stalled(size: int) -> None:
                    async with line.stub.listen(Order(answers=10**6, answer_size=size)) as answers:
                        await anext(answers)
                        await trio.sleep_forever()

                for number in range(10):
                    nursery.start_soon(stalled, 1000 if number % 2 else 10_000)
                held = [0]
                while sum(held) <= CONNECTION_WINDOW or min(held) <= STREAM_WINDOW // 2:
                    await trio.sleep(0.01)
                    held = [stream.held for stream in line.connection.http2.streams.values()] or [0]
                    assert max(held) <= STREAM_WINDOW
                assert len(held) == 10
                answer = await line.stub.ask(Order(answer_size=3 * MIB))
                assert len(answer.payload) == 3 * MIB
                nursery.cancel_scope.cancel()
        assert line.open_streams == 0


async def test_a_server_that_reads_slowly(server: Server) -> None:
    """Requests that the server does not read stay with their iterable: the outbox holds little, whatever waits."""
    taken = 0

    async def requests() -> AsyncIterator[Order]:
        nonlocal taken
        while True:
            taken += 1
            yield Order(tag="slow server", payload=bytes(10_000), enough=True, delay=GUARD)

    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        measured = Measured(line)
        trio.lowlevel.add_instrument(measured)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.stub.tell, requests())
            await server.report("start", "slow server")
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(measured)
        assert measured.outbox <= OUTBOX_LIMIT + 100
        note(f"{taken} requests of 10 kB were taken")
        assert taken < 2000
        assert (await server.report("end", "slow server"))["early"]


@pytest.mark.parametrize("window", [0, 1, 7])
@pytest.mark.parametrize("kind", KINDS[:4], ids=[kind.__name__ for kind in KINDS[:4]])
async def test_a_window_of_almost_nothing(autojump_clock: object, kind: Kind, window: int) -> None:
    """A server whose windows are tiny gets the request in as many pieces as it takes, and all of it."""
    order = Order(payload=b"0123456789")
    async with open_scripted(settings={INITIAL_WINDOW_SIZE: window}) as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(kind, line.stub, order)
        await peer.expect("HEADERS")
        body, end = b"", False
        while not end:
            with trio.move_on_after(1):
                part = await peer.expect("DATA")
                body, end = body + part.payload, part.end_stream
                continue
            await peer.send(window_update(1, 3))
        assert body == message(order.SerializeToString()) * (2 if kind.__name__.startswith("stream") else 1)
        await peer.respond(1, b"")


async def test_a_window_that_shrinks_below_zero(autojump_clock: object) -> None:
    """A server may take back more window than is left; the request waits, and then goes on where it was."""
    payload = bytes(200_000)
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(line.stub.ask, Order(payload=payload))
        received = 0
        while received < 65_535:
            received += len((await peer.expect("DATA")).payload)
        await peer.send(settings({INITIAL_WINDOW_SIZE: 0}), window_update(0, MIB), window_update(1, 65_535))
        with trio.move_on_after(1):
            await peer.expect("DATA")
            pytest.fail("DATA without window")
        await peer.send(window_update(1, 10))
        assert len((await peer.expect("DATA")).payload) == 10
        await peer.send(settings({INITIAL_WINDOW_SIZE: MIB}))
        end = False
        received += 10
        while not end:
            part = await peer.expect("DATA")
            received, end = received + len(part.payload), part.end_stream
        assert received == len(message(Order(payload=payload).SerializeToString()))
        await peer.respond(1, b"")
