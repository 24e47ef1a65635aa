"""One question to everything that is served: a call to each view of a cover, and their answers as they arrive.

Rules:
* Each part of the range has one call at a time, in a task of its own. A part whose call fails is asked of other views,
  of the newest snapshot, never twice of the same server. One of which the caller has seen an answer is not, unless
  asked for: some of its answers would come twice.
* Of each part one answer waits to be taken, and its task holds the next one until then. So a slow caller is felt by
  the servers: what is under way fills the windows of flow control, and no more.
* What a call raises is kept and raised from the iterator, as itself: nothing but cancellation passes through tasks.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

import trio
from attrs import frozen
from typing_extensions import TypeVar as TypeVarWithDefault

from viewreg._boundary import HeldBack, close_iterator, only_cancelled, raise_exit
from viewreg._coverage import Assignment, encoding_for
from viewreg._errors import InvalidTypeError, NotServedError, UnknownViewError, check_type
from viewreg._feature import Feature
from viewreg._partition import HashRange, KeyEncoding
from viewreg._registry import Registry
from viewreg._transport.purerpc import StatusCode
from viewreg._transport.status import CallError, UnavailableError
from viewreg._transport.streams import MessageStream
from viewreg._view import View

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from viewreg._transport.channel import Channel

T = TypeVar("T")
F = TypeVarWithDefault("F", bound=enum.Flag, default=Feature)
G = TypeVar("G", bound=enum.Flag)  # for functions, where one with a default may not come first

# What is wrong with the request, or with who asks, is so for every server.
_FINAL: Final = {
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.ALREADY_EXISTS,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.OUT_OF_RANGE,
}


@frozen
class Answer(Generic[T, F]):
    """One answer of a fan-out, and what it is an answer to."""

    range: HashRange
    """What the view was asked for. It may serve more than that: of what it tells, only this counts."""

    view: View[F]

    message: T


def open_fan_out(
    registry: Registry[G],
    feature: G,
    call: Callable[[View[G], HashRange], AsyncIterable[T] | Awaitable[T]],
    *,
    range: HashRange = HashRange.FULL,  # noqa: A002 (the field's word)
    encoding: KeyEncoding | None = None,
    prefer: Callable[[View[G]], float] | None = None,
    partial: bool = False,
    repeat: bool = False,
) -> AbstractAsyncContextManager[FanOut[T, G]]:
    """Ask for all of `range`, each hash of one healthy view that provides `feature`, and hand out answers as they come.

    `call(view, range)` asks one view for one part: it returns what can be iterated (`view.hash_sp().lookupS(request)`)
    or awaited (`view.hash_sp().factStats(request)`). It is called once for each part, and again for a part that has
    failed. A view may hold more than the part that it is asked for: see `Answer.range`.

    The parts are those of `Snapshot.cover`, which explains `encoding` and `prefer`; without `prefer`, views with fewer
    calls in flight are taken, and of equals any. If a call raises a `CallError`, its part is asked of other views that
    serve it, unless the status says that they would not answer otherwise, such as INVALID_ARGUMENT: that error is
    raised, as is all else that `call` raises, groups included.
    A server that turns out to serve another partition by the time it has answered counts as one that failed. A part of
    which an answer has been handed out is not asked for again, unless with `repeat`: then it begins anew, and
    answers may come twice.

    The deadline of the scopes around `open_fan_out` is that of the calls. Leaving the block, for any reason, and the
    first error end all calls; the servers are told at once. An exception of the body's leaves it as itself.

    Raises `NotServedError`, which has the ranges, if nobody serves a part: on entering if it is so at once, later from
    the iteration. With `partial` that is no error: those ranges are left out, and are in `FanOut.gaps`. Raises
    `InvalidValueError` or `InvalidTypeError` for arguments that can never work.
    """
    check_type("registry", registry, Registry, "a Registry")
    if not callable(call):
        raise InvalidTypeError(f"call {call!r}: expected a function from a view and a HashRange to a call")
    check_type("range", range, HashRange, "a HashRange")
    check_type("partial", partial, bool, "True or False")
    check_type("repeat", repeat, bool, "True or False")
    registry.snapshot.check_feature(feature)
    encoding = encoding_for(feature, encoding)
    if prefer is None:
        prefer = registry.least_busy
    elif not callable(prefer):
        raise InvalidTypeError(f"prefer {prefer!r}: expected a function from a view to a number")

    def assign(part: HashRange, tried: frozenset[Channel]) -> list[Assignment[View[G]]]:
        return registry.snapshot.cover(feature, part, prefer, encoding=encoding, without=_ViewsOf(tried))

    def serves(view: View[G], part: HashRange) -> bool:
        return _still_serves(registry, view, encoding, part)

    return _open(FanOut(assign, serves, call, encoding, partial=partial, repeat=repeat), range)


def _still_serves(registry: Registry[G], view: View[G], encoding: KeyEncoding, part: HashRange) -> bool:
    """Whether a server is not known to serve something else by now: then it has answered for something else."""
    try:
        now = registry.snapshot.view(view.endpoint or "")
    except UnknownViewError:  # it ends what it was asked, and then goes
        return True
    if now.channel is not view.channel or now.partition is None:
        return True
    served = now.partition.hash_range
    return now.partition.encoding is encoding and served.start <= part.start and part.stop <= served.stop


@asynccontextmanager
async def _open(fan_out: FanOut[T, F], space: HashRange) -> AsyncIterator[FanOut[T, F]]:
    body = HeldBack()
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            with body:
                fan_out._start(nursery, space)  # noqa: SLF001 (the same module)
                yield fan_out
            fan_out._close()  # noqa: SLF001 (the same module)
    except BaseExceptionGroup as group:
        # Only cancellations come here, and exits, which Trio delivers wherever the program happens to be.
        raise_exit(group)
        if body.error is None:
            raise
    body.release()


class _ViewsOf:
    """All views of some channels, of whichever moment."""

    def __init__(self, channels: frozenset[Channel]) -> None:
        self._channels = channels

    def __contains__(self, view: object) -> bool:
        return isinstance(view, View) and view.channel in self._channels


class _Part(Generic[F]):
    """A range that one view is asked for."""

    __slots__ = ("range", "scope", "seen", "taken", "tried", "view")

    def __init__(self, assignment: Assignment[View[F]], tried: frozenset[Channel]) -> None:
        self.range: Final = assignment.range
        self.view: Final = assignment.view
        self.tried: Final = tried | {assignment.view.channel}
        self.seen = False  # whether the caller has taken an answer; written by the iterator
        self.scope: Final = trio.CancelScope()
        self.taken: Final = trio.lowlevel.ParkingLot()  # of the part's task, while an answer waits


class FanOut(Generic[T, F]):
    """The answers of a fan-out, for `async for`: an async iterator of `Answer`. Made by `open_fan_out`.

    Answers of one part come in its order. It ends when all parts have ended, and every hash was answered for, but for
    `gaps`. Several tasks may share it: each answer goes to one of them, and an error to all.
    """

    def __init__(
        self,
        assign: Callable[[HashRange, frozenset[Channel]], list[Assignment[View[F]]]],
        serves: Callable[[View[F], HashRange], bool],
        call: Callable[[View[F], HashRange], AsyncIterable[T] | Awaitable[T]],
        encoding: KeyEncoding,
        *,
        partial: bool,
        repeat: bool,
    ) -> None:
        self._assign: Final = assign
        self._serves: Final = serves
        self._call: Final = call
        self._encoding: Final = encoding
        self._partial: Final = partial
        self._repeat: Final = repeat
        self._nursery: trio.Nursery
        self._parts: Final[set[_Part[F]]] = set()  # that have not ended
        self._held: Final[OrderedDict[_Part[F], T]] = OrderedDict()  # answers that wait to be taken, one of each part
        self._readers: Final = trio.lowlevel.ParkingLot()
        self._error: Exception | None = None  # of the first part that has one
        self._over = False  # an error, or leaving the block, has ended all calls; written by `_stop`
        self._closed = False  # the block was left, and not all answers were taken
        self._gaps: list[HashRange] = []

    @property
    def gaps(self) -> tuple[HashRange, ...]:
        """What nobody serves, or nobody to the end, so far: sorted and disjoint. None but with `partial`."""
        return tuple(sorted(self._gaps, key=lambda gap: gap.start))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer[T, F]:
        """The next answer of any part. Cancelled, nothing is lost.

        Raises `NotServedError` for a part that nobody serves any more, and whatever else a call has raised: then all
        calls have been ended.
        """
        if self._held or self._error is not None or self._closed or not self._parts:
            await trio.lowlevel.checkpoint()
        while True:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise trio.ClosedResourceError("the block of this fan-out was left before its end")
            if self._held:
                part, message = self._held.popitem(last=False)
                part.seen = True
                part.taken.unpark()
                return Answer(part.range, part.view, message)
            if not self._parts:
                raise StopAsyncIteration
            await self._readers.park()

    def _start(self, nursery: trio.Nursery, space: HashRange) -> None:
        self._nursery = nursery
        self._ask_for(space, frozenset())

    # -- the parts' tasks --

    def _ask_for(self, wanted: HashRange, tried: frozenset[Channel]) -> None:
        """Begin the calls for a range, of whom has not been tried. Raises `NotServedError`, unless `partial`."""
        ranges = [wanted]
        try:
            assignments = self._assign(wanted, tried)
        except NotServedError as error:
            if not self._partial:
                raise
            self._gaps += error.gaps
            ranges = list(_between(wanted, error.gaps))
            assignments = [assignment for served in ranges for assignment in self._assign(served, tried)]
        for assignment in assignments:
            part = _Part(assignment, tried)
            self._parts.add(part)
            self._nursery.start_soon(self._ask, part, name=f"viewreg fan-out to {part.view.endpoint}: {part.range}")

    async def _ask(self, part: _Part[F]) -> None:
        try:
            with part.scope, only_cancelled():
                await trio.lowlevel.checkpoint_if_cancelled()
                try:
                    await self._read(part)
                    if not self._serves(part.view, part.range):
                        raise UnavailableError("it serves another partition now", endpoint=part.view.endpoint)
                except CallError as error:
                    if error.code in _FINAL:
                        error.add_note(f"asked for {self._encoding.name}: {part.range}")
                        raise  # here, and not where `error` would be left in a frame that its own traceback holds
                    if not self._over:
                        self._failed(part, error)
        except Exception as error:  # noqa: BLE001 (the caller's functions may raise anything; the iteration raises it)
            self._give_up(error)
        self._parts.discard(part)
        if not self._parts:
            self._readers.unpark_all()

    async def _read(self, part: _Part[F]) -> None:
        asked = self._call(part.view, part.range)
        if isinstance(asked, Awaitable):
            answer = await asked
            if isinstance(answer, AsyncIterable | MessageStream):  # with which only the caller could be done
                await close_iterator(answer)
                name = type(answer).__name__
                raise InvalidTypeError(f"call, awaited, gave a {name}: expected an answer; iterate over it in call")
            await self._hand_over(part, answer)
            return
        if not isinstance(asked, AsyncIterable):
            raise InvalidTypeError(f"call returned {asked!r}: expected what can be iterated or awaited")
        answers = aiter(asked)
        try:
            async for message in answers:
                await self._hand_over(part, message)
        finally:
            await close_iterator(answers)

    async def _hand_over(self, part: _Part[F], message: T) -> None:
        while part in self._held:
            await part.taken.park()
        self._held[part] = message
        self._readers.unpark()

    def _failed(self, part: _Part[F], error: CallError) -> None:
        """A call has failed: ask others, if there are any who may be asked. Raises `NotServedError` if not."""
        if not part.seen or self._repeat:
            self._held.pop(part, None)
            try:
                self._ask_for(part.range, part.tried)
            except NotServedError as nobody:
                raise NotServedError(f"{nobody} any more: {error}", nobody.gaps) from error
        elif self._partial:
            self._gaps.append(part.range)
        else:
            text = f"{self._encoding.name}: {part.range} was not answered to its end: {error}"
            raise NotServedError(text, (part.range,)) from error

    def _give_up(self, error: Exception) -> None:
        """The first error is everybody's: nobody will take what the others answer."""
        if isinstance(error, StopAsyncIteration):  # raised by the iteration, it would pass for the end
            over, error = error, RuntimeError("call or prefer raised StopAsyncIteration")
            error.__cause__ = over
        if not self._over:
            self._error = error
            self._stop()

    def _close(self) -> None:
        self._closed = bool(self._parts or self._held or self._error)
        self._error = None  # whose traceback may lead here
        self._stop()

    def _stop(self) -> None:
        self._over = True
        self._held.clear()
        for part in self._parts:
            part.scope.cancel()
        self._readers.unpark_all()


def _between(space: HashRange, gaps: tuple[HashRange, ...]) -> Iterator[HashRange]:
    """What is left of a range without its gaps, which are sorted."""
    start = space.start
    for gap in gaps:
        if start < gap.start:
            yield HashRange(start, gap.start)
        start = gap.stop
    if start < space.stop:
        yield HashRange(start, space.end)
