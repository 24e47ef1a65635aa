"""The four kinds of gRPC calls, as callable objects: what a stub's attributes are.

Rules:
* A call ends: with its answer, with a `CallError`, or with the caller's cancellation. Left early, the server is told.
* No kind raises an ExceptionGroup of its own making.
* A call that streams answers begins with the first `__anext__`, under the deadline that holds then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, overload

import trio
from attrs import frozen

from viewreg._http2.metadata import Metadata
from viewreg._transport.status import CallError
from viewreg._transport.streams import MessageStream, Pump, Req, Res, ResponseStream, decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable

    from viewreg._http2.metadata import MetadataLike
    from viewreg._transport.exchange import Exchange


@frozen
class Response(Generic[Res]):
    """An answer with the metadata that came before and after it."""

    message: Res
    initial_metadata: Metadata
    trailing_metadata: Metadata


class Line(Protocol):
    """Where calls are made: what a channel is to them."""

    def exchange(self, path: str, metadata: MetadataLike | None, body: bytes | None) -> Exchange:
        """A call that has not begun."""
        ...

    async def open_message_stream(
        self, path: str, response_type: type[Res], metadata: MetadataLike | None
    ) -> MessageStream[Any, Res]:
        """A call with both directions in the user's hand, begun."""
        ...


class _Call(Generic[Req, Res]):
    """One method of a stub on one channel."""

    __slots__ = ("_channel", "_path", "_response_type")

    def __init__(self, channel: Line, path: str, response_type: type[Res]) -> None:
        self._channel = channel
        self._path = path
        self._response_type = response_type

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path} on {self._channel}>"


class UnaryUnary(_Call[Req, Res]):
    """One request, one answer: `answer = await stub.stats(request)`."""

    __slots__ = ()

    async def __call__(self, message: Req, *, metadata: MetadataLike | None = None) -> Res:
        """Call and wait for the answer.

        The enclosing cancel scope's deadline goes to the server. Raises `CallError`. Cancelled, the server is told.
        """
        exchange = self._channel.exchange(self._path, metadata, encode(message))
        return decode(exchange, self._response_type, await exchange.single_answer())

    async def with_metadata(self, message: Req, *, metadata: MetadataLike | None = None) -> Response[Res]:
        """The same, and the metadata that came with the answer."""
        exchange = self._channel.exchange(self._path, metadata, encode(message))
        answer = decode(exchange, self._response_type, await exchange.single_answer())
        return Response(answer, exchange.initial_metadata, exchange.trailing_metadata)


class UnaryStream(_Call[Req, Res]):
    """One request, many answers: `async with stub.ride(request) as answers: async for answer in answers: ...`."""

    __slots__ = ()

    def __call__(self, message: Req, *, metadata: MetadataLike | None = None) -> ResponseStream[Res]:
        """The answers, as an iterator. The call begins with its first `__anext__`."""
        exchange = self._channel.exchange(self._path, metadata, encode(message))
        return ResponseStream(exchange, self._response_type, None)


class StreamUnary(_Call[Req, Res]):
    """Many requests, one answer: `answer = await stub.collect(requests)`."""

    __slots__ = ()

    async def __call__(self, messages: AsyncIterable[Req], *, metadata: MetadataLike | None = None) -> Res:
        """Send all messages of the iterable and wait for the answer, which may come before they are all sent.

        Raises `CallError`, or whatever the iterable raises, as itself. Cancelled, the server is told.
        """
        exchange = self._channel.exchange(self._path, metadata, None)
        return decode(exchange, self._response_type, await self._converse(exchange, messages))

    async def with_metadata(
        self, messages: AsyncIterable[Req], *, metadata: MetadataLike | None = None
    ) -> Response[Res]:
        """The same, and the metadata that came with the answer."""
        exchange = self._channel.exchange(self._path, metadata, None)
        answer = decode(exchange, self._response_type, await self._converse(exchange, messages))
        return Response(answer, exchange.initial_metadata, exchange.trailing_metadata)

    async def _converse(self, exchange: Exchange, messages: AsyncIterable[Req]) -> bytes:
        pump = Pump(exchange, messages)
        answer: bytes | CallError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            try:
                answer = await exchange.single_answer()
            except CallError as error:  # raised outside: the nursery would make a group of it
                answer = error
            pump.scope.cancel()
        try:
            if pump.error is not None:
                raise pump.error
            if isinstance(answer, CallError):
                raise answer
            assert answer is not None
            return answer
        finally:
            del answer, pump  # an error whose traceback leads back to it would hold the call


class StreamStream(_Call[Req, Res]):
    """Many requests, many answers: with an iterable of requests like `UnaryStream`, without one a `MessageStream`."""

    __slots__ = ()

    @overload
    def __call__(
        self, messages: AsyncIterable[Req], *, metadata: MetadataLike | None = None
    ) -> ResponseStream[Res]: ...
    @overload
    def __call__(
        self, messages: None = None, *, metadata: MetadataLike | None = None
    ) -> Awaitable[MessageStream[Req, Res]]: ...

    def __call__(
        self, messages: AsyncIterable[Req] | None = None, *, metadata: MetadataLike | None = None
    ) -> ResponseStream[Res] | Awaitable[MessageStream[Req, Res]]:
        """With `messages`: the answers, while a task beside sends them. Without: await it, then send and receive."""
        if messages is None:
            return self._channel.open_message_stream(self._path, self._response_type, metadata)
        exchange = self._channel.exchange(self._path, metadata, None)
        return ResponseStream(exchange, self._response_type, Pump(exchange, messages))
