"""Health by gRPC's own protocol, in virtual time: what servers say, what they do not, and when it is seen."""

from __future__ import annotations

import enum
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import viewreg
from fleet import reason
from health_servicer import NOT_SERVING, SERVICE_UNKNOWN, SERVING, Health
from viewreg import (
    Event,
    Feature,
    HealthProbe,
    InvalidTypeError,
    InvalidValueError,
    StaticLocator,
    UnauthenticatedError,
    UnavailableError,
)
from viewreg.testing import MemoryNetwork, open_fake_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from viewreg import Registry, Snapshot
    from viewreg.testing import FakeView


class Mine(enum.Flag):
    SEARCH = enum.auto()
    ADD = enum.auto()


A = "a:8080"
BOTH = {Mine.SEARCH: "search", Mine.ADD: "add"}
SEARCH = {Mine.SEARCH: "search"}


@asynccontextmanager
async def opened(
    health: Health | None, probe: HealthProbe[Mine], *, wait: bool = True
) -> AsyncIterator[tuple[FakeView, Registry[Mine]]]:
    """One server with this health service, and a registry of it."""
    network = MemoryNetwork()
    services = [] if health is None else [health]
    async with (
        open_fake_view(where=network, host="a", services=services) as fake,
        viewreg.open_registry(StaticLocator([fake.endpoint]), probe=probe, dial=network.dial) as registry,
    ):
        if wait:
            await registry.wait_until(is_healthy)
        yield fake, registry


def is_healthy(snapshot: Snapshot[Mine]) -> bool:
    """The server is."""
    return bool(snapshot.healthy_views())


def features(registry: Registry[Mine]) -> Mine:
    """Of the server's view."""
    return registry.snapshot.view(A).features


@pytest.mark.parametrize("watch", [True, False], ids=["Watch", "Check"])
async def test_features_are_services(watch: bool, autojump_clock: MockClock) -> None:
    """A view has the features whose services are SERVING; it is healthy while it has any."""
    health = Health(watch=watch, search=SERVING, add=NOT_SERVING)
    async with opened(health, HealthProbe(BOTH)) as (_, registry):
        assert features(registry) == Mine.SEARCH
        health.set("add", SERVING)
        await registry.wait_until(lambda snapshot: bool(snapshot.healthy_views(Mine.SEARCH, Mine.ADD)))
        health.set("search", SERVICE_UNKNOWN)
        await registry.wait_until(lambda snapshot: not snapshot.healthy_views(Mine.SEARCH))
        assert len(registry.healthy_views(Mine.ADD)) == 1
        health.set("add", NOT_SERVING)
        await registry.wait_until(lambda snapshot: not is_healthy(snapshot))
        assert features(registry) == Mine(0)
        assert reason(registry, A) == "not serving: search is SERVICE_UNKNOWN, add is NOT_SERVING"


@pytest.mark.parametrize("services", [SEARCH, BOTH], ids=["one", "two"])
async def test_a_change_is_seen_at_once(services: dict[Mine, str], autojump_clock: MockClock) -> None:
    """With Watch no time passes between the server's word and the view, and nothing is asked meanwhile."""
    health = Health(search=SERVING, add=SERVING)
    async with opened(health, HealthProbe(services)) as (_, registry):
        await trio.sleep(5)
        asked = len(health.checks)
        for status in (NOT_SERVING, SERVING, NOT_SERVING):
            for service in services.values():
                health.set(service, status)
            now = trio.current_time()
            await wait_all_tasks_blocked()
            assert trio.current_time() == now
            assert is_healthy(registry.snapshot) is (status == SERVING)
        assert len(health.checks) == asked
        assert len(health.watches) == len(services)


@pytest.mark.parametrize("services", [SEARCH, BOTH], ids=["one", "two"])
async def test_a_change_takes_one_pass(services: dict[Mine, str], autojump_clock: MockClock) -> None:
    """Once the bytes have been read, the view has changed in the next pass of Trio's scheduler."""
    health = Health(search=SERVING, add=NOT_SERVING)
    async with opened(health, HealthProbe(services)) as (_, registry):
        await wait_all_tasks_blocked()
        passes = PassesUntil(lambda: not is_healthy(registry.snapshot))
        trio.lowlevel.add_instrument(passes)
        health.set("search", NOT_SERVING)
        await registry.wait_until(lambda snapshot: not is_healthy(snapshot))
        trio.lowlevel.remove_instrument(passes)
        assert passes.since_read == 1


class PassesUntil(trio.abc.Instrument):
    """Counts the passes after the one in which a connection's reader last ran, until something holds."""

    def __init__(self, holds: Any) -> None:
        self.holds = holds
        self.since_read: int | None = None
        self._done = False

    def before_io_wait(self, timeout: float) -> None:
        if not self._done and self.since_read is not None:
            self.since_read += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._done:
            return
        if task.name.endswith("Connection.run"):
            self.since_read = 0
        self._done = self.holds()


async def test_without_watch_it_is_asked(autojump_clock: MockClock) -> None:
    """A server that has Check only is asked at every interval, and Watch is tried once for each connection."""
    health = Health(watch=False, search=SERVING)
    async with opened(health, HealthProbe(SEARCH)) as (fake, registry):
        await trio.sleep(100)
        assert 9 <= len(health.checks) <= 13
        watches = [call for call in fake.calls if call.method.endswith("Watch")]
        assert len(watches) == 1
        assert registry.snapshot.view(A).healthy


async def test_no_health_at_all(autojump_clock: MockClock) -> None:
    """A server without the service is not unhealthy by its own word, and the history tells the difference."""
    async with opened(None, HealthProbe(SEARCH), wait=False) as (_, registry):
        await trio.sleep(1)
        assert not registry.snapshot.view(A).healthy
        last = registry.history(A)[-1]
        assert last.what is Event.PROBE_NOT_UNDERSTOOD
        assert "no health service (grpc.health.v1.Health): UNIMPLEMENTED" in str(last)


async def test_no_health_may_do(autojump_clock: MockClock) -> None:
    """With `without_health` such a server has these features as long as it answers; a failing one has not."""
    probe = HealthProbe(BOTH, without_health=Mine.ADD)
    async with opened(None, probe) as (fake, registry):
        assert features(registry) == Mine.ADD
        fake.freeze()
        await registry.wait_until(lambda snapshot: not is_healthy(snapshot))
    async with opened(Health(add=NOT_SERVING), probe, wait=False) as (_, registry):
        await trio.sleep(1)
        assert not registry.healthy_views()


@pytest.mark.parametrize("watch", [True, False], ids=["Watch", "Check"])
async def test_a_service_that_comes_late(watch: bool, autojump_clock: MockClock) -> None:
    """Check does not know a service and Watch waits for it: until it is there, the feature is off."""
    health = Health(watch=watch, search=SERVING)
    async with opened(health, HealthProbe(BOTH)) as (_, registry):
        assert features(registry) == Mine.SEARCH
        health.set("add", SERVING)
        await trio.sleep(0 if watch else 11.1)
        await wait_all_tasks_blocked()
        assert features(registry) == Mine.SEARCH | Mine.ADD


@pytest.mark.parametrize("how", [True, UnavailableError("moving"), UnauthenticatedError("who?")], ids=str)
async def test_a_watch_that_ends(how: Any, autojump_clock: MockClock) -> None:
    """It is no failure: its last word stands, and it is begun again; rarely, if that happens again and again."""
    health = Health(search=SERVING)
    async with opened(health, HealthProbe(SEARCH)) as (_, registry):
        await trio.sleep(100)
        version = registry.version
        health.end(how)
        await trio.sleep(60)
        assert registry.version == version
        assert [entry for entry in registry.history(A) if entry.what is Event.PROBE_FAILED] == []
        pauses = [later - earlier for earlier, later in zip(health.watches, health.watches[1:], strict=False)]
        assert pauses == pytest.approx([101, 2, 4, 8, 10, 10, 10, 10], abs=0.1)
        health.end(False)
        health.set("search", NOT_SERVING)
        await trio.sleep(11)
        assert not registry.healthy_views()


async def test_a_word_that_changes_nothing(autojump_clock: MockClock) -> None:
    """A Watch that says the same again, as after its end, tells nobody anything, and counts as no probe."""
    health = Health(search=SERVING)
    async with opened(health, HealthProbe(SEARCH)) as (_, registry):
        watch = HealthProbe(SEARCH).watch(registry.snapshot.view(A).channel)
        async with aclosing(watch):
            first = await anext(watch)
            assert first.features == Mine.SEARCH
            health.end()
            with trio.move_on_after(60) as scope:
                await anext(watch)
            assert scope.cancelled_caught


async def test_a_watch_that_is_refused(autojump_clock: MockClock) -> None:
    """One that fails before its first word is given up, and Check takes over."""
    health = Health(search=SERVING)
    health.refuses = UnavailableError("too many streams")
    async with opened(health, HealthProbe(BOTH)) as (_, registry):
        await trio.sleep(50)
        assert len(health.watches) <= 2
        assert 4 <= len(health.checks) / 2 <= 7
        health.set("search", NOT_SERVING)
        await trio.sleep(11.1)
        assert not registry.healthy_views()


async def test_a_status_of_the_future(autojump_clock: MockClock) -> None:
    """A number that this version of the protocol does not have is not SERVING."""
    health = Health(search=77)
    async with opened(health, HealthProbe({Mine.SEARCH: "search"}), wait=False) as (_, registry):
        await trio.sleep(1)
        assert reason(registry, A) == "not serving: search is in status 77"


@pytest.mark.parametrize("watch", [True, False], ids=["Watch", "Check"])
async def test_features_that_share_a_service(watch: bool, autojump_clock: MockClock) -> None:
    """A service that stands for two features is asked about once, and both come and go with it."""
    health = Health(watch=watch, search=SERVING)
    probe = HealthProbe({Mine.SEARCH: "search", Mine.ADD: "search"})
    async with opened(health, probe) as (_, registry):
        assert features(registry) == Mine.SEARCH | Mine.ADD
        assert len(health.watches if watch else health.checks) == 1
        health.set("search", NOT_SERVING)
        await registry.wait_until(lambda snapshot: not is_healthy(snapshot))
        assert reason(registry, A) == "not serving: search is NOT_SERVING"


def test_a_probe_shows_what_it_was_given() -> None:
    """Its repr has all of its arguments."""
    assert repr(HealthProbe(SEARCH)) == "HealthProbe({<Mine.SEARCH: 1>: 'search'})"
    assert repr(HealthProbe(SEARCH, without_health=Mine.ADD)).endswith(", without_health=Mine.ADD)")


async def test_the_server_as_a_whole(autojump_clock: MockClock) -> None:
    """The empty name is the server's, and a reason calls it so."""
    health = Health()
    health.set("", SERVING)
    async with opened(health, HealthProbe({Mine.ADD: ""})) as (_, registry):
        health.set("", NOT_SERVING)
        await wait_all_tasks_blocked()
        assert reason(registry, A) == "not serving: the server is NOT_SERVING"


async def test_a_frozen_server(autojump_clock: MockClock) -> None:
    """A Watch that says nothing proves nothing: a server that freezes is noticed as any other."""
    async with opened(Health(search=SERVING), HealthProbe(SEARCH)) as (fake, registry):
        await trio.sleep(100)
        fake.freeze()
        began = trio.current_time()
        await registry.wait_until(lambda snapshot: not is_healthy(snapshot))
        assert trio.current_time() - began <= 10.5
        fake.thaw()
        await registry.wait_until(is_healthy)


async def test_leaving_tells_the_server(autojump_clock: MockClock) -> None:
    """No Watch is open when the registry has been left."""
    network = MemoryNetwork()
    async with open_fake_view(where=network, host="a", services=[Health(search=SERVING, add=SERVING)]) as fake:
        locator = StaticLocator([fake.endpoint])
        async with viewreg.open_registry(locator, probe=HealthProbe(BOTH), dial=network.dial) as registry:
            await registry.wait_until(is_healthy)
            assert fake.open_calls == 2
        await fake.wait_for_calls(lambda _: not fake.open_calls)


@pytest.mark.parametrize(
    ("services", "options", "error", "words"),
    [
        ({}, {}, InvalidValueError, "services {}: expected a mapping from members of one enum.Flag"),
        ([Mine.ADD], {}, InvalidTypeError, "services .*: expected a mapping from members of one enum.Flag"),
        ({"ADD": "add"}, {}, InvalidTypeError, "feature 'ADD': expected a mapping"),
        ({Mine.ADD: "add", Feature.DIAGNOSTICS: "x"}, {}, InvalidTypeError, "feature .*DIAGNOSTICS"),
        ({Mine.ADD: 3}, {}, InvalidTypeError, "service 3: expected the full name of a service, or ''"),
        ({Mine.ADD: "ädd"}, {}, InvalidValueError, "service 'ädd': expected a name such as 'acme.v1.Search'"),
        ({Mine.ADD: "a\n"}, {}, InvalidValueError, r"service 'a\\n': expected a name such as"),
        ({Mine(0): "add"}, {}, InvalidValueError, "feature <Mine: 0>: expected a member that is not yet another"),
        ({Mine.ADD: "a", Mine.ADD | Mine.SEARCH: "b"}, {}, InvalidValueError, "feature <Mine.SEARCH|ADD: 3>: expected"),
        ({Feature.HASH_SP: "a"}, {}, InvalidValueError, "HashSP"),
        (
            {Mine.ADD: "a"},
            {"without_health": Feature.DIAGNOSTICS},
            InvalidTypeError,
            "without_health .*: expected a Mine, or None",
        ),
    ],
)
def test_bad_arguments(services: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    """What cannot be meant is refused, by name."""
    with pytest.raises(error, match=words):
        HealthProbe(services, **options)


@pytest.mark.parametrize("first", ["ours", "grpcio's"])
def test_two_copies_of_the_messages(first: str) -> None:
    """Grpcio's own health messages may live in the same process, whichever is imported first."""
    imports = ["import viewreg._grpc_health.health_pb2", "import grpc_health.v1.health_pb2"]
    program = "; ".join(imports if first == "ours" else reversed(imports))
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=20)
