"""Calls that the server refused, promising that it did nothing: they are sent again, within limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Answer, Order
from transport import numbers, open_scripted, unary_stream, unary_unary
from viewreg._http2.frames import ErrorCode
from viewreg._transport.exchange import MAX_RESENT, REPLAY_LIMIT
from viewreg._transport.status import UnavailableError
from viewreg.testing.frames import data, headers, message, rst_stream, window_update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from nasty.nasty_grpc import NastyStub

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

unary_requests = pytest.mark.parametrize("kind", [unary_unary, unary_stream], ids=["unary_unary", "unary_stream"])


def refused(stream_id: int) -> bytes:
    """The refusal of a stream."""
    return rst_stream(stream_id, ErrorCode.REFUSED_STREAM)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_refused_call_is_sent_again(autojump_clock: object, size: int, times: int) -> None:
    """A request that was refused is sent again, byte for byte, with what is left of its time, and answered."""
    order = Order(payload=bytes(size))
    received: list[Answer] = []
    async with open_scripted(settings={0x4: 2**31 - 1}) as (line, peer), trio.open_nursery() as nursery:
        await peer.send(window_update(0, 10_000_000))

        async def call() -> None:
            with trio.fail_after(5):
                received.append(await line.stub.ask(order))

        nursery.start_soon(call)
        timeouts = []
        for number in range(times + 1):
            request = await peer.expect_request()
            assert request.stream_id == 2 * number + 1
            assert request.message == order.SerializeToString()
            timeouts.append(int((request.header(b"grpc-timeout") or b"")[:-1]))
            await peer.send(refused(request.stream_id) if number < times else b"")
        assert timeouts == sorted(timeouts, reverse=True)
        assert len(set(timeouts)) == times + 1
        await peer.respond(2 * times + 1, Answer(number=7).SerializeToString())
    assert received[0].number == 7
    assert line.open_streams == 0


@unary_requests
async def test_a_server_that_refuses_for_ever(autojump_clock: object, kind: Kind) -> None:
    """A call that is refused again and again ends as UNAVAILABLE, not started; it took no more than a few seconds."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        ended: list[float] = []

        async def call() -> None:
            with pytest.raises(UnavailableError, match="REFUSED_STREAM") as caught:
                await kind(line.stub, Order())
            assert not caught.value.started
            ended.append(trio.current_time())

        nursery.start_soon(call)
        for _ in range(MAX_RESENT + 1):
            await peer.send(refused((await peer.expect_request()).stream_id))
        await wait_all_tasks_blocked()
        assert ended
        assert ended[0] < 5
        assert line.open_streams == 0
        assert line.lost is None


@unary_requests
async def test_the_deadline_while_a_refused_call_waits(autojump_clock: object, kind: Kind) -> None:
    """The deadline holds for a refused call as for any other, and nothing is sent after it."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def refuse() -> None:
            while True:
                await peer.send(refused((await peer.expect_request()).stream_id))

        with trio.move_on_after(0.2) as scope:
            nursery.start_soon(refuse)
            await kind(line.stub, Order())
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        sent = len([frame for frame in peer.frames if frame.kind == "HEADERS"])
        assert sent > 1
        await trio.sleep(5)
        assert len([frame for frame in peer.frames if frame.kind == "HEADERS"]) == sent
        assert not line.subchannel._paused
        nursery.cancel_scope.cancel()


@unary_requests
async def test_the_connection_is_lost_while_a_refused_call_waits(autojump_clock: object, kind: Kind) -> None:
    """A refused call whose connection is lost before it could be sent again fails at once, not started."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        ended: list[float] = []

        async def call() -> None:
            with pytest.raises(UnavailableError) as caught:
                await kind(line.stub, Order())
            assert not caught.value.started
            ended.append(trio.current_time())

        nursery.start_soon(call)
        await peer.send(refused((await peer.expect_request()).stream_id))
        await wait_all_tasks_blocked()
        assert not ended
        await peer.aclose()
        await wait_all_tasks_blocked()
        assert ended


async def test_a_call_that_began_is_not_sent_again(autojump_clock: object) -> None:
    """A refusal after the response's headers contradicts itself: the call fails."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(UnavailableError, match="REFUSED_STREAM"):
                await line.stub.ask(Order())

        nursery.start_soon(call)
        await peer.expect_request()
        await peer.send(headers(1), data(1, message(b"")), refused(1))
        with trio.move_on_after(5):
            await peer.expect("HEADERS", stream_id=3)
            pytest.fail("sent again")


@pytest.mark.parametrize("window", [4_000, 1_000_000])
@pytest.mark.parametrize("size", [10, 10_000])
async def test_a_streamed_request_is_sent_again(autojump_clock: object, size: int, window: int) -> None:
    """What had left of a streamed request is sent again before what follows, and nothing twice; the end as well."""
    given: list[int] = []
    received: list[Answer] = []

    async def requests() -> AsyncIterator[Order]:
        for number in range(3):
            given.append(number)
            yield Order(tag=str(number), payload=bytes(size))
            await trio.sleep(0.02)

    async with open_scripted(settings={0x4: window}) as (line, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            received.append(await line.stub.tell(requests()))

        await peer.send(window_update(0, 1_000_000))
        nursery.start_soon(call)
        await peer.expect("HEADERS", stream_id=1)
        await peer.expect("DATA", stream_id=1)
        await peer.send(refused(1))
        for stream_id in (3, 5):
            head = await peer.expect("HEADERS", stream_id=stream_id)
            body, end = b"", False
            while not end:
                part = await peer.expect("DATA", stream_id=stream_id)
                body, end = body + part.payload, part.end_stream
                await peer.send(window_update(stream_id, 1 + len(part.payload)))
            whole = [Order(tag=str(number), payload=bytes(size)).SerializeToString() for number in range(3)]
            assert body == b"".join(map(message, whole))
            await peer.send(refused(stream_id) if stream_id == 3 else b"")
        assert head.header(b":path") == b"/nasty.Nasty/tell"
        await peer.respond(5, Answer(number=7).SerializeToString())
    assert given == [0, 1, 2]
    assert received[0].number == 7


async def test_too_much_to_keep_is_not_sent_again(autojump_clock: object) -> None:
    """A streamed request of which more has left than is kept fails when it is refused, not started."""

    async def requests() -> AsyncIterator[Order]:
        for _ in range(3):
            yield Order(payload=bytes(REPLAY_LIMIT // 2))
        await trio.sleep_forever()

    async with open_scripted(settings={0x4: 2**31 - 1}) as (line, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(UnavailableError, match="REFUSED_STREAM") as caught:
                await line.stub.tell(requests())
            assert not caught.value.started

        await peer.send(window_update(0, 2**31 - 1 - 65_535))
        nursery.start_soon(call)
        await peer.expect("HEADERS", stream_id=1)
        size = 0
        while size <= REPLAY_LIMIT:
            size += len((await peer.expect("DATA")).payload)
        await peer.send(refused(1))
        await wait_all_tasks_blocked()
        assert line.open_streams == 0


async def test_a_talk_goes_on_over_a_refusal(autojump_clock: object) -> None:
    """A MessageStream that was refused begins anew with what was sent; neither side of the caller notices."""
    async with open_scripted() as (line, peer), await line.stub.talk() as talk, trio.open_nursery() as nursery:
        received: list[Answer | None] = []

        async def receive() -> None:
            received.append(await talk.receive_message())

        nursery.start_soon(receive)
        await talk.send_message(Order(tag="first"))
        await peer.expect("DATA", stream_id=1)
        await peer.send(refused(1))
        await peer.expect("HEADERS", stream_id=3)
        first = await peer.expect("DATA", stream_id=3)
        assert first.payload == message(Order(tag="first").SerializeToString())
        await talk.send_message(Order(tag="second"))
        second = await peer.expect("DATA", stream_id=3)
        assert second.payload == message(Order(tag="second").SerializeToString())
        await talk.close()
        await peer.respond(3, Answer(number=7).SerializeToString())
        await wait_all_tasks_blocked()
        assert received
        assert received[0] is not None
        assert received[0].number == 7
        assert await talk.receive_message() is None


async def test_answers_after_a_refusal(autojump_clock: object) -> None:
    """A call that streams answers gives them all although its first attempt was refused."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        received: list[int] = []

        async def call() -> None:
            received.extend(await numbers(line.stub.listen(Order())))

        nursery.start_soon(call)
        await peer.expect_request()
        await peer.send(refused(1))
        await peer.expect_request()
        await peer.respond(3, *(Answer(number=number).SerializeToString() for number in (1, 2, 3)))
        await wait_all_tasks_blocked()
    assert received == [1, 2, 3]


async def test_a_refused_call_that_is_left(autojump_clock: object) -> None:
    """A refused call that is left while it waits leaves nothing, and is not sent again."""
    async with open_scripted() as (line, peer):
        for leave in (unary_unary, unary_stream):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave, line.stub, Order())
                await peer.send(refused((await peer.expect_request()).stream_id))
                await wait_all_tasks_blocked()
                assert line.subchannel._paused
                nursery.cancel_scope.cancel()
            assert not line.subchannel._paused
            await wait_all_tasks_blocked()
            assert len(line.nursery.child_tasks) == 1
        sent = len(peer.frames)
        with trio.move_on_after(5):
            await peer.expect("HEADERS")
        assert len(peer.frames) == sent


async def test_a_refused_call_leaves_its_place(autojump_clock: object) -> None:
    """Refused while it waited for a window, a call does not wait there any more: nothing of it is kept."""
    async with open_scripted(settings={0x4: 0}) as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(line.stub.ask, Order(payload=bytes(1000)))
        head = await peer.expect("HEADERS")
        assert len(line.connection._without_window) == 1
        await peer.send(refused(head.stream_id))
        await wait_all_tasks_blocked()
        assert not line.connection._without_window
        nursery.cancel_scope.cancel()
