"""What calls by grpcio's stubs return: see `viewreg._transport.grpcio`, whose rules are these objects' rules.

They stand on our own call objects, and add what grpcio's have: a `timeout`, metadata and status of the call object,
requests from plain iterables.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

import trio

from viewreg._boundary import close_iterator
from viewreg._errors import InvalidTypeError, InvalidValueError
from viewreg._transport.purerpc import StatusCode
from viewreg._transport.status import CallError, CancelledError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from viewreg._http2.metadata import Metadata
    from viewreg._transport.calls import Response
    from viewreg._transport.streams import MessageStream, ResponseStream

Req = TypeVar("Req")
Res = TypeVar("Res")
T = TypeVar("T")


class UnaryCall(Generic[Res]):
    """A call with one answer, made once: awaited again, or by several tasks, it gives the same answer or error.

    If the task that was the first to await it is cancelled, or its requests fail, the call is over for all.
    """

    __slots__ = ("_ask", "_error", "_response", "_time", "_turn")

    def __init__(self, ask: Callable[[], Awaitable[Response[Res]]], timeout: float | None) -> None:
        self._ask: Final = ask
        self._time: Final = _Time(timeout)
        self._turn: Final = trio.Lock()  # of the task that makes the call; the others wait for what it gets
        self._response: Response[Res] | None = None
        self._error: CallError | None = None

    def __await__(self) -> Generator[Any, Any, Res]:
        return self._answer().__await__()

    async def _answer(self) -> Res:
        await self._end()
        if self._error is None:
            assert self._response is not None
            return self._response.message
        # A copy, and no local that outlives the raise: an error whose traceback leads back to it would hold the call.
        error = copy(self._error)
        try:
            raise error from self._error.__cause__
        finally:
            del error

    async def _end(self) -> None:
        async with self._turn:
            if self.done():
                return
            try:
                with self._time.limit():
                    self._response = await self._ask()
            except CallError as error:
                self._error = error.with_traceback(None)
            finally:
                if not self.done():
                    self._error = CancelledError("the call was left by the task that made it")

    def done(self) -> bool:
        """Whether the answer or the error is here."""
        return self._response is not None or self._error is not None

    async def code(self) -> StatusCode:
        """The status, once the call has ended; it is begun if it was not. Its `value` is that of grpcio's."""
        await self._end()
        return StatusCode.OK if self._error is None else self._error.code

    async def details(self) -> str:
        """The words beside the status."""
        await self._end()
        return "" if self._error is None else self._error.details

    async def initial_metadata(self) -> Metadata:
        """What the server sent before its answer."""
        await self._end()
        return () if self._response is None else self._response.initial_metadata

    async def trailing_metadata(self) -> Metadata:
        """What the server sent with its status."""
        await self._end()
        if self._error is not None:
            return self._error.trailing_metadata
        assert self._response is not None
        return self._response.trailing_metadata


class _Answers(Generic[Res]):
    """Answers one by one, within a time."""

    __slots__ = ("_time",)

    def __init__(self, timeout: float | None) -> None:
        self._time: Final = _Time(timeout)

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Leave the call: the server is told, now."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):  # it only tells the server, and does not wait
            await self.aclose()


class StreamCall(_Answers[Res]):
    """A call with many answers. Leave it by `async with`, or with `aclose`."""

    __slots__ = ("_stream",)

    def __init__(self, stream: ResponseStream[Res], timeout: float | None) -> None:
        super().__init__(timeout)
        self._stream: Final = stream

    async def __anext__(self) -> Res:
        """The next answer. Raises `CallError`."""
        with self._time.limit():
            return await anext(self._stream)

    async def aclose(self) -> None:
        """Leave the call: the server is told, now."""
        await self._stream.aclose()


class TwoWayCall(_Answers[Res], Generic[Req, Res]):
    """A call with both directions in the user's hand. One task may write while another iterates."""

    __slots__ = ("_left", "_open", "_opening", "_serialize", "_stream")

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[MessageStream[Any, Res]]],
        serialize: Callable[[Req], Any],
        timeout: float | None,
    ) -> None:
        super().__init__(timeout)
        self._open: Final = open_stream
        self._opening: Final = trio.Lock()
        self._serialize: Final = serialize
        self._stream: MessageStream[Any, Res] | None = None
        self._left = False  # written by `aclose`

    async def write(self, request: Req) -> None:
        """Send one request. Waits while the server does not read."""
        data = self._serialize(request)
        await self._in_time(lambda stream: stream.send_message(data))

    async def done_writing(self) -> None:
        """No more requests follow."""
        await self._in_time(lambda stream: stream.close())

    async def __anext__(self) -> Res:
        """The next answer. Raises `CallError`."""
        answer = await self._in_time(lambda stream: stream.receive_message())
        if answer is None:
            raise StopAsyncIteration
        return answer

    async def aclose(self) -> None:
        """Leave the call: the server is told, now. It cannot be begun any more."""
        self._left = True
        if self._stream is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.aclose()

    async def _in_time(self, step: Callable[[MessageStream[Any, Res]], Awaitable[T]]) -> T:
        """Take one step of the call. Out of time, the call is over, and the server is told."""
        try:
            with self._time.limit():
                return await step(await self._opened())
        except DeadlineExceededError:
            with trio.CancelScope(shield=True):  # it only tells the server, and does not wait
                await self.aclose()
            raise

    async def _opened(self) -> MessageStream[Any, Res]:
        async with self._opening:
            if self._stream is None:
                if self._left:
                    raise CancelledError("the call was left before it began")
                self._stream = await self._open()
            return self._stream


class _Time:
    """The seconds that a call has, from its first step on."""

    __slots__ = ("_deadline", "_seconds")

    def __init__(self, seconds: object) -> None:
        if seconds is None:
            seconds = math.inf
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise InvalidTypeError(f"timeout {seconds!r}: expected seconds, or None")
        if math.isnan(seconds):
            raise InvalidValueError(f"timeout {seconds!r}: expected seconds, or None")
        self._seconds: Final = seconds
        self._deadline: float | None = None

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Raises `DeadlineExceededError` when the time is over. The scope's own deadline cancels, as everywhere."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self._seconds
        with trio.move_on_at(self._deadline) as scope:
            yield
        if scope.cancelled_caught:
            raise DeadlineExceededError(f"the call has not ended within {self._seconds:g} s")


class Requests:
    """A user's requests, serialised one by one as they are sent."""

    def __init__(self, requests: object, serialize: Callable[[Any], Any]) -> None:
        if not isinstance(requests, AsyncIterable | Iterable):
            raise InvalidTypeError(f"requests {requests!r}: expected an iterable, async or not")
        self._iterator: AsyncIterator[Any] | Iterator[Any] = (
            aiter(requests) if isinstance(requests, AsyncIterable) else iter(requests)
        )
        self._serialize = serialize

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 (bytes, or what a wrong serializer gives)
        if isinstance(self._iterator, AsyncIterator):
            return self._serialize(await anext(self._iterator))
        for request in self._iterator:
            return self._serialize(request)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await close_iterator(self._iterator)
