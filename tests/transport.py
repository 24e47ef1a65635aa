"""One endpoint's transport without a supervisor: what the tests of calls run on.

As a program, with a port as argument, it makes each kind of call once, well and left early: for a run in which every
warning is an error.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import define, field

import viewreg._transport.purerpc  # noqa: F401  # first: purerpc cannot be imported beside h2 4 without it
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Answer, Order
from viewreg._config import Config
from viewreg._endpoint import Endpoint
from viewreg._transport.channel import Channel
from viewreg._transport.connection import Connection
from viewreg._transport.dial import dial_tcp
from viewreg._transport.subchannel import Subchannel
from viewreg.testing import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ENDPOINT = Endpoint("view.example", 8080)  # of peers that are no further away than a memory stream


@define(eq=False)
class Line:
    """A subchannel, the connection under it, and what its owner was told: `("ready" | "draining" | "lost", reason)`."""

    subchannel: Subchannel
    connection: Connection
    nursery: trio.Nursery
    told: list[tuple[str, str]] = field(factory=list)

    @property
    def channel(self) -> Channel:
        return Channel(self.subchannel)

    @property
    def stub(self) -> NastyStub:
        return self.channel.stub(NastyStub)

    @property
    def open_streams(self) -> int:
        return len(self.connection.http2.streams)

    @property
    def lost(self) -> str | None:
        return self.connection.lost


class _Owner:
    """Does what a supervisor must do, and nothing else."""

    def __init__(self, subchannel: Subchannel) -> None:
        self.subchannel = subchannel
        self.told: list[tuple[str, str]] = []

    def connection_ready(self, connection: Connection) -> None:
        self.told.append(("ready", ""))
        self.subchannel.ready(connection)

    def connection_draining(self, connection: Connection, reason: str) -> None:
        self.told.append(("draining", reason))
        self.subchannel.replacing()

    def connection_lost(self, connection: Connection, reason: str) -> None:
        self.told.append(("lost", reason))
        self.subchannel.away(reason)

    def slots_freed(self, connection: Connection) -> None:
        self.subchannel.start_queued()


@asynccontextmanager
async def open_channel(
    endpoint: Endpoint = ENDPOINT, config: Config | None = None, *, stream: trio.abc.Stream | None = None
) -> AsyncIterator[Line]:
    """Connect to the endpoint, or take `stream`; when the block is left, the connection is closed."""
    config = config or Config()
    subchannel = Subchannel(endpoint, config, lambda: None)
    owner = _Owner(subchannel)
    connection = Connection(stream or await dial_tcp(endpoint), config, owner, config.keepalive_interval)
    async with trio.open_nursery() as nursery:
        subchannel.spawn = nursery.start_soon
        nursery.start_soon(connection.run)
        yield Line(subchannel, connection, nursery, owner.told)
        subchannel.close("the block was left")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_scripted(
    config: Config | None = None, settings: Mapping[int, int] | None = None
) -> AsyncIterator[tuple[Line, ScriptedPeer]]:
    """Connect, in memory, to a peer that the test spells out; the handshake is done. For virtual time."""
    peer, stream = ScriptedPeer.pair()
    async with open_channel(config=config, stream=stream) as line:
        await peer.handshake(settings)
        await line.channel.wait_ready()
        yield line, peer


class Passes(trio.abc.Instrument):
    """Counts the scheduler's passes: what one step brings about in other tasks happens in the next pass, or later."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


class Measured(trio.abc.Instrument):
    """The most that a connection ever had of anything, looked at in each pass of the scheduler."""

    def __init__(self, line: Line) -> None:
        self._http2 = line.connection.http2
        self.held = 0  # bytes received and not read
        self.streams = 0  # open at once
        self.outbox = 0  # bytes that wait to be written

    def before_io_wait(self, timeout: float) -> None:
        streams = self._http2.streams.values()
        self.held = max(self.held, sum(stream.held for stream in streams))
        self.streams = max(self.streams, len(streams))
        self.outbox = max(self.outbox, self._http2.outbox_size)


def note(text: str) -> None:
    """Print a time or a size that a test does not assert."""
    print(text)  # noqa: T201


async def orders(*messages: Order) -> AsyncIterator[Order]:
    """Give the messages, as a user's generator would."""
    for message in messages:
        await trio.lowlevel.checkpoint()
        yield message


async def endless(message: Order) -> AsyncIterator[Order]:
    """Give the message again and again."""
    while True:
        await trio.lowlevel.checkpoint()
        yield message


async def numbers(answers: AsyncIterator[Answer]) -> list[int]:
    """Read to the end; tell the numbers of the answers."""
    return [answer.number async for answer in answers]


# -- each kind of call as one awaitable; the order is obeyed by grpcio_server.py --


async def unary_unary(stub: NastyStub, order: Order) -> None:
    """One request, one answer."""
    await stub.ask(order)


async def unary_stream(stub: NastyStub, order: Order) -> None:
    """One request, all its answers."""
    async with stub.listen(order) as answers:
        await numbers(answers)


async def stream_unary(stub: NastyStub, order: Order) -> None:
    """The request twice, one answer."""
    await stub.tell(orders(order, order))


async def stream_stream(stub: NastyStub, order: Order) -> None:
    """The request twice, all their answers."""
    async with stub.talk(orders(order, order)) as answers:
        await numbers(answers)


async def message_stream(stub: NastyStub, order: Order) -> None:
    """One request, its answers, the end, all by hand."""
    async with await stub.talk() as talk:
        await talk.send_message(order)
        for _ in range(order.answers):
            await talk.receive_message()
        await talk.close()
        assert await talk.receive_message() is None


KINDS = [unary_unary, unary_stream, stream_unary, stream_stream, message_stream]


async def _everything(port: int) -> None:
    async with open_channel(Endpoint("127.0.0.1", port)) as line:
        for kind in KINDS:
            await kind(line.stub, Order(answers=2))
            with trio.move_on_after(0.05) as scope:
                await kind(line.stub, Order(answers=1, hang=True, delay=1))
            assert scope.cancelled_caught
        async with line.stub.listen(Order(answers=10, hang=True)) as answers:
            async for _ in answers:
                break
    assert line.open_streams == 0


if __name__ == "__main__":
    trio.run(_everything, int(sys.argv[1]))
