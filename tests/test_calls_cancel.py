"""Calls that are left early: the server is told, nothing is left behind, and the next call works."""

from __future__ import annotations

import gc
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Order
from servers import GUARD
from transport import KINDS, Line, endless, message_stream, note, open_channel, open_scripted, unary_stream, unary_unary
from viewreg._http2.frames import ErrorCode
from viewreg._transport.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from nasty.nasty_grpc import NastyStub
    from nasty.nasty_pb2 import Answer
    from servers import Server
    from viewreg._transport.streams import ResponseStream

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

names = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])


async def assert_nothing_left(line: Line, tasks: int) -> None:
    """Nothing of a call that was left is still there, and the connection works."""
    await wait_all_tasks_blocked()
    assert line.open_streams == 0
    assert not line.subchannel._calls
    assert not line.connection._without_window
    assert not line.connection._without_room
    assert len(line.nursery.child_tasks) == tasks
    assert line.lost is None
    with trio.fail_after(GUARD):
        assert (await line.stub.ask(Order(payload=b"works"))).payload == b"works"


# -- cancellation --


@names
async def test_cancelled_while_it_waits_for_the_answer(autojump_clock: object, kind: Kind) -> None:
    """A call that is cancelled sends RST_STREAM(CANCEL), and its stream is free at once."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        nursery.start_soon(kind, line.stub, Order(payload=b"a"))
        await peer.expect("HEADERS", stream_id=1)
        assert line.open_streams == 1
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.CancelScope(shield=True):
            reset = await peer.expect("RST_STREAM", stream_id=1)
            assert reset.code == ErrorCode.CANCEL
            assert line.open_streams == 0


@names
async def test_cancelled_while_it_waits_for_the_server(autojump_clock: object, kind: Kind) -> None:
    """A call that is cancelled before there is a stream for it sends nothing, and leaves the queue."""
    async with open_scripted(settings={0x3: 0}) as (line, peer):
        with trio.move_on_after(1) as scope:
            await kind(line.stub, Order(payload=b"a"))
        assert scope.cancelled_caught
        assert not line.subchannel._calls
        await peer.send(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x05")  # SETTINGS: five streams may be open
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await peer.expect("HEADERS")
        assert not [frame for frame in peer.frames if frame.kind in ("HEADERS", "RST_STREAM")]


@names
async def test_cancelled_at_every_await(server: Server, kind: Kind) -> None:
    """Wherever a call is cancelled, nothing is left of it: no stream, no task, no place in a queue."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        await wait_all_tasks_blocked()
        tasks = len(line.nursery.child_tasks)
        order = Order(payload=b"a", answers=2)
        steps = 0
        while True:
            with trio.CancelScope() as scope:
                instrument = CancelAt(steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    with trio.fail_after(GUARD):
                        await kind(line.stub, order)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            await assert_nothing_left(line, tasks)
            if not scope.cancel_called:
                break
            steps += 1
        assert steps >= 1
        note(f"{kind.__name__}: cancelled at each of {steps} awaits")


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the current task has gone to sleep so many times."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._task = trio.lowlevel.current_task()
        self._steps = steps
        self._scope = scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            if self._steps == 0:
                self._scope.cancel()
            self._steps -= 1


async def test_cancelled_in_the_middle_of_a_large_request(server: Server) -> None:
    """A call whose request is half sent can be cancelled: the server's call ends, the others go on."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)
        for kind in KINDS:
            with trio.move_on_after(0.02) as scope:
                await kind(line.stub, Order(payload=bytes(20_000_000), delay=GUARD))
            assert scope.cancelled_caught
            await assert_nothing_left(line, tasks)


async def test_receiving_can_be_cancelled_and_the_talk_goes_on(server: Server) -> None:
    """Cancelling `receive_message` loses no message and does not end the call; cancelling a send that waits ends it."""
    async with open_channel(server.endpoint) as line, await line.stub.talk() as talk:
        with trio.fail_after(GUARD):
            with trio.move_on_after(0.01) as scope:
                await talk.receive_message()
            assert scope.cancelled_caught
            await talk.send_message(Order(answers=1, payload=b"still there"))
            answer = await talk.receive_message()
            assert answer is not None
            assert answer.payload == b"still there"
            with trio.move_on_after(0.02) as scope:
                while True:
                    await talk.send_message(Order(payload=bytes(1_000_000), hang=True))
            assert scope.cancelled_caught
            assert line.open_streams == 0


# -- answers that nobody wants any more --


async def leave_by_async_with(answers: ResponseStream[Answer]) -> None:
    """A break inside `async with`."""
    async with answers:
        async for _ in answers:
            break


async def leave_by_aclosing(answers: ResponseStream[Answer]) -> None:
    """A break inside `aclosing`."""
    async with aclosing(answers):
        async for _ in answers:
            break


async def leave_by_cancellation(answers: ResponseStream[Answer]) -> None:
    """The scope around the loop is cancelled."""
    with trio.CancelScope() as scope:
        async for answer in answers:
            if answer.number == 2:
                scope.cancel()
    assert scope.cancelled_caught


async def leave_by_an_error(answers: ResponseStream[Answer]) -> None:
    """The body of the loop raises."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 (the loop is what raises)
        async with answers:
            async for answer in answers:
                assert answer.number / 0


async def leave_while_waiting(answers: ResponseStream[Answer]) -> None:
    """Cancelled while it waits for an answer, and closed twice."""
    await anext(answers)
    await anext(answers)
    with trio.move_on_after(0.01) as scope:
        await anext(answers)
    assert scope.cancelled_caught
    await answers.aclose()
    await answers.aclose()


LEAVING = [
    leave_by_async_with, leave_by_aclosing, leave_by_cancellation, leave_by_an_error, leave_while_waiting
]  # fmt: skip


@pytest.mark.parametrize("method", ["listen", "talk"])
@pytest.mark.parametrize("leave", LEAVING, ids=[leave.__name__ for leave in LEAVING])
async def test_left_early(
    server: Server, leave: Callable[[ResponseStream[Answer]], Coroutine[Any, Any, None]], method: str
) -> None:
    """However a loop over answers is left, the server itself reports that its call has ended, and soon."""
    order = Order(tag=f"{leave.__name__} {method}", answers=2, hang=True)
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)
        answers = line.stub.listen(order) if method == "listen" else line.stub.talk(endless(order))
        with trio.fail_after(GUARD):
            await leave(answers)
        left = time.perf_counter()
        assert (await server.report("end", order.tag))["early"]
        note(f"{order.tag}: the server's call ended {1000 * (time.perf_counter() - left):.1f} ms later")
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
        await assert_nothing_left(line, tasks)


@pytest.mark.parametrize("method", ["listen", "talk"])
async def test_a_bare_break(server: Server, method: str) -> None:
    """A loop that is left by a bare break is found by the finalizer: it warns, and the server's call ends."""
    order = Order(tag=f"bare break {method}", answers=2, hang=True)
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)

        async def careless() -> None:
            async for _ in line.stub.listen(order) if method == "listen" else line.stub.talk(endless(order)):
                break

        with trio.fail_after(GUARD), pytest.warns(ResourceWarning, match="dropped in the middle"):
            await careless()
        left = time.perf_counter()
        assert (await server.report("end", order.tag))["early"]
        note(f"{order.tag}: the server's call ended {1000 * (time.perf_counter() - left):.1f} ms later")
        await assert_nothing_left(line, tasks)


async def test_dropped_without_harm(server: Server) -> None:
    """Answers that were never asked for, or read to the end, are dropped without a warning and without a call."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)
        line.stub.listen(Order(answers=2))
        line.stub.talk(endless(Order()))
        await unary_stream(line.stub, Order(answers=2))
        gc.collect()
        await assert_nothing_left(line, tasks)


async def test_a_message_stream_that_is_dropped(server: Server) -> None:
    """A MessageStream that is dropped in the middle is found as well: it warns, and the server's call ends."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)

        async def careless() -> None:
            talk = await line.stub.talk()
            await talk.send_message(Order(tag="dropped", answers=1, hang=True))
            await talk.receive_message()

        with trio.fail_after(GUARD), pytest.warns(ResourceWarning, match="dropped in the middle"):
            await careless()
        assert (await server.report("end", "dropped"))["early"]
        await assert_nothing_left(line, tasks)


async def test_the_iterable_of_requests_is_closed(autojump_clock: object) -> None:
    """When a call is cancelled, the user's generator of requests gets to its `finally`, and may await there."""
    closed: list[str] = []

    async def requests(name: str) -> AsyncIterator[Order]:
        try:
            yield Order()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            closed.append(name)

    async with open_scripted() as (line, _):
        with trio.move_on_after(1):
            await line.stub.tell(requests("tell"))
        with trio.move_on_after(1):
            async with line.stub.talk(requests("talk")) as answers:
                await anext(answers)
        await trio.sleep(1)
        assert closed == ["tell", "talk"]


async def test_every_stream_is_given_back(server: Server) -> None:
    """A thousand calls that are cancelled leave room for the next: no stream leaks."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)
        with trio.fail_after(20):
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(unary_unary, line.stub, Order(hang=True, delay=GUARD))
                        nursery.start_soon(message_stream, line.stub, Order(hang=True, delay=GUARD))
                    await wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
            await assert_nothing_left(line, tasks)


# -- iterables of requests that make trouble when they are cancelled --


class FailsWhenCancelled:
    """An iterable that gives one request and waits; cancelled there, it raises, with a nursery in a group."""

    def __init__(self, *, nursery: bool) -> None:
        self._nursery = nursery
        self._given = False

    def __aiter__(self) -> FailsWhenCancelled:
        return self

    async def __anext__(self) -> Order:
        if not self._given:
            self._given = True
            return Order(enough=True, answers=1)
        if not self._nursery:
            return await self._fail()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fail)
            nursery.start_soon(trio.sleep_forever)
        raise StopAsyncIteration

    async def _fail(self) -> Order:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError


@pytest.mark.parametrize("nursery", [False, True], ids=["error", "group"])
async def test_an_iterable_that_fails_when_it_is_cancelled(server: Server, nursery: bool) -> None:
    """What an iterable raises when its call is left concerns its own call at most: the connection goes on."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)
        with trio.fail_after(GUARD):
            async with line.stub.talk(FailsWhenCancelled(nursery=nursery)) as answers:
                assert (await anext(answers)).number == 1
            await assert_nothing_left(line, tasks)
            # The answer ends the call, and only then the iterable is cancelled: its error comes out, in its own group.
            with pytest.raises(Exception) as caught:
                await line.stub.tell(FailsWhenCancelled(nursery=nursery))
            errors = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else (caught.value,)
            assert [type(error) for error in errors] == [ZeroDivisionError]
            await assert_nothing_left(line, tasks)


async def test_closing_from_another_task(server: Server) -> None:
    """`aclose` from another task ends a wait for the next answer, too."""
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()
        tasks = len(line.nursery.child_tasks)
        answers = line.stub.listen(Order(tag="elsewhere", answers=1, hang=True))
        ended: list[str] = []

        async def read() -> None:
            with pytest.raises((CallError, trio.ClosedResourceError)):
                async for _ in answers:
                    pass
            ended.append("read")

        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await server.report("start", "elsewhere")
                await answers.aclose()
        assert ended
        assert (await server.report("end", "elsewhere"))["early"]
        await assert_nothing_left(line, tasks)
