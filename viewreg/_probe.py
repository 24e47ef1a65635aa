"""How a registry finds out what a server serves: what a probe promises, and the original's probe.

Rules:
* A probe makes calls on the channel that it is given, and never another connection.
* Raising `ProbeAnswerError` means: it answered, and the answer makes no sense. Raising anything else: the call failed.
* `viewreg.rpc` is imported when the first probe is made, not before: whoever brings a probe of their own, and maybe a
  second copy of package `rpc`, never loads it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from typing_extensions import TypeVar

from viewreg._errors import InvalidValueError, ProbeAnswerError
from viewreg._feature import Feature
from viewreg._health import ProbeResult
from viewreg._partition import FactPartition, HashRange, KeyEncoding
from viewreg._transport.calls import UnaryUnary

if TYPE_CHECKING:
    from viewreg._transport.channel import Channel
    from viewreg.rpc import StatsResult

F = TypeVar("F", bound=enum.Flag, default=Feature)


class Probe(Protocol[F]):
    """Asks a server what it serves. One object probes all endpoints, so it keeps no state of any.

    A probe may also have a method `watch(channel)` that returns an async iterator of `ProbeResult`: it is read as long
    as the connection lives; when it ends or fails, `__call__` takes over. Once that has failed and then is answered
    well, the watch is begun anew: behind a proxy there may be another server by now. While it runs, `__call__` only
    finds out whether a server that has answered nothing for `Config.probe_interval` still lives: if it answers,
    whatever it says, the last word of the watch stands.
    """

    @property
    def no_features(self) -> F:
        """The flag without any member: what an endpoint has before its first probe."""
        ...

    async def __call__(self, channel: Channel) -> ProbeResult[F]:
        """Ask once. Cancelled after `Config.probe_timeout`, or when the connection is lost."""
        ...


class StatsProbe:
    """The original's probe: `Diagnostics.stats`, and what its `viewType` and `hashPartition` say."""

    @property
    def no_features(self) -> Feature:
        """Nothing."""
        return Feature(0)

    async def __call__(self, channel: Channel) -> ProbeResult[Feature]:
        """Ask for the statistics. Raises `CallError`, or `ProbeAnswerError` for an unknown view type or partition."""
        from viewreg.rpc import StatsRequest, StatsResult

        # Its one method alone: a whole stub for each of a thousand servers would cost more than the first probe.
        stats: UnaryUnary[StatsRequest, StatsResult] = UnaryUnary(channel, "/rpc.Diagnostics/stats", StatsResult)
        return read_stats(await stats(StatsRequest()))

    def __repr__(self) -> str:
        return "StatsProbe()"


def read_stats(stats: StatsResult) -> ProbeResult[Feature]:
    """What a server serves by its own statistics. Raises `ProbeAnswerError` where they make no sense."""
    if stats.viewType == "txtimeout":
        return ProbeResult(Feature.DIAGNOSTICS)
    if not stats.viewType.startswith("diskview/"):
        raise ProbeAnswerError(f"unsupported view type: {stats.viewType[:100]}")
    served = stats.hashPartition
    encodings = {
        1: (KeyEncoding.SPO, Feature.HASH_SP),
        2: (KeyEncoding.POS, Feature.HASH_PO),
    }
    if served.encoding not in encodings:
        name = "KeyEncodingUnknown" if served.encoding == 0 else str(served.encoding)
        raise ProbeAnswerError(f"unexpected FactKeyEncoding value of {name}")
    encoding, feature = encodings[served.encoding]
    try:
        partition = FactPartition(encoding, HashRange(served.start, served.end or None))
    except InvalidValueError as error:
        raise ProbeAnswerError(f"impossible hash partition: {error}") from error
    return ProbeResult(Feature.DIAGNOSTICS | Feature.CAROUSEL | feature, partition)
