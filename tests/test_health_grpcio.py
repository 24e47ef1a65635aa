"""Health of real servers: grpcio with its own health service, in a process of its own, in real time."""

from __future__ import annotations

import enum
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import viewreg
from acme.search_pb2 import Query
from acme.search_pb2_grpc import SearchStub
from fleet import events, reason
from viewreg import Config, Endpoint, Event, HealthProbe, StaticLocator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from viewreg import Registry, Snapshot

PROGRAM = Path(__file__).parent / "health_server.py"
GUARD = 15.0  # seconds; the machine may be busy
QUICK = Config(probe_interval=0.2, probe_retry_interval=0.1)


class Mine(enum.Flag):
    SEARCH = enum.auto()
    ADD = enum.auto()


UNCLEAR = Event.PROBE_NOT_UNDERSTOOD
SERVICES = {Mine.SEARCH: "acme.Search", Mine.ADD: "acme.Add"}


class Server:
    """A running `health_server.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.endpoint = Endpoint("127.0.0.1", int(self._line()))

    def set(self, service: str, status: str) -> None:
        """Change what it says of a service."""
        self._tell(f"{service} {status}")
        assert self._line() == "ok\n"

    def stop(self, grace: float) -> None:
        """End it politely, within some seconds."""
        self._tell(f"stop {grace}")

    def signal(self, number: signal.Signals) -> None:
        """Stop it where it stands, or let it go on."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as the kernel does."""
        self._process.kill()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def started(*options: str) -> Iterator[Server]:
    """A server that ends with the block."""
    command = [sys.executable, str(PROGRAM), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def serves(features: Mine) -> Callable[[Snapshot[Mine]], bool]:
    """The only view is healthy, and has just these features."""
    return lambda snapshot: [view.features for view in snapshot.healthy_views()] == [features]


def is_away(snapshot: Snapshot[Mine]) -> bool:
    """The only view is not healthy."""
    return not snapshot.healthy_views()


async def test_a_life() -> None:
    """By Watch alone: probes are a day apart. Features come and go with the server's word; killed, it is away."""
    with started() as server, trio.fail_after(GUARD):
        server.set("acme.Search", "SERVING")
        locator = StaticLocator([server.endpoint])
        config = Config(probe_interval=86_400.0)
        async with viewreg.open_registry(locator, config, probe=HealthProbe(SERVICES)) as registry:
            await registry.wait_until(serves(Mine.SEARCH))
            server.set("acme.Add", "SERVING")
            await registry.wait_until(serves(Mine.SEARCH | Mine.ADD))
            server.set("acme.Search", "NOT_SERVING")
            await registry.wait_until(serves(Mine.ADD))
            server.set("acme.Add", "UNKNOWN")
            await registry.wait_until(is_away)
            expected = "not serving: acme.Search is NOT_SERVING, acme.Add is UNKNOWN"
            assert reason(registry, server.endpoint.host_port) == expected
            server.set("acme.Add", "SERVING")
            await registry.wait_until(serves(Mine.ADD))
            server.kill()
            await registry.wait_until(is_away)
            assert Event.LOST in events(registry, server.endpoint.host_port)


async def test_without_watch() -> None:
    """A server that only has Check is asked again and again."""
    with started("--no-watch") as server, trio.fail_after(GUARD):
        server.set(".", "SERVING")
        locator = StaticLocator([server.endpoint])
        async with viewreg.open_registry(locator, QUICK, probe=HealthProbe({Mine.ADD: ""})) as registry:
            await registry.wait_until(serves(Mine.ADD))
            server.set(".", "NOT_SERVING")
            await registry.wait_until(is_away)
            server.set(".", "SERVING")
            await registry.wait_until(serves(Mine.ADD))


@pytest.mark.parametrize("lenient", [False, True])
async def test_without_health(lenient: bool) -> None:
    """A server without the service is told from one that does not serve, and may be taken as it is."""
    probe = HealthProbe(SERVICES, without_health=Mine.SEARCH if lenient else None)
    with started("--nothing") as server, trio.fail_after(GUARD):
        async with viewreg.open_registry(StaticLocator([server.endpoint]), QUICK, probe=probe) as registry:
            if lenient:
                await registry.wait_until(serves(Mine.SEARCH))
            else:
                while UNCLEAR not in events(registry, server.endpoint.host_port):  # noqa: ASYNC110 (no view shows it)
                    await trio.sleep(0.01)
                assert "no health service" in reason(registry, server.endpoint.host_port)


@asynccontextmanager
async def watched(*options: str, config: Config | None = None) -> AsyncIterator[tuple[Server, Registry[Mine]]]:
    """A server that serves search, and a registry that has seen it."""
    with started(*options) as server, trio.fail_after(GUARD):
        server.set("acme.Search", "SERVING")
        locator = StaticLocator([server.endpoint])
        async with viewreg.open_registry(locator, config or Config(), probe=HealthProbe(SERVICES)) as registry:
            await registry.wait_until(serves(Mine.SEARCH))
            yield server, registry


async def test_killed_and_back() -> None:
    """A server that was killed and comes back is watched again."""
    async with watched() as (server, registry):
        server.kill()
        await registry.wait_until(is_away)
        with started(f"--port={server.endpoint.port}") as again:
            again.set("acme.Search", "SERVING")
            await registry.wait_until(serves(Mine.SEARCH))
            again.set("acme.Search", "NOT_SERVING")
            await registry.wait_until(is_away)


async def test_connections_end_by_age() -> None:
    """While a server ends each connection by age, and its Watches with it, the view stays as it is."""
    ages = ("--option=grpc.max_connection_age_ms=300", "--option=grpc.max_connection_age_grace_ms=100")
    async with watched(*ages) as (server, registry):
        version, name = registry.version, server.endpoint.host_port
        while events(registry, name).count(Event.REPLACING) < 3:  # noqa: ASYNC110 (no view shows it)
            await trio.sleep(0.01)
        assert registry.version == version
        server.set("acme.Search", "NOT_SERVING")
        await registry.wait_until(is_away)


async def test_a_server_that_stops() -> None:
    """A server that stops with grace does not have to wait for its Watches to end."""
    async with watched() as (server, registry):
        server.stop(60.0)
        await registry.wait_until(is_away)


async def test_a_frozen_server() -> None:
    """A server that is watched and freezes is found out, and is healthy again when it goes on."""
    config = Config(probe_interval=0.5, probe_timeout=0.5, keepalive_interval=0.5, keepalive_timeout=0.5)
    async with watched(config=config) as (server, registry):
        server.signal(signal.SIGSTOP)
        await registry.wait_until(is_away)
        server.signal(signal.SIGCONT)
        await registry.wait_until(serves(Mine.SEARCH))


async def test_few_streams() -> None:
    """A server that allows one call at a time is asked by Check, so that its users' calls find a stream."""
    async with watched("--option=grpc.max_concurrent_streams=1", config=QUICK) as (server, registry):
        stub = registry.healthy_views()[0].channel.stub(SearchStub)
        assert (await find(stub, "tapir")).text == "a tapir"
        server.set("acme.Search", "NOT_SERVING")
        await registry.wait_until(is_away)


def find(stub: Any, text: str) -> Any:
    """A call of a grpcio stub, whose types are those of grpcio's own channels."""
    return stub.find(Query(text=text))
