"""The health service as purerpc serves it, for fake views: it says what a test tells it to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import purerpc
import trio

from viewreg import NotFoundError
from viewreg._grpc_health.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from viewreg import CallError

SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    HealthCheckResponse.SERVING,
    HealthCheckResponse.NOT_SERVING,
    HealthCheckResponse.SERVICE_UNKNOWN,
)


class Health(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """Statuses by the names of services; others are unknown. Without `watch` it has Check only."""

    def __init__(self, *, watch: bool = True, **statuses: int) -> None:
        self.statuses: dict[str, int] = dict(statuses)
        self.checks: Final[list[float]] = []  # when each was called
        self.watches: Final[list[float]] = []
        self.refuses: CallError | None = None  # what a Watch ends with before its first word
        self.ends: CallError | bool = False  # how all that are open end, and later ones after their first word
        self._watch = watch
        self._changed = trio.Event()

    def set(self, service: str, status: int) -> None:
        """Change a status, and tell those who watch."""
        self.statuses[service] = status
        self._wake()

    def end(self, how: CallError | bool = True) -> None:
        """End each Watch: well, or with an error. False: no longer."""
        self.ends = how
        self._wake()

    def _wake(self) -> None:
        old, self._changed = self._changed, trio.Event()
        old.set()

    async def check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        self.checks.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if request.service not in self.statuses:
            raise NotFoundError("unknown service")
        return HealthCheckResponse(status=self.statuses[request.service])  # type: ignore[arg-type]

    async def watch(self, request: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        self.watches.append(trio.current_time())
        if self.refuses is not None:
            raise self.refuses
        last = None
        while True:
            status = self.statuses.get(request.service, SERVICE_UNKNOWN)
            changed = self._changed
            if status != last:
                last = status
                yield HealthCheckResponse(status=status)  # type: ignore[arg-type]
            if self.ends is True:
                return
            if self.ends:
                raise self.ends
            if changed is self._changed:
                await changed.wait()

    @property
    def service(self) -> purerpc.Service:
        service = purerpc.Service("grpc.health.v1.Health")
        kind = purerpc.Cardinality
        service.add_method(
            "Check", self.check, purerpc.RPCSignature(kind.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse)
        )
        if self._watch:
            service.add_method(
                "Watch", self.watch, purerpc.RPCSignature(kind.UNARY_STREAM, HealthCheckRequest, HealthCheckResponse)
            )
        return service
