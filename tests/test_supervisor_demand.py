"""Dials and probes that calls ask for, and a client that was busy with something else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

from fleet import (
    Does,
    Server,
    all_healthy,
    call,
    events,
    open_fleet,
    unhealthy,
)
from viewreg import Backoff, Config, Endpoint, Event, UnavailableError
from viewreg.rpc import CarouselStub, LogStatusRequest

if TYPE_CHECKING:
    from trio.testing import MockClock


A, B, C = "a:1", "b:1", "c:1"


# -- on demand --


async def test_a_failed_call_asks_for_a_dial(autojump_clock: MockClock) -> None:
    """A call that finds the server away has it dialled at once, but at most every 0.5 s however many there are."""
    config = Config(backoff=Backoff(initial=100.0, maximum=100.0))
    async with open_fleet() as fleet:
        fleet[A].does = Does.REFUSE
        async with fleet.open(A, config=config) as registry:
            await trio.sleep(10)
            for _ in range(100):
                with pytest.raises(UnavailableError):
                    await call(registry, A)
                await trio.sleep(0.05)
    asked = [when for when in fleet[A].dials if when >= 10.0]
    assert asked[0] == 10.0
    assert len(asked) in (10, 11)
    assert all(gap >= 0.5 - 1e-9 for gap in fleet[A].gaps)


async def test_a_waiting_call_asks_for_dials(autojump_clock: MockClock) -> None:
    """A call that waits for a server keeps it dialled every 0.5 s, and is made when it is back."""
    config = Config(backoff=Backoff(initial=100.0, maximum=100.0))
    async with open_fleet() as fleet:
        fleet[A].does = Does.REFUSE
        async with fleet.open(A, config=config) as registry, trio.open_nursery() as nursery:
            await trio.sleep(10)
            channel = registry.snapshot.view(A).channel.waiting()
            stub = channel.stub(CarouselStub)
            nursery.start_soon(stub.logStatus, LogStatusRequest())
            await trio.sleep(5.2)
            assert 10 <= len(fleet[A].dials) <= 12
            fleet[A].does = Does.SERVE
            with trio.fail_after(0.6):
                await fleet[A].view.wait_requests(1)


async def test_a_call_that_fails_asks_for_a_probe(autojump_clock: MockClock) -> None:
    """A call that a READY server answers with UNAVAILABLE has it probed now, at most every 0.5 s."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        server = fleet[A]
        await registry.wait_until(all_healthy)
        await trio.sleep(2)
        server.view.status = 14
        for _ in range(20):
            with pytest.raises(UnavailableError):
                await call(registry, A)
            if server.probes > 1:
                break
            await trio.lowlevel.checkpoint()
        assert trio.current_time() == 2.0
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() == 2.0
        for _ in range(50):
            with pytest.raises(UnavailableError):
                await call(registry, A)
            await trio.sleep(0.05)
        assert 5 <= server.probes <= 7


async def test_a_busy_server_is_not_probed_more(autojump_clock: MockClock) -> None:
    """Calls that wait for a free stream of a READY server are no reason to probe it."""
    async with open_fleet() as fleet:
        fleet[A].view.max_concurrent_streams = 1
        async with fleet.open(A) as registry, trio.open_nursery() as nursery:
            await registry.wait_until(all_healthy)
            fleet[A].view.delay = 0.3
            for _ in range(100):
                nursery.start_soon(call, registry, A)
            await trio.sleep(25)
            assert fleet[A].probes <= 4
            assert registry.snapshot.view(A).healthy
            nursery.cancel_scope.cancel()


async def test_a_probe_without_a_stream_is_no_evidence(autojump_clock: MockClock) -> None:
    """A server whose streams are all taken by calls stays healthy, for its probe was never sent."""
    async with open_fleet() as fleet:
        fleet[A].view.max_concurrent_streams = 1
        async with fleet.open(A) as registry, trio.open_nursery() as nursery:
            await registry.wait_until(all_healthy)
            version = registry.version
            fleet[A].view.hang = True
            nursery.start_soon(call, registry, A)
            await trio.sleep(60)
            assert registry.version == version
            nursery.cancel_scope.cancel()


# -- a stalled client --


def stall_before_next_answer(server: Server, seconds: float, clock: MockClock, times: int = 1) -> None:
    """The next times that the server writes, its bytes lie there while this process does nothing for so long."""
    for stream in server.streams:
        original, left = stream.server.send_all, iter(range(times))

        async def send_all(data: bytes | bytearray | memoryview, original: Any = original, left: Any = left) -> None:
            await original(data)
            if next(left, None) is not None:
                clock.jump(seconds)

        stream.server.send_all = send_all  # type: ignore[method-assign]


@pytest.mark.parametrize("stall", [4.9, 5.05, 5.2, 6.0, 40.0])
async def test_stalled_while_a_probe_is_answered(stall: float, autojump_clock: MockClock) -> None:
    """A client that was busy while the answer to a probe lay there does not hold that against the server."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(keepalive_interval=math.inf)) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        stall_before_next_answer(fleet[A], stall, autojump_clock)
        await fleet[A].view.wait_requests(2)
        await trio.sleep(30)
        assert registry.version == version
        assert Event.PROBE_FAILED not in events(registry, A)


@pytest.mark.parametrize("times", [2, 5])
async def test_stalled_again_and_again(times: int, autojump_clock: MockClock) -> None:
    """Nor does one that is busy again each time that an answer is on its way."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(keepalive_interval=math.inf)) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        stall_before_next_answer(fleet[A], 13.0, autojump_clock, times)
        await trio.sleep(15 + 13 * times)
        assert registry.version == version
        assert fleet[A].probes > times
        assert Event.PROBE_FAILED not in events(registry, A)


@pytest.mark.parametrize("stall", [1.9, 2.05, 3.0, 60.0])
async def test_stalled_while_a_ping_is_answered(stall: float, autojump_clock: MockClock) -> None:
    """A client that was busy while the answer to its PING lay there does not take the server for frozen."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(probe_interval=1000.0)) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        stall_before_next_answer(fleet[A], stall, autojump_clock)
        await trio.sleep(100)
        assert registry.version == version


@pytest.mark.parametrize("stall", [4.9, 5.05, 6.0, 60.0])
async def test_stalled_while_connecting(stall: float, autojump_clock: MockClock) -> None:
    """A client that was busy while the server's SETTINGS lay there does not hold it against the server."""
    async with open_fleet() as fleet:
        dial = fleet.dial

        async def stalling_dial(endpoint: Endpoint) -> trio.abc.Stream:
            stream = await dial(endpoint)
            stall_before_next_answer(fleet[A], stall, autojump_clock)
            return stream

        fleet.dial = stalling_dial  # type: ignore[method-assign]
        async with fleet.open(A) as registry:
            await registry.wait_until(all_healthy)
            assert Event.CONNECT_FAILED not in events(registry, A)
            assert len(fleet[A].dials) == 1
