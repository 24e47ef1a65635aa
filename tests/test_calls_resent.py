"""Calls that a server which goes away has not begun: they are sent again on the next connection, within limits."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import all_healthy, stats, unhealthy
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Answer, Order
from transport import KINDS, endless
from viewreg import Config, Feature, Registry, UnavailableError
from viewreg._transport.exchange import MAX_RESENT
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import ErrorCode, data, goaway, headers, message, rst_stream, settings, trailers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from trio.testing import MockClock

    from viewreg import Endpoint

    Kind = Callable[[NastyStub, Order], Coroutine[Any, Any, None]]

A = "a:1"
GUARD = 60.0  # seconds of virtual time
kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])


@define
class Wire:
    """A registry of one view whose connections are scripted. `refusing` makes dials fail."""

    registry: Registry[Feature]
    peers: trio.MemoryReceiveChannel[ScriptedPeer]
    refusing: trio.Event
    outcomes: list[object] = field(factory=list)

    @property
    def stub(self) -> NastyStub:
        return self.registry.snapshot.view(A).stub(NastyStub)

    async def connected(self) -> ScriptedPeer:
        """The server's end of the next connection, whose first probe is answered."""
        peer = await self.peers.receive()
        await peer.handshake()
        await answer_probe(peer)
        return peer

    async def call(self, kind: Kind, order: Order) -> None:
        """Note how the call ends: with None, or its error."""
        try:
            await kind(self.stub, order)
        except viewreg.CallError as error:
            self.outcomes.append(error)
        else:
            self.outcomes.append(None)


@asynccontextmanager
async def open_wire(config: Config | None = None) -> AsyncIterator[Wire]:
    """Its block may take a minute of virtual time."""
    dialled, peers = trio.open_memory_channel[ScriptedPeer](100)
    refusing = trio.Event()

    async def dial(_endpoint: Endpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if refusing.is_set():
            raise ConnectionRefusedError(111, "refused")
        peer, stream = ScriptedPeer.pair()
        dialled.send_nowait(peer)
        return stream

    with trio.fail_after(GUARD):
        async with viewreg.open_registry(f"static:///{A}", config or Config(), dial=dial, rng=Random(1)) as registry:
            yield Wire(registry, peers, refusing)


async def answer_probe(peer: ScriptedPeer) -> None:
    """Answer the next request, which must be a probe."""
    request = await peer.expect_request()
    assert request.path == "/rpc.Diagnostics/stats"
    await peer.respond(request.stream_id, stats().SerializeToString())


async def answer_call(peer: ScriptedPeer, order: Order) -> None:
    """Answer the next call with one message, without waiting for more than its first, which must be the order."""
    head = await peer.expect("HEADERS")
    first = await peer.expect("DATA", stream_id=head.stream_id)
    assert first.body.startswith(message(order.SerializeToString()))
    await peer.respond(head.stream_id, Answer(number=1).SerializeToString())


@kinds
async def test_above_the_last_stream_id(kind: Kind, autojump_clock: MockClock) -> None:
    """A call that a graceful GOAWAY leaves out is answered on the next connection; the view stays healthy."""
    order = Order(answers=1, payload=b"again")
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        version = wire.registry.version
        nursery.start_soon(wire.call, kind, order)
        await wait_all_tasks_blocked()
        await old.send(goaway(1))
        new = await wire.peers.receive()
        await new.handshake()
        await answer_call(new, order)
        await answer_probe(new)
        await wait_all_tasks_blocked()
        assert wire.outcomes == [None]
        assert wire.registry.version == version
        await old.expect_end()


async def test_a_call_that_ends_connections(autojump_clock: MockClock) -> None:
    """A call that a server answers by GOAWAY with an error and leaves out is sent again once, whatever comes then."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        peer = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        nursery.start_soon(wire.call, KINDS[0], Order())
        await peer.expect("HEADERS", stream_id=3)
        await peer.send(goaway(1, ErrorCode.INTERNAL_ERROR))
        peer = await wire.peers.receive()
        await peer.handshake()
        await peer.expect("HEADERS", stream_id=1)
        await peer.send(goaway(0, ErrorCode.COMPRESSION_ERROR, b"too large"))
        await wait_all_tasks_blocked()
        (error,) = wire.outcomes
        assert isinstance(error, UnavailableError)
        assert not error.started
        await wire.connected()
        await wire.registry.wait_until(all_healthy)


@pytest.mark.parametrize("error", [False, True], ids=["EOF", "GOAWAY with an error"])
async def test_refused_and_then_lost(error: bool, autojump_clock: MockClock) -> None:
    """A refused call whose connection is lost while it pauses waits for the next dial's outcome, too."""
    order = Order(answers=1)
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        nursery.start_soon(wire.call, KINDS[0], order)
        await old.expect("HEADERS", stream_id=3)
        refusal = rst_stream(3, ErrorCode.REFUSED_STREAM)
        await old.send(refusal, goaway(3, ErrorCode.INTERNAL_ERROR) if error else b"")
        await old.aclose()
        new = await wire.peers.receive()
        await wait_all_tasks_blocked()
        assert wire.outcomes == []
        await new.handshake()
        await answer_call(new, order)
        await wait_all_tasks_blocked()
        assert wire.outcomes == [None]


@kinds
async def test_between_others(kind: Kind, autojump_clock: MockClock) -> None:
    """Of several calls those up to the last stream id end on the old connection, the others on the new one."""
    order = Order(answers=1)
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        for _ in range(3):
            nursery.start_soon(wire.call, kind, order)
            await wait_all_tasks_blocked()
        await old.send(goaway(5))
        new = await wire.peers.receive()
        await new.handshake()
        for stream_id in (3, 5):
            await old.send(headers(stream_id), data(stream_id, message(b"")), trailers(stream_id))
        await answer_call(new, order)
        await wait_all_tasks_blocked()
        assert wire.outcomes == [None, None, None]
        assert (await new.expect("HEADERS")).header(b":path") == b"/rpc.Diagnostics/stats"  # and no call more


async def test_goaway_with_an_error(autojump_clock: MockClock) -> None:
    """After GOAWAY with an error a call that it leaves out waits for the next connection; one that began fails."""
    order = Order(answers=1)
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        for _ in range(2):
            nursery.start_soon(wire.call, KINDS[0], order)
            await wait_all_tasks_blocked()
        await old.send(goaway(3, ErrorCode.INTERNAL_ERROR))
        await wire.registry.wait_until(unhealthy(A))
        await wait_all_tasks_blocked()
        (error,) = wire.outcomes
        assert isinstance(error, UnavailableError)
        assert error.started
        with pytest.raises(UnavailableError):  # as every new call does
            await wire.stub.ask(order)
        new = await wire.peers.receive()
        await new.handshake()
        await answer_call(new, order)
        await wait_all_tasks_blocked()
        assert wire.outcomes == [error, None]


@pytest.mark.parametrize("code", [ErrorCode.NO_ERROR, ErrorCode.INTERNAL_ERROR])
async def test_the_next_dial_fails(code: ErrorCode, autojump_clock: MockClock) -> None:
    """A call that waits for the next connection fails with the dial that fails, not started, and says why."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        nursery.start_soon(wire.call, KINDS[0], Order())
        await wait_all_tasks_blocked()
        wire.refusing.set()
        await old.send(goaway(1, code))
        await trio.sleep(1)
        (error,) = wire.outcomes
        assert isinstance(error, UnavailableError)
        assert not error.started
        assert "ECONNREFUSED" in error.details


async def test_removed_meanwhile(autojump_clock: MockClock) -> None:
    """A call that waits for the next connection fails at once when its endpoint is removed, and when the block ends."""
    locator = viewreg.StaticLocator([A])
    outcomes: list[BaseException] = []

    async def call(view: viewreg.View) -> None:
        try:
            await view.stub(NastyStub).ask(Order())
        except UnavailableError as error:
            outcomes.append(error)

    for remove in (True, False):
        peer, stream = ScriptedPeer.pair()
        streams = [stream]

        async def dial(_endpoint: Endpoint, streams: list[trio.abc.Stream] = streams) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return streams.pop() if streams else await trio.sleep_forever()

        locator.set([A])
        async with trio.open_nursery() as nursery, viewreg.open_registry(locator, dial=dial) as registry:
            await peer.handshake()
            await answer_probe(peer)
            await registry.wait_until(all_healthy)
            nursery.start_soon(call, registry.snapshot.view(A))
            await wait_all_tasks_blocked()
            await peer.send(goaway(1))
            await wait_all_tasks_blocked()
            assert len(outcomes) == 1 - remove
            if remove:
                locator.set([])
                await wait_all_tasks_blocked()
                assert len(outcomes) == 1
    assert len(outcomes) == 2
    assert not any(error.started for error in outcomes if isinstance(error, UnavailableError))


async def test_the_deadline_while_it_waits(autojump_clock: MockClock) -> None:
    """A call that waits for the next connection is cancelled by its scope; it is sent anew with what time is left."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)

        async def call() -> None:
            with trio.fail_after(4):
                await wire.stub.ask(Order())

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        await old.send(goaway(1))
        new = await wire.peers.receive()
        await trio.sleep(2)
        await new.handshake()
        request = await new.expect_request()
        assert request.header(b"grpc-timeout") == b"1000000u"
        await new.respond(request.stream_id, b"")
        with trio.move_on_after(2) as scope:
            nursery.start_soon(wire.call, KINDS[0], Order())
            await trio.sleep_forever()
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_every_connection_leaves_it_out(autojump_clock: MockClock) -> None:
    """A call that one connection after the other leaves out ends as UNAVAILABLE, not started, after so many times."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        peer = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        nursery.start_soon(wire.call, KINDS[0], Order())
        sent, last_stream_id = 1, 1
        await peer.expect("HEADERS", stream_id=3)
        while True:
            await peer.send(goaway(last_stream_id))
            await wait_all_tasks_blocked()
            if wire.outcomes:
                break
            # There the call comes first, for it has waited; then the probe, without which the view is not healthy.
            peer = await wire.peers.receive()
            await peer.handshake()
            await peer.expect("HEADERS", stream_id=1)
            sent += 1
            probe = await peer.expect("HEADERS", stream_id=3)
            await peer.respond(probe.stream_id, stats().SerializeToString())
            await wait_all_tasks_blocked()
            last_stream_id = 0
        (error,) = wire.outcomes
        assert isinstance(error, UnavailableError)
        assert not error.started
        assert sent == MAX_RESENT + 1
        nursery.cancel_scope.cancel()


async def test_an_answer_that_began(autojump_clock: MockClock) -> None:
    """A server that leaves out a call it has begun to answer contradicts itself: the call fails, and once."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.connected()
        await wire.registry.wait_until(all_healthy)
        nursery.start_soon(wire.call, KINDS[1], Order())
        await old.expect_request()
        await old.send(headers(3), data(3, message(b"")), goaway(1))
        new = await wire.connected()
        await wait_all_tasks_blocked()
        (error,) = wire.outcomes
        assert isinstance(error, UnavailableError)
        assert error.started
        assert len([frame for frame in new.frames if frame.kind == "HEADERS"]) == 1
        nursery.cancel_scope.cancel()


async def test_too_much_to_keep(autojump_clock: MockClock) -> None:
    """A streamed request of which too much was sent to keep it fails, not started: its sender may send it again."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        old = await wire.peers.receive()
        await old.send(settings({0x4: 10_000_000}))
        await old.handshake()
        await answer_probe(old)
        await wire.registry.wait_until(all_healthy)

        async def call() -> None:
            with pytest.raises(UnavailableError) as caught:
                await wire.stub.tell(endless(Order(payload=bytes(10_000))))
            assert not caught.value.started

        nursery.start_soon(call)
        for _ in range(5):
            await old.expect("DATA", stream_id=3)
        await wait_all_tasks_blocked()
        await old.send(goaway(1))
        await wire.connected()
