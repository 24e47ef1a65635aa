"""`open_registry`: checks what it is given, starts the services, and sees to it that nothing outlives the block.

Rules:
* The services run beside the body, under a scope that is shielded until the body has unwound: so its `finally` blocks
  may still call, if they shield themselves.
* An exception of the body's leaves as itself. It is held back while the services end, for a nursery would wrap it.
* A bug in a service cancels the body; both errors then share one ExceptionGroup.
"""

from __future__ import annotations

import enum
import logging
import time
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

from viewreg._boundary import HeldBack, describe, only_cancelled, raise_exit
from viewreg._config import Config
from viewreg._errors import InvalidTypeError, LocatorError, check_type
from viewreg._locator import Discovery, Locator
from viewreg._pacer import Pacer
from viewreg._probe import StatsProbe
from viewreg._registry import Registry
from viewreg._supervisor import Supervisor
from viewreg._transport.dial import dial_tcp, refuse_virtual_time
from viewreg._transport.tls import tls_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from viewreg._endpoint import Endpoint
    from viewreg._feature import Feature
    from viewreg._health import Health
    from viewreg._probe import Probe
    from viewreg._transport.dial import Dial
    from viewreg._transport.tls import ContextSource, Tls

F = TypeVar("F", bound=enum.Flag)

logger = logging.getLogger("viewreg")


@overload
def open_registry(
    locator: Locator | str,
    config: Config = ...,
    *,
    dial: Dial | None = None,
    ssl_context: ContextSource | None = None,
    server_hostname: str | None = None,
    rng: Random | None = None,
    wall_clock: Callable[[], float] = ...,
) -> AbstractAsyncContextManager[Registry[Feature]]: ...
@overload
def open_registry(
    locator: Locator | str,
    config: Config = ...,
    *,
    probe: Probe[F],
    dial: Dial | None = None,
    ssl_context: ContextSource | None = None,
    server_hostname: str | None = None,
    rng: Random | None = None,
    wall_clock: Callable[[], float] = ...,
) -> AbstractAsyncContextManager[Registry[F]]: ...
def open_registry(
    locator: Locator | str,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    probe: Probe[Any] | None = None,
    dial: Dial | None = None,
    ssl_context: ContextSource | None = None,
    server_hostname: str | None = None,
    rng: Random | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> AbstractAsyncContextManager[Registry[Any]]:
    """Keep a live registry of all servers that `locator` finds, for as long as the `async with` block lasts.

    Entering never waits for the network: views appear, first IDLE, as discovery lists them. Leaving, for any reason,
    ends every task and closes every socket; what is in flight then fails with `UnavailableError`.

    `locator` is a `Locator`, or a URI such as "static:///a:1,b:2". `probe` asks servers what they serve: by default,
    `StatsProbe`. `dial` opens streams to endpoints, by default over TCP.

    With `ssl_context`, TLS is spoken over whatever `dial` returns. It is a client's context, such as
    `ssl.create_default_context()`, or a function that returns one: called before each dial, so that certificates may
    change on disk. The context is changed: ALPN is set to "h2", which a server must agree to. `server_hostname` is the
    name that the servers' certificates must be for, and by which calls address them (`:authority`, without a port); by
    default each endpoint's own host.

    `rng` and `wall_clock` (Unix seconds) are for tests that must be reproducible: of a `random.Random` each endpoint
    gets a generator of its own, so that the order in which Trio runs tasks does not show; a subclass is shared by all
    as it is.

    Raises `InvalidTypeError` or `InvalidValueError`, at once, for arguments that can never work, and `ViewregError` if
    it would dial real sockets under a clock that jumps. Inside the block, an exception of the body's leaves it as
    itself.
    """
    finder = _opened(locator) if isinstance(locator, str) else locator
    if isinstance(finder, type) or not isinstance(finder, Locator):
        raise InvalidTypeError(f"locator {finder!r}: expected a Locator, or a URI such as 'static:///a:1,b:2'")
    check_type("config", config, Config, "a Config")
    probe = StatsProbe() if probe is None else probe
    found: object = probe
    if not (callable(found) and isinstance(getattr(found, "no_features", None), enum.Flag)):
        raise InvalidTypeError(
            f"probe {probe!r}: expected an async callable with `no_features`, a member of an enum.Flag"
        )
    if dial is not None and not callable(dial):
        raise InvalidTypeError(f"dial {dial!r}: expected an async function from an Endpoint to a trio.abc.Stream")
    tls = tls_of(ssl_context, server_hostname)
    if rng is not None and not isinstance(rng, Random):
        raise InvalidTypeError(f"rng {rng!r}: expected a random.Random")
    if not callable(wall_clock):
        raise InvalidTypeError(f"wall_clock {wall_clock!r}: expected a function that returns Unix time in seconds")
    services = _Services(finder, config, probe, dial or dial_tcp, tls=tls, rng=rng, wall_clock=wall_clock)
    return _open(services, own_dial=dial is None)


def _opened(uri: str) -> object:
    from viewreg.locators import open_locator  # late: locators may need libraries that others do not

    return open_locator(uri)


@asynccontextmanager
async def _open(services: _Services, *, own_dial: bool) -> AsyncIterator[Registry[Any]]:
    if own_dial:
        refuse_virtual_time("a registry that dials real sockets", "give it the dial of a viewreg.testing.MemoryNetwork")
    registry = services.registry = Registry(services.probe.no_features, services.supervise, services.new_rng)
    body = HeldBack()
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(services.run)
            try:
                with body:
                    await services.started.wait()
                    yield registry
            finally:
                try:
                    registry._close()  # noqa: SLF001 (its writing side is for here)
                finally:  # also if Ctrl-C comes just then
                    services.scope.cancel()
    except BaseExceptionGroup as group:
        # Only bugs come here: the body's error is held back, and what servers do is no exception.
        bugs = group.split(trio.Cancelled)[1]
        if bugs is None:
            raise
        raise_exit(bugs)  # Trio delivers them wherever the program happens to be
        errors = [*bugs.exceptions, *_without_cancelled(body.error)]
        raise BaseExceptionGroup("a service of the registry failed, which is a bug", errors) from None
    body.release()


def _without_cancelled(error: BaseException | None) -> list[BaseException]:
    """The body's error, if it is more than the cancellation that a bug brought upon it."""
    if isinstance(error, BaseExceptionGroup):
        error = error.split(trio.Cancelled)[1]
    return [] if error is None or isinstance(error, trio.Cancelled) else [error]


class _Services:
    """What runs beside the body: discovery, and one supervisor for each endpoint."""

    def __init__(
        self,
        locator: Locator,
        config: Config,
        probe: Probe[Any],
        dial: Dial,
        *,
        tls: Tls | None,
        rng: Random | None,
        wall_clock: Callable[[], float],
    ) -> None:
        self.probe = probe
        self.scope = trio.CancelScope(shield=True)
        self.started = trio.Event()
        self.registry: Registry[Any]
        self._locator = locator
        self._config = config
        self._dial = dial
        self._tls = tls
        self._rng = rng or Random()
        self._seeded = type(rng) is Random  # a subclass is its maker's, and used as it is
        self._wall_clock = wall_clock
        self._pacer = Pacer(config.connect_slots, config.connect_slot_hold)
        self._nursery: trio.Nursery

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                self._nursery = nursery
                self._take_cached()
                self.started.set()
                await self._discover()

    def supervise(self, endpoint: Endpoint, publish: Callable[[Health[Any]], None]) -> Supervisor[Any]:
        supervisor: Supervisor[Any] = Supervisor(
            endpoint,
            self._config,
            self.probe,
            self._dial,
            tls=self._tls,
            rng=self.new_rng(),
            pacer=self._pacer,
            wall_clock=self._wall_clock,
            publish=publish,
        )
        self._nursery.start_soon(supervisor.run, name=f"viewreg supervisor of {endpoint.host_port}")
        return supervisor

    def new_rng(self) -> Random:
        # Which of several tasks runs first is up to Trio: where chance must be reproducible, each has its own.
        return Random(self._rng.getrandbits(64)) if self._seeded else self._rng

    def _take_cached(self) -> None:
        """What the locator knows without waiting is there when the block begins."""
        try:
            self.registry._discovered(_checked(self._locator.cached()))  # noqa: SLF001 (its writing side is for here)
        except Exception as error:  # noqa: BLE001 (a locator may raise anything)
            self._failed(error)

    async def _discover(self) -> None:
        registry = self.registry
        failures = 0
        while True:
            version = registry.discovery.version
            try:
                with only_cancelled():
                    found = await self._locator.wait_for_update(version)
                discovery = _checked(found)
                if discovery.version <= version:
                    raise LocatorError(f"version {discovery.version}: expected one above {version}")
            except Exception as error:  # noqa: BLE001 (a locator may raise anything)
                self._failed(error)
                failures += 1
                await trio.sleep(self._config.discovery_backoff.delay(failures, self._rng))
            else:
                failures = 0
                registry._discovered(discovery)  # noqa: SLF001 (its writing side is for here)
                await trio.lowlevel.checkpoint()  # a locator that never waits must not stop the world

    def _failed(self, error: Exception) -> None:
        reason = describe(error)
        news = reason != self.registry.discovery.error
        level = logging.WARNING if news else logging.DEBUG
        logger.log(level, "discovery by %s failed, the last good list stays: %s", self._locator, reason)
        self.registry._discovery_failed(reason)  # noqa: SLF001 (its writing side is for here)


def _checked(discovery: object) -> Discovery:
    """A locator may return anything."""
    if not isinstance(discovery, Discovery):
        raise LocatorError(f"the locator returned {type(discovery).__name__}: expected a Discovery")
    return discovery
