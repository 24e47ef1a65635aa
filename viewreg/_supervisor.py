"""One endpoint's life: dial, be ready, probe; lose, back off, dial again; until it is removed.

Rules:
* Whatever the server, the network or the user's probe and dial do ends as an event in this endpoint's `Record`, with a
  reason. Only bugs leave `run`.
* Events of a connection that is no longer the current one change nothing.
* An event goes to the record in the same step in which it is noticed; nothing awaits in between.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, Generic

import trio
from typing_extensions import TypeVar

from viewreg._boundary import describe, let_readers_drain, only_cancelled
from viewreg._feature import Feature
from viewreg._health import Event
from viewreg._prober import ask, follow
from viewreg._record import Record
from viewreg._transport.channel import Channel
from viewreg._transport.connection import Connection
from viewreg._transport.local import is_own
from viewreg._transport.subchannel import Subchannel
from viewreg._transport.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from viewreg._config import Config
    from viewreg._endpoint import Endpoint
    from viewreg._health import Health, ProbeResult
    from viewreg._pacer import Pacer
    from viewreg._probe import Probe
    from viewreg._prober import Verdict
    from viewreg._transport.dial import Dial
    from viewreg._transport.tls import Tls

F = TypeVar("F", bound=enum.Flag, default=Feature)

_NO_ANSWER: Final = frozenset({Event.PROBE_FAILED, Event.PROBE_NOT_SENT})
_RAREST_KEEPALIVE: Final = 86_400.0  # seconds


class Supervisor(Generic[F]):
    """See the module. Made by the registry, which starts `run` and is told of changes by `publish`."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: Config,
        probe: Probe[F],
        dial: Dial,
        *,
        tls: Tls | None = None,
        rng: Random,
        pacer: Pacer,
        wall_clock: Callable[[], float],
        publish: Callable[[Health[F]], None],
    ) -> None:
        self.subchannel: Final = Subchannel(endpoint, config, self._demand)
        self.channel: Final = Channel(self.subchannel, tls=tls)
        self.record: Final[Record[F]] = Record(endpoint, config, probe.no_features, wall_clock, publish)
        self._config: Final = config
        self._probe: Final = probe
        self._probe_channel: Final = Channel(self.subchannel, tls=tls, probe=True)
        self._dial: Final = dial
        self._tls: Final = tls
        self._rng: Final = rng
        self._pacer: Final = pacer
        self._no_features: Final = probe.no_features
        self._news: Final = Wakeup()  # for `run`: something below has changed
        self._connection: Connection | None = None  # the current one: calls and probes go to it
        self._candidate: Connection | None = None  # is being opened
        self._candidate_is_self = False  # it leads to this program's own server
        self._replacing = False  # the last connection left gracefully
        self._demanded = False  # somebody wants a dial or a probe now
        self._attempted = -math.inf  # when the last of them began
        self._dialled = self._dialled_before = -math.inf  # when the last dial began, and the one before
        self._watching = False  # the probe's watch runs
        self._watched: Verdict[F] | None = None  # what it said last
        self._answered = False  # a probe was good on the current connection, or the last one
        self._answered_before = False  # and on the one that the current one gracefully replaced
        self._keepalive_interval = config.keepalive_interval  # doubled when the server complains
        self._life: Final = trio.CancelScope()
        self._asking = trio.CancelScope()  # the current probe's; cancelled when its connection is no longer current

    # -- for the registry --

    async def run(self) -> None:
        """Live until `stop`, then let calls in flight end, for `Config.drain_timeout`. Cancelled, it ends at once."""
        try:
            async with trio.open_nursery() as nursery:
                self.subchannel.spawn_by(nursery.start_soon)
                with self._life:
                    await self._live(nursery)
                self._let_go("the endpoint was removed")  # a dial that ended just then may have left something
                # Only connections with calls in flight are in the nursery now.
                nursery.cancel_scope.deadline = trio.current_time() + self._config.drain_timeout
        finally:
            self.subchannel.close("the registry was closed")

    def stop(self, reason: str) -> None:
        """The endpoint was removed: no call begins any more. Synchronous; `run` ends when its calls have."""
        self.record.happened(Event.REMOVED, reason)
        self.subchannel.close(reason)
        self._let_go(reason)
        self._life.cancel()

    # -- life --

    async def _live(self, nursery: trio.Nursery) -> None:
        failures = 0
        while True:
            if await self._connect(nursery):
                await self._attend()
                if self._answered:
                    failures = 0
                    if self._replacing:
                        # At once; but a server that always leaves so soon is not dialled as fast as the CPU can.
                        await self._pause_until(self._dialled_before + self._config.on_demand_interval, None)
                        continue
            failures += 1
            await self._pause_until(trio.current_time() + self._config.backoff.delay(failures, self._rng), None)

    def _let_go(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        candidate, self._candidate = self._candidate, None
        if connection is not None:
            connection.drain(reason)
        if candidate is not None:
            candidate.close(reason)

    async def _connect(self, nursery: trio.Nursery) -> bool:
        """Open a connection, when it is this endpoint's turn. Returns whether it became the current one."""
        with await self._pacer.slot():
            self._dialled_before, self._dialled = self._dialled, trio.current_time()
            self._attempted = self._dialled
            self.record.happened(Event.CONNECTING)
            failure = await self._open(nursery)
        if not failure:
            return True
        self._replacing = False
        self.subchannel.away(failure)
        self.record.happened(Event.CONNECT_FAILED, failure)
        return False

    async def _open(self, nursery: trio.Nursery) -> str:
        """Dial, and wait for the server's SETTINGS. Returns why that failed, and nothing if it did not."""
        endpoint, patience, step = self.subchannel.endpoint, self._config.connect_timeout, "connection"
        stream: object = None
        with trio.move_on_after(patience) as scope:
            try:
                context = None if self._tls is None else self._tls.context()
                with only_cancelled():
                    stream = await self._dial(endpoint)
                if self._tls is not None and context is not None and isinstance(stream, trio.abc.Stream):
                    step = "TLS handshake"
                    stream = await self._tls.secure(stream, context, endpoint)
            except Exception as error:  # noqa: BLE001 (dial is the user's, and may raise anything)
                return describe(error)
        if scope.cancelled_caught:
            return f"no answer to the {step} within {patience:g} s"
        if not isinstance(stream, trio.abc.Stream):
            return f"dial returned {type(stream).__name__}: expected a trio.abc.Stream"
        own_port = self._config.exclude_self_port
        self._candidate_is_self = own_port is not None and is_own(self.subchannel.endpoint, stream, own_port)
        connection = self._candidate = Connection(stream, self._config, self, self._keepalive_interval)
        nursery.start_soon(connection.run)
        with trio.move_on_at(scope.deadline):
            while self._candidate is connection:
                await self._news.sleep()
        if self._candidate is connection:
            await let_readers_drain()
        if self._candidate is connection:
            self._candidate = None
            connection.close(f"no SETTINGS from the server within {patience:g} s")
        return "" if connection.ready else connection.lost or "the connection was given up"

    async def _attend(self) -> None:
        """Probe the current connection, by watching if the probe can, until it is no longer current."""
        connection = self._connection
        if connection is None:  # lost already
            return
        watch = getattr(self._probe, "watch", None)
        if watch is None:
            await self._ask_repeatedly(connection)
            return
        async with trio.open_nursery() as nursery:

            def begin_watch() -> None:
                self._watching, self._watched = True, None
                nursery.start_soon(self._follow, connection, watch)

            begin_watch()
            await self._leave_to_watch(connection, self._config.probe_interval)
            await self._ask_repeatedly(connection, begin_watch)
            nursery.cancel_scope.cancel()
        self._watching = False

    async def _ask_repeatedly(self, connection: Connection, begin_watch: Callable[[], None] | None = None) -> None:
        config = self._config
        doubt, cold, failed = True, True, False
        while self._connection is connection:
            self._attempted = started = trio.current_time()
            self._asking = trio.CancelScope()
            verdict = await ask(
                self._probe, self._probe_channel, self.subchannel, self._asking, config.probe_timeout, doubt=doubt
            )
            if self._connection is not connection:
                return
            doubt = verdict is not None  # a second silence in a row is believed, whatever else is heard in time
            if verdict is None:  # no evidence of anything: ask again
                continue
            if verdict.event is Event.PROBE_OK:
                if not cold:  # the first one takes its time when a fleet comes up, and both sides load what they need
                    connection.measured(trio.current_time() - started)
                cold = False
            if self._watching and self._watched is not None and verdict.event not in _NO_ANSWER:
                verdict = self._watched  # it lives, so the word of the watch stands
            self._judge(verdict)
            if verdict.event is Event.PROBE_NOT_SENT:
                continue
            if failed and verdict.event is Event.PROBE_OK and begin_watch is not None and not self._watching:
                begin_watch()
            failed = verdict.event is Event.PROBE_FAILED
            settled = self._settled(verdict)
            jitter = self._rng.uniform(1 - config.probe_jitter, 1 + config.probe_jitter)
            interval = config.probe_interval * jitter if settled else config.probe_retry_interval
            if self._watching:
                await self._leave_to_watch(connection, interval)
            else:
                await self._pause_until(started + interval, connection)

    async def _follow(self, connection: Connection, watch: Callable[[Channel], AsyncIterator[ProbeResult[F]]]) -> None:
        """Take a watching probe's results as they come, until it ends or the connection is no longer current."""

        def hear(verdict: Verdict[F]) -> None:
            if self._connection is connection:
                self._watched = verdict
                self._judge(verdict)
                if not self._settled(verdict):
                    self._demand()

        await follow(watch, self._probe_channel, self._no_features, hear)
        if self._connection is connection:
            self._watching, self._attempted = False, -math.inf  # asking takes over, at once
            self._demand()

    async def _leave_to_watch(self, connection: Connection, patience: float) -> None:
        """Wait until the watch ends, somebody asks, or the server has answered nothing for so long.

        A silent watch is no evidence, and PINGs are few (`keepalive_interval`): so now and then a call has to show that
        the server still lives, or a PING could be due and not be allowed.
        """
        while self._watching and self._connection is connection:
            due = max(connection.answered, self._attempted) + patience
            if trio.current_time() >= due:
                return
            await self._pause_until(due, connection)
            if self._demanded:
                return

    async def _pause_until(self, due: float, connection: Connection | None) -> None:
        """Sleep until it is due; sooner if somebody asks; at once if `connection` is no longer the current one."""
        self._demanded = connection is None and self.subchannel.wanted
        while self._connection is connection:
            wake_at = due
            if self._demanded:
                wake_at = min(due, self._attempted + self._config.on_demand_interval)
            if trio.current_time() >= wake_at:
                return
            with trio.move_on_at(wake_at):
                await self._news.sleep()

    def _demand(self) -> None:
        self._demanded = True
        self._news.wake()

    # -- told by connections, synchronously --

    def connection_ready(self, connection: Connection) -> None:
        """The candidate becomes the current connection; SETTINGS of the current one may have changed what it takes."""
        if connection is self._candidate:
            self._answered_before = self._answered and self._replacing
            self._answered = False
            self._candidate, self._connection, self._replacing = None, connection, False
            why = "to this program itself, so it is left out" if self._candidate_is_self else ""
            self.record.happened(Event.CONNECTED, why, is_self=self._candidate_is_self)
            self.subchannel.ready(connection)
            self._news.wake()
        elif connection is self._connection:
            self.subchannel.ready(connection)

    def connection_draining(self, connection: Connection, reason: str) -> None:
        """Make before break: another one is dialled while this one finishes its calls."""
        if connection is self._candidate:
            connection.close(reason)
        elif connection is self._connection and (self._answered or self._answered_before):
            self._connection, self._replacing = None, True
            self.subchannel.replacing()
            self.record.happened(Event.REPLACING, reason)
            self._interrupt()
        elif connection is self._connection:
            # A server that leaves before it has answered one probe gives no reason to believe it healthy, unless it was
            # healthy a moment ago: a proxy may be reloaded twice in a row.
            self._leave(reason)

    def connection_lost(self, connection: Connection, reason: str) -> None:
        """Its calls have failed already; new ones fail from now on."""
        if connection.told_to_calm_down:
            self._keepalive_interval = min(2 * self._keepalive_interval, _RAREST_KEEPALIVE)  # gRPC A8
        if connection is self._candidate:
            self._candidate = None
            self._news.wake()
        elif connection is self._connection:
            self._leave(reason)

    def _leave(self, reason: str) -> None:
        """The current connection is none any more, and there is no other."""
        self._connection = None
        self.subchannel.away(reason, until_dialled=True)
        self.record.happened(Event.LOST, reason)
        self._interrupt()

    def slots_freed(self, connection: Connection) -> None:
        """Calls that wait for a stream may begin."""
        if connection is self._connection:
            self.subchannel.start_queued()

    def _interrupt(self) -> None:
        self._asking.cancel()
        self._news.wake()

    def _settled(self, verdict: Verdict[F]) -> bool:
        """Whether it need not be asked again soon: not after a failure, and not before `rise` successes.

        What a watch says holds until it says something else; but it has to be seen to hold `rise` or `fall` times.
        """
        if verdict.event is Event.PROBE_OK:
            return self.record.health.healthy
        return verdict is self._watched and not self.record.health.healthy

    def _judge(self, verdict: Verdict[F]) -> None:
        if verdict.event is Event.PROBE_OK:
            self._answered = True
        self.record.happened(verdict.event, verdict.reason, verdict.result, verdict.error)
