from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from viewreg import rpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLE = Path(__file__).parent.parent / "examples" / "grpcio_view.py"


@contextmanager
def _view(*arguments: str) -> Iterator[tuple[grpc.Channel, Callable[[], dict[str, Any]]]]:
    """Run the example; give a channel to it and a function that waits for its next event."""
    command = [sys.executable, str(EXAMPLE), "--watch-stdin", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        with grpc.insecure_channel(f"127.0.0.1:{next(lines)['port']}") as channel:
            yield channel, lambda: next(lines)
        process.stdin.close()
        assert process.wait() == 0


def _unary(channel: grpc.Channel, path: str, request: Any, result: Any, **more: Any) -> Any:
    return channel.unary_unary(path, type(request).SerializeToString, result.FromString)(request, **more)


def _stream(channel: grpc.Channel, path: str, request: Any, result: Any, **more: Any) -> Any:
    return channel.unary_stream(path, type(request).SerializeToString, result.FromString)(request, **more)


def test_stats() -> None:
    """The example holds the asked third of the hash space, and reports a call with its metadata and deadline."""
    with _view("--partition", "1", "--of", "3") as (channel, event):
        stats = _unary(
            channel, "/rpc.Diagnostics/stats", rpc.StatsRequest(), rpc.StatsResult, metadata=[("k", "v")], timeout=30
        )
        started, ended = event(), event()
    assert stats.viewType == "diskview/rocksdb"
    assert stats.hashPartition == rpc.CarouselHashPartitionRequest(
        start=6148914691236517206, end=12297829382473034411, encoding=rpc.KeyEncodingSPO
    )
    assert (started["event"], started["method"]) == ("rpc_started", "/rpc.Diagnostics/stats")
    assert ["k", "v"] in started["metadata"]
    assert 0 < started["time_remaining"] < 31
    assert (ended["event"], ended["reason"]) == ("rpc_ended", "completed")


def test_txtimeout() -> None:
    """A view without a partition still says so on the wire, and serves Diagnostics alone."""
    with _view("--view-type", "txtimeout") as (channel, _):
        stats = _unary(channel, "/rpc.Diagnostics/stats", rpc.StatsRequest(), rpc.StatsResult)
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            _unary(channel, "/rpc.Carousel/logStatus", rpc.LogStatusRequest(), rpc.LogStatusResult)
    assert stats.HasField("hashPartition")
    assert stats.hashPartition == rpc.CarouselHashPartitionRequest()


def test_cancelled_ride() -> None:
    """A ride that the client gives up is reported as cancelled."""
    with _view("--ride-turns", "0", "--ride-interval", "0.01") as (channel, event):
        ride = _stream(channel, "/rpc.Carousel/ride", rpc.CarouselRequest(), rpc.CarouselResult)
        assert len(next(ride).facts) == 100
        ride.cancel()
        started, ended = event(), event()
    assert started["time_remaining"] is None
    assert (ended["event"], ended["reason"]) == ("rpc_ended", "cancelled")


def test_ride_past_its_deadline() -> None:
    """A ride that its deadline ends is reported as such, or as cancelled at that moment: client and server race."""
    with _view("--ride-turns", "0", "--ride-interval", "0.01") as (channel, event):
        ride = _stream(channel, "/rpc.Carousel/ride", rpc.CarouselRequest(), rpc.CarouselResult, timeout=0.2)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(ride)
        event()
        ended = event()
    assert (ended["reason"] == "deadline_exceeded") == (ended["time_remaining"] == 0)
    assert ended["reason"] in ("deadline_exceeded", "cancelled")
    assert ended["time_remaining"] < 0.15


def test_lookups() -> None:
    """Lookups find exactly the facts that a ride delivers, and compare objects as the operator says."""
    with _view("--encoding", "POS", "--facts", "300") as (channel, _):
        ride = _stream(channel, "/rpc.Carousel/ride", rpc.CarouselRequest(), rpc.CarouselResult)
        facts = [fact for chunk in ride for fact in chunk.facts]
        exact = rpc.LookupPORequest()
        exact.lookups.add(predicate=7, object=b"nothing")
        exact.lookups.add(predicate=2, object=b"object 1")
        compare = rpc.LookupPOCmpRequest()
        compare.lookups.add(predicate=2, operator=rpc.OpPrefix, object=b"object 1")
        found = [
            [fact for chunk in _stream(channel, path, request, rpc.LookupChunk) for fact in chunk.facts]
            for path, request in [("/rpc.ReadFactsPO/lookupPO", exact), ("/rpc.ReadFactsPO/lookupPOCmp", compare)]
        ]
    assert len(facts) == 300
    assert {fact.lookup for fact in found[0]} == {1}
    assert [fact.fact for fact in found[0]] == [f for f in facts if (f.predicate, f.object) == (2, b"object 1")]
    assert [fact.fact for fact in found[1]] == [
        f for f in facts if f.predicate == 2 and f.object.startswith(b"object 1")
    ]
