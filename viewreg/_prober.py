"""Running one probe of a user's, and judging how it ended: the boundary around code that may do anything.

Rules:
* A probe may raise, hang or return nonsense: each becomes a `Verdict` with a reason. What is no `Exception` passes.
* No verdict, which is None, means: no evidence. So it is when the connection was lost meanwhile, and when something
  arrives late that this process was too busy to hear. A probe that never got a stream is no evidence either, but told.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, Protocol

import trio
from attrs import frozen
from typing_extensions import TypeVar

from viewreg._boundary import close_iterator, describe, let_readers_drain, only_cancelled
from viewreg._coverage import own_encodings
from viewreg._errors import ProbeAnswerError
from viewreg._feature import Feature, feature_text
from viewreg._health import Event, ProbeResult
from viewreg._transport.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from viewreg._probe import Probe
    from viewreg._transport.channel import Channel

F = TypeVar("F", bound=enum.Flag, default=Feature)

_STALLED: Final = 0.5  # seconds too late for a timeout: no loaded loop is so late, only one that stood still


@frozen
class Verdict(Generic[F]):
    """What one probe says: the event, why in an operator's words, and what it found."""

    event: Event
    reason: str
    result: ProbeResult[F] | None = None
    error: Exception | None = None
    """What the probe raised, if that was nothing a probe is expected to raise: worth a traceback in the log."""


class Line(Protocol):
    """What tells whether silence means anything."""

    @property
    def probes_unsent(self) -> int:
        """How many probes never got a stream to send their call on."""
        ...

    @property
    def probes_without_metadata(self) -> int:
        """For how many probes the user's metadata function gave nothing."""
        ...

    @property
    def admits_calls(self) -> bool:
        """Whether the server lets anyone call."""
        ...

    @property
    def heard(self) -> float:
        """When something was last heard, in Trio's time."""
        ...


async def ask(
    probe: Probe[F], channel: Channel, line: Line, scope: trio.CancelScope, seconds: float, *, doubt: bool
) -> Verdict[F] | None:
    """Ask once, for at most `seconds`. Whoever cancels `scope` wants no verdict.

    With `doubt`, or if this process was late itself, silence counts only if nothing arrives late: after a stall, the
    answer may be there.
    """
    unsent, unauthorised = line.probes_unsent, line.probes_without_metadata
    due = trio.current_time() + seconds
    scope.deadline = due
    with scope:
        return await _ask(probe, channel)
    late = trio.current_time() - due
    if late < 0:
        return None
    if line.probes_without_metadata != unauthorised:  # the server has not heard of it
        return Verdict(Event.PROBE_FAILED, f"the metadata function has not answered within {seconds:g} s")
    if not line.admits_calls:  # legal for moments only (RFC 9113, 5.1.2)
        return Verdict(Event.PROBE_FAILED, f"the server has allowed no calls at all for {seconds:g} s")
    if line.probes_unsent != unsent:
        return Verdict(Event.PROBE_NOT_SENT, "the server has all the calls open that it allows")
    if doubt or late > _STALLED:
        await let_readers_drain()
        if line.heard >= due:
            return None
    return Verdict(Event.PROBE_FAILED, f"no answer within {seconds:g} s")


async def _ask(probe: Probe[F], channel: Channel) -> Verdict[F]:
    try:
        with only_cancelled():
            result = await probe(channel)
    except Exception as error:  # noqa: BLE001 (the boundary: a user's probe may raise anything)
        return judge_error(error)
    return judge(result, probe.no_features)


async def follow(
    watch: Callable[[Channel], AsyncIterator[ProbeResult[F]]],
    channel: Channel,
    no_features: F,
    hear: Callable[[Verdict[F]], None],
) -> None:
    """Hand on what a watching probe finds, until it ends. That it fails is a verdict; that it ends is none."""
    results: AsyncIterator[ProbeResult[F]] | None = None
    try:
        while True:
            try:
                with only_cancelled():
                    results = watch(channel) if results is None else results
                    result = await anext(results)
            except StopAsyncIteration:
                return
            except Exception as error:  # noqa: BLE001 (the boundary: a user's probe may raise anything)
                hear(judge_error(error))
                return
            hear(judge(result, no_features))
            await trio.lowlevel.checkpoint()  # an iterator that never waits must not stop the world
    finally:
        with suppress(Exception):  # it is over: what it raises now is nobody's concern
            await close_iterator(results)


def judge(result: object, no_features: F) -> Verdict[F]:
    """What a probe returned, which may be anything."""
    if not isinstance(result, ProbeResult):
        return Verdict(Event.PROBE_FAILED, f"the probe returned {_a(result)}: expected a ProbeResult")
    if type(result.features) is not type(no_features):
        expected = type(no_features).__name__
        return Verdict(
            Event.PROBE_FAILED, f"the probe found features of type {_a(result.features)}: expected {expected}"
        )
    if not result.serving:
        return Verdict(Event.PROBE_NOT_SERVING, result.reason or "the server says so", result)
    partition = "" if result.partition is None else f" [{result.partition}]"
    reason = f"serves {feature_text(result.features) or 'nothing'}{partition}"
    return Verdict(Event.PROBE_OK, reason + _counts_for_nothing(result), result)


def _counts_for_nothing(result: ProbeResult[F]) -> str:
    """Why coverage leaves a view out that claims to serve hashes, if it does."""
    if result.partition is None or own_encodings(result.features) in ([], [result.partition.encoding]):
        return ""
    return ", which counts for no hash: HashSP goes with SPO, HashPO with POS"


def judge_error(error: Exception) -> Verdict[F]:
    """What a probe raised."""
    if isinstance(error, ProbeAnswerError):
        return Verdict(Event.PROBE_NOT_UNDERSTOOD, str(error))
    if isinstance(error, CallError):
        return Verdict(Event.PROBE_FAILED, error.reason)
    return Verdict(Event.PROBE_FAILED, describe(error), error=error)


def _a(value: object) -> str:
    return type(value).__name__
