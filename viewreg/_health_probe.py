"""`HealthProbe`: servers of any kind, by what they say of their services over gRPC's health protocol.

Rules (gRPC's health-checking.md and A17):
* Watch tells at once when something changes, so it is what a connection begins with; a server without it is asked by
  Check, again and again.
* That a Watch ends says nothing about a service: its last word stands, and it is begun again after a pause. Only one
  that ends before its first word is given up, for Check.
* A service that the server does not know is off. That the server knows nothing of health at all is another matter: then
  nobody can say whether it serves.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Self

import trio
from typing_extensions import TypeVar

from viewreg._errors import InvalidTypeError, InvalidValueError, ProbeAnswerError, check_type
from viewreg._health import ProbeResult
from viewreg._transport.calls import UnaryUnary
from viewreg._transport.status import CallError, NotFoundError, UnimplementedError
from viewreg._transport.streams import decode, encode, leave_dropped
from viewreg._transport.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from viewreg._grpc_health.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from viewreg._transport.channel import Channel
    from viewreg._transport.exchange import Exchange

F = TypeVar("F", bound=enum.Flag)

_CHECK: Final = "/grpc.health.v1.Health/Check"
_WATCH: Final = "/grpc.health.v1.Health/Watch"

# Seconds until a Watch that has ended is begun again: doubled while they end soon, as those do that a proxy cuts off.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0  # as often as Check would be called, by the default of Config


class HealthProbe(Generic[F]):
    """What servers serve, by gRPC's health protocol: `HealthProbe({Mine.SEARCH: "acme.Search", Mine.ADD: "acme.Add"})`.

    Each feature is a member of an `enum.Flag` of your own, and stands for the service whose full name is given; "" is
    the server as a whole. A view has the features whose services are SERVING, and is healthy while it has any.

    With Watch, a change is seen as soon as the server tells. While a connection lives it holds one stream open for each
    service. Where there is no Watch, or it is refused, or the server allows so few streams at a time that none would be
    left for calls, `Check` is called every `Config.probe_interval`.

    A server without the health service is unhealthy, and its history says so; with `without_health` it has these
    features instead as long as it answers.

    Raises `InvalidValueError` or `InvalidTypeError` for services that cannot be meant.
    """

    def __init__(self, services: Mapping[F, str], *, without_health: F | None = None) -> None:
        self._services: Final = _checked(services)
        self._names: Final = tuple(dict.fromkeys(self._services.values()))  # two features may share a service
        self._no_features: Final[F] = type(next(iter(services)))(0)
        if without_health is not None:
            expected = f"a {type(self._no_features).__name__}, or None"
            check_type("without_health", without_health, type(self._no_features), expected)
            ProbeResult(without_health)  # raises for features that need a partition
        self._without_health: Final = without_health

    @property
    def no_features(self) -> F:
        """Nothing."""
        return self._no_features

    async def __call__(self, channel: Channel) -> ProbeResult[F]:
        """Ask for the status of each service, all at once.

        Raises `ProbeAnswerError` if the server has no health service, `CallError` for any other failure.
        """
        statuses: dict[str, int] = {}
        errors: list[CallError] = []

        async def check(service: str, others: trio.CancelScope) -> None:
            try:
                statuses[service] = await _check(channel, service)
            except CallError as error:
                errors.append(error)
                others.cancel()  # whatever they say, it changes nothing any more

        if len(self._names) == 1:
            await check(self._names[0], trio.CancelScope())
        else:
            async with trio.open_nursery() as nursery:
                for service in self._names:
                    nursery.start_soon(check, service, nursery.cancel_scope)
        if not errors:
            return self._result(statuses)
        first = errors[0]
        errors.clear()
        try:
            if not isinstance(first, UnimplementedError):
                raise first
            if self._without_health is None:
                raise ProbeAnswerError(f"no health service (grpc.health.v1.Health): {first.reason}") from first
        finally:
            del first  # whose traceback leads here: a cycle would hold the call
        return ProbeResult(self._without_health)

    def watch(self, channel: Channel) -> Watch[F]:
        """Follow the status of each service, as long as the server lets us."""
        return Watch(self._names, channel, self._result)

    def _result(self, statuses: Mapping[str, int]) -> ProbeResult[F]:
        from viewreg._grpc_health.health_pb2 import HealthCheckResponse

        features = self._no_features
        for feature, service in self._services.items():
            if statuses[service] == HealthCheckResponse.SERVING:
                features |= feature
        if features:
            return ProbeResult(features)
        words = {int(number): word for word, number in HealthCheckResponse.ServingStatus.items()}
        said = {name: words.get(status, f"in status {status}") for name, status in statuses.items()}
        off = ", ".join(f"{name or 'the server'} is {said[name]}" for name in self._names)
        return ProbeResult(features, serving=False, reason=off)

    def __repr__(self) -> str:
        without = "" if self._without_health is None else f", without_health={self._without_health}"
        return f"HealthProbe({self._services}{without})"


class Watch(Generic[F]):
    """What a server says of its services, for `async for`: one result when all are known, then one for each change.

    Made by `HealthProbe.watch`. It ends when a Watch is refused. Leave it with `aclose`;
    one that is dropped is cleaned up when Python finds it, with a ResourceWarning.
    """

    def __init__(
        self, services: Iterable[str], channel: Channel, result: Callable[[Mapping[str, int]], ProbeResult[F]]
    ) -> None:
        # All streams wake the one task that reads them: a task for each would see a change some passes later.
        self._woken: Final = Wakeup()
        self._channel: Final = channel
        self._followed: Final = {name: _Followed(name, channel, self._woken) for name in services}
        self._result: Final = result
        self._last: ProbeResult[F] | None = None
        self._over = False
        self._token: Final = trio.lowlevel.current_trio_token()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProbeResult[F]:
        """The next result that differs from the last. Cancelled, nothing is lost."""
        await trio.lowlevel.checkpoint()
        followed = self._followed.values()
        while not self._over:
            for each in followed:
                await self._begin(each)
            for each in followed:
                while each.take():  # one word at a time: what was so for a moment only counts, too
                    if (result := self._now()) is not None:
                        return result
            if any(each.refused for each in followed):
                self._leave()
            else:
                with trio.move_on_at(min(each.due for each in followed)):
                    await self._woken.sleep()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave all streams: the server is told, now. A checkpoint."""
        self._leave()
        await trio.lowlevel.checkpoint()

    async def _begin(self, followed: _Followed) -> None:
        """Begin a stream if one is due, but where streams for all would leave none for a call."""
        if trio.current_time() < followed.due:
            return
        if self._channel.streams_allowed <= len(self._followed):
            followed.refused = True
        else:
            await followed.begin()

    def _now(self) -> ProbeResult[F] | None:
        """The result of the last words, if there is one for each service and it differs from the last."""
        known = {name: each.status for name, each in self._followed.items() if each.status is not None}
        if len(known) == len(self._followed) and (result := self._result(known)) != self._last:
            self._last = result
            return result
        return None

    def _leave(self) -> None:
        self._over = True
        for followed in self._followed.values():
            followed.leave()

    def __del__(self) -> None:
        ways = [followed.leave for followed in self._followed.values() if followed.is_open]
        if ways:
            leave_dropped(self, self._token, *ways)


class _Followed:
    """The Watch of one service, through all its streams."""

    def __init__(self, service: str, channel: Channel, woken: Wakeup) -> None:
        self.status: int | None = None  # the last word; written by `take`
        self.due = -math.inf  # when the next stream is to begin; inf while one is open
        self.refused = False  # no stream is to begin any more
        self._service: Final = service
        self._channel: Final = channel
        self._woken: Final = woken
        self._exchange: Exchange | None = None
        self._began = -math.inf
        self._told = False  # whether this stream has said anything
        self._pause = _FIRST_PAUSE / 2

    @property
    def is_open(self) -> bool:
        """Whether a stream is, as far as is known here."""
        return self._exchange is not None and not self._exchange.ended

    async def begin(self) -> None:
        """Begin a stream."""
        from viewreg._grpc_health.health_pb2 import HealthCheckRequest

        exchange = self._channel.exchange(_WATCH, None, encode(HealthCheckRequest(service=self._service)))
        exchange.wake(self._woken)
        try:
            await exchange.start()
        except CallError:
            self.refused = True
            return
        self._exchange, self._began, self._told, self.due = exchange, trio.current_time(), False, math.inf

    def take(self) -> bool:
        """Take one word, if it is here; notice the end of the stream, if that is."""
        from viewreg._grpc_health.health_pb2 import HealthCheckResponse

        exchange = self._exchange
        if exchange is None:
            return False
        data = exchange.take()
        if data is not None:
            try:
                self.status, self._told = decode(exchange, HealthCheckResponse, data).status, True
                return True
            except CallError:
                exchange.cancel()  # it was no such message
        if exchange.ended:
            self._end()
        return False

    def _end(self) -> None:
        self.leave()
        if not self._told:
            self.refused = True
            return
        now = trio.current_time()
        short = now - self._began < _LONGEST_PAUSE
        self._pause = min(self._pause * 2, _LONGEST_PAUSE) if short else _FIRST_PAUSE
        self.due = now + self._pause

    def leave(self) -> None:
        """Leave the stream that is open, if one is."""
        if self._exchange is not None:
            self._exchange.cancel()
            self._exchange = None


async def _check(channel: Channel, service: str) -> int:
    from viewreg._grpc_health.health_pb2 import HealthCheckRequest, HealthCheckResponse

    call: UnaryUnary[HealthCheckRequest, HealthCheckResponse] = UnaryUnary(channel, _CHECK, HealthCheckResponse)
    try:
        return (await call(HealthCheckRequest(service=service))).status
    except NotFoundError:
        return HealthCheckResponse.SERVICE_UNKNOWN


def _checked(services: object) -> dict[Any, str]:
    expected = "expected a mapping from members of one enum.Flag to names of services"
    if not isinstance(services, Mapping):
        raise InvalidTypeError(f"services {services!r}: {expected}")
    if not services:
        raise InvalidValueError(f"services {services!r}: {expected}")
    kind = type(next(iter(services)))
    for feature, service in services.items():
        if not isinstance(feature, enum.Flag) or type(feature) is not kind:
            raise InvalidTypeError(f"feature {feature!r}: {expected}")
        if not isinstance(service, str):
            raise InvalidTypeError(f"service {service!r}: expected the full name of a service, or '' for the server")
        if not service.isascii() or not service.isprintable():
            raise InvalidValueError(f"service {service!r}: expected a name such as 'acme.v1.Search'")
    so_far = kind(0)
    for feature in services:
        if not feature or feature & so_far:
            raise InvalidValueError(f"feature {feature!r}: expected a member that is not yet another service's")
        so_far |= feature
    ProbeResult(so_far)  # raises for features that need a partition, of which health knows nothing
    return dict(services)
