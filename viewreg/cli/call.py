"""`viewreg call`: one question to one server, and its answer for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from viewreg._errors import ProbeAnswerError
from viewreg._locator import StaticLocator
from viewreg._open import open_registry
from viewreg._probe import read_stats
from viewreg._transport.status import CallError
from viewreg.cli._output import say_error, say_fields
from viewreg.rpc import StatsRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ssl import SSLContext

    from viewreg._endpoint import Endpoint
    from viewreg.rpc import StatsResult


async def call(
    endpoint: Endpoint,
    timeout: float,  # noqa: ASYNC109 (the option of the command)
    ssl_context: SSLContext | None,
    server_hostname: str | None,
) -> int:
    """Print the statistics of a server. Returns 1, with the reason on standard error, if it does not give any."""
    try:
        with trio.fail_after(timeout):
            async with open_registry(
                StaticLocator([endpoint]), ssl_context=ssl_context, server_hostname=server_hostname
            ) as registry:
                stats = await registry.snapshot.view(endpoint).diagnostics().stats(StatsRequest())
    except CallError as error:
        say_error(": ".join(filter(None, (endpoint.host_port, error.code.name, error.details))))
        return 1
    except trio.TooSlowError:
        say_error(f"{endpoint.host_port}: no answer within {timeout:g} s")
        return 1
    say_fields(_fields(endpoint, stats))
    return 0


def _fields(endpoint: Endpoint, stats: StatsResult) -> Iterator[tuple[str, object]]:
    yield "server", endpoint.host_port
    try:
        served = read_stats(stats)
    except ProbeAnswerError as error:
        yield "features", f"not understood: {error}"
    else:
        yield "features", served.features
        yield "partition", served.partition or "none"
    yield "view type", stats.viewType
    yield "host name", stats.hostname
    yield "up for", f"{stats.upTime.ToNanoseconds() / 1e9:.1f} s"
    yield "last log index", f"{stats.lastIndex:,}"
    yield "facts", f"{stats.facts:,}"
    yield "fact versions", f"{stats.factVersions:,}"
    yield "transactions", f"{stats.txs:,}"
    yield "carousel riders", f"{stats.carouselRiders:,}"
    if stats.lastCarouselKey:
        yield "last carousel key", stats.lastCarouselKey.hex()
    if stats.partition:
        yield "partition text", stats.partition
