from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from viewreg import (
    Config,
    Connectivity,
    FactPartition,
    Feature,
    HashRange,
    InvalidArgumentError,
    InvalidTypeError,
    InvalidValueError,
    KeyEncoding,
    NotFoundError,
    Registry,
    StaticLocator,
    StatusCode,
    UnavailableError,
    UnimplementedError,
    View,
    ViewregError,
    open_registry,
)
from viewreg.rpc import (
    CarouselHashPartitionRequest,
    CarouselRequest,
    FactStatsRequest,
    KeyEncodingPOS,
    LogStatusRequest,
    LookupPOCmpRequest,
    LookupPORequest,
    LookupSPORequest,
    LookupSPRequest,
    LookupSRequest,
    OpIn,
    OpPrefix,
    OpRangeIncInc,
    StatsRequest,
)
from viewreg.testing import FakeView, open_fake_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from viewreg import Snapshot
    from viewreg.rpc import Fact

GUARD = 10.0  # seconds; the machine may be busy
THIRD = FactPartition.nth(KeyEncoding.SPO, 1, of=3)
# Probes often, so that a test need not wait; one connection attempt follows another at once.
QUICK = Config(probe_interval=0.05, probe_timeout=0.5, probe_retry_interval=0.05)


@pytest.fixture
async def fake() -> AsyncIterator[FakeView]:
    """A fake view of the middle third of SPO."""
    async with open_fake_view(partition=THIRD) as fake:
        yield fake


@contextlib.asynccontextmanager
async def _seen(fake: FakeView, config: Config = QUICK) -> AsyncIterator[tuple[Registry, View]]:
    """A registry in which the fake view is healthy, and its view."""
    async with open_registry(StaticLocator([fake.endpoint]), config) as registry:
        yield registry, await _until(registry, lambda view: view.healthy)


async def _until(registry: Registry, condition: Callable[[View], bool]) -> View:
    """Wait until the only view is so."""

    def holds(snapshot: Snapshot) -> bool:
        return condition(snapshot.views[0])

    with trio.fail_after(GUARD):
        return (await registry.wait_until(holds)).views[0]


async def _stats(view: View) -> Any:
    with trio.fail_after(GUARD):
        return await view.diagnostics().stats(StatsRequest())


async def _facts(view: View, request: CarouselRequest | None = None) -> list[Fact]:
    with trio.fail_after(GUARD):
        async with view.carousel().ride(request or CarouselRequest()) as ride:
            return [fact async for chunk in ride for fact in chunk.facts]


def _gone(pid: int) -> bool:
    """Whether a process that is no child of ours has ended; whoever inherited it may not have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def _wait_gone(pid: int) -> None:
    with trio.fail_after(GUARD):
        while not _gone(pid):  # noqa: ASYNC110 (nobody tells us of the end of another's child)
            await trio.sleep(0.01)


async def test_stats_are_true_to_the_partition(fake: FakeView) -> None:
    """A registry reads the partition and the features that the fake view was opened with."""
    async with _seen(fake) as (_, view):
        assert view.partition == fake.partition == THIRD
        assert view.features == Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_SP
        stats = await _stats(view)
    assert (stats.facts, stats.viewType, fake.view_type) == (1000, "diskview/rocksdb", "diskview/rocksdb")


async def test_pos(fake: FakeView) -> None:
    """A fake view of a POS partition offers lookups by predicate and object."""
    await fake.answer(partition=FactPartition.nth(KeyEncoding.POS, 0, of=1))
    async with _seen(fake) as (_, view):
        assert view.features == Feature.DIAGNOSTICS | Feature.CAROUSEL | Feature.HASH_PO
        assert str(view.partition) == "POS: 0x00.. - ∞"


async def test_without_a_partition(fake: FakeView) -> None:
    """A fake view of a type without a partition offers statistics only."""
    await fake.answer(view_type="txtimeout")
    async with _seen(fake) as (_, view):
        assert (view.features, view.partition) == (Feature.DIAGNOSTICS, None)


async def test_ride_ends_after_its_chunks() -> None:
    """A ride of N chunks delivers facts of the partition, and each of them is in it."""
    async with (
        open_fake_view(partition=THIRD, facts=120, ride_chunks=3, ride_interval=0) as fake,
        _seen(fake) as (_, view),
    ):
        facts = await _facts(view)
    assert len({fact.index for fact in facts}) == len(facts) == 120
    assert all(map(THIRD.has_fact, facts))


async def test_ride_narrowed_by_the_request() -> None:
    """A ride leaves out what its request does not ask for."""
    asked = FactPartition(KeyEncoding.POS, HashRange(0, 2**62))
    request = CarouselRequest(
        minIndex=50, hashPartition=CarouselHashPartitionRequest(end=2**62, encoding=KeyEncodingPOS)
    )
    async with open_fake_view(ride_chunks=1, ride_interval=0) as fake, _seen(fake) as (_, view):
        facts = await _facts(view, request)
    assert facts
    assert all(asked.has_fact(fact) and fact.index >= 50 for fact in facts)


async def test_endless_ride_that_is_given_up(fake: FakeView) -> None:
    """A ride goes past the last fact; leaving it early reaches the server, which reports the call as cancelled."""
    async with _seen(fake) as (_, view):
        async with view.carousel().ride(CarouselRequest()) as ride:
            with trio.fail_after(GUARD):
                chunks = [chunk async for _, chunk in _numbered(ride, 25)]
            assert chunks[20].facts == chunks[0].facts
            assert [call.code for call in fake.calls if call.method == "Carousel.ride"] == [None]
        with trio.fail_after(GUARD):
            calls = await fake.wait_for_calls(lambda calls: _calls_of(calls, "Carousel.ride")[0].code is not None)
    assert _calls_of(calls, "Carousel.ride")[0].code is StatusCode.CANCELLED


async def _numbered(ride: Any, last: int) -> AsyncIterator[tuple[int, Any]]:
    number = 0
    async for chunk in ride:
        yield number, chunk
        number += 1
        if number == last:
            return


def _calls_of(calls: Any, method: str) -> list[Any]:
    return [call for call in calls if call.method == method]


async def test_lookups_by_subject() -> None:
    """Each lookup of ReadFactsSP finds the facts that a ride delivers, with the number of the lookup."""
    async with open_fake_view(facts=50, ride_chunks=1) as fake, _seen(fake) as (_, view):
        [fact, *_] = facts = await _facts(view)
        sp = LookupSPRequest()
        sp.lookups.add(subject=1, predicate=1)
        sp.lookups.add(subject=fact.subject, predicate=fact.predicate)
        spo = LookupSPORequest()
        spo.lookups.add(subject=fact.subject, predicate=fact.predicate, object=fact.object)
        stub = view.hash_sp()
        for stream, number, expected in [
            (stub.lookupS(LookupSRequest(subjects=[fact.subject])), 0, [f for f in facts if f.subject == fact.subject]),
            (stub.lookupSP(sp), 1, [fact]),
            (stub.lookupSPO(spo), 0, [fact]),
        ]:
            async with stream:
                found = [item async for chunk in stream for item in chunk.facts]
            assert [item.fact for item in found] == expected
            assert {item.lookup for item in found} == {number}
        stats = await stub.factStats(FactStatsRequest())
    assert stats.NumFacts == sum(subject.count for subject in stats.subjects) == 50


async def test_lookups_by_object() -> None:
    """Each lookup of ReadFactsPO finds the facts that a ride delivers, and compares objects as its operator says."""
    whole = FactPartition.nth(KeyEncoding.POS, 0, of=1)
    async with open_fake_view(partition=whole, facts=50, ride_chunks=1) as fake, _seen(fake) as (_, view):
        facts = await _facts(view)
        po, compare = LookupPORequest(), LookupPOCmpRequest()
        po.lookups.add(predicate=2, object=b"object-01")
        compare.lookups.add(predicate=2, operator=OpPrefix, object=b"object-1")
        compare.lookups.add(predicate=2, operator=OpRangeIncInc, object=b"object-01", end_object=b"object-06")
        stub = view.hash_po()
        async with stub.lookupPO(po) as stream:
            exact = [item.fact async for chunk in stream for item in chunk.facts]
        async with stub.lookupPOCmp(compare) as stream:
            compared = [(item.lookup, item.fact) async for chunk in stream for item in chunk.facts]
        position = await view.carousel().logStatus(LogStatusRequest())
    twos = [fact for fact in facts if fact.predicate == 2]
    assert exact == [fact for fact in twos if fact.object == b"object-01"] != []
    assert compared == [
        *((0, fact) for fact in twos if fact.object.startswith(b"object-1")),
        *((1, fact) for fact in twos if b"object-01" <= fact.object <= b"object-06"),
    ]
    assert position.nextPosition.index == max(fact.index for fact in facts) + 1


async def test_failing_and_answering_again(fake: FakeView) -> None:
    """A fake view that fails is unhealthy, for that reason, and calls end with its status; until it answers."""
    async with _seen(fake) as (registry, view):
        await fake.fail(StatusCode.NOT_FOUND, "gone fishing")
        with pytest.raises(NotFoundError, match="gone fishing"):
            await _stats(view)
        unhealthy = await _until(registry, lambda view: not view.healthy)
        assert (unhealthy.features, unhealthy.connectivity) == (view.features, Connectivity.READY)
        assert registry.history(fake.endpoint)[-1].why == "NOT_FOUND: gone fishing"
        await fake.answer()
        await _until(registry, lambda view: view.healthy)
    assert StatusCode.NOT_FOUND in {call.code for call in fake.calls}


async def test_hanging(fake: FakeView) -> None:
    """A fake view that hangs answers nothing, and learns when a caller gives up, and what deadline the call had."""
    async with _seen(fake, Config()) as (_, view):  # the next probe is 9 seconds away
        await fake.hang()
        with trio.move_on_after(0.2) as scope:
            await view.diagnostics().stats(StatsRequest())
        assert scope.cancelled_caught
        with trio.fail_after(GUARD):
            calls = await fake.wait_for_calls(lambda calls: calls[-1].code is not None)
    assert (calls[-1].method, calls[-1].code) == ("Diagnostics.stats", StatusCode.CANCELLED)
    assert calls[-1].timeout == pytest.approx(0.2, abs=0.15)


async def test_hanging_is_unhealthy(fake: FakeView) -> None:
    """A fake view that hangs is unhealthy once a probe's time is up."""
    async with _seen(fake) as (registry, _):
        await fake.hang()
        await _until(registry, lambda view: not view.healthy)


async def test_slow(fake: FakeView) -> None:
    """A slow fake view answers truly, and not before its time."""
    async with _seen(fake) as (_, view):
        await fake.slow(0.3)
        asked_at = trio.current_time()
        assert (await _stats(view)).viewType == "diskview/rocksdb"
        assert trio.current_time() - asked_at >= 0.3


async def test_lying(fake: FakeView) -> None:
    """A lie replaces exactly the named fields; one that makes no sense takes features and partition from the view."""
    async with _seen(fake) as (registry, view):
        await fake.lie(viewType="megaview", facts=0)
        stats = await _stats(view)
        assert (stats.viewType, stats.facts, stats.factVersions) == ("megaview", 0, 1000)
        unhealthy = await _until(registry, lambda view: not view.healthy)
        assert (unhealthy.features, unhealthy.partition) == (Feature(0), None)
        assert "unsupported view type: megaview" in str(registry.history(fake.endpoint)[-1])
        await fake.lie(hashPartition=CarouselHashPartitionRequest(start=5, end=3, encoding=KeyEncodingPOS))
        await _stats(view)
        await fake.fail(StatusCode.INTERNAL)  # replaces the lie
        await fake.answer()
        assert (await _until(registry, lambda view: view.healthy)).partition == THIRD


async def test_another_partition_without_a_restart(fake: FakeView) -> None:
    """A fake view that is told to serve something else does so, facts and all, on the same connection."""
    other = FactPartition.nth(KeyEncoding.POS, 0, of=7)
    async with _seen(fake) as (registry, _):
        await fake.answer(partition=other)
        view = await _until(registry, lambda view: view.partition == other)
        assert view.healthy
        async with view.carousel().ride(CarouselRequest()) as ride:
            assert all(map(other.has_fact, (await anext(ride)).facts))
        assert "connection lost" not in str(registry.history(fake.endpoint))


async def test_killed_in_a_stream(fake: FakeView) -> None:
    """Killed in the middle of a stream, it ends the stream with UNAVAILABLE, and its view is unhealthy at once."""
    chunks = 0

    async def ride() -> None:
        nonlocal chunks
        async with view.carousel().ride(CarouselRequest()) as ride:
            async for _ in ride:
                chunks += 1
                if chunks == 5:
                    fake.kill()

    async with _seen(fake) as (registry, view):
        with trio.fail_after(GUARD), pytest.raises(UnavailableError):
            await ride()
        await _until(registry, lambda view: not view.healthy)
        with trio.fail_after(GUARD):
            await fake.wait_ended()
    assert chunks >= 5
    assert not fake.running
    assert _calls_of(fake.calls, "Carousel.ride")[0].code is StatusCode.UNAVAILABLE
    with pytest.raises(ViewregError, match="has ended: restart it first"):
        fake.kill()


async def test_restart(fake: FakeView) -> None:
    """It restarts on the same port, as another process, forgets its behavior and may serve something else."""
    other = FactPartition.nth(KeyEncoding.SPO, 2, of=3)
    async with _seen(fake) as (registry, _):
        before = fake.pid
        await fake.fail(StatusCode.INTERNAL)
        await fake.restart(partition=other)
        await _until(registry, lambda view: view.healthy and view.partition == other)
    assert fake.pid != before
    assert _gone(before)


async def test_frozen_and_thawed(fake: FakeView) -> None:
    """Frozen, it says nothing on connections that stay open; thawed, it goes on; meanwhile it takes no orders."""
    async with _seen(fake, Config(keepalive_interval=0.2, keepalive_timeout=0.2)) as (registry, _):
        fake.freeze()
        await _until(registry, lambda view: not view.healthy)
        assert "keepalive" in str(registry.history(fake.endpoint))
        with pytest.raises(ViewregError, match="is frozen: thaw it first"):
            await fake.answer()
        with pytest.raises(ViewregError, match="is frozen: thaw it first"):
            await fake.stop()
        fake.thaw()
        await _until(registry, lambda view: view.healthy)
        await fake.answer()


async def test_stopped(fake: FakeView) -> None:
    """Stopped, it ends its calls with UNAVAILABLE and these words, and its process; then it takes no orders."""

    async def ride() -> None:
        async with view.carousel().ride(CarouselRequest()) as ride:
            await anext(ride)
            with trio.fail_after(GUARD):
                await fake.stop()
            async for _ in ride:
                pass

    async with _seen(fake) as (registry, view):
        with pytest.raises(UnavailableError, match="the view stops"):
            await ride()
        await _until(registry, lambda view: not view.healthy)
    assert not fake.running
    for order in (fake.stop, fake.hang):
        with pytest.raises(ViewregError, match="has ended: restart it first"):
            await order()


async def test_calls_are_counted(fake: FakeView) -> None:
    """Every call is reported once, with its status, after it has ended."""
    async with _seen(fake, Config()) as (_, view):
        before = len(fake.calls)
        for _ in range(3):
            await _stats(view)
        with trio.fail_after(GUARD):
            calls = await fake.wait_for_calls(lambda calls: len(calls) == before + 3 and calls[-1].code is not None)
    assert {(call.method, call.code) for call in calls} == {("Diagnostics.stats", StatusCode.OK)}


async def test_nonsense_hurts_nobody_else(fake: FakeView) -> None:
    """A client that speaks no HTTP/2 loses its own connection only."""
    async with _seen(fake) as (_, view):
        async with await trio.open_tcp_stream(fake.endpoint.host, fake.endpoint.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(GUARD), contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        await _stats(view)


async def test_only_on_loopback(fake: FakeView) -> None:
    """It listens on 127.0.0.1 and no other address."""
    with pytest.raises(ConnectionRefusedError), socket.socket() as other:
        other.connect(("127.0.0.2", fake.endpoint.port))


async def test_port_in_use(fake: FakeView) -> None:
    """A port that is in use is an error that says so."""
    with pytest.raises(ViewregError, match=rf"port {fake.endpoint.port}: cannot listen: .*EADDRINUSE"):
        async with open_fake_view(port=fake.endpoint.port):
            pass


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"port": 70_000}, InvalidValueError, "port 70000"),
        ({"port": -1}, InvalidValueError, "port -1"),
        ({"port": "80"}, InvalidTypeError, "port '80'"),
        ({"port": True}, InvalidTypeError, "port True"),
        ({"partition": "SPO"}, InvalidTypeError, "partition 'SPO'"),
        ({"view_type": 3}, InvalidTypeError, "view_type 3"),
        ({"facts": -1}, InvalidValueError, "facts -1"),
        ({"ride_chunks": 1.5}, InvalidTypeError, "ride_chunks"),
        ({"ride_interval": math.nan}, InvalidValueError, "ride_interval nan"),
    ],
)
async def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    """Arguments that cannot work are refused by name before any process is started."""
    with pytest.raises(error, match=match):
        async with open_fake_view(**arguments):
            pass


async def test_bad_behavior(fake: FakeView) -> None:
    """A behavior that cannot be is refused by name, and the one in force stays."""
    anything: Any = fake
    refused: list[tuple[Callable[[], Awaitable[None]], type[Exception], str]] = [
        (lambda: fake.fail(StatusCode.OK), InvalidValueError, "status of a failure"),
        (lambda: anything.fail(5), InvalidTypeError, "code 5"),
        (lambda: anything.fail(StatusCode.INTERNAL, 5), InvalidTypeError, "details 5"),
        (lambda: fake.slow(-1), InvalidValueError, "delay -1"),
        (lambda: anything.slow("1"), InvalidTypeError, "delay '1'"),
        (lambda: fake.lie(view_type="x"), InvalidValueError, "field 'view_type': expected one of .*viewType"),
        (lambda: fake.lie(viewType=3), InvalidTypeError, "viewType"),
        (lambda: fake.lie(facts=2**64), InvalidValueError, "facts"),
        (lambda: anything.answer(partition=3), InvalidTypeError, "partition 3"),
    ]
    for call, error, match in refused:
        with pytest.raises(error, match=match):
            await call()
    async with _seen(fake):
        pass


async def test_an_error_of_the_body_leaves_as_itself() -> None:
    """What the body raises comes out as it is, and the process is gone by then."""
    opened = []

    async def fail() -> None:
        async with open_fake_view() as fake:
            opened.append(fake)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()
    assert not opened[0].running
    assert _gone(opened[0].pid)


@pytest.mark.parametrize("state", ["running", "frozen", "ended"])
async def test_cancelled(state: str) -> None:
    """However the block is left, and in whatever state the server is, its process is gone afterwards."""
    opened = []
    with trio.CancelScope() as scope:
        async with open_fake_view() as fake:
            opened.append(fake)
            if state == "frozen":
                fake.freeze()
            elif state == "ended":
                await fake.stop()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert _gone(opened[0].pid)


async def test_cancelled_while_it_starts() -> None:
    """Giving up before it listens leaves no process."""
    before = _children()
    with trio.move_on_after(0.05) as scope:
        async with open_fake_view():
            pass
    assert scope.cancelled_caught
    assert _children() == before


def _children() -> set[str]:
    by_thread = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {pid for children in by_thread for pid in children.read_text().split()}


@pytest.mark.parametrize("frozen", [False, True])
async def test_it_dies_with_its_parent(frozen: bool) -> None:
    """When the process that opened it is killed, it ends, even if it is frozen."""
    program = """
import sys, trio
from viewreg.testing import open_fake_view
async def main():
    async with open_fake_view() as fake:
        if sys.argv[1] == "True":
            fake.freeze()
        print(fake.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    command = [sys.executable, "-c", program, str(frozen)]
    parent = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    async with parent.stdout as output:
        with trio.fail_after(GUARD):
            pid = int(await output.receive_some())
        assert not _gone(pid)
        parent.kill()
        await parent.wait()
    await _wait_gone(pid)


async def test_what_it_cannot_do() -> None:
    """An operator that a fake view does not serve is UNIMPLEMENTED, and a partition that cannot be INVALID_ARGUMENT."""
    async with open_fake_view(partition=FactPartition.nth(KeyEncoding.POS, 0, of=1)) as fake, _seen(fake) as (_, view):
        compare = LookupPOCmpRequest()
        compare.lookups.add(predicate=2, operator=OpIn)
        with trio.fail_after(GUARD), pytest.raises(UnimplementedError, match="operator 10"):
            async with view.hash_po().lookupPOCmp(compare) as stream:
                await anext(stream)
        impossible = CarouselHashPartitionRequest(start=5, end=3, encoding=KeyEncodingPOS)
        with trio.fail_after(GUARD), pytest.raises(InvalidArgumentError, match="end 3"):
            await _facts(view, CarouselRequest(hashPartition=impossible))
