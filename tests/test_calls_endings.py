"""How calls end in corners: refused while leaving, ended well but unread, left by another task, asked for too fast."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import all_healthy, open_fleet
from nasty.nasty_pb2 import Answer, Order
from transport import KINDS, Line, open_channel, open_scripted, unary_unary
from viewreg import CancelledError, Config, Feature, ProbeResult, UnavailableError
from viewreg._http2.frames import ErrorCode
from viewreg.rpc import StatsRequest
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import data, headers, message, ping, rst_stream, trailers, window_update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from trio.testing import MockClock

    from nasty.nasty_grpc import NastyStub
    from viewreg import Channel, Endpoint, MessageStream, Registry, View

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
A = "a:1"


class Nothing:
    """A probe that asks nothing and finds every server healthy."""

    no_features = Feature(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        await trio.lowlevel.checkpoint()
        return ProbeResult(Feature(0))


@asynccontextmanager
async def open_one(
    drain_timeout: float,
) -> AsyncIterator[tuple[Registry[Feature], ScriptedPeer, viewreg.StaticLocator]]:
    """A registry of one server that the test spells out; it is healthy."""
    peer, stream = ScriptedPeer.pair()

    async def dial(endpoint: Endpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream

    locator = viewreg.StaticLocator([A])
    config = Config(drain_timeout=drain_timeout)
    async with viewreg.open_registry(locator, config, dial=dial, probe=Nothing()) as registry:
        await peer.handshake()
        await registry.wait_until(all_healthy)
        yield registry, peer, locator


class Ended:
    """Makes one call of a view and keeps how and when it ended."""

    def __init__(self) -> None:
        self.error: viewreg.CallError | None = None
        self.when = -1.0
        self.over = trio.Event()

    async def call(self, view: View[Feature]) -> None:
        try:
            await view.diagnostics().stats(StatsRequest())
        except viewreg.CallError as error:
            self.error = error
        self.when = trio.current_time()
        self.over.set()


# -- the end of an endpoint, and of the registry --


@pytest.mark.parametrize("before", [0.001, 0.0])
async def test_refused_at_the_end_of_a_drain(before: float, autojump_clock: MockClock) -> None:
    """A call that the server refuses when its drain time is nearly over ends with that time, and does not hang."""
    ended = Ended()
    async with trio.open_nursery() as nursery, open_one(drain_timeout=1.0) as (registry, peer, locator):
        nursery.start_soon(ended.call, registry.snapshot.view(A))
        request = await peer.expect_request()
        locator.set([])
        await trio.sleep(1.0 - before)
        await peer.send(rst_stream(request.stream_id, ErrorCode.REFUSED_STREAM))
        with trio.move_on_after(100):
            await ended.over.wait()
        assert isinstance(ended.error, UnavailableError)
        assert ended.when <= 1.0
        assert "no longer discovered" in ended.error.details


async def test_refused_in_the_step_in_which_the_registry_is_left(autojump_clock: MockClock) -> None:
    """A call whose refusal is read while the block is being left ends all the same, with the reason."""
    for _ in range(10):  # Trio runs the tasks of one step in any order
        ended = Ended()
        with trio.move_on_after(100) as scope:
            async with trio.open_nursery() as nursery, open_one(drain_timeout=10.0) as (registry, peer, _locator):
                nursery.start_soon(ended.call, registry.snapshot.view(A))
                request = await peer.expect_request()
                await wait_all_tasks_blocked()
                await peer.send(rst_stream(request.stream_id, ErrorCode.REFUSED_STREAM))
        assert not scope.cancelled_caught
        assert isinstance(ended.error, UnavailableError)
        assert "the registry was closed" in ended.error.details


async def test_why_a_call_was_cut_short(autojump_clock: MockClock) -> None:
    """A call that is cut short says whether its endpoint went away or the registry was left."""
    drained, left = Ended(), Ended()
    async with trio.open_nursery() as nursery, open_fleet() as fleet:
        fleet.locator.set([A])
        config = Config(drain_timeout=1.0)
        async with viewreg.open_registry(fleet.locator, config, dial=fleet.dial, probe=Nothing()) as registry:
            await registry.wait_until(all_healthy)
            fleet[A].freeze()
            nursery.start_soon(drained.call, registry.snapshot.view(A))
            await trio.sleep(0.5)
            fleet.locator.set([])
            await trio.sleep(2)
            fleet[A].thaw()
            fleet.locator.set([A])
            await registry.wait_until(all_healthy)
            fleet[A].freeze()
            nursery.start_soon(left.call, registry.snapshot.view(A))
            await trio.sleep(0.5)
    assert drained.error is not None
    assert left.error is not None
    assert drained.when == 1.5
    assert str(drained.error) == "UNAVAILABLE: the endpoint is no longer discovered [tcp://a:1]"
    assert str(left.error) == "UNAVAILABLE: the registry was closed [tcp://a:1]"


# -- messages after an end --


async def test_leaving_says_goodbye(autojump_clock: MockClock) -> None:
    """A connection that is left says GOAWAY before its end, also where the task that sends it is cancelled with it."""
    peer, stream = ScriptedPeer.pair()
    async with open_channel(stream=stream) as line:
        await peer.handshake()
        await line.channel.wait_ready()
    await peer.expect("GOAWAY", code=0)
    await peer.expect_end()


async def test_goaway_is_the_last_word(autojump_clock: MockClock) -> None:
    """What arrives in the step in which a connection is closed is not answered any more, behind its GOAWAY."""
    async with open_scripted() as (line, peer):
        await peer.send(ping())
        line.connection.close("enough")
        await peer.expect_end()
        assert peer.frames[-1].kind == "GOAWAY"


async def test_sending_after_a_good_end_with_answers_unread(autojump_clock: MockClock) -> None:
    """When the server has ended the call well, messages go nowhere, and the answers can still be read."""
    async with open_scripted() as (line, peer), await line.stub.talk() as talk:
        await talk.send_message(Order())
        stream_id = (await peer.expect("HEADERS")).stream_id
        answers = [data(stream_id, message(Answer(number=number).SerializeToString())) for number in (1, 2)]
        await peer.send(headers(stream_id), *answers, trailers(stream_id))
        await wait_all_tasks_blocked()
        await talk.send_message(Order())
        assert [found.number for found in (await talk.receive_message(), await talk.receive_message()) if found] == [
            1,
            2,
        ]
        assert await talk.receive_message() is None


@pytest.mark.parametrize("size", [1, 4, 5, 7])
async def test_an_answer_that_ends_within_a_message(size: int, autojump_clock: MockClock) -> None:
    """An OK that comes in the middle of a message is INTERNAL, however much of the message was there."""
    torn = message(Answer(payload=b"12345").SerializeToString())[:size]
    async with open_scripted() as (line, peer), line.stub.listen(Order()) as answers, trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(viewreg.InternalError, match="middle of a message"):
                await anext(answers)

        nursery.start_soon(read)
        stream_id = (await peer.expect_request()).stream_id
        await peer.send(headers(stream_id), data(stream_id, torn), trailers(stream_id))


async def test_sending_after_close(autojump_clock: MockClock) -> None:
    """A message after `close` raises ClosedResourceError, as a Trio stream does after its end, and the call goes on."""
    async with open_scripted() as (line, peer), await line.stub.talk() as talk:
        await talk.send_message(Order())
        await talk.close()
        with pytest.raises(trio.ClosedResourceError, match="no more messages"):
            await talk.send_message(Order())
        request = await peer.expect_request()
        assert request.message == Order().SerializeToString()
        await peer.respond(request.stream_id, Answer(number=7).SerializeToString())
        answer = await talk.receive_message()
        assert answer is not None
        assert answer.number == 7


async def test_sending_after_close_is_not_replayed(autojump_clock: MockClock) -> None:
    """A request that was closed and then refused is sent again as it was, without what came too late."""
    async with open_scripted() as (line, peer), await line.stub.talk() as talk:
        await talk.send_message(Order(tag="in time"))
        await talk.close()
        with pytest.raises(trio.ClosedResourceError):
            await talk.send_message(Order(tag="too late"))
        request = await peer.expect_request()
        await peer.send(rst_stream(request.stream_id, ErrorCode.REFUSED_STREAM))
        assert (await peer.expect_request()).message == Order(tag="in time").SerializeToString()


# -- two tasks, one call --


async def test_a_second_reader_does_not_end_the_call(autojump_clock: MockClock) -> None:
    """A second task that reads the same answers gets BusyResourceError; the first one gets its answer."""
    async with open_scripted() as (line, peer), line.stub.listen(Order()) as answers:
        got: list[int] = []

        async def read() -> None:
            got.append((await anext(answers)).number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            stream_id = (await peer.expect_request()).stream_id
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(answers)
            await peer.respond(stream_id, Answer(number=1).SerializeToString(), Answer(number=2).SerializeToString())
        assert got == [1]
        assert (await anext(answers)).number == 2


async def test_a_second_sender_does_not_end_the_call(autojump_clock: MockClock) -> None:
    """A second task that sends while the first one waits for room gets BusyResourceError; the first message arrives."""
    large = Order(payload=bytes(100_000))
    async with open_scripted() as (line, peer), await line.stub.talk() as talk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.send_message, large)
            stream_id = (await peer.expect("HEADERS")).stream_id
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await talk.send_message(Order())
            await peer.send(window_update(0, 10**6), window_update(stream_id, 10**6))
        await talk.close()
        body = b""
        while not (part := await peer.expect("DATA")).end_stream:
            body += part.payload
        assert body == message(large.SerializeToString())


async def test_a_call_that_another_task_leaves(autojump_clock: MockClock) -> None:
    """Whoever waits for an answer when another task leaves the call gets CancelledError, as from any cancellation."""

    async def wait_for_answer(talk: MessageStream[Order, Answer]) -> None:
        with pytest.raises(CancelledError, match="the call was left"):
            await talk.receive_message()

    async with open_scripted() as (line, peer):
        talk = await line.stub.talk()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_answer, talk)
            await wait_all_tasks_blocked()
            await talk.aclose()
        await peer.expect("RST_STREAM", code=ErrorCode.CANCEL)


# -- calls that fail at once --


async def away(line: Line) -> None:
    """Let the server be known to be away."""
    await trio.lowlevel.checkpoint()
    line.subchannel.away("it is away")


@kinds
async def test_failing_at_once_is_a_checkpoint(kind: Kind, autojump_clock: MockClock) -> None:
    """A call that fails without having been sent gives other tasks their turn, and can be cancelled."""
    async with open_scripted() as (line, _peer):
        await away(line)
        with trio.testing.assert_checkpoints(), pytest.raises(UnavailableError, match="it is away"):
            await kind(line.stub, Order())
        with trio.CancelScope() as scope:
            scope.cancel()
            await kind(line.stub, Order())
        assert scope.cancelled_caught


async def test_a_neighbour_goes_on_while_calls_fail_fast(autojump_clock: MockClock) -> None:
    """A loop that calls again as soon as it has failed leaves every other task its turns."""
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_scripted() as (line, _peer), trio.open_nursery() as nursery:
        await away(line)
        nursery.start_soon(neighbour)
        await trio.lowlevel.checkpoint()
        for _ in range(100):
            with pytest.raises(UnavailableError):
                await unary_unary(line.stub, Order())
        assert turns >= 99  # the first and the last turn may fall outside the loop
        nursery.cancel_scope.cancel()


async def test_opening_a_call_by_hand_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """`await stub.talk()` gives other tasks their turn also when it succeeds."""
    async with open_scripted() as (line, _peer):
        with trio.testing.assert_checkpoints():
            talk = await line.stub.talk()
        await talk.aclose()


# -- work --


class Weighed(bytes):
    """A message that counts how often anyone asks for its length."""

    __slots__ = ()
    asked = 0

    def __len__(self) -> int:
        Weighed.asked += 1
        return super().__len__()


async def test_work_for_a_streamed_request_is_the_same_for_each_message(autojump_clock: MockClock) -> None:
    """The thousandth message that is kept for a replay costs what the first did."""
    asked = []
    async with open_scripted(settings={0x4: 2**31 - 1}) as (line, peer):
        await peer.send(window_update(0, 10**9))
        exchange = line.channel.exchange("/nasty.Nasty/tell", None, None)
        await exchange.start()
        for _ in range(1000):
            before = Weighed.asked
            await exchange.send(Weighed(b"\0\0\0\0\0"))
            asked.append(Weighed.asked - before)
        exchange.cancel()
    assert max(asked) == asked[0]
    assert asked[0] > 0
