"""The deadline of the enclosing scope: how it reaches the server, and who speaks when it is due."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Order
from servers import GUARD
from transport import KINDS, numbers, open_channel, open_scripted, orders
from viewreg._http2.frames import ErrorCode
from viewreg._transport.exchange import timeout_text
from viewreg._transport.status import CallError, CancelledError, DeadlineExceededError
from viewreg.testing.frames import rst_stream, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nasty.nasty_grpc import NastyStub
    from servers import Server
    from viewreg.testing import ScriptedPeer
    from viewreg.testing.frames import Frame

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

DEADLINE_EXCEEDED = 4
REPETITIONS = 200

kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])


async def expect_timeout(peer: ScriptedPeer, kind: Kind, stub: NastyStub) -> bytes | None:
    """Call, and leave the call when its headers have arrived; give the value of grpc-timeout."""
    heads: list[Frame] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kind, stub, Order())
        with trio.CancelScope(shield=True):
            heads.append(await peer.expect("HEADERS"))
        nursery.cancel_scope.cancel()
    return heads[0].header(b"grpc-timeout")


# -- what is sent --


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1e-9, b"1n"),
        (0.001, b"1000000n"),
        (0.05, b"50000000n"),
        (0.099_999_999, b"99999999n"),
        (0.1, b"100000u"),
        (0.25, b"250000u"),
        (0.5, b"500000u"),
        (5, b"5000000u"),
        (99.999_999, b"99999999u"),
        (100, b"100000m"),
        (3600, b"3600000m"),
        (99_999, b"99999000m"),
        (100_000, b"100000S"),
        (99_999_999, b"99999999S"),
        (100_000_000, b"1666667M"),
        (99_999_999 * 60.0, b"99999999M"),
        (6e9, b"1666667H"),
        (1e15, b"99999999H"),
    ],
)
async def test_the_text_of_a_timeout(seconds: float, text: bytes) -> None:
    """A timeout is rounded up in the finest unit in which it fits eight digits."""
    assert timeout_text(seconds) == text


@pytest.mark.parametrize("seconds", [1e-12, 0.099_999_999_9, 99.999_999_5, 123_456.000_4, 1_234_567_890.1])
async def test_a_timeout_is_never_shorter(seconds: float) -> None:
    """What is rounded is rounded up, by less than one of the unit: the server never gives up before its caller."""
    text = timeout_text(seconds)
    unit = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}[text[-1:].decode()]
    assert seconds <= int(text[:-1]) * unit * (1 + 1e-9)
    assert int(text[:-1]) * unit < seconds + unit * (1 + 1e-6)


@kinds
async def test_the_scopes_deadline_is_sent(autojump_clock: object, kind: Kind) -> None:
    """Each kind of call sends the time that its enclosing scopes leave, to the digit."""
    async with open_scripted() as (line, peer):
        with trio.fail_after(20), trio.fail_after(0.5):
            assert await expect_timeout(peer, kind, line.stub) == b"500000u"
        with trio.fail_after(2), trio.fail_after(20):
            assert await expect_timeout(peer, kind, line.stub) == b"2000000u"


@kinds
async def test_no_deadline_no_timeout(autojump_clock: object, kind: Kind) -> None:
    """Without a deadline, and under a shield that no deadline reaches through, no grpc-timeout is sent."""
    async with open_scripted() as (line, peer):
        assert await expect_timeout(peer, kind, line.stub) is None
        with trio.fail_after(5), trio.CancelScope(shield=True):
            assert await expect_timeout(peer, kind, line.stub) is None
        with trio.fail_after(math.inf):
            assert await expect_timeout(peer, kind, line.stub) is None


@kinds
async def test_an_expired_scope_sends_nothing(autojump_clock: object, kind: Kind) -> None:
    """Under a scope whose time is over, or that is cancelled, a call puts not one byte on the wire."""
    async with open_scripted() as (line, peer):
        await wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await kind(line.stub, Order())
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await kind(line.stub, Order())
        assert scope.cancelled_caught
        await trio.sleep(1)
        with trio.move_on_after(1):
            await peer.expect("HEADERS")
        assert not [frame for frame in peer.frames if frame.stream_id]
        assert line.open_streams == 0


async def test_waiting_in_the_queue_counts(autojump_clock: object) -> None:
    """A call that waited for a stream sends what is left of its time, not what it had."""
    async with open_scripted(settings={0x3: 0}) as (line, peer), trio.open_nursery() as nursery:
        with trio.fail_after(10):
            nursery.start_soon(peer_opens_after, peer, 3)
            assert await expect_timeout(peer, KINDS[0], line.stub) == b"7000000u"


async def peer_opens_after(peer: ScriptedPeer, seconds: float) -> None:
    """Let streams be opened after some time."""
    await trio.sleep(seconds)
    await peer.send(settings({0x3: 100}))


async def test_a_stream_counts_from_its_first_iteration(autojump_clock: object) -> None:
    """A call that streams answers has the deadline under which its iteration starts, wherever it was made."""
    async with open_scripted() as (line, peer):
        with trio.fail_after(1):  # noqa: ASYNC100 (that it has no effect is the point)
            answers = line.stub.listen(Order())
        await trio.sleep(2)
        with trio.move_on_after(5):
            await anext(answers)
        assert (await peer.expect("HEADERS")).header(b"grpc-timeout") == b"5000000u"


async def test_a_real_server_sees_the_deadline(server: Server) -> None:
    """A grpcio server is told of the deadline in its own terms, and of none where there is none."""
    async with open_channel(server.endpoint) as line:
        for kind in KINDS:
            tag = f"deadline of {kind.__name__}"
            with trio.fail_after(30):
                await kind(line.stub, Order(tag=tag))
            remaining = (await server.report("start", tag))["time_remaining"]
            assert 20 < remaining <= 30
            await kind(line.stub, Order(tag=tag))
            assert (await server.report("start", tag))["time_remaining"] is None


# -- who speaks when it is due --


@pytest.mark.parametrize("method", ["ask", "listen", "tell", "talk"])
async def test_our_deadline_is_never_a_status(server: Server, method: str) -> None:
    """`fail_after` raises TooSlowError, and the server's DEADLINE_EXCEEDED never gets in its way: not once in 200."""
    results: list[str] = []
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        stub = line.stub

        async def call(number: int) -> None:
            order = Order(delay=GUARD, hang=True)
            # Some block the event loop past the deadline, so that the server's word is there before ours.
            with trio.fail_after(0.02 + 0.001 * (number % 7)):
                if method == "ask":
                    await stub.ask(order)
                elif method == "listen":
                    await numbers(stub.listen(order))
                elif method == "tell":
                    await stub.tell(orders(order))
                else:
                    await numbers(stub.talk(orders(order)))

        async def attempt(number: int) -> None:
            try:
                await call(number)
            except (trio.TooSlowError, CallError) as error:
                results.append(type(error).__name__)

        with trio.fail_after(30):
            for batch in range(REPETITIONS // 20):
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(attempt, number)
                    if batch % 2:
                        await wait_all_tasks_blocked()
                        time.sleep(0.05)  # noqa: ASYNC251 (the stall is what is tested)
        await wait_all_tasks_blocked()
        assert line.open_streams == 0
    assert results == ["TooSlowError"] * REPETITIONS


ENDS = {
    "trailers": lambda peer, stream_id: peer.refuse(stream_id, DEADLINE_EXCEEDED, "too slow"),
    "reset": lambda peer, stream_id: peer.send(rst_stream(stream_id, ErrorCode.CANCEL)),
    "cancelled": lambda peer, stream_id: peer.refuse(stream_id, 1, "the server noticed our reset first"),
}


@pytest.mark.parametrize("after", [-0.001, 0.0, 0.001, 5.0])
@pytest.mark.parametrize("end", ENDS)
@kinds
async def test_the_servers_word_around_our_deadline(autojump_clock: object, kind: Kind, end: str, after: float) -> None:
    """DEADLINE_EXCEEDED or RST_STREAM(CANCEL) a little before, at or after our deadline is our deadline's own end."""
    for _ in range(5):  # at the same instant, Trio runs tasks in random order
        async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

            async def respond(peer: ScriptedPeer = peer) -> None:
                head = await peer.expect("HEADERS")
                await trio.sleep(1 + after)
                await ENDS[end](peer, head.stream_id)

            nursery.start_soon(respond)
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(1):
                    await kind(line.stub, Order(answers=1))
            await trio.sleep(max(0, after))
            await wait_all_tasks_blocked()
            assert line.open_streams == 0
            assert line.lost is None


@pytest.mark.parametrize("end", ENDS)
@kinds
async def test_the_servers_word_long_before_our_deadline(autojump_clock: object, kind: Kind, end: str) -> None:
    """A server that gives up well before our deadline is believed: it had reasons of its own."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def respond() -> None:
            head = await peer.expect("HEADERS")
            await trio.sleep(0.5)
            await ENDS[end](peer, head.stream_id)

        nursery.start_soon(respond)
        with trio.fail_after(1), pytest.raises(DeadlineExceededError if end == "trailers" else CancelledError):
            await kind(line.stub, Order(answers=1))


@pytest.mark.parametrize("end", ENDS)
@kinds
async def test_a_deadline_that_was_moved(autojump_clock: object, kind: Kind, end: str) -> None:
    """If the scope's deadline was moved after the call began, and nothing cancels, the call says what happened."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def respond() -> None:
            head = await peer.expect("HEADERS")
            scope.deadline += 10
            await trio.sleep(1)
            await ENDS[end](peer, head.stream_id)

        nursery.start_soon(respond)
        with trio.fail_after(1) as scope, pytest.raises(DeadlineExceededError):
            await kind(line.stub, Order(answers=1))
        assert trio.current_time() < 2


@pytest.mark.parametrize("seconds", [math.inf, 20])
async def test_a_servicer_that_gives_up_by_itself(server: Server, seconds: float) -> None:
    """A servicer that ends with DEADLINE_EXCEEDED of its own accord is heard, with its words."""
    async with open_channel(server.endpoint) as line:
        for kind in KINDS:
            with trio.fail_after(seconds), pytest.raises(DeadlineExceededError, match="I have no time"):
                await kind(line.stub, Order(abort=True, code=DEADLINE_EXCEEDED, details="I have no time", answers=1))
