"""Servers that die, go away, or talk nonsense: calls end with the right status, at once, and nothing else suffers.

"At once" is an order, not a time: a call that can see no more of its fate raises in the scheduler's pass that follows
the one in which the news was read. The times are printed.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nasty.nasty_pb2 import Order
from servers import GUARD, running
from transport import KINDS, Passes, note, open_channel, open_scripted, unary_unary
from viewreg._http2.frames import ErrorCode
from viewreg._transport.status import (
    CallError,
    CancelledError,
    InternalError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import data, goaway, headers, message, ping, rst_stream, trailers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nasty.nasty_grpc import NastyStub

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
# Passes from the news to the end of the call. Kinds with a task that sends requests wait for that task's end.
PASSES = {"unary_unary": 1, "unary_stream": 1, "stream_unary": 2, "stream_stream": 1, "message_stream": 1}


class Watched(trio.abc.Stream):
    """A stream that notes in which pass of the scheduler its reader was last given something."""

    def __init__(self, stream: trio.abc.Stream, passes: Passes) -> None:
        self._stream = stream
        self._passes = passes
        self.read_in = -1

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(max_bytes)
        finally:
            self.read_in = self._passes.count

    async def aclose(self) -> None:
        await self._stream.aclose()


async def lose_calls(
    client: trio.abc.Stream, peer: ScriptedPeer, kind: Kind, fault: Callable[[], Any]
) -> list[CallError]:
    """Begin three calls, then let the fault happen; assert that they end at once, and give their errors."""
    passes = Passes()
    watched = Watched(client, passes)
    errors: list[CallError] = []
    late: list[int] = []
    trio.lowlevel.add_instrument(passes)
    try:
        with trio.fail_after(GUARD):
            async with open_channel(stream=watched) as line:
                await peer.handshake()
                await line.channel.wait_ready()

                async def call() -> None:
                    try:
                        await kind(line.stub, Order(answers=1))
                    except CallError as error:
                        late.append(passes.count - watched.read_in)
                        errors.append(error)

                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(call)
                        await wait_all_tasks_blocked()  # so that stream ids are in the order of the calls
                    await peer.expect("HEADERS", stream_id=5)
                    result = fault()
                    if result is not None:
                        await result
                assert line.open_streams == 0
    finally:
        trio.lowlevel.remove_instrument(passes)
    assert max(late) <= PASSES[kind.__name__]
    return errors


# -- the connection is lost --

FAULTS: dict[str, tuple[Callable[[ScriptedPeer], Any], str]] = {
    "EOF": (lambda peer: peer.aclose(), "closed the connection"),
    "EOF in a frame": (lambda peer: end_with(peer, b"\0\0\5\0\1\0\0\0"), "closed the connection"),
    "GOAWAY with an error": (
        lambda peer: peer.send(goaway(5, ErrorCode.INTERNAL_ERROR, b"oh no")),
        "INTERNAL_ERROR: oh no",
    ),
    "a malformed frame": (lambda peer: peer.send(ping(b"1234567")), "broke the protocol"),
}


async def end_with(peer: ScriptedPeer, last: bytes) -> None:
    """Send a few last bytes and close, so that both are read at once."""
    await peer.send(last)
    await peer.aclose()


@pytest.mark.parametrize("fault", FAULTS)
@kinds
async def test_a_lost_connection_ends_its_calls(autojump_clock: object, kind: Kind, fault: str) -> None:
    """However a connection ends, each call on it is UNAVAILABLE in the next pass, and says why."""
    peer, client = ScriptedPeer.pair()
    act, words = FAULTS[fault]
    errors = await lose_calls(client, peer, kind, lambda: act(peer))
    assert [type(error) for error in errors] == [UnavailableError] * 3
    for error in errors:
        assert isinstance(error, UnavailableError)
        assert words in error.details
        assert error.started


@kinds
async def test_a_reset_connection_ends_its_calls(kind: Kind) -> None:
    """An RST of TCP ends each call as UNAVAILABLE in the next pass, with the system's word for it."""
    listener, client = await tcp_pair()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer = ScriptedPeer(listener)
    errors = await lose_calls(client, peer, kind, listener.socket.close)
    assert len(errors) == 3
    for error in errors:
        assert isinstance(error, UnavailableError)
        assert "ECONNRESET" in error.details
        assert error.started


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a TCP connection, the server's first."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        return await listener.accept(), client


async def test_a_server_that_is_killed() -> None:
    """SIGKILL ends calls of all kinds, long ones and queued ones, as UNAVAILABLE; afterwards calls fail at once."""
    ended: list[tuple[str, CallError, float]] = []
    with running(max_concurrent_streams=8) as server:
        async with open_channel(server.endpoint) as line:
            await line.channel.wait_ready()

            async def call(kind: Kind, order: Order) -> None:
                try:
                    await kind(line.stub, order)
                except CallError as error:
                    ended.append((kind.__name__, error, time.perf_counter()))

            with trio.fail_after(GUARD):
                async with trio.open_nursery() as nursery:
                    for kind in KINDS:
                        nursery.start_soon(call, kind, Order(tag=kind.__name__, answers=1, hang=True))
                    for kind in KINDS:
                        await server.report("start", kind.__name__)
                    for _ in range(3):
                        nursery.start_soon(call, unary_unary, Order(payload=bytes(10_000_000), delay=GUARD))
                    while line.open_streams < 8:  # noqa: ASYNC110 (they begin when the outbox has room: nobody tells)
                        await trio.sleep(0.01)
                    for kind in KINDS:
                        nursery.start_soon(call, kind, Order(tag="queued"))
                    await wait_all_tasks_blocked()
                    killed = time.perf_counter()
                    server.kill()
                with pytest.raises(UnavailableError) as caught:
                    await line.stub.ask(Order())
                assert not caught.value.started
    for name, error, at in ended:
        assert isinstance(error, UnavailableError), name
        note(f"{name}: {1000 * (at - killed):.2f} ms after SIGKILL: {error}, started={error.started}")
    assert sorted(error.started for _, error, _ in ended) == [False] * len(KINDS) + [True] * (len(KINDS) + 3)


async def test_a_read_that_has_both_the_answer_and_the_end(autojump_clock: object) -> None:
    """An answer that is complete counts, also if the connection's end comes in the same bytes."""
    for last in (goaway(1, ErrorCode.INTERNAL_ERROR), ping(b"short"), b""):
        async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
            nursery.start_soon(line.stub.ask, Order())
            await peer.expect_request()
            await peer.send(headers(1), data(1, message(b"")), trailers(1), last)
            await peer.aclose()


async def test_answers_before_the_end_of_the_connection(autojump_clock: object) -> None:
    """Answers of a stream that had arrived before the connection was lost are given; then it is UNAVAILABLE."""
    received: list[int] = []
    async with open_scripted() as (line, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(UnavailableError):  # noqa: PT012 (what came before is tested as well)
                async for answer in line.stub.listen(Order()):
                    received.append(answer.number)  # noqa: PERF401 (a comprehension would lose them)

        nursery.start_soon(call)
        await peer.expect_request()
        await peer.send(headers(1), *(data(1, message(bytes((8, number)))) for number in (1, 2, 3)))
        await peer.aclose()
    assert received == [1, 2, 3]


# -- one stream is reset --


# REFUSED_STREAM is not the end: tests/test_calls_refused.py
@pytest.mark.parametrize(
    "code", [code for code in ErrorCode if code.name != "REFUSED_STREAM"], ids=lambda code: code.name
)
@kinds
async def test_a_reset_stream_ends_its_call_alone(autojump_clock: object, kind: Kind, code: ErrorCode) -> None:
    """RST_STREAM ends its own call in the next pass; the two others are answered."""
    peer, client = ScriptedPeer.pair()

    async def fault() -> None:
        await peer.send(rst_stream(3, code))
        await wait_all_tasks_blocked()
        for stream_id in (1, 5):
            await peer.send(headers(stream_id), data(stream_id, message(b"")), trailers(stream_id))

    (error,) = await lose_calls(client, peer, kind, fault)
    assert type(error) in (CancelledError, InternalError, PermissionDeniedError, ResourceExhaustedError)


# -- the server goes away --


@kinds
async def test_goaway_below_a_call(autojump_clock: object, kind: Kind) -> None:
    """A call above GOAWAY's last stream id ends in the next pass and has not started; those below are answered."""
    peer, client = ScriptedPeer.pair()

    async def fault() -> None:
        await peer.send(goaway(3))
        await wait_all_tasks_blocked()
        for stream_id in (1, 3):
            await peer.send(headers(stream_id), data(stream_id, message(b"")), trailers(stream_id))
        await peer.expect_end()

    (error,) = await lose_calls(client, peer, kind, fault)
    assert isinstance(error, UnavailableError)
    assert not error.started


@kinds
async def test_goaway_with_an_error_below_a_call(autojump_clock: object, kind: Kind) -> None:
    """GOAWAY with an error ends all calls; those above its last stream id have certainly not started."""
    peer, client = ScriptedPeer.pair()
    errors = await lose_calls(client, peer, kind, lambda: peer.send(goaway(1, ErrorCode.ENHANCE_YOUR_CALM)))
    started = [error.started for error in errors if isinstance(error, UnavailableError)]
    assert sorted(started) == [False, False, True]


async def test_goaway_twice(autojump_clock: object) -> None:
    """A second GOAWAY may lower the last stream id: calls that fall above it end; the rest finishes."""
    peer, client = ScriptedPeer.pair()

    async def fault() -> None:
        await peer.send(goaway())
        await wait_all_tasks_blocked()
        await peer.send(goaway(3))
        for stream_id in (1, 3):
            await peer.send(headers(stream_id), data(stream_id, message(b"")), trailers(stream_id))

    (error,) = await lose_calls(client, peer, unary_unary, fault)
    assert isinstance(error, UnavailableError)
    assert not error.started


async def test_a_drained_connection_closes(autojump_clock: object) -> None:
    """After a graceful GOAWAY the connection closes with its last call, also if that call is cancelled, or was left."""
    for leave in ("answered", "cancelled", "none"):
        async with open_scripted() as (line, peer), trio.open_nursery() as nursery:
            if leave != "none":
                nursery.start_soon(line.stub.ask, Order())
                await peer.expect_request()
            await peer.send(goaway())
            await wait_all_tasks_blocked()
            if leave == "answered":
                assert line.lost is None
                await peer.respond(1, b"")
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await peer.expect_end()
            assert line.lost is not None
            assert "drained" in line.lost
