"""HealthProbe frame by frame, in virtual time: what it sends, when it takes what is said, and what it leaves behind."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import events, reason
from test_calls_held import exchanges, no_collection
from test_health_probe import BOTH, SEARCH, Mine
from transport import open_scripted
from viewreg import CallError, Event, HealthProbe, PermissionDeniedError, ProbeAnswerError
from viewreg._grpc_health.health_pb2 import HealthCheckResponse
from viewreg.testing import ScriptedPeer
from viewreg.testing.frames import data, headers, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from viewreg import Registry

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
MAX_CONCURRENT_STREAMS: Final = 3  # the setting's number
SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
NOT_SERVING = HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING).SerializeToString()


@asynccontextmanager
async def scripted(
    services: dict[Mine, str], values: dict[int, int] | None = None
) -> AsyncIterator[tuple[ScriptedPeer, Registry[Mine]]]:
    """A registry with one connection, whose other end the test spells out; the handshake is done."""
    peer, stream = ScriptedPeer.pair()
    streams = [stream]

    async def dial(_endpoint: viewreg.Endpoint) -> trio.abc.Stream:
        if not streams:
            await trio.sleep_forever()
        return streams.pop()

    async with viewreg.open_registry("static:///a:1", probe=HealthProbe(services), dial=dial) as registry:
        await peer.handshake(values)
        yield peer, registry


# -- Check --


@pytest.mark.parametrize("status", [7, 12], ids=["fails", "has no health service"])
@pytest.mark.parametrize("services", [SEARCH, BOTH], ids=["one", "two"])
async def test_a_failed_probe_holds_nothing(services: dict[Mine, str], status: int, autojump_clock: MockClock) -> None:
    """Once the error of a probe is forgotten, so are its calls, without a garbage collector."""
    async with open_scripted() as (line, peer):

        async def refuse() -> None:
            for _ in services:
                await peer.refuse((await peer.expect_request()).stream_id, status, "no")

        with no_collection():
            before = exchanges()
            line.nursery.start_soon(refuse)
            with pytest.raises(PermissionDeniedError if status == 7 else ProbeAnswerError) as caught:
                await HealthProbe(services)(line.channel)
            del caught
            await wait_all_tasks_blocked()
            assert exchanges() == before


async def test_one_error_decides(autojump_clock: MockClock) -> None:
    """Services are checked at the same time; the first error is raised as itself, and what else is open is left."""
    async with open_scripted() as (line, peer):
        errors: list[CallError] = []

        async def ask() -> None:
            try:
                await HealthProbe(BOTH)(line.channel)
            except CallError as error:
                errors.append(error)

        line.nursery.start_soon(ask)
        first, second = await peer.expect_request(), await peer.expect_request()
        assert (first.path, second.path) == (CHECK, CHECK)
        await peer.refuse(second.stream_id, 7, "not you")
        await peer.expect("RST_STREAM", stream_id=first.stream_id)
        await wait_all_tasks_blocked()
        assert [type(error) for error in errors] == [PermissionDeniedError]


# -- Watch --


@pytest.mark.parametrize("allowed", [1, 2])
async def test_few_streams(allowed: int, autojump_clock: MockClock) -> None:
    """Where Watches would leave no stream for a call, nothing is watched: Check is called, and calls find their way."""
    async with scripted(BOTH, {MAX_CONCURRENT_STREAMS: allowed}) as (peer, registry):
        for _ in BOTH:
            request = await peer.expect_request()
            assert request.path == CHECK
            await peer.respond(request.stream_id, SERVING)
        await wait_all_tasks_blocked()
        assert registry.healthy_views(Mine.SEARCH, Mine.ADD)


async def test_streams_enough(autojump_clock: MockClock) -> None:
    """One stream more than there are services is enough to watch them."""
    async with scripted(BOTH, {MAX_CONCURRENT_STREAMS: 3}) as (peer, _):
        assert [(await peer.expect_request()).path for _ in BOTH] == [WATCH, WATCH]


async def test_each_word_counts(autojump_clock: MockClock) -> None:
    """Words that arrive together are taken one by one: a service that was away for a moment shows in the history."""
    async with scripted(SEARCH) as (peer, registry):
        at = (await peer.expect_request()).stream_id
        await peer.send(headers(at), *(data(at, message(word)) for word in (SERVING, NOT_SERVING, SERVING)))
        await wait_all_tasks_blocked()
        assert events(registry, "a:1")[2:] == [Event.PROBE_OK, Event.PROBE_NOT_SERVING, Event.PROBE_OK]


async def test_a_word_that_is_none(autojump_clock: MockClock) -> None:
    """Bytes that are no message end the Watch that has said nothing else, and Check is asked what they mean."""
    async with scripted(SEARCH) as (peer, registry):
        watch = await peer.expect_request()
        await peer.send(headers(watch.stream_id), data(watch.stream_id, message(b"\xff\xff")))
        await peer.expect("RST_STREAM", stream_id=watch.stream_id)
        check = await peer.expect_request()
        assert check.path == CHECK
        await peer.respond(check.stream_id, NOT_SERVING)
        await wait_all_tasks_blocked()
        assert reason(registry, "a:1") == "not serving: search is NOT_SERVING"


async def test_a_watch_that_ends_leaves_all(autojump_clock: MockClock) -> None:
    """When one Watch is refused, the others are left, too, and it stays so."""
    async with open_scripted() as (line, peer):

        async def refuse_the_second() -> None:
            await peer.expect_request()
            await peer.refuse((await peer.expect_request()).stream_id, 12)

        line.nursery.start_soon(refuse_the_second)
        watch = HealthProbe(BOTH).watch(line.channel)
        for _ in range(2):
            assert [result async for result in watch] == []
            assert line.open_streams == 0


async def test_a_watch_that_was_left(autojump_clock: MockClock) -> None:
    """After `aclose` a watch is over: it begins no call any more."""
    async with open_scripted() as (line, _):
        watch = HealthProbe(BOTH).watch(line.channel)
        with trio.move_on_after(1):
            await anext(watch)
        assert line.open_streams == 2
        await watch.aclose()
        assert [result async for result in watch] == []
        assert line.open_streams == 0


async def test_a_cancelled_wait_loses_nothing(autojump_clock: MockClock) -> None:
    """Cancelling the wait for a result leaves the Watch open; the next wait gives what has arrived meanwhile."""
    async with open_scripted() as (line, peer):
        watch = HealthProbe(SEARCH).watch(line.channel)
        for _ in range(3):
            with trio.move_on_after(1) as scope:
                await anext(watch)
            assert scope.cancelled_caught
            assert line.open_streams == 1
        await peer.respond((await peer.expect_request()).stream_id, SERVING, end=False)
        await wait_all_tasks_blocked()
        assert (await anext(watch)).features == Mine.SEARCH
        await watch.aclose()


async def test_a_watch_that_is_dropped(autojump_clock: MockClock) -> None:
    """A watch that nobody left is cleaned up, with one warning for all its calls."""
    async with open_scripted() as (line, peer):

        async def careless() -> None:
            await anext(HealthProbe(BOTH).watch(line.channel))

        async def speak() -> None:
            for _ in BOTH:
                await peer.respond((await peer.expect_request()).stream_id, SERVING, end=False)

        line.nursery.start_soon(speak)
        with pytest.warns(ResourceWarning, match="dropped in the middle") as warned:
            await careless()
        assert len(warned) == 1
        await wait_all_tasks_blocked()
        assert line.open_streams == 0
