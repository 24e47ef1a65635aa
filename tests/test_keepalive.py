"""Keepalive against real servers that count PINGs, and with a client that is too busy to read. Real time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

import viewreg
from fleet import all_healthy
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from servers import Server, running
from viewreg import Config, Event, Feature, ProbeResult

if TYPE_CHECKING:
    from collections.abc import Callable

GUARD = 30.0  # seconds; a hung test fails by it, and no other time decides
GOOD = {Event.CONNECTING, Event.CONNECTED, Event.PROBE_OK}


class Ask:
    """A probe that makes one unary call."""

    no_features = Feature(0)

    async def __call__(self, channel: viewreg.Channel) -> ProbeResult[Feature]:
        await channel.stub(NastyStub).ask(Order())
        return ProbeResult(Feature(0))


async def test_rare_probes_and_a_server_that_counts_pings() -> None:
    """Where many silences fit between two probes, a grpcio that is stricter than usual is not asked too often."""
    # A server counts strikes without looking at the clock: 60 s and 8 s are here 1.5 s and 0.1 s.
    config = Config(probe_interval=1.5, probe_jitter=0.0, keepalive_interval=0.1, keepalive_timeout=0.1)
    with running(**{"http2.max_ping_strikes": 1}) as server, trio.fail_after(GUARD):  # the default is 2
        async with viewreg.open_registry(viewreg.StaticLocator([server.endpoint]), config, probe=Ask()) as registry:
            await registry.wait_until(all_healthy)
            version = registry.version
            await trio.sleep(3.3)
            assert registry.version == version
            assert {entry.what for entry in registry.history(server.endpoint)} <= GOOD


async def test_a_stalled_client_blames_no_server(server: Server) -> None:
    """A program that does nothing for 3 s while a server answers a probe, or a PING, holds that against no server."""
    config = Config(probe_interval=0.5, probe_timeout=0.5, keepalive_interval=0.1, keepalive_timeout=0.1)
    with trio.fail_after(GUARD):
        async with viewreg.open_registry(viewreg.StaticLocator([server.endpoint]), config, probe=Ask()) as registry:
            await registry.wait_until(all_healthy)
            version = registry.version
            (handle,) = registry._handles.values()
            connection = handle.supervisor._connection
            assert connection is not None

            async def stall(seconds: float, is_due: Callable[[], object]) -> None:
                while not is_due():
                    await trio.lowlevel.checkpoint()
                time.sleep(seconds)  # noqa: ASYNC251 (the stall is what is tested)
                await trio.sleep(0.05)

            for seconds in (0.2, 0.2, 0.2, 0.2, 3.0):
                await stall(seconds, lambda: connection._silent)
            for seconds in (0.6, 0.6):
                await stall(seconds, lambda: connection.http2.streams)
            assert registry.version == version
            assert {entry.what for entry in registry.history(server.endpoint)} <= GOOD
