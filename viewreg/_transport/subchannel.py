"""The line to one endpoint, through all its connections: who may call now, who waits, who is refused.

Rules:
* Stream ids are given when a call is sent, never before: calls beyond the server's MAX_CONCURRENT_STREAMS wait here, in
  order, probes ahead of all others.
* While the server is known to be away, calls fail at once, but for those that asked to wait. While nobody knows yet
  (never tried, or a replacement is being dialled), they wait. So does, for the next dial's outcome, a call of which the
  lost connection's server has promised that it did nothing with it.
* The supervisor writes the state; everything here is synchronous and in the Trio thread.
"""

from __future__ import annotations

import enum
import functools
import math
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from viewreg._transport.status import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from viewreg._config import Config
    from viewreg._endpoint import Endpoint
    from viewreg._transport.connection import Connection
    from viewreg._transport.status import CallError


Task: TypeAlias = "Callable[[], Awaitable[object]]"


class Queued(Protocol):
    """A call, as far as its beginning is concerned."""

    @property
    def waits(self) -> bool:
        """For a server that is known to be away, too."""
        ...

    @property
    def probe(self) -> bool:
        """It goes before all that are none."""
        ...

    @property
    def resent(self) -> bool:
        """The server has promised that it did nothing with it, and it was handed in again."""
        ...

    def begin(self, connection: Connection) -> None:
        """There is a stream for it: send its headers, now."""

    def give_up(self, error: CallError) -> None:
        """It will not begin."""


class _State(enum.Enum):
    PENDING = "pending"  # nobody knows yet: calls wait
    READY = "ready"
    AWAY = "away"  # calls fail
    CLOSED = "closed"  # calls fail, for good


class Subchannel:
    """See the module. One for each endpoint, from its discovery to its removal."""

    def __init__(self, endpoint: Endpoint, config: Config, on_demand: Callable[[], None]) -> None:
        self.endpoint = endpoint  # replaced when discovery changes its annotations
        self.config: Final = config
        self.on_demand: Final = on_demand  # asks the supervisor to dial or probe now
        self._early: list[Task] = []  # of calls that came before the supervisor's first step
        self.spawn: Callable[[Task], None] = self._early.append  # starts a task of a call; see `spawn_by`
        self.probes_unsent = 0  # how many probes left the queue unsent: those are no evidence
        self.probes_without_metadata = 0  # for how many a function of the user's gave none; written by those
        self._state = _State.PENDING
        self._reason = ""
        self._undecided = False  # AWAY, and not dialled since: what was handed in again waits for the outcome
        self._connection: Connection | None = None
        self._probes: dict[Queued, None] = {}
        self._calls: dict[Queued, None] = {}
        self._paused: dict[Queued, trio.CancelScope] = {}  # refused by the server, and soon to be sent again
        self._changed = trio.Event()  # swapped at every change of state

    # -- for calls --

    def submit(self, call: Queued) -> None:
        """Begin the call, or queue it. Raises `UnavailableError` if it would be in vain."""
        connection = self._connection
        queued = self._probes if call.probe else self._calls
        if connection is not None and not self._probes and not queued and connection.free_streams > 0:
            call.begin(connection)
            return
        if self._state is _State.CLOSED or (self._state is _State.AWAY and not self._stays(call)):
            if not call.probe:
                self.on_demand()
            raise UnavailableError(self._reason, started=False, endpoint=self.endpoint)
        if self._state is not _State.READY and not call.probe:
            self.on_demand()
        queued[call] = None

    def resubmit(self, call: Queued, pause: float) -> None:
        """Begin a call again that the server has not begun; not before `pause` seconds, if any. It may be withdrawn."""
        if self._state is _State.CLOSED:
            self._give_up([call])
        elif pause:
            self._paused[call] = trio.CancelScope()
            self.spawn(functools.partial(self._resubmit_after, pause, call, self._paused[call]))
        else:
            self._submit_again(call)

    async def _resubmit_after(self, pause: float, call: Queued, wanted: trio.CancelScope) -> None:
        with wanted:
            await trio.sleep(pause)
        if self._paused.pop(call, None) is not None:
            self._submit_again(call)

    def _submit_again(self, call: Queued) -> None:
        try:
            self.submit(call)
        except UnavailableError as error:
            call.give_up(error)

    @property
    def heard(self) -> float:
        """When the current connection last heard something, in Trio's time."""
        return -math.inf if self._connection is None else self._connection.heard

    @property
    def calls_in_flight(self) -> int:
        """How many calls are open on the current connection, or wait here."""
        waiting = len(self._calls) + len(self._paused)
        return waiting if self._connection is None else waiting + len(self._connection.http2.streams)

    @property
    def round_trip(self) -> float | None:
        """Seconds: the smallest of the last few on the current connection. None while nothing is known."""
        return None if self._connection is None else min(self._connection.round_trips, default=None)

    @property
    def admits_calls(self) -> bool:
        """Whether the server lets anyone call: its MAX_CONCURRENT_STREAMS may be 0."""
        return self._connection is None or self._connection.http2.max_concurrent_streams > 0

    @property
    def streams_allowed(self) -> float:
        """How many calls the server lets be open at once; without a connection there is no limit yet."""
        return math.inf if self._connection is None else self._connection.http2.max_concurrent_streams

    @property
    def wanted(self) -> bool:
        """Whether calls wait here."""
        return bool(self._probes or self._calls)

    def withdraw(self, call: Queued) -> None:
        """The call has gone; its place in the queue is free."""
        paused = self._paused.pop(call, None)
        if paused is not None:
            paused.cancel()
        if call in self._probes:
            del self._probes[call]
            if self._connection is None or self._connection.has_room:
                self.probes_unsent += 1
        self._calls.pop(call, None)

    async def wait_ready(self) -> None:
        """Wait until calls can be made. Raises `UnavailableError` once that can never be. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._state is not _State.READY:
            if self._state is _State.CLOSED:
                raise UnavailableError(self._reason, started=False, endpoint=self.endpoint)
            self.on_demand()
            await self._changed.wait()

    # -- for the supervisor --

    def spawn_by(self, spawn: Callable[[Task], None]) -> None:
        """Tasks of calls are started so from now on, and those that wait for it."""
        self.spawn = spawn
        for task in self._early:
            spawn(task)
        self._early.clear()

    def ready(self, connection: Connection) -> None:
        """New calls go to this connection from now on, and those that waited."""
        if self._state is _State.CLOSED:
            return
        self._connection = connection
        self._enter(_State.READY, "")
        self.start_queued()

    def replacing(self) -> None:
        """The connection takes no new calls and another one is being dialled: calls wait for the outcome."""
        self._connection = None
        self._enter(_State.PENDING, "")

    def away(self, reason: str, *, until_dialled: bool = False) -> None:
        """The server cannot be reached: calls fail, and those in the queue that do not want to wait.

        `until_dialled`: a connection was lost and the next has not been tried, so those that were handed in again stay.
        """
        self._connection = None
        self._enter(_State.AWAY, reason)
        self._undecided = until_dialled
        waiting = (*self._probes, *self._calls, *self._paused)
        self._give_up([call for call in waiting if not self._stays(call)])

    def close(self, reason: str) -> None:
        """The endpoint is gone: every call fails at once, now and for ever. The first reason stays."""
        self._connection = None
        self._enter(_State.CLOSED, reason)
        self._give_up([*self._probes, *self._calls, *self._paused])

    def start_queued(self) -> None:
        """Begin as many queued calls as there are free streams."""
        if not self._calls and not self._probes:
            return
        connection = self._connection
        for queue in (self._probes, self._calls):
            while queue and connection is not None and connection.free_streams > 0:
                call = next(iter(queue))
                del queue[call]
                call.begin(connection)

    def _stays(self, call: Queued) -> bool:
        """In the queue, though the server is away."""
        return call.waits or (self._undecided and call.resent)

    def _enter(self, state: _State, reason: str) -> None:
        if self._state is _State.CLOSED:
            return
        self._state, self._reason = state, reason
        old, self._changed = self._changed, trio.Event()
        old.set()

    def _give_up(self, calls: list[Queued]) -> None:
        for call in calls:
            self.withdraw(call)
            call.give_up(UnavailableError(self._reason, started=False, endpoint=self.endpoint))
