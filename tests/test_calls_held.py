"""What calls hold, and let go: nothing of a call outlives it, and nothing that waits to be sent grows without end."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Answer, Order
from transport import KINDS, open_scripted
from viewreg import CallError, Config, InvalidTypeError, UnavailableError
from viewreg._transport.connection import OUTBOX_LIMIT
from viewreg._transport.exchange import Exchange
from viewreg.testing.frames import data, headers, message, rst_stream, trailers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from nasty.nasty_grpc import NastyStub

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

CALLERS = 50
REQUEST = 1000  # bytes that the headers and the reset of a call come to, at most


@contextmanager
def no_collection() -> Iterator[None]:
    """The garbage collector stays away."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def exchanges() -> int:
    """How many calls are in memory, of this test and of those before it."""
    return sum(isinstance(held, Exchange) for held in gc.get_objects())


@pytest.mark.parametrize("end", [trailers(1, status=5), rst_stream(1, 2), data(1, message(b"x"), end=True)])
@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
async def test_an_error_holds_nothing(autojump_clock: object, kind: Kind, end: bytes) -> None:
    """Once a call's error is forgotten, so is the call with all that it has received, without a garbage collector."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        errors: list[weakref.ref[CallError]] = []

        async def call() -> None:
            try:
                await kind(line.stub, Order(answers=1))
            except CallError as error:
                errors.append(weakref.ref(error))

        with no_collection():
            nursery.start_soon(call)
            await peer.expect("HEADERS", stream_id=1)
            await peer.send(headers(1), data(1, message(bytes(1000))[:500]), end)
            await wait_all_tasks_blocked()
            assert len(errors) == 1
            assert errors[0]() is None


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
async def test_an_answered_call_holds_nothing(autojump_clock: object, kind: Kind) -> None:
    """Nothing is left of a call that ended well, either: no cycle that only a garbage collector would find."""
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
        with no_collection():
            before = exchanges()
            nursery.start_soon(kind, line.stub, Order(answers=1))
            await peer.expect("HEADERS", stream_id=1)
            await peer.respond(1, Answer().SerializeToString())
            await wait_all_tasks_blocked()
            assert exchanges() == before


async def test_a_refused_call_holds_nothing(autojump_clock: object) -> None:
    """Nor does the error of a call that never began."""
    async with open_scripted() as (line, _):
        line.subchannel.away("out of reach")
        errors = []
        with no_collection():
            for _ in range(3):
                try:
                    await line.stub.ask(Order())
                except UnavailableError as error:
                    errors.append(weakref.ref(error))
            assert [error() for error in errors] == [None] * 3


async def test_calls_wait_while_the_server_does_not_read(autojump_clock: object) -> None:
    """Calls that come and go while nothing can be written do not pile up: they wait, and begin when there is room."""
    async with open_scripted(Config(keepalive_interval=1000.0)) as (line, peer), trio.open_nursery() as nursery:
        stream = line.connection._stream
        most = 0
        unblock = trio.Event()
        send_all = stream.send_all

        async def stuck(data: bytes | bytearray | memoryview) -> None:
            await unblock.wait()
            await send_all(data)

        stream.send_all = stuck  # type: ignore[method-assign]

        async def call_again_and_again() -> None:
            nonlocal most
            for _ in range(100):
                with trio.move_on_after(0.02):
                    await line.stub.ask(Order())
                most = max(most, line.connection.http2.outbox_size)

        async with trio.open_nursery() as callers:
            for _ in range(CALLERS):
                callers.start_soon(call_again_and_again)
        assert OUTBOX_LIMIT // 2 < most < OUTBOX_LIMIT + CALLERS * REQUEST
        unblock.set()
        nursery.start_soon(line.stub.ask, Order())
        await wait_all_tasks_blocked()
        last = max(line.connection.http2.streams)
        await peer.respond(last, b"")


async def test_a_request_that_is_no_message(autojump_clock: object) -> None:
    """It is an error that names it, and nothing is sent."""
    async with open_scripted() as (line, _):
        with pytest.raises(InvalidTypeError, match="request None: expected a protobuf message"):
            await line.stub.ask(None)  # type: ignore[arg-type, type-var, unused-ignore]
        assert not line.open_streams
