"""The boundary around code of users': streams that do odd things, and the words and the closing that go with it."""

from __future__ import annotations

import errno
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair

import viewreg
from fleet import healthy, open_fleet, reason
from viewreg import Config
from viewreg._boundary import close_iterator, describe, only_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from viewreg import Endpoint

A, B = "a:1", "b:1"

# -- streams of users' --


class OddStream(trio.abc.Stream):
    """Answers nothing; each of its methods can be made to raise, and `receive_some` to return anything."""

    def __init__(self, where: str, error: Exception | None, returns: Any = None) -> None:
        self.where, self.error, self.returns = where, error, returns

    async def odd(self, where: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.where == where and self.error is not None:
            raise self.error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.odd("send_all")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        await self.odd("receive_some")
        if self.where != "returns":
            await trio.sleep_forever()
        return self.returns

    async def aclose(self) -> None:
        try:
            await trio.lowlevel.checkpoint()
        finally:
            if self.where == "aclose" and self.error is not None:
                raise self.error


async def dialled(stream: Callable[[], trio.abc.Stream]) -> str:
    """Give server A that stream again and again, see that server B stays healthy; tell what last happened to A."""
    async with open_fleet() as fleet:

        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            return stream() if endpoint.host == "a" else await fleet.dial(endpoint)

        fleet.locator.set([A, B])
        async with viewreg.open_registry(fleet.locator, Config(), dial=dial) as registry:
            await registry.wait_until(healthy(B))
            version = registry.version
            await trio.sleep(20)
            assert registry.version <= version + 1  # A's own first failure
            assert registry.snapshot.view(B).healthy
            assert not registry.snapshot.view(A).healthy
            return reason(registry, A)


ERRORS: list[Exception] = [
    ValueError("odd"),
    trio.BusyResourceError("odd"),
    trio.BrokenResourceError("odd"),
    OSError(errno.EIO, "odd"),
    ExceptionGroup("odds", [ValueError("odd"), KeyError("odd")]),
    StopAsyncIteration("odd"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["send_all", "receive_some"])
async def test_a_stream_that_raises(where: str, error: Exception, autojump_clock: MockClock) -> None:
    """A stream may raise anything when it is used: its own endpoint fails, with the error as reason."""
    said = await dialled(lambda: OddStream(where, error))
    assert said.startswith(f"connecting failed: {describe(error)}")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_stream_that_raises_when_it_is_closed(error: Exception, autojump_clock: MockClock) -> None:
    """What closing a stream raises is nobody's concern: the reason for closing it stays the one that is told."""
    assert (await dialled(lambda: OddStream("aclose", error))).startswith("connecting failed: no SETTINGS")


@pytest.mark.parametrize("returns", ["text", 7, 3.5, [1, 2], object()], ids=lambda returned: type(returned).__name__)
async def test_a_stream_that_returns_no_bytes(returns: object, autojump_clock: MockClock) -> None:
    """A stream may return anything for bytes: its own endpoint fails, with the type in the reason."""
    assert type(returns).__name__ in await dialled(lambda: OddStream("returns", None, returns))


async def test_the_same_stream_for_two_endpoints(autojump_clock: MockClock) -> None:
    """A dial that gives two endpoints one stream fails both, and a third one does not notice."""
    shared, _far = memory_stream_pair()
    async with open_fleet() as fleet:

        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            return await fleet.dial(endpoint) if endpoint.host == "b" else shared

        fleet.locator.set([A, B, "c:1"])
        async with viewreg.open_registry(fleet.locator, dial=dial) as registry:
            await registry.wait_until(healthy(B))
            await trio.sleep(20)
            assert [view.healthy for view in registry.snapshot.views] == [False, True, False]


@pytest.mark.parametrize("passes", range(6))
async def test_removal_in_the_step_in_which_dial_returns(passes: int, autojump_clock: MockClock) -> None:
    """An endpoint that is removed just when its dial returns leaves no connection behind."""
    async with open_fleet() as fleet:
        for _ in range(10):  # Trio runs the tasks of one step in any order
            go = trio.Event()

            async def dial(endpoint: Endpoint, go: trio.Event = go) -> trio.abc.Stream:
                stream = await fleet.dial(endpoint)
                try:
                    await go.wait()
                except trio.Cancelled:
                    await trio.aclose_forcefully(stream)
                    raise
                return stream

            fleet.locator.set([A])
            async with viewreg.open_registry(fleet.locator, Config(drain_timeout=3600.0), dial=dial):
                await trio.sleep(1)
                fleet.locator.set([])
                for _ in range(passes):  # from discovery to the supervisor
                    await trio.lowlevel.checkpoint()
                go.set()
                await trio.sleep(1)
                assert not fleet.streams


# -- only_cancelled --


async def cancel_and_raise(error: BaseException) -> None:
    """Raise the error as soon as it is cancelled, beside a task that only is cancelled: Trio makes a group of both."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    with only_cancelled():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)


async def test_a_failure_during_cancellation_does_not_outlive_it(autojump_clock: MockClock) -> None:
    """Of a group of cancellations and errors only the cancellations pass, so that the scope catches them."""
    with trio.move_on_after(1) as scope:
        await cancel_and_raise(KeyError("while cancelled"))
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "error",
    [ExceptionGroup("odd", [KeyError("a"), ValueError("b")]), KeyError("a"), BaseExceptionGroup("x", [SystemExit(3)])],
    ids=["group", "error", "exit"],
)
def test_what_is_no_cancellation_passes_as_it_is(error: BaseException) -> None:
    """Errors without a cancellation among them come out untouched, the very same object."""
    with pytest.raises(type(error)) as caught, only_cancelled():
        raise error
    assert caught.value is error


async def test_an_exit_during_cancellation_is_not_dropped(autojump_clock: MockClock) -> None:
    """What is no ordinary error, such as SystemExit, passes beside cancellations too."""
    with trio.CancelScope(deadline=1), pytest.raises(BaseExceptionGroup) as caught:
        await cancel_and_raise(SystemExit(3))
    assert caught.value.split(SystemExit)[0] is not None


# -- close_iterator --


class Closing:
    """An iterator whose `aclose` does as it is told."""

    def __init__(self, closes: Callable[[], Awaitable[None]]) -> None:
        self.closes = closes
        self.closed = False

    async def aclose(self) -> None:
        await self.closes()
        self.closed = True


@pytest.mark.parametrize("seconds", [0.0, 0.9])
async def test_an_iterator_has_a_second_to_close(seconds: float, autojump_clock: MockClock) -> None:
    """An iterator may clean up for a second, also when the task that closes it is cancelled."""
    iterator = Closing(partial(trio.sleep, seconds))
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_iterator(iterator)
    assert iterator.closed


async def test_an_iterator_that_does_not_close(autojump_clock: MockClock) -> None:
    """An iterator that cleans up for ever is left after one second."""
    iterator = Closing(trio.sleep_forever)
    await close_iterator(iterator)
    assert not iterator.closed
    assert trio.current_time() == 1.0


async def test_an_iterator_that_fails_to_close(autojump_clock: MockClock) -> None:
    """What closing raises comes out; an iterator without `aclose`, or none at all, has nothing to close."""

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("odd")

    with pytest.raises(KeyError, match="odd"):
        await close_iterator(Closing(fail))
    await close_iterator(None)
    await close_iterator(object())


# -- describe --


def caused(error: Exception, cause: Exception) -> Exception:
    """The error, as `raise error from cause` would leave it."""
    error.__cause__ = cause
    return error


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "whatever")
REFUSED_TEXT = f"{os.strerror(errno.ECONNREFUSED)} (ECONNREFUSED)"
LOOP = ValueError("loop")
LOOP.__cause__ = LOOP

WORDS: list[tuple[BaseException, str]] = [
    (REFUSED, REFUSED_TEXT),
    (caused(trio.BrokenResourceError(), REFUSED), REFUSED_TEXT),
    (caused(OSError("all attempts failed"), ExceptionGroup("many", [REFUSED, ValueError()])), REFUSED_TEXT),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known (EAI_NONAME)"),
    (socket.gaierror(12345, "odd"), "odd"),
    (OSError(2**70, "far out"), f"OSError: [Errno {2**70}] far out"),
    (ValueError("wrong"), "ValueError: wrong"),
    (ValueError(), "ValueError"),
    (LOOP, "ValueError: loop"),
    (ValueError("it said: " + "a" * 100_000), "ValueError: it said: " + "a" * 991),
    (caused(ValueError("wrong"), REFUSED), "ValueError: wrong"),  # it is what failed; the cause is a detail
]


@pytest.mark.parametrize(("error", "words"), WORDS, ids=[words[:60] for _, words in WORDS])
def test_words_for_operators(error: BaseException, words: str) -> None:
    """An error is told by the innermost system error's text and name, or by its own type and text."""
    assert describe(error) == words


def test_an_error_that_cannot_speak() -> None:
    """An error whose `__str__` raises is told by its type."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("even this fails")

    assert describe(MuteError()) == "MuteError"
