"""The registry on real input: view servers on plain grpcio, each a process, and what happens to processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from servers import example, part
from viewreg import (
    Connectivity,
    Event,
    FactPartition,
    Feature,
    KeyEncoding,
    StaticLocator,
    UnavailableError,
    View,
    open_registry,
)
from viewreg.rpc import CarouselRequest, StatsRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

SOON = 10.0  # seconds for what takes milliseconds, on a busy machine
FROZEN = 20.0  # seconds for what takes 10.5
SPO = Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_SP
POS = Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_PO


def show(figure: str) -> None:
    """Print a measured time; it decides nothing."""
    print(figure)  # noqa: T201 (for whoever runs pytest -rP)


async def count(items: AsyncIterable[object]) -> int:
    """Count them all."""
    return len([item async for item in items])


def open_sockets() -> int:
    """Count those of this process."""
    links = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(file.readlink()))
        except FileNotFoundError:  # the one that lists the others
            continue
    return sum(link.startswith("socket:") for link in links)


def facts(view: View) -> tuple[Feature, FactPartition | None, bool, Connectivity]:
    """What a view says of its server."""
    return view.features, view.partition, view.healthy, view.connectivity


async def test_three_come_up() -> None:
    """Three real servers become healthy with the features and partitions that they have; leaving closes all sockets."""
    sockets = open_sockets()
    with ExitStack() as stack:
        views = [(part("SPO", 0, 2), SPO), (part("SPO", 1, 2), SPO), (part("POS", 2, 3), POS)]
        endpoints = [stack.enter_context(example(*arguments))[1] for arguments, _ in views]
        async with open_registry(StaticLocator(endpoints)) as registry:
            with trio.fail_after(SOON):
                snapshot = await registry.wait_until(lambda s: len(s.healthy_views()) == len(views))
            expected = [
                (SPO, FactPartition.nth(KeyEncoding.SPO, 0, of=2), True, Connectivity.READY),
                (SPO, FactPartition.nth(KeyEncoding.SPO, 1, of=2), True, Connectivity.READY),
                (POS, FactPartition.nth(KeyEncoding.POS, 2, of=3), True, Connectivity.READY),
            ]
            assert [facts(snapshot.view(endpoint)) for endpoint in endpoints] == expected
            for view in registry.healthy_views():
                stats = await view.diagnostics().stats(StatsRequest())
                assert view.partition is not None
                assert stats.hashPartition.start == view.partition.hash_range.start
            assert open_sockets() > sockets
    assert open_sockets() == sockets


async def test_one_is_killed_and_comes_back_as_another() -> None:
    """SIGKILL ends a stream and the health at once; back on its port with another partition, it is what it is now."""
    with example(*part("SPO", 0, 2), "--ride-turns", "0", "--ride-interval", "0.01") as (process, endpoint):
        async with open_registry(StaticLocator([endpoint])) as registry:
            with trio.fail_after(SOON):
                await registry.wait_until(lambda s: s.view(endpoint).healthy)
                view = registry.snapshot.view(endpoint)
                async with view.carousel().ride(CarouselRequest()) as ride:
                    assert (await anext(ride)).facts
                    began = time.perf_counter()
                    process.kill()
                    with pytest.raises(UnavailableError) as caught:
                        await count(ride)
                ended = time.perf_counter()
                assert caught.value.started
                snapshot = await registry.wait_until(lambda s: not s.view(endpoint).healthy)
            show(f"the stream ended {1000 * (ended - began):.1f} ms after the SIGKILL")
            was = snapshot.view(endpoint)
            assert was.partition == view.partition  # what it served is not forgotten
            lost = next(entry for entry in registry.history(endpoint) if entry.what is Event.LOST)
            assert lost.why in ("the server closed the connection", "Connection reset by peer (ECONNRESET)")
            with trio.fail_after(SOON):
                await registry.wait_for_stable(0.5)  # it is dialled meanwhile, in vain
            assert "ECONNREFUSED" in registry.history(endpoint)[-1].why
            with example(*part("POS", 1, 2), port=endpoint.port):
                listening = time.perf_counter()
                with trio.fail_after(SOON):
                    snapshot = await registry.wait_until(lambda s: s.view(endpoint).healthy)
                show(f"healthy again {1000 * (time.perf_counter() - listening):.0f} ms after it listened")
                now = snapshot.view(endpoint)
                assert (now.features, now.partition) == (POS, FactPartition.nth(KeyEncoding.POS, 1, of=2))
                assert (await now.diagnostics().stats(StatsRequest())).facts


async def test_one_is_frozen() -> None:
    """SIGSTOP is noticed by keepalive, says so, and harms no other view; SIGCONT makes it healthy again."""
    with example(*part("SPO", 0, 2)) as (process, frozen), example(*part("SPO", 1, 2)) as (_, other):
        async with open_registry(StaticLocator([frozen, other])) as registry:
            with trio.fail_after(SOON):
                await registry.wait_until(lambda s: len(s.healthy_views()) == 2)
            os.kill(process.pid, signal.SIGSTOP)
            stopped = time.perf_counter()
            with trio.fail_after(FROZEN):
                snapshot = await registry.wait_until(lambda s: not s.view(frozen).healthy)
            show(f"noticed {time.perf_counter() - stopped:.2f} s after the SIGSTOP")
            assert snapshot.view(other).healthy
            assert "keepalive PING" in " ".join(entry.why for entry in registry.history(frozen))
            os.kill(process.pid, signal.SIGCONT)
            with trio.fail_after(SOON):
                await registry.wait_until(lambda s: len(s.healthy_views()) == 2)
            assert [entry.what for entry in registry.history(other)] == [
                Event.CONNECTING,
                Event.CONNECTED,
                Event.PROBE_OK,
            ]


FEW_FILES = """
import resource, sys
import trio
from viewreg import StaticLocator, open_registry

async def main():
    addresses = sys.argv[1:]
    locator = StaticLocator(addresses[:1])
    async with open_registry(locator) as registry:
        await registry.wait_until(lambda s: len(s.healthy_views()) == 1)
        files = [open("/dev/null") for _ in range(3)]
        highest = max(file.fileno() for file in files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        locator.set(addresses)
        late = addresses[1]
        await registry.wait_until(lambda s: len(s.views) == 2)
        while not any("EMFILE" in entry.why for entry in registry.history(late)):
            await registry.wait_for_change(registry.last_changed)
        assert registry.snapshot.view(addresses[0]).healthy and not registry.snapshot.view(late).healthy
        for file in files:
            file.close()
        await registry.wait_until(lambda s: len(s.healthy_views()) == 2)
    print("fine")

trio.run(main)
"""


def test_too_many_open_files() -> None:
    """EMFILE makes the view unhealthy that needed the file, and nothing else; with files again, it recovers."""
    with example(*part("SPO", 0, 1)) as (_, first), example(*part("SPO", 0, 1)) as (_, second):
        command = [sys.executable, "-W", "error", "-c", FEW_FILES, first.host_port, second.host_port]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=30)
    assert done.stdout == "fine\n"
