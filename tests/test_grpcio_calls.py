"""Calls by grpcio's stubs in virtual time: each is made once, ends for good, and holds nothing afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from test_calls_held import exchanges, no_collection
from transport import Line, open_scripted
from viewreg import CallError, CancelledError, DeadlineExceededError, InternalError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from viewreg.testing import ScriptedPeer

KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def make(line: Line, kind: str, **options: Any) -> Any:
    """A call of this kind, with one request."""
    channel: Any = line.channel
    return getattr(channel, kind)("/a.B/c")(b"x" if kind.startswith("unary") else [b"x"], **options)


async def finish(call: Any) -> list[bytes]:
    """All answers of a call of whichever kind."""
    if not hasattr(call, "__aiter__"):
        return [await call]
    async with call:
        return [answer async for answer in call]


def begun(peer: ScriptedPeer) -> int:
    """How many calls the server has seen."""
    return sum(frame.kind == "HEADERS" for frame in peer.frames)


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_two_tasks_wait_for_one_call(kind: str, autojump_clock: MockClock) -> None:
    """A call that several tasks await is made once, and all get its answer."""
    async with open_scripted() as (line, peer):
        call, answers = make(line, kind), []

        async def wait() -> None:
            answers.append(await call)

        for _ in range(3):
            line.nursery.start_soon(wait)
        await peer.respond((await peer.expect_request()).stream_id, b"y")
        await wait_all_tasks_blocked()
        assert answers == [b"y"] * 3
        assert begun(peer) == 1


async def test_an_error_is_the_same_for_all(autojump_clock: MockClock) -> None:
    """Each task that awaits a call that fails gets an error of its own, which says the same."""
    async with open_scripted() as (line, peer):
        call = make(line, "unary_unary")
        errors: list[CallError] = []

        async def wait() -> None:
            try:
                await call
            except CallError as error:
                errors.append(error)

        for _ in range(2):
            line.nursery.start_soon(wait)
        await peer.refuse((await peer.expect_request()).stream_id, 7, "no")
        await wait_all_tasks_blocked()
        assert [str(error) for error in errors] == ["PERMISSION_DENIED: no [tcp://view.example:8080]"] * 2
        assert errors[0] is not errors[1]
        assert begun(peer) == 1


async def test_a_cause_is_kept(autojump_clock: MockClock) -> None:
    """What a deserializer raised is the cause of the error, however often the call is awaited."""

    def refuse(data: bytes) -> None:
        raise LookupError(data)

    async with open_scripted() as (line, peer):
        channel: Any = line.channel
        call = channel.unary_unary("/a.B/c", None, refuse)(b"")
        line.nursery.start_soon(peer.respond, 1, b"xyz")
        for _ in range(2):
            with pytest.raises(InternalError, match="no refuse") as caught:
                await call
            assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_a_cancelled_call_is_not_made_again(kind: str, autojump_clock: MockClock) -> None:
    """A call whose task was cancelled is over for others that wait, and for later ones: no second request is sent."""
    async with open_scripted() as (line, peer):
        call = make(line, kind)
        told: list[str] = []

        async def wait() -> None:
            with pytest.raises(CancelledError) as caught:
                await call
            told.append(caught.value.details)

        with trio.CancelScope() as scope:
            line.nursery.start_soon(cancel_later, scope, wait)
            await call
        assert scope.cancelled_caught
        await wait()
        assert call.done()
        await peer.expect("RST_STREAM", code=8)
        assert told == ["the call was left by the task that made it"] * 2
        assert begun(peer) == 1


async def cancel_later(scope: trio.CancelScope, wait: Callable[[], Awaitable[None]]) -> None:
    """Wait for the same call, until it is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        scope.cancel()


async def test_requests_are_taken_once(autojump_clock: MockClock) -> None:
    """When an iterable of requests fails, the call fails by that; awaited again, it is not made with what is left."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        raise LookupError("no more")

    async with open_scripted() as (line, peer):
        channel: Any = line.channel
        call = channel.stream_unary("/a.B/c")(requests())
        with pytest.raises(LookupError, match="no more"):
            await call
        with pytest.raises(CancelledError):
            await call
        await peer.expect("RST_STREAM")
        assert begun(peer) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_call_holds_nothing(kind: str, autojump_clock: MockClock) -> None:
    """Once its error is forgotten, so is the call, without a garbage collector."""
    async with open_scripted() as (line, peer):

        async def fail() -> None:
            with pytest.raises(PermissionDeniedError):
                await finish(make(line, kind))

        with no_collection():
            before = exchanges()
            for _ in range(3):
                line.nursery.start_soon(fail)
                await peer.refuse((await peer.expect_request()).stream_id, 7, "no")
                await wait_all_tasks_blocked()
            assert exchanges() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_out_of_time(kind: str, autojump_clock: MockClock) -> None:
    """A call that is out of time is over for the server, too; the time is the one that it was told."""
    async with open_scripted() as (line, peer):
        call = make(line, kind, timeout=2)
        with pytest.raises(DeadlineExceededError, match="has not ended within 2 s"):
            await finish(call)
        request = await peer.expect("HEADERS")
        assert request.header(b"grpc-timeout") == b"2000000u"
        await peer.expect("RST_STREAM", code=8)
        assert line.open_streams == 0


@pytest.mark.parametrize("step", ["write", "done_writing", "iterate"])
async def test_a_call_by_hand_out_of_time(step: str, autojump_clock: MockClock) -> None:
    """A call by hand is over as soon as one of its steps is out of time, and the server is told."""
    async with open_scripted() as (line, peer):
        channel: Any = line.channel
        talk = channel.stream_stream("/a.B/c")(timeout=2)
        await talk.write(b"x")
        if step != "iterate":
            await trio.sleep(2.5)
        with pytest.raises(DeadlineExceededError):
            await {"write": lambda: talk.write(b"y"), "iterate": talk.__anext__}.get(step, talk.done_writing)()
        await peer.expect("RST_STREAM", code=8)
        assert line.open_streams == 0


async def test_a_call_by_hand_that_was_left(autojump_clock: MockClock) -> None:
    """A call by hand that was left before it began does not begin any more."""
    async with open_scripted() as (line, peer):
        channel: Any = line.channel
        for _ in range(2):
            async with channel.stream_stream("/a.B/c")() as talk:
                pass
            for late in (lambda talk=talk: talk.write(b"x"), talk.done_writing, talk.__anext__):
                with pytest.raises(CancelledError, match="left before it began"):
                    await late()
            await talk.aclose()
        assert begun(peer) == line.open_streams == 0
