"""Views and snapshots without servers, for unit tests of code that is given one."""

from __future__ import annotations

import enum
from itertools import pairwise
from typing import Any, Final, TypeVar, overload

from attrs import frozen
from trio.abc import Clock

from viewreg._endpoint import Endpoint
from viewreg._errors import InvalidValueError, check_type
from viewreg._feature import Feature
from viewreg._health import Connectivity
from viewreg._partition import FactPartition, HashRange, KeyEncoding
from viewreg._snapshot import Snapshot
from viewreg._view import View

F = TypeVar("F", bound=enum.Flag)

_ALL_FACTS: Final = FactPartition(KeyEncoding.SPO, HashRange.FULL)
_LOOKUPS: Final = {KeyEncoding.SPO: Feature.HASH_SP, KeyEncoding.POS: Feature.HASH_PO}


@overload
def make_view(
    address: Endpoint | str = ...,
    *,
    partition: FactPartition | None = ...,
    features: None = None,
    healthy: bool = True,
    connectivity: Connectivity | None = None,
) -> View[Feature]: ...
@overload
def make_view(
    address: Endpoint | str = ...,
    *,
    partition: FactPartition | None = ...,
    features: F,
    healthy: bool = True,
    connectivity: Connectivity | None = None,
) -> View[F]: ...
def make_view(
    address: Endpoint | str = "view.example:8080",
    *,
    partition: FactPartition | None = _ALL_FACTS,
    features: Any = None,
    healthy: bool = True,
    connectivity: Connectivity | None = None,
) -> View[Any]:
    """A view that a registry could have made. It has no server: asking for a stub of it raises `ViewregError`.

    `address` is an `Endpoint` or "host:port". Without `features` it can do what a disk view of its `partition` can:
    without a partition, that is DIAGNOSTICS. `connectivity` is READY if it is healthy, else TRANSIENT_FAILURE.

    Raises `InvalidValueError` or `InvalidTypeError` for what no registry would say, such as a healthy view that is not
    READY, or one that provides lookups and has no partition.
    """
    endpoint = Endpoint.parse(address) if isinstance(address, str) else address
    check_type("address", endpoint, Endpoint, "an Endpoint or a HOST:PORT text")
    if partition is not None:
        check_type("partition", partition, FactPartition, "a FactPartition or None")
    if features is None:
        features = Feature.DIAGNOSTICS
        if partition is not None:
            features |= Feature.CAROUSEL | _LOOKUPS[partition.encoding]
    check_type("features", features, enum.Flag, "a Feature, or a member of your own enum.Flag")
    if connectivity is None:
        connectivity = Connectivity.READY if healthy else Connectivity.TRANSIENT_FAILURE
    check_type("connectivity", connectivity, Connectivity, "a Connectivity")
    if healthy and connectivity is not Connectivity.READY:
        raise InvalidValueError(f"connectivity {connectivity.name} of a healthy view: expected READY, or healthy=False")
    return View(endpoint, partition, features, connectivity, healthy)


def make_snapshot(*views: View[F] | str, version: int = 1, last_changed: float = 0.0, age: float = 0.0) -> Snapshot[F]:
    """A snapshot of these views, in the order of a registry; texts are addresses for `make_view`.

    `last_changed` is in seconds of the clock of an imaginary run, in which `age` seconds have passed since then.

    Raises `InvalidValueError` if two have the same address.
    """
    made: list[View[Any]] = [make_view(view) if isinstance(view, str) else view for view in views]
    for view in made:
        check_type("view", view, View, "a View, or a HOST:PORT text")
    made.sort(key=_order)
    for address, following in pairwise(map(_order, made)):
        if address == following:
            raise InvalidValueError(
                f"views: {':'.join(address)} comes more than once; a snapshot has each address once"
            )
    no_features = type(made[0].features)(0) if made else Feature(0)
    return Snapshot(version, last_changed, tuple(made), no_features, _StandingClock(last_changed + age))


def _order(view: View[Any]) -> tuple[str, str]:
    return ("", "") if view.endpoint is None else (view.endpoint.host, str(view.endpoint.port))


@frozen
class _StandingClock(Clock):
    """A clock that always says the same."""

    now: float

    def start_clock(self) -> None:
        """It does not go."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.now
