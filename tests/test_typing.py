"""What type checkers make of the public interface: `nox -s typing` reads these, and they run."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, assert_type

from fleet import open_fleet
from viewreg import (
    Assignment,
    Change,
    Channel,
    Coverage,
    Feature,
    HealthProbe,
    ProbeResult,
    Registry,
    Replicas,
    Response,
    ResponseStream,
    Snapshot,
    StaticLocator,
    View,
    open_registry,
)
from viewreg.rpc import CarouselRequest, CarouselResult, DiagnosticsStub, StatsRequest, StatsResult

if TYPE_CHECKING:
    from trio.testing import MockClock


class Mine(enum.Flag):
    SEARCH = enum.auto()


class MyProbe:
    no_features = Mine(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Mine]:
        return ProbeResult(Mine.SEARCH)


async def test_the_default_registry(autojump_clock: MockClock) -> None:
    """Without a probe of one's own everything is about `Feature`, and answers have the types of the proto."""
    async with open_fleet() as fleet, open_registry(StaticLocator(["a:1"]), dial=fleet.dial) as registry:
        assert_type(registry, Registry[Feature])
        snapshot = await registry.wait_until(lambda s: bool(s.healthy_views(Feature.DIAGNOSTICS)))
        assert_type(snapshot, Snapshot[Feature])
        view = snapshot.healthy_views()[0]
        assert_type(view, View[Feature])
        assert_type(await registry.wait_for_coverage(Feature.HASH_SP), Snapshot[Feature])
        assert_type(snapshot.coverage(Feature.HASH_SP), Coverage[View[Feature]])
        assert_type(snapshot.coverage(Feature.HASH_SP).ranges, tuple[Replicas[View[Feature]], ...])
        assert_type(snapshot.cover(Feature.HASH_SP), list[Assignment[View[Feature]]])
        assert_type(snapshot.for_hash(Feature.HASH_SP, 0), list[View[Feature]])
        assert_type(registry.pick(Feature.HASH_SP), View[Feature])
        assert_type(view.stub(DiagnosticsStub), DiagnosticsStub)
        answer = await view.diagnostics().stats(StatsRequest())
        assert_type(answer, StatsResult)
        response = await view.diagnostics().stats.with_metadata(StatsRequest(), metadata={"x-a": "1"})
        assert_type(response, Response[StatsResult])
        assert_type(view.carousel().ride(CarouselRequest()), ResponseStream[CarouselResult])
        async for change in registry.changes():
            assert_type(change, Change[Feature])
            break


async def test_a_registry_of_ones_own(autojump_clock: MockClock) -> None:
    """With a probe of one's own everything is about its flag."""
    async with (
        open_fleet() as fleet,
        open_registry(StaticLocator(["a:1"]), probe=MyProbe(), dial=fleet.dial) as registry,
    ):
        assert_type(registry, Registry[Mine])
        snapshot = await registry.wait_until(lambda s: bool(s.healthy_views(Mine.SEARCH)))
        assert_type(snapshot.views[0].features, Mine)


async def test_a_registry_by_health(autojump_clock: MockClock) -> None:
    """With a HealthProbe everything is about the flag of its features."""
    probe = HealthProbe({Mine.SEARCH: "acme.Search"}, without_health=Mine.SEARCH)
    assert_type(probe, HealthProbe[Mine])
    async with (
        open_fleet() as fleet,
        open_registry(
            StaticLocator(["a:1"]), probe=HealthProbe({Mine.SEARCH: "acme.Search"}), dial=fleet.dial
        ) as registry,
    ):
        assert_type(registry, Registry[Mine])
        assert_type(registry.healthy_views(Mine.SEARCH), list[View[Mine]])
