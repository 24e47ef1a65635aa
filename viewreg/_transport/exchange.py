"""One call on its way through the transport: queued, sent, answered, ended. The four call kinds are built on it.

Rules:
* It begins when the subchannel finds a stream for it; until then it waits like any other wait for the server.
* What was sent is kept until the answer begins: if the server promises that it did nothing with the call, by refusing
  the stream or by leaving it above GOAWAY's last stream id, it is sent again on another stream.
* The deadline is that of the scope in which the call started. What the server says once that is due is not taken for
  the truth before the scope had its own chance to cancel.
* Whoever leaves early calls `cancel`: synchronous, so it works in any `finally`.
"""

from __future__ import annotations

import math
from copy import copy
from typing import TYPE_CHECKING, Final

import trio

from viewreg._http2.errors import FailureKind
from viewreg._http2.frames import ErrorCode
from viewreg._http2.headers import literal
from viewreg._http2.metadata import Metadata, decode_metadata
from viewreg._http2.stream import Stream
from viewreg._transport.purerpc import StatusCode
from viewreg._transport.status import (
    CancelledError,
    DeadlineExceededError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
    outcome,
)
from viewreg._transport.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from viewreg._endpoint import Endpoint
    from viewreg._http2.errors import StreamFailure
    from viewreg._transport.connection import Connection
    from viewreg._transport.status import CallError
    from viewreg._transport.subchannel import Subchannel

# grpc-timeout: at most eight digits and a unit (PROTOCOL-HTTP2.md); seconds in a unit, finest first.
_TIMEOUT_UNITS: Final = ((b"n", 1e-9), (b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0), (b"H", 3600.0))
_TIMEOUT_MAX: Final = 99_999_999
_DEADLINE_SLACK: Final = 0.01  # seconds; servers' timers are this coarse, so theirs may fire before ours

# How a server says, in its status or by a reset, that a call took too long, or was given up by whoever made it.
_OUT_OF_TIME: Final = (StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED)

# grpc core refuses streams while it has not cleared away the ones before them, however few are open. Its own clients
# hide that by sending refused calls again (gRFC A6); so do we, with pauses for it to catch up.
MAX_RESENT: Final = 8  # times that one call is sent again, for whichever reason
FIRST_PAUSE: Final = 0.01  # seconds; doubled each time
LONGEST_PAUSE: Final = 0.25  # seconds

REPLAY_LIMIT: Final = 64 * 1024  # bytes of a streamed request that are kept for that, until the answer begins

# What the fields that are gRPC's own count in a header list at most, beside their encoded text, in bytes.
_HEAD_OVERHEAD: Final = 400

_NO_SENDER: Final = Wakeup()  # of calls whose request was complete from the start: nobody waits for room to send


def _nobody() -> None:
    """Whom a stream wakes after its call was left."""


def timeout_text(seconds: float) -> bytes:
    """The value of grpc-timeout, rounded up in the finest unit that fits."""
    for unit, size in _TIMEOUT_UNITS:
        count = math.ceil(seconds / size * (1 - 1e-12))  # a float's own error is no reason to round up
        if count <= _TIMEOUT_MAX:
            return b"%d%s" % (max(count, 1), unit)
    return b"%dH" % _TIMEOUT_MAX


class Exchange:
    """The state of one call. Written by its own task, by the subchannel that starts it and the connection under it."""

    __slots__ = (
        "_block", "_block_size", "_error", "_kept", "_reading", "_request_ended", "_resent", "_rest", "_sending",
        "_sent", "_subchannel", "connection", "deadline", "head", "probe", "stream", "waits",
    )  # fmt: skip

    def __init__(
        self,
        subchannel: Subchannel,
        head: bytes,
        metadata: tuple[bytes, int],
        body: bytes | None,
        *,
        waits: bool,
        probe: bool,
    ) -> None:
        self.head: Final = head
        self.waits: Final = waits  # also for a server that is known to be away
        self.probe: Final = probe  # goes before all others
        self.connection: Connection | None = None  # set when it begins
        self.deadline = math.inf
        self.stream = Stream(self._changed, subchannel.config.max_message_size)  # a new one if it was refused
        self._subchannel: Final = subchannel
        self._block, self._block_size = metadata
        # What was handed over for sending; None once it need not be sent again, or there is too much to keep.
        self._sent: list[bytes] | None = [] if body is None else [body]
        self._kept = 0  # bytes of it, of a streamed request
        self._request_ended = body is not None  # no more messages follow
        self._rest: memoryview | None = None  # what of it neither window nor outbox has taken yet
        self._error: CallError | None = None  # why it never began
        self._resent = 0  # times that it was sent again
        self._reading = Wakeup()  # another's after `wake`
        self._sending: Final = _NO_SENDER if body is not None else Wakeup()

    # -- beginning --

    async def start(self) -> None:
        """Begin now, or join the queue for a stream. Raises `UnavailableError` if the server is known to be away.

        A checkpoint only if it fails, or if the enclosing scope has expired: then nothing is sent.
        """
        self.deadline = trio.current_effective_deadline()
        if self.deadline != math.inf and self.deadline <= trio.current_time():
            await trio.lowlevel.checkpoint()
            raise DeadlineExceededError("the deadline had passed before the call began", endpoint=self.endpoint)
        try:
            self._subchannel.submit(self)
        except UnavailableError:
            await trio.lowlevel.checkpoint()  # or a caller that tries again at once would stop the world
            raise

    def begin(self, connection: Connection) -> None:
        """Send the headers, and what there is of the request. Called by the subchannel, when a stream is free."""
        size, limit = len(self.head) + _HEAD_OVERHEAD + self._block_size, connection.http2.max_send_header_list
        if size > limit:
            text = f"headers of {size} bytes, metadata included; the server takes {limit}"
            self.give_up(ResourceExhaustedError(text, endpoint=self.endpoint))
            return
        block = self.head + self._block
        if self.deadline != math.inf:
            timeout = timeout_text(self.deadline - trio.current_time())
            block = self.head + literal(b"grpc-timeout", timeout) + self._block
        self.connection = connection
        assert self._sent is not None
        if self._request_ended:
            self._rest = connection.open_stream(self.stream, block, b"".join(self._sent), self)
            return
        connection.open_stream(self.stream, block, None, self)
        if self._sent:
            self._rest = memoryview(b"".join(self._sent))
            self._send_rest()
        self._sending.wake()

    def give_up(self, error: CallError) -> None:
        """It will not begin. Called by the subchannel for a queued call."""
        self._error = error
        self._reading.wake()
        self._sending.wake()

    @property
    def resent(self) -> bool:
        """The server has promised that it did nothing with it."""
        return self._resent > 0

    # -- what the task of the call does --

    @property
    def endpoint(self) -> Endpoint:
        """The server that is asked."""
        return self._subchannel.endpoint

    @property
    def ended(self) -> bool:
        """Nothing more will arrive."""
        stream = self.stream  # in full, and not by `Stream.ended`: it is asked several times in every call
        return stream.remote_closed or stream.failure is not None or self._error is not None

    async def single_answer(self) -> bytes:
        """Start the call, wait for exactly one answer and a good end, and leave it in any case. Raises `CallError`."""
        answer: bytes | None = None
        try:
            await self.start()
            ended = False
            while not ended:
                await self._reading.sleep()  # whatever has changed since the start wakes it
                if answer is None and self.stream.has_message:
                    assert self.connection is not None
                    answer = self.connection.take_message(self.stream)
                if answer is not None and self.stream.held:  # before there are two of the largest messages here
                    raise UnimplementedError("the server sent more than one answer", endpoint=self.endpoint)
                ended = self.ended
            await self.check()
        finally:
            self.cancel()
        if answer is None:
            raise UnimplementedError("the server said OK and sent no answer", endpoint=self.endpoint)
        return answer

    async def receive(self) -> bytes | None:
        """The next message; None at a good end. Raises `CallError` at a bad one. A checkpoint."""
        if self.stream.has_message or self.ended:
            await trio.lowlevel.checkpoint()
        while True:
            if self.stream.has_message:
                assert self.connection is not None
                return self.connection.take_message(self.stream)
            if self.ended:
                await self.check()
                return None
            await self._reading.sleep()

    def wake(self, reading: Wakeup) -> None:
        """Wake this when something has arrived: for who waits for several calls at once, and then looks with `take`."""
        self._reading = reading

    def take(self) -> bytes | None:
        """The next message, if it is here. Never waits."""
        if not self.stream.has_message:
            return None
        assert self.connection is not None
        return self.connection.take_message(self.stream)

    async def check(self) -> None:
        """Raise the `CallError` of a call that has ended badly, unless the scope's own deadline is about to speak."""
        # A copy, and no local that outlives the raise: an error whose traceback leads back to it is garbage that holds
        # the call, with all that it has received, until the garbage collector comes.
        error = copy(self._error) if self._error is not None else outcome(self.stream, self.endpoint)
        if error is None:
            return
        try:
            if error.code in _OUT_OF_TIME and trio.current_time() >= self.deadline - _DEADLINE_SLACK:
                await trio.sleep_until(self.deadline)
                await trio.lowlevel.checkpoint()
                if error.code is StatusCode.CANCELLED:
                    error = DeadlineExceededError(error.details, endpoint=error.endpoint)
            elif error.code is StatusCode.UNAVAILABLE and not self.probe:
                self._subchannel.on_demand()
            raise error
        finally:
            del error

    async def send(self, data: bytes) -> bool:
        """Send one message with its prefix. False: the call has ended and nobody will read it. A checkpoint."""
        await trio.lowlevel.checkpoint()
        if self._request_ended:
            raise trio.ClosedResourceError("the request was closed: no more messages may be sent")
        if not await self._ready_to_send():
            return False
        if self._sent is not None:
            self._sent.append(data)
            self._kept += len(data)
            if self._kept > REPLAY_LIMIT:
                self._sent = None
        self._rest = memoryview(data)
        self._send_rest()
        return await self._ready_to_send()

    async def end_request(self) -> None:
        """Half-close: no more messages follow. A checkpoint."""
        await trio.lowlevel.checkpoint()
        if await self._ready_to_send() and not self._request_ended:
            assert self.connection is not None
            self._request_ended = True
            self.connection.end_request(self.stream)

    def cancel(self) -> None:
        """Leave the call, whatever its state: the server is told by RST_STREAM(CANCEL). Nothing if it has ended."""
        stream, connection = self.stream, self.connection
        if self._rest is not None and connection is not None:
            connection.forget(self)
        self._rest = self._sent = None
        stream.discard()
        if not self.ended:
            if connection is None:
                self._subchannel.withdraw(self)
            else:
                connection.reset(stream, ErrorCode.CANCEL)
            self.give_up(CancelledError("the call was left", endpoint=self.endpoint))
        stream.wake = _nobody  # or stream and exchange would hold each other until the garbage collector comes

    @property
    def initial_metadata(self) -> Metadata:
        """What the server sent ahead of its answer; empty until it is here."""
        return decode_metadata(self.stream.headers) if self.stream.headers is not self.stream.trailers else ()

    @property
    def trailing_metadata(self) -> Metadata:
        """What the server sent after its answer; empty until it is here."""
        return decode_metadata(self.stream.trailers)

    def spawn(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task beside the call, in the nursery of its endpoint."""
        self._subchannel.spawn(task)

    # -- for the connection --

    def wake_sender(self) -> None:
        """There may be room again for what was left over."""
        if self._rest is not None and not self.ended:
            self._send_rest()
        if self._rest is None or self.ended:
            self._sending.wake()

    def _changed(self) -> None:
        stream = self.stream
        if stream.failure is not None and self._begin_anew(stream.failure):
            return
        if stream.headers is not None:
            self._sent = None
        self._reading.wake()
        if stream.local_closed and not self._request_ended:
            self._sending.wake()

    def _begin_anew(self, failure: StreamFailure) -> bool:
        """If the server promises to have done nothing: send it again, a refused one after a pause."""
        refused = failure.kind is FailureKind.RESET_BY_PEER and failure.code == ErrorCode.REFUSED_STREAM
        if not refused and failure.kind is not FailureKind.NOT_PROCESSED:
            return False
        # What a server took offence at may be this very call, so it shall not end one connection after the other.
        often = 1 if not refused and failure.code != ErrorCode.NO_ERROR else MAX_RESENT
        if self._sent is None or self.stream.headers is not None or self._resent >= often:
            return False
        pause = min(FIRST_PAUSE * 2**self._resent, LONGEST_PAUSE) if refused else 0
        self._resent += 1
        if self._rest is not None and self.connection is not None:
            self.connection.forget(self)
        self.connection = self._rest = None
        self.stream = Stream(self._changed, self._subchannel.config.max_message_size)
        self._subchannel.resubmit(self, pause)
        return True

    def _send_rest(self) -> None:
        assert self.connection is not None
        assert self._rest is not None
        self._rest = self.connection.send(self.stream, self._rest, self, end_stream=self._request_ended)

    async def _ready_to_send(self) -> bool:
        """Wait until all that was handed over is on its way. False: the call has ended."""
        while not (self.ended or (self.stream.local_closed and not self._request_ended)):
            if self.connection is not None and self._rest is None:
                return True
            await self._sending.sleep()
        return False
