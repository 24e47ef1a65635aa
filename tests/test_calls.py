"""Calls that end well, and what callers do wrong: against a real grpcio server, over real sockets."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import purerpc
import pytest
import trio

from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Answer, Order
from servers import GUARD
from transport import endless, numbers, open_channel, orders
from viewreg._errors import InvalidTypeError
from viewreg._transport.status import NotFoundError
from viewreg._transport.streams import ResponseStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Server

MIB = 1024 * 1024  # bytes


# -- the four kinds --


@pytest.mark.parametrize("metadata", [None, {"x-head": "1", "t-tail": "2"}], ids=["bare", "metadata"])
async def test_unary_unary(server: Server, metadata: dict[str, str] | None) -> None:
    """One request gives one answer, with metadata or without."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            answer = await line.stub.ask(Order(payload=b"hello"), metadata=metadata)
        assert answer.payload == b"hello"
        assert line.open_streams == 0


@pytest.mark.parametrize("metadata", [None, {"x-head": "1", "t-tail": "2"}], ids=["bare", "metadata"])
async def test_unary_stream(server: Server, metadata: dict[str, str] | None) -> None:
    """One request gives many answers in order; the metadata around them is there when they are read."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            async with line.stub.listen(Order(answers=100), metadata=metadata) as answers:
                assert answers.initial_metadata == ()
                assert await numbers(answers) == list(range(1, 101))
        assert (("x-head", "1") in answers.initial_metadata) is (metadata is not None)
        assert answers.trailing_metadata == ((("t-tail", "2"),) if metadata else ())
        assert line.open_streams == 0


async def test_unary_stream_of_nothing(server: Server) -> None:
    """A call that streams no answers is an empty iteration, and stays empty."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            answers = line.stub.listen(Order())
            assert await numbers(answers) == []
            assert await numbers(answers) == []
        assert line.open_streams == 0


@pytest.mark.parametrize("metadata", [None, {"x-head": "1", "t-tail": "2"}], ids=["bare", "metadata"])
@pytest.mark.parametrize("count", [0, 1, 100])
async def test_stream_unary(server: Server, count: int, metadata: dict[str, str] | None) -> None:
    """Many requests, or none, give one answer that has seen them all."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            answer = await line.stub.tell(orders(*[Order(payload=b"12345")] * count), metadata=metadata)
        assert (answer.requests, answer.request_bytes) == (count, 5 * count)
        assert line.open_streams == 0


@pytest.mark.parametrize("metadata", [None, {"x-head": "1", "t-tail": "2"}], ids=["bare", "metadata"])
async def test_stream_stream_with_an_iterable(server: Server, metadata: dict[str, str] | None) -> None:
    """Requests go out while answers come in."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            requests = orders(*[Order(answers=2, payload=b"%d" % number) for number in range(20)])
            async with line.stub.talk(requests, metadata=metadata) as answers:
                payloads = [answer.payload async for answer in answers]
        assert payloads == [b"%d" % (number // 2) for number in range(40)]
        assert (("x-head", "1") in answers.initial_metadata) is (metadata is not None)
        assert line.open_streams == 0


@pytest.mark.parametrize("metadata", [None, {"x-head": "1", "t-tail": "2"}], ids=["bare", "metadata"])
async def test_stream_stream_in_ones_own_hands(server: Server, metadata: dict[str, str] | None) -> None:
    """Without an iterable: send and receive in turn; after `close`, None tells of the good end."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            async with await line.stub.talk(metadata=metadata) as talk:
                for number in range(20):
                    await talk.send_message(Order(answers=1, payload=b"%d" % number))
                    answer = await talk.receive_message()
                    assert answer is not None
                    assert answer.payload == b"%d" % number
                await talk.close()
                assert await talk.receive_message() is None
                assert await talk.receive_message() is None
        assert (("x-head", "1") in talk.initial_metadata) is (metadata is not None)
        assert line.open_streams == 0


async def test_with_metadata(server: Server) -> None:
    """`with_metadata` gives the answer together with what came before and after it, for both kinds with one answer."""
    metadata: list[tuple[str, str | bytes]] = [("x-head", "1"), ("x-head", "2"), ("t-tail-bin", b"\0\xff")]
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            for response in [
                await line.stub.ask.with_metadata(Order(payload=b"a"), metadata=metadata),
                await line.stub.tell.with_metadata(orders(Order(payload=b"a")), metadata=metadata),
            ]:
                assert response.message.payload == b"a"
                assert response.initial_metadata[:2] == (("x-head", "1"), ("x-head", "2"))
                assert response.trailing_metadata == (("t-tail-bin", b"\0\xff"),)


async def test_the_plain_stub_works_for_unary_calls(server: Server) -> None:
    """The call objects of purerpc itself work on our channel: an answer, and an error of purerpc's class."""
    async with open_channel(server.endpoint) as line:
        stub = NastyStub(line.channel)
        with trio.fail_after(GUARD):
            await line.channel.wait_ready()
            assert (await stub.ask(Order(payload=b"plain"))).payload == b"plain"
            with pytest.raises(purerpc.NotFoundError, match="nothing here"):
                await stub.ask(Order(abort=True, code=5, details="nothing here"))
        assert line.open_streams == 0


async def test_a_stub_of_something_else(server: Server) -> None:
    """A class that is no generated stub is refused by name."""
    async with open_channel(server.endpoint) as line:
        with pytest.raises(InvalidTypeError, match="Order"):
            line.channel.stub(Order)  # type: ignore[arg-type]


# -- large and long --


async def test_a_large_request_does_not_hold_up_others(server: Server) -> None:
    """While 20 MB go up, other calls on the same connection are answered; the 20 MB come back."""
    payload = bytes(range(256)) * (20 * MIB // 256)
    finished: list[str] = []
    async with open_channel(server.endpoint) as line:
        await line.channel.wait_ready()

        async def upload() -> None:
            answer = await line.stub.ask(Order(payload=payload))
            assert answer.payload == payload
            finished.append("large")

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(upload)
                await trio.testing.wait_all_tasks_blocked()
                for number in range(5):
                    assert (await line.stub.ask(Order(payload=b"%d" % number))).payload == b"%d" % number
                    finished.append("small")
        assert finished == ["small"] * 5 + ["large"]


async def test_large_streams_both_ways(server: Server) -> None:
    """Requests of many windows' size, streamed, arrive whole, and so do the answers."""
    part = Order(payload=bytes(3 * MIB), answers=1)
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(30):
            answer = await line.stub.tell(orders(*[part] * 7))
            assert answer.request_bytes == 21 * MIB
            async with line.stub.talk(orders(*[part] * 4)) as answers:
                assert [len(answer.payload) async for answer in answers] == [3 * MIB] * 4


async def test_an_answer_before_all_requests(server: Server) -> None:
    """A server that has heard enough answers a stream of requests that never ends; its iterable is closed."""
    closed = trio.Event()

    async def requests() -> AsyncIterator[Order]:
        try:
            yield Order(tag="enough", enough=True, payload=b"first")
            while True:
                await trio.lowlevel.checkpoint()
                yield Order(payload=bytes(1000))
        finally:
            closed.set()

    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            answer = await line.stub.tell(requests())
            assert (answer.requests, answer.payload) == (1, b"first")
            assert closed.is_set()
            # Answers are there to the last although the requests still flow.
            async with line.stub.talk(endless(Order(enough=True, answers=3))) as answers:
                assert await numbers(answers) == [1, 2, 3]
            await line.stub.ask(Order())
        assert line.open_streams == 0


async def test_messages_after_the_servers_end_go_nowhere(server: Server) -> None:
    """Once the server has ended a stream-stream call well, sending does no harm, and `receive_message` says None."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            async with await line.stub.talk() as talk:
                await talk.send_message(Order(enough=True, answers=1))
                assert await talk.receive_message() is not None
                assert await talk.receive_message() is None
                await talk.send_message(Order(answers=1))
                await talk.close()
                assert await talk.receive_message() is None
        assert line.open_streams == 0


async def test_messages_after_the_servers_bad_end_raise(server: Server) -> None:
    """Once the server has ended a stream-stream call badly, sending and receiving raise its status, again and again."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            async with await line.stub.talk() as talk:
                await talk.send_message(Order(enough=True, code=5, details="gone"))
                for _ in range(2):
                    with pytest.raises(NotFoundError, match="gone"):
                        await talk.receive_message()
                with pytest.raises(NotFoundError, match="gone"):
                    await talk.send_message(Order(answers=1))
        assert line.open_streams == 0


# -- what the user's own code raises --


class UserError(Exception):
    """What a user's iterable raises."""


async def failing(error: Exception, server: Server, tag: str) -> AsyncIterator[Order]:
    """Give two requests, and fail once the server has begun the call."""
    yield Order(tag=tag, hang=True)
    yield Order(hang=True)
    await server.report("start", tag)
    raise error


@pytest.mark.parametrize(
    "error",
    [UserError("mine"), ExceptionGroup("mine", [UserError("one"), UserError("two")]), NotFoundError("another call's")],
    ids=["error", "group", "status"],
)
async def test_the_iterables_error_is_raised_as_itself(server: Server, error: Exception) -> None:
    """What the iterable of requests raises comes out of the call, the very object, and the server's call ends early."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD * 2):
            with pytest.raises(type(error)) as caught:
                await line.stub.tell(failing(error, server, "failing-tell"))
            assert caught.value is error
            assert (await server.report("end", "failing-tell"))["early"]
            with pytest.raises(type(error)) as caught:
                async with line.stub.talk(failing(error, server, "failing-talk")) as answers:
                    await numbers(answers)
            assert caught.value is error
            assert (await server.report("end", "failing-talk"))["early"]
        assert line.open_streams == 0
        assert line.lost is None


async def test_an_iterable_that_cannot_be_sent(server: Server) -> None:
    """Something that is no message, or no iterable of messages, is the caller's own error and nobody else's."""
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            with pytest.raises(InvalidTypeError, match="request 'no message'"):
                await line.stub.tell(orders("no message"))  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="list"):
                await line.stub.tell([Order()])  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="list"):
                await numbers(line.stub.talk([Order()]))  # type: ignore[call-overload]
            with pytest.raises(InvalidTypeError, match="request 'no message'"):
                await line.stub.ask("no message")  # type: ignore[arg-type]
            await line.stub.ask(Order())
        assert line.open_streams == 0


async def test_an_error_in_the_loop_is_raised_as_itself(server: Server) -> None:
    """What the body of a loop over answers raises comes out as itself, an ExceptionGroup included."""
    error = ExceptionGroup("the body's", [UserError("one")])
    async with open_channel(server.endpoint) as line:
        with trio.fail_after(GUARD):
            for answers in [
                line.stub.listen(Order(answers=5, hang=True)),
                line.stub.talk(endless(Order(answers=5))),
            ]:
                assert isinstance(answers, ResponseStream)
                with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (the loop is what raises)
                    async with answers:
                        async for _ in answers:
                            raise error
                assert caught.value is error
        assert line.open_streams == 0


async def test_two_readers_of_one_call(server: Server) -> None:
    """A second task that waits for the same call's answer is refused by Trio's own error; the call goes on."""
    async with open_channel(server.endpoint) as line, await line.stub.talk() as talk:
        received: list[Answer | None] = []

        async def receive() -> None:
            received.append(await talk.receive_message())

        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await talk.receive_message()
                await talk.send_message(Order(answers=1))
        assert len(received) == 1


# -- silence --


async def test_no_warning_of_any_kind(server: Server) -> None:
    """Everything once, in a process where each warning is an error and Python looks closely: it stays silent."""
    program = [sys.executable, "-W", "error", "-X", "dev", str(Path(__file__).parent / "transport.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with trio.fail_after(30):
        command = [*program, str(server.endpoint.port)]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", "")
