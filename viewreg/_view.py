"""A view: what the registry says of one server at one moment, and the way to call it."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Generic

import attrs
from attrs import field, frozen
from typing_extensions import TypeVar

from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError
from viewreg._feature import Feature, feature_text
from viewreg._health import NEEDS_PARTITION, Connectivity, check_partition
from viewreg._partition import FactPartition, HashRange, KeyEncoding
from viewreg._transport.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg.rpc import CarouselStub, DiagnosticsStub, ReadFactsPOStub, ReadFactsSPStub

F = TypeVar("F", bound=enum.Flag, default=Feature)
S = TypeVar("S")


@frozen
class View(Generic[F]):
    """One view server as the registry knew it when the snapshot was made. Its stubs are live: they call the server now.

    Immutable and hashable; equal if everything that it says is. A pickled or copied one has no channel. A view that
    provides CAROUSEL, HASH_PO or HASH_SP always has a partition: anything else is refused with `InvalidValueError`.
    """

    endpoint: Endpoint | None
    """Where it listens; None only for views that a test made."""

    partition: FactPartition | None
    """The facts that it serves, as its last understood probe said; None before that, or if it serves no part."""

    features: F
    """What it can do, as its last understood probe said."""

    connectivity: Connectivity
    """Of the connection to it: one of gRPC's five states."""

    healthy: bool
    """READY, and the probes reached `Config.rise`, with fewer than `Config.fall` failures in a row since.

    Only those on this connection count, and on the one that it gracefully replaced.
    """

    _channel: Channel | None = field(default=None, eq=False, repr=False)

    is_self: bool = field(default=False, kw_only=True)
    """It is this program's own server, by `Config.exclude_self_port`: healthy or not, `healthy_views` leaves it out."""

    def __attrs_post_init__(self) -> None:
        check_partition(self.features, self.partition)

    def is_same_as(self, other: View[F]) -> bool:
        """Equal, and calling through the same channel: an endpoint that went and came again has a new one."""
        return self is other or (self == other and self._channel is other._channel)

    def provides(self, *features: F) -> bool:
        """Whether it has all of the features, each of which may be a combination. Without any: True."""
        mine = self.features
        return all(feature in mine for feature in features)

    @property
    def channel(self) -> Channel:
        """The channel to the server, shared by all views of its endpoint. Raises `ViewregError` if there is none."""
        if self._channel is None:
            raise ViewregError(f"{self} has no channel: it was made by hand")
        return self._channel

    def stub(self, stub_class: Callable[[Any], S]) -> S:
        """A purerpc-generated stub that calls this server. Cheap: made once for each class and endpoint."""
        return self.channel.stub(stub_class)

    def diagnostics(self) -> DiagnosticsStub:
        """The stub of the service Diagnostics."""
        from viewreg.rpc import DiagnosticsStub

        return self.channel.stub(DiagnosticsStub)

    def carousel(self) -> CarouselStub:
        """The stub of the service Carousel."""
        from viewreg.rpc import CarouselStub

        return self.channel.stub(CarouselStub)

    def hash_po(self) -> ReadFactsPOStub:
        """The stub of the service ReadFactsPO."""
        from viewreg.rpc import ReadFactsPOStub

        return self.channel.stub(ReadFactsPOStub)

    def hash_sp(self) -> ReadFactsSPStub:
        """The stub of the service ReadFactsSP."""
        from viewreg.rpc import ReadFactsSPStub

        return self.channel.stub(ReadFactsSPStub)

    def with_features_for_testing(self, *features: F) -> View[F]:
        """A copy that provides exactly these features, with the full hash range where they demand a partition."""
        combined = type(self.features)(0)
        for feature in features:
            combined |= feature
        partition = self.partition
        if partition is None and isinstance(combined, Feature) and combined & NEEDS_PARTITION:
            encoding = KeyEncoding.POS if combined & Feature.HASH_PO else KeyEncoding.SPO
            partition = FactPartition(encoding, HashRange.FULL)
        return attrs.evolve(self, features=combined, partition=partition)

    def __reduce__(self) -> tuple[Any, ...]:
        # A view may travel, to a log or another process; the channel and the registry behind it stay here.
        make = functools.partial(View, is_self=True) if self.is_self else View
        return make, (self.endpoint, self.partition, self.features, self.connectivity, self.healthy)

    def __str__(self) -> str:
        endpoint = "" if self.endpoint is None else f'"{self.endpoint}"'
        partition = "" if self.partition is None else f"[{self.partition}]"
        healthy = "true" if self.healthy else "false"
        features = feature_text(self.features)
        return f"View{{Endpoint:{endpoint} Partition:{partition} Features:{features} Healthy:{healthy}}}"
