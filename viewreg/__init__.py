"""A live health registry for fleets of gRPC servers, for Trio.

`open_registry` is where to begin; the README shows it at work.
"""

from __future__ import annotations

from viewreg._backoff import Backoff
from viewreg._changes import Changes
from viewreg._config import Config
from viewreg._coverage import Assignment, Coverage, Replicas
from viewreg._endpoint import Endpoint, EndpointDiff, diff
from viewreg._errors import (
    InvalidTypeError,
    InvalidValueError,
    LocatorError,
    NotServedError,
    ProbeAnswerError,
    RegistryClosedError,
    UnknownViewError,
    ViewregError,
)
from viewreg._fan_out import Answer, FanOut, open_fan_out
from viewreg._feature import Feature
from viewreg._health import Connectivity, Event, HistoryEntry, ProbeResult
from viewreg._health_probe import HealthProbe
from viewreg._http2.metadata import Metadata, MetadataLike
from viewreg._locator import Discovery, Locator, StaticLocator
from viewreg._open import open_registry
from viewreg._partition import Fact, FactPartition, HashRange, KeyEncoding, hash_po, hash_sp
from viewreg._probe import Probe, StatsProbe
from viewreg._registry import DiscoveryStatus, Registry
from viewreg._snapshot import Change, Snapshot
from viewreg._transport.calls import Response, StreamStream, StreamUnary, UnaryStream, UnaryUnary
from viewreg._transport.channel import Channel
from viewreg._transport.dial import Dial, dial_tcp
from viewreg._transport.purerpc import StatusCode
from viewreg._transport.status import (
    AbortedError,
    AlreadyExistsError,
    CallError,
    CancelledError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from viewreg._transport.streams import MessageStream, ResponseStream
from viewreg._view import View

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "Answer",
    "Assignment",
    "Backoff",
    "CallError",
    "CancelledError",
    "Change",
    "Changes",
    "Channel",
    "Config",
    "Connectivity",
    "Coverage",
    "DataLossError",
    "DeadlineExceededError",
    "Dial",
    "Discovery",
    "DiscoveryStatus",
    "Endpoint",
    "EndpointDiff",
    "Event",
    "Fact",
    "FactPartition",
    "FailedPreconditionError",
    "FanOut",
    "Feature",
    "HashRange",
    "HealthProbe",
    "HistoryEntry",
    "InternalError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "InvalidValueError",
    "KeyEncoding",
    "Locator",
    "LocatorError",
    "MessageStream",
    "Metadata",
    "MetadataLike",
    "NotFoundError",
    "NotServedError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "Probe",
    "ProbeAnswerError",
    "ProbeResult",
    "Registry",
    "RegistryClosedError",
    "Replicas",
    "ResourceExhaustedError",
    "Response",
    "ResponseStream",
    "Snapshot",
    "StaticLocator",
    "StatsProbe",
    "StatusCode",
    "StreamStream",
    "StreamUnary",
    "UnaryStream",
    "UnaryUnary",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "UnknownViewError",
    "View",
    "ViewregError",
    "dial_tcp",
    "diff",
    "hash_po",
    "hash_sp",
    "open_fan_out",
    "open_registry",
]


def _adopt() -> None:
    """Make what is exported say "viewreg", wherever it is defined. purerpc's StatusCode keeps its home."""
    for name in __all__:
        exported = globals()[name]
        if getattr(exported, "__module__", "").startswith("viewreg."):
            exported.__module__ = "viewreg"


_adopt()
