"""Who acts in a cell, in either world: the probe, the caller, and a server that is good."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from matrix.cells import ANSWERED, GOES_ON, GONE, LEFT, NO_CALL, During
from matrix.rows import head
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from viewreg import CallError, Feature, ProbeResult, UnavailableError

if TYPE_CHECKING:
    from viewreg import Channel, Registry
    from viewreg.testing import ScriptedPeer


LISTEN: Final = "/nasty.Nasty/listen"


class Ask:
    """A probe that makes one unary call, which hangs if it is told to."""

    no_features = Feature(0)

    def __init__(self) -> None:
        self.order = Order()
        self.hangs = trio.Event()  # set when such a call begins

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        if self.order.hang:
            self.hangs.set()
        await channel.stub(NastyStub).ask(self.order)
        return ProbeResult(Feature(0))


class Caller:
    """One call, and how it ended. It keeps no error: that would hold what the test wants to see gone."""

    def __init__(self, during: During, order: Order, patience: float) -> None:
        self.call: type[CallError] | str = NO_CALL
        self.started: bool | None = None
        self.answers = 0
        self.ended_at = -math.inf  # by Trio's clock
        self._streams = during is During.STREAM
        self._order = order
        self._patience = patience
        self._answered = trio.Event()
        self._ended = trio.Event()

    async def run(self, stub: NastyStub) -> None:
        """Call, and tell how it ended."""
        self.call = GOES_ON
        try:
            with trio.move_on_after(self._patience) as scope:
                if self._streams:
                    async with stub.listen(self._order) as answers:
                        async for _ in answers:
                            self._count()
                else:
                    await stub.ask(self._order)
                    self._count()
            self.call = LEFT if scope.cancelled_caught else ANSWERED
        except CallError as error:
            self.call = type(error)
            if isinstance(error, UnavailableError):
                self.started = error.started
        self.ended_at = trio.current_time()
        self._ended.set()

    async def first_answer(self) -> None:
        """Wait for it."""
        await self._answered.wait()

    async def end(self) -> None:
        """Wait for it, whatever it is."""
        await self._ended.wait()

    def _count(self) -> None:
        self.answers += 1
        self._answered.set()


def state(registry: Registry[Feature]) -> str:
    """What the one view says; GONE if there is none."""
    for view in registry.all_views():
        return f"{view.connectivity.value}, {'healthy' if view.healthy else 'unhealthy'}"
    return GONE


async def serve(peer: ScriptedPeer, *, handshake: bool = True) -> None:
    """Be a good server until the client ends the connection: answer every request, unless it wants to hang."""
    try:
        if handshake:
            await peer.handshake()
        while True:
            request = await peer.expect_request()
            if not Order.FromString(request.message).hang:
                await peer.respond(request.stream_id, b"")
            elif request.path == LISTEN:
                await peer.send(head(request.stream_id))
    except AssertionError:
        if not peer.ended:
            raise
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client has left meanwhile
