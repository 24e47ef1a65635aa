"""Health of real servers: grpcio with its own health service, in a process of its own, in real time."""

from __future__ import annotations

import enum
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import viewreg
from fleet import events, reason
from viewreg import Config, Endpoint, Event, HealthProbe, StaticLocator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from viewreg import Snapshot

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
        assert self._process.stdin is not None
        self._process.stdin.write(f"{service} {status}\n")
        self._process.stdin.flush()
        assert self._line() == "ok\n"

    def kill(self) -> None:
        """End it as the kernel does."""
        self._process.kill()

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
