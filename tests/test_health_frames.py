"""HealthProbe frame by frame, in virtual time: what it sends, when it takes what is said, and what it leaves behind."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import viewreg
from test_calls_held import exchanges, no_collection
from test_health_probe import BOTH, SEARCH, Mine
from transport import open_scripted
from viewreg import CallError, HealthProbe, PermissionDeniedError, ProbeAnswerError
from viewreg._grpc_health.health_pb2 import HealthCheckResponse
from viewreg.testing import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from viewreg import Registry

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
MAX_CONCURRENT_STREAMS: Final = 3  # the setting's number
SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
NOT_SERVING = HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING).SerializeToString()


@asynccontextmanager
async def scripted(
    services: dict[Mine, str], values: dict[int, int] | None = None
) -> AsyncIterator[tuple[ScriptedPeer, Registry[Mine]]]:
    """A registry with one connection, whose other end the test spells out; the handshake is done."""
    peer, stream = ScriptedPeer.pair()
    streams = [stream]

    async def dial(_endpoint: viewreg.Endpoint) -> trio.abc.Stream:
        if not streams:
            await trio.sleep_forever()
        return streams.pop()

    async with viewreg.open_registry("static:///a:1", probe=HealthProbe(services), dial=dial) as registry:
        await peer.handshake(values)
        yield peer, registry


# -- Check --


@pytest.mark.parametrize("status", [7, 12], ids=["fails", "has no health service"])
@pytest.mark.parametrize("services", [SEARCH, BOTH], ids=["one", "two"])
async def test_a_failed_probe_holds_nothing(services: dict[Mine, str], status: int, autojump_clock: MockClock) -> None:
    """Once the error of a probe is forgotten, so are its calls, without a garbage collector."""
    async with open_scripted() as (line, peer):

        async def refuse() -> None:
            for _ in services:
                await peer.refuse((await peer.expect_request()).stream_id, status, "no")

        with no_collection():
            before = exchanges()
            line.nursery.start_soon(refuse)
            with pytest.raises(PermissionDeniedError if status == 7 else ProbeAnswerError) as caught:
                await HealthProbe(services)(line.channel)
            del caught
            await wait_all_tasks_blocked()
            assert exchanges() == before


async def test_one_error_decides(autojump_clock: MockClock) -> None:
    """Services are checked at the same time; the first error is raised as itself, and what else is open is left."""
    async with open_scripted() as (line, peer):
        errors: list[CallError] = []

        async def ask() -> None:
            try:
                await HealthProbe(BOTH)(line.channel)
            except CallError as error:
                errors.append(error)

        line.nursery.start_soon(ask)
        first, second = await peer.expect_request(), await peer.expect_request()
        assert (first.path, second.path) == (CHECK, CHECK)
        await peer.refuse(second.stream_id, 7, "not you")
        await peer.expect("RST_STREAM", stream_id=first.stream_id)
        await wait_all_tasks_blocked()
        assert [type(error) for error in errors] == [PermissionDeniedError]
