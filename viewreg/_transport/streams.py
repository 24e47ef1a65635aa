"""What a call that streams hands out: its answers one by one, or both directions; and the task that sends requests.

Rules:
* These objects own nothing but their call. Leaving one tells the server at once, synchronously.
* Dropped without being left, they are cleaned up by a finalizer, with a ResourceWarning: correct, but late.
* What a user's iterable of requests raises is kept, and raised from the call as itself.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

import trio

from viewreg._boundary import close_iterator, only_cancelled
from viewreg._errors import InvalidTypeError
from viewreg._http2.stream import PREFIX_SIZE
from viewreg._transport.status import CallError, InternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from types import TracebackType

    from viewreg._http2.metadata import Metadata
    from viewreg._transport.exchange import Exchange

_MAX_LENGTH: Final = 2**32 - 1  # bytes: the prefix has four for the length


class Message(Protocol):
    """What a request must be able to do; every protobuf message can."""

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        """The message as bytes."""
        ...


Req = TypeVar("Req", bound="Message | bytes")
Res = TypeVar("Res")


class ResponseStream(Generic[Res]):
    """The answers of a call, one by one. It ends after the last; `CallError` tells of any other end.

    Leave it by `async with`, or close it with `aclose`: the server is told at once. One that is dropped in the middle
    is cleaned up when Python finds it, with a ResourceWarning. Only one task at a time may wait for an answer.
    """

    __slots__ = ("__weakref__", "_exchange", "_over", "_pump", "_response_type", "_started", "_token")

    def __init__(self, exchange: Exchange, response_type: type[Res], pump: Pump | None) -> None:
        self._exchange: Final = exchange
        self._response_type: Final = response_type
        self._pump: Final = pump
        self._started = False
        self._over = False
        self._token: trio.lowlevel.TrioToken | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Res:
        """The next answer. Raises `CallError`, or what the iterable of requests raised. Cancelled, the call is over."""
        if self._over:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        going_on = False
        try:
            if not self._started:
                await self._start()
            data = await self._exchange.receive()
            if data is not None:
                answer = decode(self._exchange, self._response_type, data)
                going_on = True
                return answer
        except trio.BusyResourceError:
            going_on = True  # another task's call, and its turn
            raise
        except CallError:
            error = None if self._pump is None else self._pump.take_error()
            if error is None:
                raise
            try:
                raise error from None
            finally:
                del error  # whose traceback leads here
        finally:
            if not going_on:
                self._leave()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave the call: the server is told, now. Does nothing if it has ended. A checkpoint."""
        self._leave()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def initial_metadata(self) -> Metadata:
        """What the server sent before its first answer; empty until then."""
        return self._exchange.initial_metadata

    @property
    def trailing_metadata(self) -> Metadata:
        """What the server sent with its status; empty until then."""
        return self._exchange.trailing_metadata

    async def _start(self) -> None:
        self._started = True
        self._token = trio.lowlevel.current_trio_token()
        await self._exchange.start()
        if self._pump is not None and not self._exchange.ended:  # another task may have left it meanwhile
            self._exchange.spawn(self._pump.run)

    def _leave(self) -> None:
        self._over = True
        if self._started:
            self._exchange.cancel()
        if self._pump is not None:
            self._pump.scope.cancel()

    def __del__(self) -> None:
        if not self._started or self._over:
            return
        assert self._token is not None
        ways = [self._exchange.cancel] if self._pump is None else [self._exchange.cancel, self._pump.scope.cancel]
        leave_dropped(self, self._token, *ways)


class MessageStream(Generic[Req, Res]):
    """A call with both directions in the user's hand. One task may send while another receives.

    Leave it by `async with`, or with `aclose`: the server is told at once, unless the call has ended.
    """

    __slots__ = ("__weakref__", "_exchange", "_response_type", "_token")

    def __init__(self, exchange: Exchange, response_type: type[Res]) -> None:
        self._exchange: Final = exchange
        self._response_type: Final = response_type
        self._token: Final = trio.lowlevel.current_trio_token()

    async def send_message(self, message: Req) -> None:
        """Send one message. It waits while the server does not read. Raises `CallError` if the call has failed.

        Once the server has ended the call well, messages go nowhere: `receive_message` tells. After `close` it raises
        `trio.ClosedResourceError`. Cancelled: the message may be half sent, so the call is over.
        """
        exchange, finished = self._exchange, False
        data = encode(message)
        try:
            if not await exchange.send(data):
                await exchange.check()
            finished = True
        except (trio.BusyResourceError, trio.ClosedResourceError):
            finished = True  # the caller's mistake: nothing was sent
            raise
        finally:
            if not finished:
                exchange.cancel()

    async def receive_message(self) -> Res | None:
        """The next answer; None at a good end. Raises `CallError` at a bad one. Cancelled, the call goes on."""
        data = await self._exchange.receive()
        return None if data is None else decode(self._exchange, self._response_type, data)

    async def close(self) -> None:
        """Half-close: no more messages follow, answers may."""
        await self._exchange.end_request()

    async def aclose(self) -> None:
        """Leave the call. Does nothing if it has ended. A checkpoint."""
        self._exchange.cancel()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._exchange.cancel()

    @property
    def initial_metadata(self) -> Metadata:
        """What the server sent before its first answer; empty until then."""
        return self._exchange.initial_metadata

    @property
    def trailing_metadata(self) -> Metadata:
        """What the server sent with its status; empty until then."""
        return self._exchange.trailing_metadata

    def __del__(self) -> None:
        if not self._exchange.ended:
            leave_dropped(self, self._token, self._exchange.cancel)


def leave_dropped(call: object, token: trio.lowlevel.TrioToken, *ways: Callable[[], object]) -> None:
    """For finalizers. They run in any thread and in the middle of anything: so act later, in Trio's thread."""
    try:
        for leave in ways:
            token.run_sync_soon(leave)
    except trio.RunFinishedError:
        return
    text = "a call that streams was dropped in the middle: leave it by `async with`, or with aclose()"
    warnings.warn(text, ResourceWarning, stacklevel=3, source=call)


class Pump:
    """Sends the messages of an iterable, in a task of its own. What the iterable raises is kept for the call."""

    __slots__ = ("_exchange", "_messages", "error", "scope")

    def __init__(self, exchange: Exchange, messages: AsyncIterable[Any]) -> None:
        self._exchange = exchange
        self._messages = messages
        self.scope: Final = trio.CancelScope()
        self.error: Exception | None = None

    def take_error(self) -> Exception | None:
        """What the iterable raised, once."""
        error, self.error = self.error, None
        return error

    async def run(self) -> None:
        try:
            with only_cancelled(), self.scope:
                await self._send_all()
        except Exception as error:  # noqa: BLE001 (the user's iterable may raise anything; the call raises it)
            self.error = error
            self._exchange.cancel()

    async def _send_all(self) -> None:
        iterator = aiter(self._messages)
        try:
            async for message in iterator:
                if not await self._exchange.send(encode(message)):
                    return
            await self._exchange.end_request()
        finally:
            await close_iterator(iterator)


def encode(message: Message | bytes) -> bytes:
    """A message with its prefix, as it goes into DATA frames. Bytes count as a message that is serialised already."""
    if isinstance(message, bytes):
        data = message
    elif hasattr(message, "SerializeToString"):
        data = message.SerializeToString()
    else:
        raise InvalidTypeError(f"request {message!r}: expected a protobuf message")
    size = len(data)
    if size > _MAX_LENGTH:
        raise InternalError(f"a request of {size} bytes; gRPC has no room for more than {_MAX_LENGTH}")
    return b"\0" + size.to_bytes(PREFIX_SIZE - 1, "big") + data


def decode(exchange: Exchange, response_type: type[Res], data: bytes) -> Res:
    """A message of the answer. Raises `InternalError`, and leaves the call, if it cannot be decoded."""
    if response_type is bytes:
        return data  # type: ignore[return-value]
    try:
        message: Res = response_type.FromString(data)  # type: ignore[attr-defined]
    except Exception as error:
        exchange.cancel()
        name = response_type.__name__
        raise InternalError(f"{len(data)} bytes that are no {name}", endpoint=exchange.endpoint) from error
    return message
