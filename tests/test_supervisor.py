"""One endpoint's life in virtual time: what any server, dial or probe may do, and when the registry notices."""

from __future__ import annotations

import enum
import errno
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

import viewreg
from fleet import Does, Fleet, Server, all_healthy, healthy, open_fleet, stats, unhealthy
from peers import goaway, ping, settings
from viewreg import Backoff, Config, Connectivity, Endpoint, Event, Feature, ProbeResult, StatusCode, UnavailableError
from viewreg.rpc import LogStatusRequest, StatsRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from viewreg import Channel, Registry

A, B, C = "a:1", "b:1", "c:1"
NOTICED = 0.001  # seconds in which a connection that ends is noticed
CLOSED = 0.11  # seconds in which a connection that is given up is closed
INSTANT = 0.001  # seconds; in virtual time only sleeping takes any


def reason(registry: Registry[Any], host_port: str = A) -> str:
    return str(registry.history(host_port)[-1])


def events(registry: Registry[Any], host_port: str = A) -> list[Event]:
    return [entry.what for entry in registry.history(host_port)]


async def status_call(registry: Registry[Feature], host_port: str = A) -> None:
    await registry.snapshot.view(host_port).carousel().logStatus(LogStatusRequest())


# -- times --


async def test_first_probe_at_once(autojump_clock: MockClock) -> None:
    """A view is healthy in the instant in which it is connected, and in which it is connected again."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        started = trio.current_time()
        await registry.wait_until(all_healthy)
        assert trio.current_time() == started
        fleet[A].cut()
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        assert trio.current_time() == fleet[A].dials[1]


async def test_probe_interval(autojump_clock: MockClock) -> None:
    """Probes start every 10 s, start to start, each interval with its own jitter of at most a tenth."""
    async with open_fleet() as fleet, fleet.open(A):
        server, starts = fleet[A], []
        server.view.delay = 3.0  # the interval counts from the start, however long a probe takes
        for count in range(1, 40):
            await server.view.wait_requests(count)
            starts.append(trio.current_time())
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    assert all(9.0 <= gap <= 11.0 for gap in gaps)
    assert min(gaps) < 9.5
    assert max(gaps) > 10.5


async def test_probes_never_overlap(autojump_clock: MockClock) -> None:
    """A probe that takes longer than the interval delays the next one."""
    config = Config(probe_interval=1.0, probe_timeout=5.0)
    most = 0
    async with open_fleet() as fleet, fleet.open(A, config=config) as registry:
        fleet[A].view.delay = 2.5
        await registry.wait_until(all_healthy)
        for _ in range(100):
            await trio.sleep(0.3)
            most = max(most, fleet[A].view.open_streams)
    assert most == 1


async def test_failed_probe_is_repeated(autojump_clock: MockClock) -> None:
    """After a failed probe the next one starts 1 s after its start, and the view is healthy again when it is good."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.status = 13
        await registry.wait_until(unhealthy(A))
        failed = trio.current_time()
        fleet[A].view.status = 0
        await registry.wait_until(all_healthy)
        assert trio.current_time() == pytest.approx(failed + 1.0)


async def test_probe_timeout(autojump_clock: MockClock) -> None:
    """A probe without an answer has failed after 5 s, and is asked again."""
    async with open_fleet() as fleet:
        fleet[A].view.hang = True
        async with fleet.open(A) as registry:
            await trio.sleep(5.1)
            assert registry.history(A)[-1].what is Event.PROBE_FAILED
            assert registry.history(A)[-1].when == 5.0
            assert reason(registry) == "probe failed: no answer within 5 s"
            await trio.sleep(5.0)
            assert registry.history(A)[-1].times == 2


@pytest.mark.parametrize(
    ("does", "words"),
    [(Does.BLACK_HOLE, "no answer to the connection within 5 s"), (Does.MUTE, "no SETTINGS from the server within 5 s")],
)
async def test_connect_timeout(does: Does, words: str, autojump_clock: MockClock) -> None:
    """A dial that does not end, and a listener that says nothing, have failed after 5 s, each with its own words."""
    async with open_fleet() as fleet:
        fleet[A].does = does
        async with fleet.open(A) as registry:
            await registry.wait_until(lambda at: at.view(A).connectivity is Connectivity.TRANSIENT_FAILURE)
            assert trio.current_time() == 5.0
            assert reason(registry) == f"connecting failed: {words}"
            fleet[A].does = Does.REFUSE
            await trio.sleep(CLOSED)
            assert not fleet.streams


def gaps(server: Server) -> list[float]:
    return [later - earlier for earlier, later in zip(server.dials, server.dials[1:], strict=False)]


def bounds(failures: int) -> tuple[float, float]:
    """The shortest and the longest backoff after so many failures."""
    grown = min(0.1 * 1.6 ** (failures - 1), 1.0 / 1.2)
    return grown * 0.8 - 1e-9, grown * 1.2 + 1e-9


@pytest.mark.parametrize("does", [Does.REFUSE, Does.CLOSE, Does.SETTLE_AND_CLOSE, Does.GARBAGE, Does.HTTP1])
async def test_backoff(does: Does, autojump_clock: MockClock) -> None:
    """Between dials of a server that is no good lie 0.1 s x 1.6 each time, at most 1 s, all of them jittered."""
    async with open_fleet() as fleet:
        fleet[A].does = does
        async with fleet.open(A):
            await trio.sleep(60)
        found = gaps(fleet[A])
        for failures, gap in enumerate(found, 1):
            shortest, longest = bounds(failures)
            assert shortest <= gap <= longest
        assert len(set(found)) == len(found)
        assert not fleet.streams


@pytest.mark.parametrize("does", [Does.CLOSE, Does.SETTLE_AND_CLOSE, Does.GARBAGE, Does.HTTP1, Does.REFUSE])
async def test_nonsense_has_a_reason(does: Does, autojump_clock: MockClock) -> None:
    """Whatever a server says instead of HTTP/2, its view is unhealthy with a reason, and its neighbour is not."""
    async with open_fleet() as fleet:
        fleet[A].does = does
        async with fleet.open(A, B) as registry:
            await registry.wait_until(healthy(B))
            await trio.sleep(30)
            view = registry.snapshot.view(A)
            assert view.connectivity is Connectivity.TRANSIENT_FAILURE
            assert registry.history(A)[-1].why
            assert registry.snapshot.view(B).healthy


async def test_settles_and_closes(autojump_clock: MockClock) -> None:
    """A server that sends SETTINGS and closes in one step is unhealthy because it closed, in history and in calls."""
    async with open_fleet() as fleet:
        fleet[A].does = Does.SETTLE_AND_CLOSE
        async with fleet.open(A) as registry:
            await trio.sleep(0.05)
            assert reason(registry) == "connection lost: the server closed the connection"
            with pytest.raises(UnavailableError, match="the server closed the connection"):
                await status_call(registry)


async def test_a_connection_does_not_reset_the_backoff(autojump_clock: MockClock) -> None:
    """A server that accepts, fails its probe and closes is dialled ever more rarely; a good probe starts anew."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        server = fleet[A]
        server.view.status = 14
        for count in range(1, 13):
            await server.view.wait_requests(count)
            await trio.sleep(0)
            await registry.wait_until(lambda at: at.view(A).connectivity is Connectivity.READY)
            server.cut()
            await registry.wait_until(lambda at: at.view(A).connectivity is Connectivity.TRANSIENT_FAILURE)
        grown = gaps(server)[-1]
        assert grown >= bounds(11)[0]
        server.view.status = 0
        await registry.wait_until(all_healthy)
        server.cut()
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        assert gaps(server)[-1] <= bounds(1)[1]


@pytest.mark.parametrize("phase", range(0, 24))
async def test_frozen_server(phase: int, autojump_clock: MockClock) -> None:
    """A server that freezes is unhealthy within 10.5 s, wherever in the cycle of probes and PINGs it does."""
    async with open_fleet() as fleet, fleet.open(A, rng=Random(phase)) as registry:
        await registry.wait_until(all_healthy)
        await trio.sleep(20 + phase * 0.5)
        assert registry.snapshot.view(A).healthy
        fleet[A].freeze()
        frozen = trio.current_time()
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() - frozen <= 10.5
        fleet[A].thaw()
        await registry.wait_until(all_healthy)


async def test_pings_between_answers(autojump_clock: MockClock) -> None:
    """An idle server gets no more than two PINGs between two of its answers, so that it has nothing to complain of."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(probe_interval=120.0, probe_jitter=0.0)):
        server = fleet[A]
        server.records = True
        await trio.sleep(119)
        assert server.pings == 2
        await trio.sleep(120)
        assert server.pings == 4
        assert len(server.dials) == 1


async def test_pings_are_answered(autojump_clock: MockClock) -> None:
    """A server that answers PINGs and whose probe takes its time is never taken for frozen."""
    config = Config(probe_interval=30.0, probe_timeout=30.0)
    async with open_fleet() as fleet, fleet.open(A, config=config) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.delay = 25.0
        version = registry.version
        await trio.sleep(120)
        assert registry.version == version


async def test_too_many_pings(autojump_clock: MockClock) -> None:
    """A server that complains of PINGs is asked half as often from then on."""
    config = Config(probe_interval=1000.0)
    async with open_fleet() as fleet, fleet.open(A, config=config) as registry:
        server = fleet[A]
        await registry.wait_until(all_healthy)
        await server.say(goaway(0, 11, b"too_many_pings"))
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        server.records = True
        await trio.sleep(15.9)
        assert server.pings == 0
        await trio.sleep(0.2)
        assert server.pings == 1


@pytest.mark.parametrize("seed", range(8))
async def test_recovery(seed: int, autojump_clock: MockClock) -> None:
    """A server that refused while it was away is healthy within 1.3 s of listening again, whenever that is."""
    rng = Random(seed)
    async with open_fleet() as fleet:
        async with fleet.open(A, rng=rng) as registry:
            for _ in range(5):
                await registry.wait_until(all_healthy)
                fleet[A].does = Does.REFUSE
                fleet[A].cut()
                await trio.sleep(rng.uniform(1, 30))
                fleet[A].does = Does.SERVE
                listening = trio.current_time()
                await registry.wait_until(all_healthy)
                assert trio.current_time() - listening <= 1.3


async def test_lost_connections_are_noticed_at_once(autojump_clock: MockClock) -> None:
    """A connection that ends or breaks is out of `healthy_views` within a millisecond, with the reason in the history."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].cut()
        fleet[B].reset()
        started = trio.current_time()
        await registry.wait_until(lambda at: not at.healthy_views())
        assert trio.current_time() - started <= NOTICED
        assert reason(registry, A) == "connection lost: the server closed the connection"
        assert reason(registry, B) == "connection lost: Connection reset by peer (ECONNRESET)"


async def test_garbage_on_a_good_connection(autojump_clock: MockClock) -> None:
    """A server that begins to talk garbage loses its connection, with what was wrong in the history."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        await fleet[A].say(b"\xff" * 100)
        await registry.wait_until(unhealthy(A))
        assert "the server broke the protocol" in reason(registry)
        await registry.wait_until(all_healthy)
        assert len(fleet[B].dials) == 1


# -- on demand --


async def test_a_failed_call_asks_for_a_dial(autojump_clock: MockClock) -> None:
    """A call that finds the server away has it dialled at once, but at most every 0.5 s however many calls there are."""
    config = Config(backoff=Backoff(initial=100.0, maximum=100.0))
    async with open_fleet() as fleet:
        fleet[A].does = Does.REFUSE
        async with fleet.open(A, config=config) as registry:
            await trio.sleep(10)
            for _ in range(100):
                with pytest.raises(UnavailableError):
                    await status_call(registry)
                await trio.sleep(0.05)
    asked = [when for when in fleet[A].dials if when >= 10.0]
    assert asked[0] == 10.0
    assert len(asked) in (10, 11)
    assert all(gap >= 0.5 - 1e-9 for gap in gaps(fleet[A]))


async def test_a_waiting_call_asks_for_dials(autojump_clock: MockClock) -> None:
    """A call that waits for a server keeps it dialled every 0.5 s, and is made when it is back."""
    config = Config(backoff=Backoff(initial=100.0, maximum=100.0))
    async with open_fleet() as fleet:
        fleet[A].does = Does.REFUSE
        async with fleet.open(A, config=config) as registry, trio.open_nursery() as nursery:
            await trio.sleep(10)
            channel = registry.snapshot.view(A).channel.waiting()
            stub = channel.stub(viewreg.rpc.CarouselStub)
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
                await status_call(registry)
            if server.probes > 1:
                break
            await trio.sleep(0)
        assert trio.current_time() == 2.0
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() == 2.0
        for _ in range(50):
            with pytest.raises(UnavailableError):
                await status_call(registry)
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
                nursery.start_soon(status_call, registry)
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
            nursery.start_soon(status_call, registry)
            await trio.sleep(60)
            assert registry.version == version
            nursery.cancel_scope.cancel()


# -- a stalled client --


class Stalling(trio.abc.Stream):
    """The client's end of a stream; what the server says next comes while this process does nothing for a while."""

    def __init__(self, stream: trio.abc.Stream, stalls: dict[str, float], clock: MockClock) -> None:
        self._stream = stream
        self._stalls = stalls
        self._clock = clock

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


def stall_before_next_answer(server: Server, seconds: float, clock: MockClock) -> None:
    """The next time that the server writes, its bytes lie there while this process does nothing for so long."""
    for stream in server.streams:
        original = stream.server.send_all

        async def send_all(data: bytes | bytearray | memoryview, original: Any = original, end: Any = stream.server) -> None:
            end.send_all = original
            await original(data)
            clock.jump(seconds)

        stream.server.send_all = send_all  # type: ignore[method-assign]


@pytest.mark.parametrize("stall", [4.9, 5.05, 5.2, 6.0, 40.0])
async def test_stalled_while_a_probe_is_answered(stall: float, autojump_clock: MockClock) -> None:
    """A client that was busy while the answer to a probe lay there does not hold its own slowness against the server."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        stall_before_next_answer(fleet[A], stall, autojump_clock)
        await fleet[A].view.wait_requests(2)
        await trio.sleep(30)
        assert registry.version == version
        assert Event.PROBE_FAILED not in events(registry)


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
            assert Event.CONNECT_FAILED not in events(registry)
            assert len(fleet[A].dials) == 1


# -- leaving gracefully --


async def test_graceful_goaway(autojump_clock: MockClock) -> None:
    """A server that leaves gracefully stays healthy; calls in flight end on the old connection, new ones wait for the new."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        server = fleet[A]
        await registry.wait_until(all_healthy)
        version = registry.version
        server.view.delay = 2.0
        nursery.start_soon(status_call, registry)
        await server.view.wait_requests(2)
        old = next(iter(server.streams))
        server.view.go_away()
        await trio.sleep(0.5)
        assert server.view.connections_made == 2
        assert server.view.connections == 2
        with trio.fail_after(2.5):
            await status_call(registry)
        assert old not in server.streams
        assert len(server.streams) == 1
        assert registry.version == version
        assert Event.REPLACING in events(registry)


async def test_two_goaways(autojump_clock: MockClock) -> None:
    """A graceful end in two steps, as servers do it, is one replacement."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        await fleet[A].say(goaway(), ping(), goaway(1))
        await trio.sleep(5)
        assert registry.version == version
        assert len(fleet[A].dials) == 2
        assert len(fleet[A].streams) == 1


async def test_calls_wait_for_the_replacement(autojump_clock: MockClock) -> None:
    """While the replacement is dialled, the view is healthy and calls wait; they are made on the new connection."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        server = fleet[A]
        await registry.wait_until(all_healthy)
        server.does = Does.MUTE
        server.view.go_away()
        await trio.sleep(1)
        nursery.start_soon(status_call, registry)
        await trio.sleep(1)
        assert registry.snapshot.view(A).healthy
        (silent,) = server.streams
        fleet.nursery.start_soon(server.serve, silent.server)
        with trio.fail_after(INSTANT):
            await server.view.wait_requests(3)
        assert registry.snapshot.view(A).healthy


@pytest.mark.parametrize(
    ("does", "after", "words"), [(Does.REFUSE, 0.0, "ECONNREFUSED"), (Does.MUTE, 5.0, "no SETTINGS"), (Does.CLOSE, 0.0, "closed")]
)
async def test_replacement_fails(does: Does, after: float, words: str, autojump_clock: MockClock) -> None:
    """If the first dial of the replacement fails, the view is unhealthy with the reason, and waiting calls fail with it."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        await registry.wait_until(all_healthy)
        fleet[A].does = does
        fleet[A].view.go_away()
        left = trio.current_time()

        async def waits() -> None:
            with pytest.raises(UnavailableError, match=words):
                await status_call(registry)

        await registry.wait_until(lambda at: Event.REPLACING in events(registry)) if after == 0 else await trio.sleep(0.1)
        if after:
            nursery.start_soon(waits)
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() - left == pytest.approx(after)
        assert words in reason(registry)


async def test_replacement_fails_its_probe(autojump_clock: MockClock) -> None:
    """If the replacement connects and fails its first probe, the view is unhealthy."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.status = 14
        fleet[A].view.go_away()
        await registry.wait_until(unhealthy(A))
        assert reason(registry).startswith("probe failed: UNAVAILABLE")


async def test_goaway_with_an_error(autojump_clock: MockClock) -> None:
    """A server that leaves with an error is lost at once, with its own words in the history."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        await fleet[A].say(goaway(0, 2, b"out of luck"))
        await registry.wait_until(unhealthy(A))
        assert reason(registry) == "connection lost: the server sent GOAWAY INTERNAL_ERROR: out of luck"


async def test_goaway_at_once(autojump_clock: MockClock) -> None:
    """A server that takes every connection and leaves it gracefully at once is dialled no faster than a dead one."""
    async with open_fleet() as fleet:
        server = fleet[A]

        async def leave(_endpoint: Endpoint) -> trio.abc.Stream:
            if len(server.dials) > 100:
                await trio.sleep_forever()  # so that a tight loop ends
            server.does = Does.MUTE
            stream = await server.dial()
            (end,) = [end for end in server.streams if end is stream]
            await end.server.send_all(settings())

            async def go() -> None:
                await trio.testing.wait_all_tasks_blocked()
                await end.server.send_all(goaway())

            fleet.nursery.start_soon(go)
            return stream

        fleet.dial = leave  # type: ignore[method-assign]
        async with fleet.open(A):
            await trio.sleep(10)
        assert 5 <= len(server.dials) <= 25


# -- rise and fall --


async def test_rise(autojump_clock: MockClock) -> None:
    """With rise 3 a view is healthy after three good probes on its connection."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(rise=3, probe_jitter=0.0)) as registry:
        await registry.wait_until(all_healthy)
        assert trio.current_time() == 20.0


async def test_fall(autojump_clock: MockClock) -> None:
    """With fall 3 a healthy view is unhealthy after three failed probes, one second apart."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(fall=3, probe_jitter=0.0)) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.status = 13
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() == 12.0


# -- removal --


async def test_removed_lets_calls_end(autojump_clock: MockClock) -> None:
    """A removed endpoint is out at once; its calls in flight end well, and the connection with the last of them."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry, trio.open_nursery() as nursery:
        await registry.wait_until(all_healthy)
        view = registry.snapshot.view(A)
        fleet[A].view.delay = 4.0
        nursery.start_soon(status_call, registry)
        await fleet[A].view.wait_requests(2)
        fleet.locator.set([B])
        await registry.wait_until(lambda at: len(at.views) == 1)
        assert trio.current_time() == 0.0
        with pytest.raises(UnavailableError, match="no longer discovered"):
            await view.carousel().logStatus(LogStatusRequest())
        await trio.sleep(3.9)
        assert fleet[A].streams
        await trio.sleep(0.2)
        assert not fleet[A].streams


@pytest.mark.parametrize("drain", [0.0, 3.0, 10.0])
async def test_removed_cuts_calls_in_the_end(drain: float, autojump_clock: MockClock) -> None:
    """Calls in flight on a removed endpoint are cut after `Config.drain_timeout`."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(drain_timeout=drain)) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.hang = True
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(UnavailableError):
                    await status_call(registry)

            nursery.start_soon(call)
            await fleet[A].view.wait_requests(2)
            fleet.locator.set([])
        assert trio.current_time() == pytest.approx(drain, abs=0.2)
        await trio.sleep(0.2)
        assert not fleet.streams


@pytest.mark.parametrize("says", [settings(), goaway(), b""], ids=["SETTINGS", "GOAWAY", "EOF"])
async def test_removed_stays_removed(says: bytes, autojump_clock: MockClock) -> None:
    """On a removed endpoint every call fails at once, whatever its connection, which still has a call, does meanwhile."""
    async with open_fleet() as fleet, fleet.open(A) as registry, trio.open_nursery() as nursery:
        await registry.wait_until(all_healthy)
        channel = registry.snapshot.view(A).channel
        fleet[A].view.hang = True

        async def hangs() -> None:
            with pytest.raises(UnavailableError):
                await status_call(registry)

        nursery.start_soon(hangs)
        await fleet[A].view.wait_requests(2)
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        if says:
            await fleet[A].say(says)
        else:
            fleet[A].cut()
        await trio.sleep(0.1)
        for handle in (channel, channel.waiting()):
            with trio.fail_after(INSTANT), pytest.raises(UnavailableError, match="no longer discovered"):
                await handle.stub(viewreg.rpc.DiagnosticsStub).stats(StatsRequest())
        with pytest.raises(UnavailableError):
            await channel.wait_ready()


async def test_removed_while_connecting(autojump_clock: MockClock) -> None:
    """An endpoint that is removed while its connection is being opened leaves no stream."""
    async with open_fleet() as fleet:
        fleet[A].does = Does.MUTE
        async with fleet.open(A) as registry:
            channel = registry.snapshot.view(A).channel
            await trio.sleep(1)
            streams = fleet.streams.copy()
            assert streams
            fleet.locator.set([])
            await registry.wait_until(lambda at: not at.views)
            for stream in streams:
                await stream.server.send_all(settings())
            await trio.sleep(0.2)
            with trio.fail_after(INSTANT), pytest.raises(UnavailableError):
                await channel.stub(viewreg.rpc.DiagnosticsStub).stats(StatsRequest())
            assert not fleet.streams


async def test_added_again_while_a_probe_is_in_flight(autojump_clock: MockClock) -> None:
    """The answer to a probe of a removed endpoint changes nothing for the endpoint that has its place now."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        server = fleet[A]
        server.view.delay = 1.0
        await server.view.wait_requests(1)
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        server.does = Does.REFUSE
        fleet.locator.set([A])
        await registry.wait_until(lambda at: bool(at.views))
        await trio.sleep(30)
        assert Event.PROBE_OK not in events(registry)
        assert not registry.healthy_views()
        assert registry.snapshot.view(A).features == Feature(0)


# -- what dial may do --


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


ERRORS: list[Exception] = [
    OSError(errno.ENETUNREACH, "x"),
    OSError("no", "way"),
    OSError(2**70, "far out"),
    OSError([], "nowhere"),
    OSError(),
    SilentError(),
    ExceptionGroup("two", [ValueError("one"), ConnectionRefusedError(errno.ECONNREFUSED, "two")]),
    trio.TooSlowError(),
    StopIteration("odd"),
    KeyError("odd"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_dial_raises(error: Exception, autojump_clock: MockClock) -> None:
    """A dial may raise any exception: its view is unhealthy with a reason, and nothing else happens."""
    async with open_fleet() as fleet:
        fleet[A].does, fleet[A].error = Does.RAISE, error
        async with fleet.open(A, B) as registry:
            await registry.wait_until(healthy(B))
            await trio.sleep(5)
            assert registry.history(A)[-1].what is Event.CONNECT_FAILED
            assert registry.history(A)[-1].why
            fleet[A].does = Does.SERVE
            await registry.wait_until(all_healthy)


@pytest.mark.parametrize("returns", [None, 5, "stream"])
async def test_whatever_dial_returns(returns: object, autojump_clock: MockClock) -> None:
    """A dial may return anything: what is no stream is a failed dial that says so."""

    async def dial(_endpoint: Endpoint) -> Any:
        return returns

    async with viewreg.open_registry("static:///a:1", dial=dial) as registry:
        await trio.sleep(5)
        assert reason(registry).startswith(f"connecting failed: dial returned {type(returns).__name__}: expected a trio.abc.Stream")


async def fails_when_cancelled() -> None:
    """What a user's nursery does when one of its tasks fails while it cleans up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("failed to clean up")  # noqa: B012 (that is the fault)


async def in_two_tasks() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails_when_cancelled)
        await trio.sleep_forever()


async def test_dial_fails_while_it_is_cancelled(autojump_clock: MockClock) -> None:
    """A dial whose own nursery fails while it is cancelled is a failed dial like any other."""
    async with open_fleet() as fleet:

        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            if endpoint.host == "a":
                await in_two_tasks()
            return await fleet[endpoint.host_port].dial()

        fleet.locator.set([A, B])
        async with viewreg.open_registry(fleet.locator, dial=dial) as registry:
            await registry.wait_until(healthy(B))
            await trio.sleep(6)  # the first has timed out
            fleet.locator.set([B])  # the second is cancelled by the removal
            await trio.sleep(1)
            fleet.locator.set([A, B])
            await trio.sleep(1)
            assert registry.snapshot.view(B).healthy


# -- what a probe may do --


class Colour(enum.Flag):
    RED = enum.auto()
    BLUE = enum.auto()


class Ask:
    """A probe made of a function."""

    no_features = Feature(0)

    def __init__(self, ask: Callable[[Channel], Awaitable[Any]]) -> None:
        self.ask = ask

    async def __call__(self, channel: Channel) -> Any:
        return await self.ask(channel)


def open_with(fleet: Fleet, probe: Any, *host_ports: str, config: Config | None = None) -> Any:
    fleet.locator.set(host_ports)
    return viewreg.open_registry(fleet.locator, config or Config(), probe=probe, dial=fleet.dial, rng=Random(1))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_a_probe_raises(error: Exception, autojump_clock: MockClock) -> None:
    """A probe may raise any exception: its view is unhealthy with a reason, and its neighbour is not."""

    async def ask(channel: Channel) -> ProbeResult[Feature]:
        await trio.lowlevel.checkpoint()
        if channel.endpoint.host == "a":
            raise error
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, B) as registry:
        await registry.wait_until(healthy(B))
        await trio.sleep(5)
        assert registry.history(A)[-1].what is Event.PROBE_FAILED
        assert registry.history(A)[-1].why
        assert registry.snapshot.view(B).healthy


async def test_a_probe_whose_nursery_fails(autojump_clock: MockClock) -> None:
    """A probe whose own nursery fails says so by its innermost error; also while the endpoint is being removed."""

    async def ask(channel: Channel) -> ProbeResult[Feature]:
        if channel.endpoint.host == "a":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("inner")
        if channel.endpoint.host == "c":
            await in_two_tasks()
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, B, C) as registry:
        await registry.wait_until(healthy(B))
        await trio.sleep(3)
        assert "ValueError: inner" in reason(registry)
        fleet[C].cut()
        await trio.sleep(3)
        fleet.locator.set([B])
        await trio.sleep(1)
        assert registry.snapshot.view(B).healthy


async def test_a_probe_that_hangs(autojump_clock: MockClock) -> None:
    """A probe that never ends is cancelled after `Config.probe_timeout` and has failed."""

    async def ask(channel: Channel) -> ProbeResult[Feature]:
        if channel.endpoint.host == "a":
            await trio.sleep_forever()
        return ProbeResult(Feature.DIAGNOSTICS)

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A, B, config=Config(probe_timeout=2.0)) as registry:
        await registry.wait_until(healthy(B))
        await trio.sleep(2.5)
        assert reason(registry) == "probe failed: no answer within 2 s"


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (None, "NoneType: expected a ProbeResult"),
        (Feature.DIAGNOSTICS, "Feature: expected a ProbeResult"),
        (ProbeResult(Colour.RED), "Colour: expected Feature"),
    ],
)
async def test_whatever_a_probe_returns(returns: object, words: str, autojump_clock: MockClock) -> None:
    """A probe may return anything: what is no result, or has features of another kind, is a failed probe that says so."""

    async def ask(_channel: Channel) -> Any:
        return returns

    async with open_fleet() as fleet, open_with(fleet, Ask(ask), A) as registry:
        await trio.sleep(0.5)
        assert words in reason(registry)
        assert not registry.healthy_views()


async def test_a_probe_with_features_of_its_own(autojump_clock: MockClock) -> None:
    """A probe may bring any flag: views, selections and summary speak it."""

    class ColourProbe:
        no_features = Colour(0)

        async def __call__(self, channel: Channel) -> ProbeResult[Colour]:
            return ProbeResult(Colour.RED if channel.endpoint.host == "a" else Colour.RED | Colour.BLUE)

    async with open_fleet() as fleet, open_with(fleet, ColourProbe(), A, B) as registry:
        await registry.wait_until(all_healthy)
        assert [view.endpoint.host for view in registry.healthy_views(Colour.BLUE)] == ["b"]
        assert registry.summary()["red_views"] == 2
        assert registry.summary()["blue_views"] == 1


class Watches(Ask):
    """A probe that watches, and then is asked."""

    def __init__(self, watch: Callable[[Channel], Any]) -> None:
        super().__init__(self.answer)
        self.watch = watch
        self.asked = 0

    async def answer(self, _channel: Channel) -> ProbeResult[Feature]:
        self.asked += 1
        return ProbeResult(Feature.DIAGNOSTICS)


async def test_watch(autojump_clock: MockClock) -> None:
    """A probe's `watch` is read as it speaks, without timeout; when it ends, asking takes over."""
    closed = trio.Event()

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        try:
            yield ProbeResult(Feature(0))
            await trio.sleep(100)
            yield ProbeResult(Feature(0), serving=False, reason="full")
            await trio.sleep(100)
        finally:
            closed.set()

    async with open_fleet() as fleet:
        probe = Watches(watch)
        async with open_with(fleet, probe, A) as registry:
            await registry.wait_until(all_healthy)
            assert trio.current_time() == 0.0
            await registry.wait_until(unhealthy(A))
            assert trio.current_time() == 100.0
            assert reason(registry) == "not serving: full"
            assert probe.asked == 0
            await registry.wait_until(all_healthy)
            assert trio.current_time() == 200.0
            assert closed.is_set()
            assert probe.asked == 1


async def test_watch_ends_with_its_connection(autojump_clock: MockClock) -> None:
    """A watch is ended and cleaned up when its connection is lost, and begun anew on the next one."""
    begun = ended = 0

    async def watch(_channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        nonlocal begun, ended
        begun += 1
        try:
            yield ProbeResult(Feature(0))
            await trio.sleep_forever()
        finally:
            ended += 1

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].cut()
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        assert (begun, ended) == (2, 1)


@pytest.mark.parametrize("returns", [None, 5, "raise", "wrong type"])
async def test_whatever_watch_does(returns: object, autojump_clock: MockClock) -> None:
    """A watch that raises, or is none, or yields nonsense costs nothing but itself: asking takes over."""

    async def nonsense() -> AsyncIterator[object]:
        yield 5

    def watch(_channel: Channel) -> Any:
        if returns == "raise":
            raise ValueError("watch what?")
        return nonsense() if returns == "wrong type" else returns

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A) as registry:
        await registry.wait_until(all_healthy)
        assert Event.PROBE_FAILED in events(registry)


async def test_watch_that_never_waits(autojump_clock: MockClock) -> None:
    """A watch that speaks without ever waiting does not stop the world."""
    said = 0

    async def watch(channel: Channel) -> AsyncIterator[ProbeResult[Feature]]:
        nonlocal said
        while channel.endpoint.host == "a" and said < 2_000:
            said += 1
            yield ProbeResult(Feature(0), serving=said % 2 == 0)
        yield ProbeResult(Feature(0))

    async with open_fleet() as fleet, open_with(fleet, Watches(watch), A, B) as registry:
        await registry.wait_until(healthy(B))
        assert said < 2_000


# -- what servers answer --


async def test_a_failed_call_keeps_what_is_known(autojump_clock: MockClock) -> None:
    """A probe that fails makes the view unhealthy and keeps its features and partition."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        good = (await registry.wait_until(all_healthy)).view(A)
        fleet[A].view.status, fleet[A].view.details = 13, "ouch"
        bad = (await registry.wait_until(unhealthy(A))).view(A)
        assert (bad.features, bad.partition) == (good.features, good.partition)
        assert bad.features
        assert reason(registry) == "probe failed: INTERNAL: ouch"


async def test_a_lost_connection_keeps_what_is_known(autojump_clock: MockClock) -> None:
    """A connection that is lost leaves features and partition as the last answer said."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        good = (await registry.wait_until(all_healthy)).view(A)
        fleet[A].does = Does.REFUSE
        fleet[A].cut()
        await trio.sleep(60)
        bad = registry.snapshot.view(A)
        assert (bad.features, bad.partition) == (good.features, good.partition)


async def test_an_answer_that_makes_no_sense_takes_it_away(autojump_clock: MockClock) -> None:
    """An answer that cannot be understood clears features and partition, and says what was wrong."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.stats = viewreg.rpc.StatsResult(viewType="megaview")
        bad = (await registry.wait_until(unhealthy(A))).view(A)
        assert (bad.features, bad.partition) == (Feature(0), None)
        assert reason(registry) == "probe not understood: unsupported view type: megaview"


async def test_another_answer_replaces(autojump_clock: MockClock) -> None:
    """A server that serves something else from now on stays healthy, and its view says what."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.stats = stats("POS", 5, 10)
        now = (await registry.wait_until(lambda at: Feature.HASH_PO in at.view(A).features)).view(A)
        assert now.healthy
        assert Feature.HASH_SP not in now.features
        assert now.partition is not None
        assert (now.partition.hash_range.start, now.partition.hash_range.end) == (5, 10)


async def test_status_codes_are_named(autojump_clock: MockClock) -> None:
    """The status of a failed probe stands in the history by its name."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.stats = None
        await registry.wait_until(unhealthy(A))
        assert StatusCode.UNIMPLEMENTED.name in reason(registry)
