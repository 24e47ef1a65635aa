"""Stubs of grpcio's own protoc plugin, unchanged, over our channel: against a real grpcio server, over real sockets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nasty.nasty_pb2 import Answer, Order
from nasty.nasty_pb2_grpc import AbsentStub, NastyStub
from servers import GUARD
from transport import Line, open_channel, open_scripted, orders
from viewreg import (
    DeadlineExceededError,
    InternalError,
    InvalidTypeError,
    InvalidValueError,
    NotFoundError,
    StatusCode,
    UnavailableError,
    UnimplementedError,
)
from viewreg.testing.frames import data, headers, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

    from servers import Server

Stub: Any = NastyStub  # its types are grpcio's: see `test_types_fit`
Absent: Any = AbsentStub


def untyped(line: Line) -> Any:
    """A channel that takes anything, as it does for who has no type checker."""
    return line.channel


async def take(answers: Any, into: list[bytes]) -> None:
    """All answers, as they come."""
    async for answer in answers:
        into.append(answer)  # noqa: PERF401 (what came before an error counts)


async def numbers(answers: Any) -> list[int]:
    """What the answers are numbered."""
    return [answer.number async for answer in answers]


def plain(count: int) -> Iterator[Order]:
    """Requests from a plain iterable."""
    for number in range(count):
        yield Order(payload=bytes(number), answers=count)


async def test_the_four_kinds(server: Server) -> None:
    """Each kind of call works, with plain and async iterables of requests, and by hand."""
    async with open_channel(server.endpoint) as line:
        stub = Stub(line.channel)
        with trio.fail_after(GUARD):
            assert (await stub.ask(Order(payload=b"hello"))).payload == b"hello"
            assert await numbers(stub.listen(Order(answers=3))) == [1, 2, 3]
            assert (await stub.tell(plain(5))).requests == 5
            assert (await stub.tell(orders(Order(), Order()))).requests == 2
            assert await numbers(stub.talk(plain(2))) != []
            async with stub.talk() as talk:
                await talk.write(Order(answers=1))
                assert (await anext(talk)).number == 1
                await talk.done_writing()
                assert await numbers(talk) == []
        assert line.open_streams == 0


async def test_metadata_and_status(server: Server) -> None:
    """A call object tells what came with the answer, or with the error, and gives the same again when awaited again."""
    metadata = (("x-head", "1"), ("t-tail", "2"))
    async with open_channel(server.endpoint) as line:
        stub = Stub(line.channel)
        with trio.fail_after(GUARD):
            call = stub.ask(Order(), metadata=metadata)
            assert not call.done()
            assert await call.code() is StatusCode.OK
            assert ("x-head", "1") in await call.initial_metadata()
            assert await call.trailing_metadata() == (("t-tail", "2"),)
            assert await call.details() == ""
            assert await call is await call
            call = stub.ask(Order(code=5, details="no such thing"), metadata=metadata)
            for _ in range(2):
                with pytest.raises(NotFoundError, match="no such thing"):
                    await call
            assert (await call.code(), await call.details()) == (StatusCode.NOT_FOUND, "no such thing")
            assert await call.trailing_metadata() == (("t-tail", "2"),)
            assert await call.initial_metadata() == ()
            with pytest.raises(UnimplementedError):
                await line.channel.stub(Absent).ask(Order())


async def test_timeout(server: Server) -> None:
    """`timeout` counts from the first step on, reaches the server, and is an error of the call's own."""
    async with open_channel(server.endpoint) as line:
        stub = Stub(line.channel)
        with trio.fail_after(GUARD):
            for tag, call in {
                "ask": stub.ask(Order(tag="ask", delay=60), timeout=0.3),
                "tell": stub.tell(orders(Order(tag="tell", delay=60)), timeout=0.3),
            }.items():
                with pytest.raises(DeadlineExceededError, match=r"^DEADLINE_EXCEEDED: .*0\.3 s|DEADLINE"):
                    await call
                assert (await server.report("start", tag))["time_remaining"] <= 0.31
            answers = stub.listen(Order(tag="listen", answers=2, pause=60), timeout=0.3)
            assert (await anext(answers)).number == 1
            with pytest.raises(DeadlineExceededError):
                await anext(answers)
            assert (await server.report("end", "listen"))["early"]
            with trio.move_on_after(0.1) as scope:
                await stub.ask(Order(delay=60), timeout=50)
            assert scope.cancelled_caught
        assert line.open_streams == 0


async def test_a_timeout_is_for_the_whole_call(autojump_clock: MockClock) -> None:
    """Answers that come in time one by one, and too late in all, are out of time."""
    async with open_scripted() as (line, peer):
        listen = untyped(line).unary_stream("/a.B/c")
        taken: list[bytes] = []

        async def answer() -> None:
            await peer.expect("HEADERS", stream_id=1)
            await peer.send(headers(1))
            for _ in range(10):
                await trio.sleep(1)
                await peer.send(data(1, message(b"x")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(DeadlineExceededError, match=r"the call has not ended within 3\.5 s"):
                await take(listen(b"", timeout=3.5), taken)
            nursery.cancel_scope.cancel()
        assert len(taken) == 3


async def test_leaving(server: Server) -> None:
    """A stream that is left by `async with`, closed or cancelled is reset at once."""
    async with open_channel(server.endpoint) as line:
        stub = Stub(line.channel)
        with trio.fail_after(GUARD):
            async with stub.listen(Order(tag="left", answers=9, pause=0.01)) as answers:
                await anext(answers)
            assert (await server.report("end", "left"))["early"]
            talk = stub.talk()
            await talk.write(Order(tag="closed", answers=9, pause=0.01))
            await anext(talk)
            await talk.aclose()
            assert (await server.report("end", "closed"))["early"]
        assert line.open_streams == 0


async def test_requests_that_fail(server: Server) -> None:
    """What an iterable of requests or a serializer raises is raised as itself; the iterable is closed."""
    closed = []

    async def requests() -> AsyncIterator[Order]:
        try:
            yield Order()
            raise LookupError("of the requests")
        finally:
            closed.append(True)

    async with open_channel(server.endpoint) as line:
        stub = Stub(line.channel)
        with trio.fail_after(GUARD):
            with pytest.raises(LookupError, match="of the requests"):
                await stub.tell(requests())
            with pytest.raises(LookupError, match="of the requests"):
                await numbers(stub.talk(requests()))
            with pytest.raises(TypeError):
                await stub.tell([Order(), "no order"])
        assert closed == [True, True]
        assert line.open_streams == 0


async def test_view_and_channel_make_them(server: Server) -> None:
    """`channel.stub` takes such a class as it takes one of purerpc's, and makes it once."""
    async with open_channel(server.endpoint) as line:
        channel = line.channel
        stub = channel.stub(Stub)
        assert channel.stub(Stub) is stub
        with trio.fail_after(GUARD):
            assert (await stub.ask(Order(payload=b"x"))).payload == b"x"
        assert repr(stub.ask).startswith("<UnaryUnaryMethod /nasty.Nasty/ask on tcp://")


async def test_types_fit(server: Server) -> None:
    """With `as_grpc_aio` the types that mypy-protobuf made are right: no `Any`, and no cast."""
    async with open_channel(server.endpoint) as line:
        stub = NastyStub(line.channel.as_grpc_aio())
        with trio.fail_after(GUARD):
            answer: Answer = await stub.ask(Order(payload=b"typed"), timeout=5)
            assert answer.payload == b"typed"
            async for answer in stub.listen(Order(answers=1)):
                assert answer.number == 1


async def test_raw_methods(server: Server) -> None:
    """Without serializer and deserializer, bytes go in and come out."""
    async with open_channel(server.endpoint) as line:
        ask = untyped(line).unary_unary(b"/nasty.Nasty/ask")
        with trio.fail_after(GUARD):
            assert Answer.FromString(await ask(Order(payload=b"raw").SerializeToString())).payload == b"raw"


def refuse(data: bytes) -> None:
    """A deserializer."""
    raise ValueError(data)


async def test_what_cannot_be_read(autojump_clock: MockClock) -> None:
    """An answer that the deserializer refuses is INTERNAL, by the deserializer's name."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        ask = untyped(line).unary_unary("/a.B/c", response_deserializer=refuse)
        nursery.start_soon(peer.respond, 1, b"xyz")
        with pytest.raises(InternalError, match="3 bytes that are no refuse"):
            await ask(b"")


async def test_waiting(autojump_clock: MockClock) -> None:
    """`wait_for_ready` waits for a server that is away; without it the call fails at once."""
    async with open_scripted() as (line, peer):
        await peer.aclose()
        await trio.sleep(1)
        ask = untyped(line).unary_unary("/a.B/c")
        with pytest.raises(UnavailableError):
            await ask(b"")
        with trio.move_on_after(5) as scope:
            await ask(b"", wait_for_ready=True)
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"timeout": "1"}, InvalidTypeError, "timeout '1': expected seconds, or None"),
        ({"timeout": math.nan}, InvalidValueError, "timeout nan: expected seconds"),
        ({"credentials": object()}, InvalidValueError, "credentials <.*>: expected None; see `Config.metadata`"),
        ({"compression": 2}, InvalidValueError, "compression 2: expected None or NoCompression"),
        ({"metadata": {"te": "x"}}, InvalidValueError, "metadata name 'te'"),
    ],
)
async def test_bad_options(
    options: dict[str, Any], error: type[Exception], words: str, autojump_clock: MockClock
) -> None:
    """What cannot be is refused by every kind, by name."""
    async with open_scripted() as (line, _):
        channel = untyped(line)
        for method in (channel.unary_unary("/a.B/c"), channel.unary_stream("/a.B/c")):
            with pytest.raises(error, match=words):
                await consume(method(b"", **options))
        for method in (channel.stream_unary("/a.B/c"), channel.stream_stream("/a.B/c")):
            with pytest.raises(error, match=words):
                await consume(method([b""], **options))


async def consume(call: Any) -> None:
    """Make the call, of whichever kind."""
    if hasattr(call, "__aiter__"):
        async for _ in call:
            pass
    else:
        await call


async def test_bad_methods(autojump_clock: MockClock) -> None:
    """Paths and requests that are none."""
    async with open_scripted() as (line, _):
        channel = untyped(line)
        with pytest.raises(InvalidValueError, match=r"method 'a\.B/c': expected a path such as '/acme.Search/find'"):
            channel.unary_unary("a.B/c")
        with pytest.raises(InvalidTypeError, match="method 3: expected a path"):
            channel.stream_stream(3)
        for requests in (None, 3):
            with pytest.raises(InvalidTypeError, match=r"requests .*: expected an iterable, async or not"):
                channel.stream_unary("/a.B/c")(requests)
        with pytest.raises(InvalidTypeError, match="expected a protobuf message"):
            await channel.unary_unary("/a.B/c")(3)
        with pytest.raises(InvalidTypeError, match="expected a stub class that purerpc's or grpcio's protoc plugin"):
            channel.stub(lambda channel: object())
