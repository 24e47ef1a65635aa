"""The registry: the discovery loop, the one place where state changes, and what readers and waiters see.

Rules:
* State changes in `Registry._apply` and `Registry._discovered`, synchronously: one change, one version, one moment.
* A writer that is no longer current is dropped by identity: a removed endpoint's last words announce nothing.
* Changing costs the same however many views there are. A snapshot is built when it is read, once for each version.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic

import trio
from attrs import frozen
from typing_extensions import TypeVar

from viewreg._changes import Changes
from viewreg._coverage import encoding_for
from viewreg._endpoint import Endpoint, diff
from viewreg._errors import InvalidTypeError, InvalidValueError, RegistryClosedError, check_int, check_type
from viewreg._feature import Feature
from viewreg._partition import HashRange
from viewreg._pick import Picker
from viewreg._snapshot import Snapshot, endpoint_key, how_many_serve, unknown_view, write_dump
from viewreg._view import View
from viewreg._watch import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from viewreg._health import Health, HistoryEntry
    from viewreg._locator import Discovery
    from viewreg._partition import KeyEncoding
    from viewreg._snapshot import TextSink
    from viewreg._supervisor import Supervisor

F = TypeVar("F", bound=enum.Flag, default=Feature)

_REMEMBERED: Final = 64  # snapshots that were read, for `changes(since=...)`


@frozen
class DiscoveryStatus:
    """How discovery is doing. While it fails, the last good list stays in force."""

    version: int
    """Of the last good list, by the locator's count; -1 before the first."""

    updated_at: float
    """Trio time of the last good list, in seconds; -inf before the first."""

    error: str | None
    """Why the locator's last attempt failed; None while all is well."""


class _Handle(Generic[F]):
    """One endpoint that discovery lists now. Written by the registry only."""

    __slots__ = ("endpoint", "position", "supervisor", "view")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.position = 0  # of its view in the registry's sorted list
        self.supervisor: Supervisor[F]
        self.view: View[F]

    def see(self, health: Health[F]) -> View[F]:
        return View(
            self.endpoint,
            health.partition,
            health.features,
            health.connectivity,
            health.healthy,
            self.supervisor.channel,
            is_self=health.is_self,
        )


class Registry(Generic[F]):
    """A live picture of all view servers. Made by `open_registry`; read it at any time, in the Trio thread.

    Readers never wait. Every `wait_...` is a Trio checkpoint, also when its condition holds already, and may be
    cancelled with no effect on others. After the block of `open_registry` is left it stays usable, and is empty.
    """

    def __init__(
        self,
        no_features: F,
        supervise: Callable[[Endpoint, Callable[[Health[F]], None]], Supervisor[F]],
        new_rng: Callable[[], Random],
    ) -> None:
        self._no_features: Final = no_features
        self._supervise: Final = supervise  # makes a supervisor and starts it
        self._clock: Final = trio.lowlevel.current_clock()
        self._picker: Final[Picker[F]] = Picker(self._clock, new_rng)
        self._handles: dict[str, _Handle[F]] = {}  # by host and port; written by `_discovered`
        self._views: list[View[F]] = []  # sorted; written by `_apply` and `_discovered`
        self._changed: Final[Watched[float]] = Watched(trio.current_time())  # when the last change was
        self._snapshot: Snapshot[F] | None = None  # of the newest version, once it was read
        self._read: Final[OrderedDict[int, Snapshot[F]]] = OrderedDict()
        self._closed = False
        self.discovery = DiscoveryStatus(-1, -math.inf, None)
        """How discovery is doing. Written by the discovery loop."""

    # -- reading --

    @property
    def snapshot(self) -> Snapshot[F]:
        """Everything at this moment; the same object until something changes. Take it here, read it in any thread."""
        snapshot = self._snapshot
        if snapshot is None:
            changed = self._changed
            snapshot = Snapshot(changed.version, changed.value, tuple(self._views), self._no_features, self._clock)
            self._snapshot = self._read[snapshot.version] = snapshot
            if len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        return snapshot

    @property
    def version(self) -> int:
        """The number of changes so far. Strictly increasing."""
        return self._changed.version

    @property
    def last_changed(self) -> float:
        """Trio time of the last change, in seconds; strictly increasing. At first: when the registry was opened."""
        return self._changed.value

    def all_views(self) -> list[View[F]]:
        """All views, healthy or not, in no particular order: a fresh list, the caller's to change."""
        return list(self._views)

    def healthy_views(self, *features: F) -> list[View[F]]:
        """The healthy views that provide all of the features, in no particular order: a fresh list.

        This program's own server is none of them, if `Config.exclude_self_port` says which one that is.
        """
        return self.snapshot.healthy_views(*features)

    def pick(
        self,
        feature: F,
        *,
        hash: int | None = None,  # noqa: A002 (the field's word)
        encoding: KeyEncoding | None = None,
        zone: str | None = None,
    ) -> View[F]:
        """One healthy view that provides a feature, for one call: near, quick, and not busy.

        With `hash`, one that serves it; `encoding` is as in `Snapshot.coverage`. Of the views whose endpoint has the
        annotation "zone" with the value of `zone`, or of all if there are none, those come into question whose round
        trip is at most 15 ms longer than the best one, or not known yet. Two of them are drawn, and the one with fewer
        calls in flight is taken. See `Channel.round_trip` and `Channel.calls_in_flight`.

        Raises `NotServedError` if there is no such view, `InvalidValueError` or `InvalidTypeError` for wrong arguments.
        """
        return self._picker.pick(self.snapshot, feature, hash, encoding, zone)

    def least_busy(self, view: View[F]) -> float:
        """The calls in flight to a view, and a random fraction: for `prefer`, so that of equals any is taken."""
        return self._picker.least_busy(view)

    def summary(self) -> dict[str, float | int]:
        """A few numbers, fit for logging's `extra`. See `Snapshot.summary`."""
        return self.snapshot.summary()

    def dump(self, file: TextSink | None = None, *, reasons: bool = False) -> None:
        """Write the registry for people; `reasons` adds what last happened to each view. None is sys.stdout."""
        write_dump(self.snapshot, file, self._reason if reasons else lambda _view: "")

    def history(self, endpoint: Endpoint | str) -> Sequence[HistoryEntry]:
        """What happened to an endpoint, oldest first, at most `Config.history_length` entries.

        Raises `UnknownViewError`, which names the known endpoints, for one that discovery does not list.
        """
        key = endpoint_key(endpoint)
        handle = self._handles.get(key)
        if handle is None:
            raise unknown_view(key, self._handles)
        return handle.supervisor.record.history.entries()

    # -- waiting --

    async def wait_for_change(self, last_changed: float) -> Snapshot[F]:
        """Wait until the registry has changed after the Trio time `last_changed`; -math.inf returns at once.

        Pass the `last_changed` of what you have seen. Raises `RegistryClosedError` if that can no longer happen.
        """
        _check_time("last_changed", last_changed)
        return await self._wait(lambda: self.last_changed > last_changed)

    async def wait_until(self, predicate: Callable[[Snapshot[F]], bool]) -> Snapshot[F]:
        """Wait until the predicate holds for the newest snapshot, and return that one.

        It is asked now and after every change, so it should be quick; snapshots in between may be skipped. What it
        raises comes out here. Raises `RegistryClosedError` if it can no longer come true.
        """
        return await self._wait(lambda: predicate(self.snapshot))

    async def wait_for_coverage(
        self,
        feature: F,
        replicas: int = 1,
        *,
        encoding: KeyEncoding | None = None,
        space: HashRange = HashRange.FULL,
    ) -> Snapshot[F]:
        """Wait until each hash of `space` is served by at least `replicas` healthy views that provide a feature.

        See `Snapshot.coverage` for the arguments, and for what is raised. Raises `RegistryClosedError` if it can no
        longer come true.
        """
        check_int("replicas", replicas, 1)
        check_type("space", space, HashRange, "a HashRange")
        encoding = encoding_for(feature, encoding)
        doubtful = space.start  # a hash that had too few when the coverage was last worked out

        def covered(snapshot: Snapshot[F]) -> bool:
            # While a large fleet comes up, one hash tells that it is not all there yet, and at a hundredth of the cost.
            nonlocal doubtful
            if how_many_serve(snapshot, feature, doubtful, encoding) < replicas:
                return False
            thin = snapshot.coverage(feature, encoding=encoding, space=space).thin(replicas)
            if thin:
                doubtful = thin[0].range.start
            return not thin

        return await self.wait_until(covered)

    async def wait_for_stable(self, duration: float) -> Snapshot[F]:
        """Wait until nothing has changed for `duration` seconds; 0 or less holds at once. Stable is not healthy.

        A dead fleet is stable. To wait for what you need to be there, use `wait_until`.
        """
        _check_time("duration", duration)
        await trio.lowlevel.checkpoint()
        while not self._closed:
            due = self.last_changed + duration
            if duration <= 0 or trio.current_time() >= due:
                break
            with trio.move_on_at(due):
                await self._changed.wait_past(self.version)
        return self.snapshot

    def changes(self, since: int | None = None) -> Changes[F]:
        """The changes from now on, for `async for`. See `Changes`."""
        old = self._read.get(since) if since is not None else None
        if old is None:
            old = Snapshot(-1, -math.inf, (), self._no_features, self._clock)
        return Changes(old, self._changed, lambda: self.snapshot, lambda: self._closed)

    async def _wait(self, condition: Callable[[], bool]) -> Snapshot[F]:
        await trio.lowlevel.checkpoint()
        while True:
            version = self.version
            if condition():
                return self.snapshot
            if self._closed:
                raise RegistryClosedError("the registry was closed, and what was waited for can no longer happen")
            await self._changed.wait_past(version)

    # -- changing --

    def _discovered(self, discovery: Discovery) -> None:
        """A new list is in force. Synchronous: one change, whatever differs."""
        if self._closed:
            return
        self.discovery = DiscoveryStatus(discovery.version, trio.current_time(), None)
        found = diff((handle.endpoint for handle in self._handles.values()), discovery.endpoints)
        if not found:
            return
        for endpoint in found.removed:
            self._handles.pop(endpoint.host_port).supervisor.stop("the endpoint is no longer discovered")
        for endpoint in found.changed:
            handle = self._handles[endpoint.host_port]
            handle.endpoint = handle.supervisor.subchannel.endpoint = endpoint
            handle.view = handle.see(handle.supervisor.record.health)
        for endpoint in found.added:
            self._handles[endpoint.host_port] = self._start(endpoint)
        ordered = sorted(self._handles.values(), key=lambda handle: handle.endpoint.sort_key)
        for position, handle in enumerate(ordered):
            handle.position = position
        self._views = [handle.view for handle in ordered]
        self._advance()

    def _start(self, endpoint: Endpoint) -> _Handle[F]:
        handle: _Handle[F] = _Handle(endpoint)
        handle.supervisor = self._supervise(endpoint, lambda health: self._apply(handle, health))
        handle.view = handle.see(handle.supervisor.record.health)
        return handle

    def _discovery_failed(self, error: str) -> None:
        self.discovery = DiscoveryStatus(self.discovery.version, self.discovery.updated_at, error)

    def _apply(self, handle: _Handle[F], health: Health[F]) -> None:
        """What a supervisor found out. Synchronous, and O(1)."""
        if self._handles.get(handle.endpoint.host_port) is not handle:
            return
        view = handle.see(health)
        if view == handle.view:
            return
        handle.view = self._views[handle.position] = view
        self._advance()

    def _close(self) -> None:
        """Empty, for good. Supervisors that still run announce nothing any more."""
        handles, self._handles, self._views = self._handles, {}, []
        self._closed = True
        self._advance()
        for handle in handles.values():
            handle.supervisor.stop("the registry was closed")

    def _advance(self) -> None:
        self._snapshot = None
        self._changed.publish(max(trio.current_time(), math.nextafter(self._changed.value, math.inf)))

    def _reason(self, view: View[F]) -> str:
        handle = None if view.endpoint is None else self._handles.get(view.endpoint.host_port)
        return "" if handle is None else handle.supervisor.record.history.reason()

    def __repr__(self) -> str:
        return f"<Registry: {len(self._views)} views, {len(self.healthy_views())} healthy>"


def _check_time(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} {value!r}: expected a number of seconds")
    if math.isnan(value):
        raise InvalidValueError(f"{name} {value!r}: expected a number of seconds")
