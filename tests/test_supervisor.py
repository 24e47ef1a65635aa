"""One endpoint's life in virtual time: when it is dialled and probed, and what becomes of its view."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

from fleet import (
    CLOSED,
    INSTANT,
    Does,
    all_healthy,
    call,
    healthy,
    open_fleet,
    reason,
    stats,
    unhealthy,
)
from viewreg import Config, Connectivity, Event, Feature, StatusCode, UnavailableError
from viewreg.rpc import StatsResult
from viewreg.testing.frames import goaway

if TYPE_CHECKING:
    from trio.testing import MockClock


A, B, C = "a:1", "b:1", "c:1"


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
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
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
            assert reason(registry, A) == "probe failed: no answer within 5 s"
            await trio.sleep(5.0)
            assert registry.history(A)[-1].times == 2


async def test_probes_tell_their_deadline(autojump_clock: MockClock) -> None:
    """A server is told with each probe how long its answer is waited for."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(probe_timeout=3.0)) as registry:
        await registry.wait_until(all_healthy)
        (request,) = fleet[A].view.requests
        timeout = request.header(b"grpc-timeout")
        assert timeout is not None
        assert timeout.endswith(b"u")
        assert 3e6 <= int(timeout[:-1]) <= 3.1e6


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (Does.BLACK_HOLE, "no answer to the connection within 5 s"),
        (Does.MUTE, "no SETTINGS from the server within 5 s"),
    ],
)
async def test_connect_timeout(does: Does, words: str, autojump_clock: MockClock) -> None:
    """A dial that does not end, and a listener that says nothing, have failed after 5 s, each with its own words."""
    async with open_fleet() as fleet:
        fleet[A].does = does
        async with fleet.open(A) as registry:
            await registry.wait_until(lambda at: at.view(A).connectivity is Connectivity.TRANSIENT_FAILURE)
            assert trio.current_time() == 5.0
            assert reason(registry, A) == f"connecting failed: {words}"
            fleet[A].does = Does.REFUSE
            await trio.sleep(CLOSED)
            assert not fleet.streams


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
        found = fleet[A].gaps
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
            assert reason(registry, A) == "connection lost: the server closed the connection"
            with pytest.raises(UnavailableError, match="the server closed the connection"):
                await call(registry, A)


async def test_a_connection_does_not_reset_the_backoff(autojump_clock: MockClock) -> None:
    """A server that accepts, fails its probe and closes is dialled ever more rarely; a good probe starts anew."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        server = fleet[A]
        server.view.status = 14
        for count in range(1, 13):
            await server.view.wait_requests(count)
            await trio.lowlevel.checkpoint()
            await registry.wait_until(lambda at: at.view(A).connectivity is Connectivity.READY)
            server.cut()
            await registry.wait_until(lambda at: at.view(A).connectivity is Connectivity.TRANSIENT_FAILURE)
        grown = server.gaps[-1]
        assert grown >= bounds(11)[0]
        server.view.status = 0
        await registry.wait_until(all_healthy)
        server.cut()
        await registry.wait_until(unhealthy(A))
        await registry.wait_until(all_healthy)
        assert server.gaps[-1] <= bounds(1)[1]


@pytest.mark.parametrize("phase", range(24))
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
    async with open_fleet() as fleet, fleet.open(A, rng=rng) as registry:
        for _ in range(5):
            await registry.wait_until(all_healthy)
            fleet[A].does = Does.REFUSE
            fleet[A].cut()
            await trio.sleep(rng.uniform(1, 30))
            fleet[A].does = Does.SERVE
            listening = trio.current_time()
            await registry.wait_until(all_healthy)
            assert trio.current_time() - listening <= 1.3


async def test_recovery_from_silence(autojump_clock: MockClock) -> None:
    """A server that was silent while it was away is healthy within the connect timeout and 1.3 s of listening again."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        for seconds in (7.0, 11.5, 33.3):
            await registry.wait_until(all_healthy)
            fleet[A].does = Does.BLACK_HOLE
            fleet[A].cut()
            await trio.sleep(seconds)
            fleet[A].does = Does.SERVE
            listening = trio.current_time()
            await registry.wait_until(all_healthy)
            assert trio.current_time() - listening <= 5.0 + 1.3


async def test_lost_connections_are_noticed_at_once(autojump_clock: MockClock) -> None:
    """A connection that ends or breaks is out of `healthy_views` within a millisecond, with the reason."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].cut()
        fleet[B].reset()
        started = trio.current_time()
        await registry.wait_until(lambda at: not at.healthy_views())
        assert trio.current_time() - started <= INSTANT
        assert reason(registry, A) == "connection lost: the server closed the connection"
        assert reason(registry, B) == "connection lost: Connection reset by peer (ECONNRESET)"


async def test_garbage_on_a_good_connection(autojump_clock: MockClock) -> None:
    """A server that begins to talk garbage loses its connection, with what was wrong in the history."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        await fleet[A].say(b"\xff" * 100)
        await registry.wait_until(unhealthy(A))
        assert "the server broke the protocol" in reason(registry, A)
        await registry.wait_until(all_healthy)
        assert len(fleet[B].dials) == 1


# -- rise and fall --


async def test_rise(autojump_clock: MockClock) -> None:
    """With rise 3 a view is healthy after three good probes, one second apart; counting them changes nothing."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(rise=3, probe_jitter=0.0)) as registry:
        await trio.sleep(0.5)
        version = registry.version
        await registry.wait_until(all_healthy)
        assert trio.current_time() == 2.0
        assert registry.version == version + 1


async def test_fall(autojump_clock: MockClock) -> None:
    """With fall 3 a healthy view is unhealthy after three failed probes, one second apart."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(fall=3, probe_jitter=0.0)) as registry:
        await registry.wait_until(all_healthy)
        fleet[A].view.status = 13
        await registry.wait_until(unhealthy(A))
        assert trio.current_time() == 12.0


# -- what servers answer --


async def test_a_failed_call_keeps_what_is_known(autojump_clock: MockClock) -> None:
    """A probe that fails makes the view unhealthy and keeps its features and partition."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        good = (await registry.wait_until(all_healthy)).view(A)
        fleet[A].view.status, fleet[A].view.details = 13, "ouch"
        bad = (await registry.wait_until(unhealthy(A))).view(A)
        assert (bad.features, bad.partition) == (good.features, good.partition)
        assert bad.features
        assert reason(registry, A) == "probe failed: INTERNAL: ouch"


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
        fleet[A].view.stats = StatsResult(viewType="megaview")
        bad = (await registry.wait_until(unhealthy(A))).view(A)
        assert (bad.features, bad.partition) == (Feature(0), None)
        assert reason(registry, A) == "probe not understood: unsupported view type: megaview"


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
        assert StatusCode.UNIMPLEMENTED.name in reason(registry, A)
