"""Types for the stubs and servicers of nasty/nasty.proto. Generated, do not edit."""

from collections.abc import AsyncIterator

import purerpc  # type: ignore[import-untyped, unused-ignore]
import nasty.nasty_pb2 as _nasty_nasty_pb2
from viewreg import Channel, StreamStream, StreamUnary, UnaryStream, UnaryUnary

class NastyServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """The four kinds of calls."""
    async def ask(self, input_message: _nasty_nasty_pb2.Order, /) -> _nasty_nasty_pb2.Answer: ...
    def listen(self, input_message: _nasty_nasty_pb2.Order, /) -> AsyncIterator[_nasty_nasty_pb2.Answer]: ...
    async def tell(self, input_messages: AsyncIterator[_nasty_nasty_pb2.Order], /) -> _nasty_nasty_pb2.Answer: ...
    def talk(self, input_messages: AsyncIterator[_nasty_nasty_pb2.Order], /) -> AsyncIterator[_nasty_nasty_pb2.Answer]: ...
    @property
    def service(self) -> purerpc.Service: ...

class NastyStub:
    """The four kinds of calls."""
    ask: UnaryUnary[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    listen: UnaryStream[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    tell: StreamUnary[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    talk: StreamStream[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    def __init__(self, channel: Channel) -> None: ...

class AbsentServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """The same, which no server has."""
    async def ask(self, input_message: _nasty_nasty_pb2.Order, /) -> _nasty_nasty_pb2.Answer: ...
    def listen(self, input_message: _nasty_nasty_pb2.Order, /) -> AsyncIterator[_nasty_nasty_pb2.Answer]: ...
    async def tell(self, input_messages: AsyncIterator[_nasty_nasty_pb2.Order], /) -> _nasty_nasty_pb2.Answer: ...
    def talk(self, input_messages: AsyncIterator[_nasty_nasty_pb2.Order], /) -> AsyncIterator[_nasty_nasty_pb2.Answer]: ...
    @property
    def service(self) -> purerpc.Service: ...

class AbsentStub:
    """The same, which no server has."""
    ask: UnaryUnary[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    listen: UnaryStream[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    tell: StreamUnary[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    talk: StreamStream[_nasty_nasty_pb2.Order, _nasty_nasty_pb2.Answer]
    def __init__(self, channel: Channel) -> None: ...
