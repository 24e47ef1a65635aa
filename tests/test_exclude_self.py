"""A registry in a program that is itself one of the servers: it leaves itself out, where it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from fleet import all_healthy, hosts, open_fleet
from viewreg import Config, Event, Feature, KeyEncoding, NotServedError, open_registry
from viewreg._snapshot import how_many_serve
from viewreg.testing import open_fake_view

if TYPE_CHECKING:
    from trio.testing import MockClock

SP = Feature.HASH_SP
OWN, SIBLING, OTHER = "127.0.0.1:8080", "127.0.0.1:8081", "198.51.100.7:8080"
GUARD = 30.0  # seconds


async def test_oneself_is_left_out(autojump_clock: MockClock) -> None:
    """One's own server is in no answer to "whom may I call?"; everybody can see it, and that it is healthy."""
    async with (
        open_fleet() as fleet,
        fleet.open(OWN, SIBLING, OTHER, config=Config(exclude_self_port=8080)) as registry,
    ):
        found = await registry.wait_until(all_healthy)
        assert [view.is_self for view in found.views] == [True, False, False]
        assert hosts(registry.all_views()) == [OWN, SIBLING, OTHER]
        assert hosts(registry.healthy_views()) == hosts(registry.healthy_views(SP)) == [SIBLING, OTHER]
        assert hosts(found.for_hash(SP, 5)) == [SIBLING, OTHER]
        assert found.coverage(SP).min_replicas == how_many_serve(found, SP, 5, KeyEncoding.SPO) == 2
        assert hosts([assignment.view for assignment in found.cover(SP)]) == [SIBLING]
        assert {str(registry.pick(SP).channel) for _ in range(100)} == {f"tcp://{SIBLING}", f"tcp://{OTHER}"}
        assert found.summary()["healthy_views"] == 2


async def test_alone(autojump_clock: MockClock) -> None:
    """Who is the only server covers nothing for itself."""
    async with open_fleet() as fleet, fleet.open(OWN, config=Config(exclude_self_port=8080)) as registry:
        await registry.wait_until(all_healthy)
        with pytest.raises(NotServedError):
            registry.pick(SP)
        with trio.move_on_after(5) as scope:
            await registry.wait_for_coverage(SP)
        assert scope.cancelled_caught


async def test_history_tells_why(autojump_clock: MockClock) -> None:
    """The history of one's own endpoint says that it is left out; that of others does not."""
    async with open_fleet() as fleet, fleet.open(OWN, OTHER, config=Config(exclude_self_port=8080)) as registry:
        await registry.wait_until(all_healthy)
        reasons = [
            entry.why for name in (OWN, OTHER) for entry in registry.history(name) if entry.what is Event.CONNECTED
        ]
        assert reasons == ["to this program itself, so it is left out", ""]


async def test_by_default_nobody_is_left_out(autojump_clock: MockClock) -> None:
    """Without a port of one's own nobody is left out."""
    async with open_fleet() as fleet, fleet.open(OWN, SIBLING) as registry:
        await registry.wait_until(all_healthy)
        assert hosts(registry.healthy_views()) == [OWN, SIBLING]
        assert not any(view.is_self for view in registry.all_views())


async def test_by_name() -> None:
    """On sockets an endpoint by name is oneself if its connection leads here, and its port is the given one."""
    async with open_fake_view(where="loopback") as own, open_fake_view(where="loopback") as sibling:
        names = [f"localhost:{view.endpoint.port}" for view in (own, sibling)]
        config = Config(exclude_self_port=own.endpoint.port)
        with trio.fail_after(GUARD):
            async with open_registry("static:///" + ",".join(names), config) as registry:
                await registry.wait_until(all_healthy)
                assert hosts(registry.healthy_views()) == names[1:]
                assert registry.snapshot.view(names[0]).is_self
