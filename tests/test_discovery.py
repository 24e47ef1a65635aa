"""What the registry does with what locators say, good and bad, and with a great many endpoints."""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import Does, SilentError, all_healthy, healthy, hosts, open_fleet
from viewreg import Discovery, Endpoint, StaticLocator

if TYPE_CHECKING:
    from trio.testing import MockClock


A, B, C = "a:1", "b:1", "c:1"

# -- discovery --


async def test_added_and_removed(autojump_clock: MockClock) -> None:
    """What discovery lists is there in the instant, what it no longer lists is gone; one list is one change."""
    async with open_fleet() as fleet, fleet.open(A, B) as registry:
        await registry.wait_until(all_healthy)
        version = registry.version
        fleet.locator.set([B, C])
        found = await registry.wait_for_change(registry.last_changed)
        assert found.version == version + 1
        assert hosts(found.views) == [B, C]
        assert found.views[0].healthy


async def test_annotations_keep_the_connection(autojump_clock: MockClock) -> None:
    """When only annotations change, views show them and nothing else happens: same connection, same health."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        old = await registry.wait_until(all_healthy)
        fleet.locator.set([Endpoint("a", 1, annotations={"zone": "x"})])
        new = await registry.wait_for_change(old.last_changed)
        assert new.version == old.version + 1
        view = new.view(A)
        assert view.endpoint is not None
        assert view.endpoint.annotations == {"zone": "x"}
        assert view.healthy
        assert view.channel is old.view(A).channel
        assert view.channel.endpoint == view.endpoint
        await trio.sleep(30)
        assert len(fleet[A].dials) == 1
        assert hosts((await anext(registry.changes(since=old.version))).updated) == [A]


async def test_a_valid_empty_list_empties(autojump_clock: MockClock) -> None:
    """A list without endpoints is a list like any other."""
    async with open_fleet() as fleet, fleet.open(A) as registry:
        await registry.wait_until(all_healthy)
        fleet.locator.set([])
        await registry.wait_until(lambda at: not at.views)
        await trio.sleep(0.2)
        assert not fleet.streams


def perform(step: Any) -> Any:
    """Raise it, call it or return it."""
    if isinstance(step, Exception):
        raise step
    return step() if callable(step) else step


class Scripted:
    """A locator that does one thing after another, and then waits for ever."""

    def __init__(self, *steps: Any, cached: Any = None) -> None:
        self.steps = list(steps)
        self.first = Discovery(1, (Endpoint("a", 1),)) if cached is None else cached
        self.asked: list[float] = []

    def cached(self) -> Any:
        return perform(self.first)

    async def wait_for_update(self, old_version: int) -> Any:
        self.asked.append(trio.current_time())
        if not self.steps:
            await trio.sleep_forever()
        return perform(self.steps.pop(0))

    def __str__(self) -> str:
        return "scripted:///"


def one_bad_item() -> Discovery:
    """What a locator does that finds one bad item among good ones."""
    return Discovery(5, (Endpoint("b", 1), "c:1"))


BAD_STEPS = [
    OSError(errno.ENETUNREACH, "x"),
    ValueError("what?"),
    ExceptionGroup("group", [ValueError("what?")]),
    SilentError(),
    None,
    5,
    [Endpoint("b", 1)],
    Discovery(1, (Endpoint("b", 1),)),
    Discovery(0, ()),
    Discovery(0, ()),
    one_bad_item,
]


@pytest.mark.parametrize("step", BAD_STEPS, ids=lambda step: type(step).__name__)
async def test_whatever_a_locator_does(step: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A locator that raises, lies about versions or returns nonsense changes its status alone, and is asked again."""
    async with open_fleet() as fleet:
        locator = Scripted(step, Discovery(9, (Endpoint("a", 1), Endpoint("b", 1))))
        async with viewreg.open_registry(locator, dial=fleet.dial, rng=Random(1)) as registry:
            await registry.wait_until(all_healthy)
            await trio.sleep(0.1)
            assert registry.discovery.error
            assert registry.discovery.version == 1
            assert hosts(registry.all_views()) == [A]
            assert "scripted:///" in caplog.text
            await registry.wait_until(lambda at: len(at.views) == 2)
            assert 0.4 <= trio.current_time() <= 0.6
            assert registry.discovery == viewreg.DiscoveryStatus(9, trio.current_time(), None)


@pytest.mark.parametrize(
    "first", [ValueError("what?"), SilentError(), 5, [], one_bad_item], ids=lambda it: type(it).__name__
)
async def test_whatever_cached_does(first: Any, autojump_clock: MockClock) -> None:
    """A locator whose `cached` fails or returns nonsense is asked for an update at once."""
    async with open_fleet() as fleet:
        locator = Scripted(Discovery(1, (Endpoint("a", 1),)), cached=first)
        async with viewreg.open_registry(locator, dial=fleet.dial) as registry:
            await registry.wait_until(all_healthy)
            assert trio.current_time() == 0.0


async def test_discovery_backs_off(autojump_clock: MockClock) -> None:
    """A locator that fails for an hour is asked ever more rarely, at most every 30 s, and what is known stays."""
    async with open_fleet() as fleet:
        locator = Scripted(*[OSError(errno.ENETUNREACH, "x")] * 10_000)
        async with viewreg.open_registry(locator, dial=fleet.dial, rng=Random(1)) as registry:
            await trio.sleep(3600)
            assert hosts(registry.healthy_views()) == [A]
            assert registry.discovery.updated_at == 0.0
            assert registry.discovery.error == "Network is unreachable (ENETUNREACH)"
    pauses = [later - earlier for earlier, later in zip(locator.asked, locator.asked[1:], strict=False)]
    assert max(pauses) <= 30
    assert 0.4 <= pauses[0] <= 0.6
    assert min(pauses[15:]) >= 15


async def test_a_locator_that_never_waits(autojump_clock: MockClock) -> None:
    """A locator that always has a new list, and never waits for one, does not stop the world."""

    class Busy(Scripted):
        async def wait_for_update(self, old_version: int) -> Any:
            if old_version < 3000:
                return Discovery(old_version + 1, (Endpoint("a", 1),))
            return await super().wait_for_update(old_version)

    async with open_fleet() as fleet, viewreg.open_registry(Busy(), dial=fleet.dial) as registry:
        await registry.wait_until(all_healthy)
        assert registry.discovery.version < 3000


# -- many --


@pytest.mark.parametrize("seed", range(4))
async def test_black_holes_do_not_starve_the_living(seed: int, autojump_clock: MockClock) -> None:
    """Among 500 endpoints that never answer, a server that comes back is healthy within 1.3 s of listening."""
    rng = Random(seed)
    async with open_fleet(simple=True) as fleet:
        dead = [f"d{number}:1" for number in range(500)]
        for host_port in dead:
            fleet[host_port].does = Does.BLACK_HOLE
        fleet[A].does = Does.REFUSE
        async with fleet.open(*dead, A, rng=rng) as registry:
            for _ in range(3):
                fleet[A].does = Does.REFUSE
                fleet[A].cut()
                await trio.sleep(rng.uniform(3, 20))
                fleet[A].does = Does.SERVE
                listening = trio.current_time()
                await registry.wait_until(healthy(A))
                assert trio.current_time() - listening <= 1.3


async def test_churn_leaves_nothing(autojump_clock: MockClock) -> None:
    """A thousand endpoints that come, go, come back and are closed leave no task and no stream."""
    async with open_fleet(simple=True) as fleet:
        before = trio.lowlevel.current_statistics().tasks_living
        half = [f"a{number}:1" for number in range(500)]
        other = [f"b{number}:1" for number in range(500)]
        async with fleet.open(*half) as registry:
            for listed in (half, other, [], half[:100] + other[:100]):
                fleet.locator.set(listed)
                await registry.wait_until(lambda at, listed=listed: len(at.healthy_views()) == len(listed))  # type: ignore[misc]
            await trio.sleep(1)
            assert len(fleet.streams) == 200
        assert not fleet.streams
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_probes_of_a_fleet_spread(autojump_clock: MockClock) -> None:
    """Views that came up together are probed ever less together: jitter spreads them over the interval."""
    async with open_fleet() as fleet, fleet.open(*[f"h{number}:1" for number in range(20)]) as registry:
        await registry.wait_until(all_healthy)
        await trio.sleep(100)
        counts = [fleet[f"h{number}:1"].probes for number in range(20)]
        await trio.sleep(1)
        later = [fleet[f"h{number}:1"].probes for number in range(20)]
        assert sum(later) - sum(counts) < 12


async def test_two_registries(autojump_clock: MockClock) -> None:
    """Two registries of the same servers know nothing of each other."""
    async with (
        open_fleet() as fleet,
        fleet.open(A) as one,
        viewreg.open_registry("static:///a:1", dial=fleet.dial) as two,
    ):
        await one.wait_until(all_healthy)
        await two.wait_until(all_healthy)
        fleet.locator.set([])
        await one.wait_until(lambda at: not at.views)
        await trio.sleep(20)
        assert hosts(two.healthy_views()) == [A]


async def test_static_uri(autojump_clock: MockClock) -> None:
    """`open_registry` takes a URI, and a locator's text is one."""
    async with open_fleet() as fleet:
        uri = str(StaticLocator([A, B]))
        async with viewreg.open_registry(uri, dial=fleet.dial) as registry:
            found = await registry.wait_until(all_healthy)
            assert hosts(found.views) == [A, B]
