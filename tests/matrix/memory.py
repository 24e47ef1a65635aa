"""The world in which faults are frames: one server in memory, in virtual time, so that every time is exact.

Rules:
* The first connection is the fault's. All later ones, and the first once the fault is over, are a good server's: with
  it the view must be healthy again, and calls be answered.
* What the client sends is read at its own end of the stream, where nothing hides it.
* When it is over, no task and no stream is left.
"""

from __future__ import annotations

import math
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import all_healthy
from matrix.actors import Ask, Caller, serve, state
from matrix.answers import LIMIT
from matrix.cells import ANSWERED, GOES_ON, NO_CALL, During, Effect
from matrix.rows import ONE, head
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from viewreg.testing import MemoryNetwork, ScriptedPeer
from viewreg.testing.frames import ErrorCode, Frame, FrameReader, Setting, data, settings, trailers, window_update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matrix.cells import Cell
    from viewreg import Endpoint, Feature, Registry

PROBE_INTERVAL: Final = 2.0  # seconds
CONFIG: Final = viewreg.Config(probe_interval=PROBE_INTERVAL, probe_jitter=0, max_message_size=LIMIT)
VIEW: Final = "view.example:1"
SOON: Final = 0.05  # seconds from the beginning of a dial, or of the end, to the fault
# Seconds: a probe that failed is repeated after one, a lost connection is dialled after a backoff of 0.12 at most.
RECOVERY: Final = 1.0 + 0.12
LARGE: Final = 300_000  # bytes: more than outbox and buffer take together


async def play(cell: Cell) -> Effect:
    """What becomes of the fault, at the time at which its effect is expected. Raises for whatever is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        found = await World(cell, nursery).play()
        nursery.cancel_scope.cancel()
    left = trio.lowlevel.current_statistics().tasks_living - before
    assert left == 0, f"{left} tasks are left"
    return found


class World:
    """One server, one registry, one call."""

    def __init__(self, cell: Cell, nursery: trio.Nursery) -> None:
        self.fault: Final = cell.fault
        self.during: Final = cell.during
        self.within: Final = cell.expected.within
        self.nursery: Final = nursery
        self.network: Final = MemoryNetwork()
        self.listener: Final = self.network.listen(VIEW)
        self.good: Final = trio.Event()
        self.taps: Final[list[Tap]] = []  # the client's ends, in the order of their making
        size = LARGE if cell.during is During.CLOSE else cell.fault.request
        self.caller: Final = Caller(cell.during, Order(payload=bytes(size)), cell.fault.patience)
        self.peer: ScriptedPeer  # the server's end of the first connection
        self.stream = 0 if cell.during is During.CONNECT else 1  # the last probe's; later the call's
        self.struck = math.inf  # when the fault came
        self.sent = 0  # frames that the client had sent by then

    async def play(self) -> Effect:
        """Come to the moment, strike, look, and be good again."""
        closing = self.during is During.CLOSE
        found = Effect()
        async with viewreg.open_registry(
            viewreg.StaticLocator([VIEW]), CONFIG, probe=Ask(), dial=self.dial, rng=Random(1), wall_clock=lambda: 1e9
        ) as registry:
            self.peer = ScriptedPeer(await self.listener.accept(), patience=math.inf)
            await self.arrive(registry)
            self.nursery.start_soon(self.serve_later_connections)
            if closing:
                self.nursery.start_soon(self.strike_soon)
            else:
                await self.strike()
                await trio.sleep(self.within)
                await wait_all_tasks_blocked()
                found = self.look(registry)
                await self.recover(registry)
            left_at = trio.current_time()
        if closing:
            found = attrs.evolve(self.look(registry), within=trio.current_time() - left_at)
        assert self.network.link(VIEW).connections == 0, "a stream is left"
        return found

    async def dial(self, endpoint: Endpoint) -> Tap:
        """For the registry."""
        if self.taps and not self.fault.accepts:
            await self.good.wait()
        tap = Tap(await self.network.dial(endpoint), counting=self.fault.most is not None)
        self.taps.append(tap)
        return tap

    async def arrive(self, registry: Registry[Feature]) -> None:
        """Come to the moment."""
        peer, during = self.peer, self.during
        if during is During.CONNECT:
            await peer.expect("SETTINGS")
            await trio.sleep(SOON)
            return
        closing = during is During.CLOSE
        await peer.handshake({Setting.INITIAL_WINDOW_SIZE: LARGE} if closing else None)
        await peer.respond((await peer.expect_request()).stream_id, b"")
        await registry.wait_until(all_healthy)
        await peer.send(self.fault.before, window_update(0, LARGE) if closing else b"")
        if during is During.PROBE:
            self.stream = (await peer.expect("HEADERS")).stream_id
            return
        await trio.sleep(PROBE_INTERVAL / 2)
        if during is During.IDLE:
            return
        self.nursery.start_soon(self.caller.run, registry.snapshot.view(VIEW).channel.stub(NastyStub))
        self.stream = (await peer.expect("HEADERS")).stream_id
        if during is During.STREAM and not self.fault.answers:
            await peer.send(head(self.stream))
            await self.caller.first_answer()

    async def strike_soon(self) -> None:
        await trio.sleep(SOON)
        await self.strike()

    async def strike(self) -> None:
        """Let the fault come."""
        await wait_all_tasks_blocked()
        self.struck, self.sent = trio.current_time(), len(self.taps[0].frames)
        wire = self.fault.wire(self.stream)
        if self.during is During.CONNECT and not self.fault.bare:
            wire = settings() + self.fault.before + wire
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the client takes no more of it
            await self.peer.send(wire)
        if self.fault.ends:
            await self.peer.aclose()

    def look(self, registry: Registry[Feature]) -> Effect:
        """What is so now."""
        entries = registry.history(VIEW) if registry.all_views() else ()
        news = [entry for entry in entries if entry.until >= self.struck]
        ends = [self.struck, self.caller.ended_at, *(entry.until for entry in news)]
        return Effect(
            view=state(registry),
            history=tuple(f"{entry.what.value}: {entry.why}" if entry.why else entry.what.value for entry in news),
            call=self.caller.call,
            started=self.caller.started,
            answers=self.caller.answers,
            sends=tuple(self.sends()),
            within=max(ends) - self.struck,
        )

    def sends(self) -> Iterator[str]:
        """What the client has sent since the fault."""
        for frame in self.taps[0].frames[self.sent :]:
            if frame.kind in ("GOAWAY", "RST_STREAM"):
                yield f"{frame.kind} {ErrorCode(frame.code).name}"
            elif frame.kind == "DATA" and frame.stream_id == self.stream and self.caller.call != NO_CALL:
                yield "DATA"

    # -- afterwards --

    async def recover(self, registry: Registry[Feature]) -> None:
        """Be a good server from now on: the view is healthy again in time, and calls are answered."""
        answered = sum(frame.kind == "PING" and frame.ack for frame in self.taps[0].frames[self.sent :])
        assert not self.fault.pings or answered == self.fault.pings
        self.good.set()
        self.nursery.start_soon(self.be_good)
        with trio.fail_after(RECOVERY):
            await registry.wait_until(all_healthy)
        went_on = self.caller.call == GOES_ON
        stub = registry.snapshot.view(VIEW).channel.stub(NastyStub)
        callers = [Caller(During.UNARY, Order(), math.inf) for _ in range(self.fault.callers)]
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for caller in callers:
                    nursery.start_soon(caller.run, stub)
            if went_on:
                await self.caller.end()
                callers.append(self.caller)
        assert [caller.call for caller in callers] == [ANSWERED] * len(callers)
        assert self.fault.most is None or self.taps[-1].most <= self.fault.most

    async def be_good(self) -> None:
        """On the first connection: answer what is in flight, and all that comes."""
        peer, stream = self.peer, self.stream
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await peer.send(self.fault.after)
            if self.during is During.CONNECT and self.fault.before:
                await peer.expect("HEADERS")  # of the probe that has been given up
            if not self.fault.answers and self.during in (During.UNARY, During.STREAM, During.PROBE):
                if not any(frame.stream_id == stream and frame.end_stream for frame in peer.frames):
                    await peer.expect("DATA", stream_id=stream, end_stream=True)
                streams = self.during is During.STREAM
                await peer.send(data(stream, ONE) if streams else head(stream), trailers(stream))
            await serve(peer, handshake=False)

    async def serve_later_connections(self) -> None:
        while True:
            peer = ScriptedPeer(await self.listener.accept(), patience=math.inf)
            self.nursery.start_soon(serve, peer)


class Tap(trio.abc.Stream):
    """The client's end, the frames that it sends, and how many calls it has had open at once."""

    def __init__(self, stream: trio.abc.Stream, *, counting: bool) -> None:
        self.frames: Final[list[Frame]] = []
        self.most = 0  # calls that were open at once, where it is `counting`
        self._open = 0
        self._stream: Final = stream
        self._reader: Final = FrameReader()
        self._answers: Final = FrameReader(preface=False) if counting else None  # only for frames that can be read

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        frames = self._reader.feed(bytes(data))
        self.frames.extend(frames)
        self._open += sum(frame.kind == "HEADERS" for frame in frames)
        self.most = max(self.most, self._open)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await self._stream.receive_some(max_bytes)
        if self._answers is not None:
            self._open -= sum(frame.end_stream for frame in self._answers.feed(received))
        return received

    async def aclose(self) -> None:
        await self._stream.aclose()
