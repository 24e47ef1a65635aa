"""Calls without a pause on one view, for tests in which its connections are replaced; and a probe to go with them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from viewreg import Feature, ProbeResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg import Channel


class Ask:
    """A probe that makes one unary call."""

    no_features = Feature(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        await channel.stub(NastyStub).ask(Order())
        return ProbeResult(Feature(0))


class Load:
    """Calls without a pause until it is `over`, and how many were answered. One that fails fails the test."""

    def __init__(self, stub: NastyStub, over: Callable[[], bool]) -> None:
        self.over: Final = over
        self.ended: Final[Counter[str]] = Counter()
        self._stub: Final = stub

    async def unary(self) -> None:
        while not self.over():
            await self._stub.ask(Order())
            self.ended["unary"] += 1

    async def stream(self) -> None:
        while not self.over():
            async with self._stub.listen(Order(answers=30, pause=0.01)) as answers:
                assert len([answer async for answer in answers]) == 30
            self.ended["stream"] += 1
