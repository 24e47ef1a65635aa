"""Every knob of a registry, with its unit, its range and where its default comes from.

Rules:

* Validated when made: a `Config` that exists can be used. Frozen: ``attrs.evolve`` makes another one.
* Durations are seconds, sizes are bytes. An int is accepted for a float and stored as one.
* No combination of allowed values is refused. A probe timeout above the probe interval, for one, works: probes never
  overlap, so the next one starts late.
"""

from __future__ import annotations

import attrs

from viewreg._backoff import Backoff
from viewreg._errors import as_float, check_type, number, whole
from viewreg._http2.standing import StandingMetadata, standing_metadata

# One range for all durations: below a millisecond a timer is a busy loop, above a day a typing mistake.
_SHORTEST = 0.001  # seconds
_LONGEST = 86_400.0  # seconds
_seconds = number(_SHORTEST, _LONGEST)

_MIB = 1024 * 1024  # bytes
_GIB = 1024 * _MIB  # bytes


def _is_backoff(_instance: object, attribute: attrs.Attribute[Backoff], value: object) -> None:
    check_type(attribute.name, value, Backoff, "a Backoff")


@attrs.frozen(kw_only=True)
class Config:
    """What a registry may be told about times, counts and sizes; the defaults suit a fleet in one data centre.

    Where no other range is given, a duration is 0.001 to 86,400 seconds. Raises `InvalidValueError` or
    `InvalidTypeError` that names the field, its value and its range.
    """

    # -- probes --

    probe_interval: float = attrs.field(default=10.0, converter=as_float, validator=_seconds)
    """Seconds between the starts of two probes of one view. The default is the original's.

    The first probe does not wait for it: it starts when the connection is ready, also after a reconnect.
    """

    probe_timeout: float = attrs.field(default=5.0, converter=as_float, validator=_seconds)
    """Seconds after which a probe without an answer has failed. The default is the original's."""

    probe_jitter: float = attrs.field(default=0.1, converter=as_float, validator=number(0, 1, open_end=True))
    """How far `probe_interval` may stray each time, as a fraction of itself: 0 up to, not including, 1.

    The default is Envoy's. Without jitter a fleet that came up together is probed all at once for ever.
    """

    probe_retry_interval: float = attrs.field(default=1.0, converter=as_float, validator=_seconds)
    """Seconds from the start of a failed probe to the next one. HAProxy calls this fastinter."""

    rise: int = attrs.field(default=1, validator=whole(1, 1_000))
    """Good probes in a row after which a view is healthy: 1 to 1,000. The default is the original's."""

    fall: int = attrs.field(default=1, validator=whole(1, 1_000))
    """Failed probes in a row after which a healthy view is not: 1 to 1,000. The default is the original's."""

    on_demand_interval: float = attrs.field(default=0.5, converter=as_float, validator=_seconds)
    """Seconds at least between two probes or dials of one endpoint that its calls have asked for.

    A call asks when it fails as unavailable, or waits for a connection. The default is that of MongoDB's drivers.
    """

    # -- connections --

    connect_timeout: float = attrs.field(default=5.0, converter=as_float, validator=_seconds)
    """Seconds from the start of a dial until the server's SETTINGS must have arrived. As in Cassandra's driver."""

    connect_slots: int = attrs.field(default=64, validator=whole(1, 10_000))
    """How many dials may hold a slot at the same time: 1 to 10,000. It paces the opening of a large fleet."""

    connect_slot_hold: float = attrs.field(default=0.25, converter=as_float, validator=_seconds)
    """Seconds after which a dial gives its slot back and goes on without it.

    It keeps black holes, which take all of `connect_timeout` each, from starving the living.
    """

    backoff: Backoff = attrs.field(default=Backoff(), validator=_is_backoff)
    """Between two dials of one endpoint. A good probe resets it; a connection alone does not."""

    keepalive_interval: float = attrs.field(
        default=8.0, converter=as_float, validator=number(_SHORTEST, _LONGEST, or_inf=True)
    )
    """Seconds without a byte from the server after which it is sent a PING; ``math.inf`` sends none.

    At most two are sent between two answers to calls or probes, for servers count them; after that one each 300 s. So
    with probes that are rarer than twice this, and without PINGs at all, a server that froze is noticed by its next
    probe. The original waits 10 s.
    """

    keepalive_timeout: float = attrs.field(default=2.0, converter=as_float, validator=_seconds)
    """Seconds from a PING's leaving until the connection is given up for lost. The original waits 1 s."""

    drain_timeout: float = attrs.field(default=10.0, converter=as_float, validator=number(0, _LONGEST))
    """Seconds that calls in flight may still take when discovery has removed their endpoint: 0 to 86,400.

    0 cuts them off at once, as the original does; Kubernetes grants a pod 30 s.
    """

    max_message_size: int = attrs.field(default=64 * _MIB, validator=whole(1, _GIB))
    """Bytes of the largest message that is received: 1 to 1 GiB, which is the original's limit.

    A larger one fails its own call and nothing else.
    """

    # -- calls --

    metadata: StandingMetadata | None = attrs.field(default=None, converter=standing_metadata, repr=False)
    """Metadata of every call and probe, such as a bearer token: a mapping, or (name, value) pairs.

    Or an async function without arguments that returns such: it is asked before each call, under the call's deadline
    and cancellation, so it should remember what is expensive. If it fails, the call raises `UnauthenticatedError`.
    A call's own metadata replaces what has the same name here. Values appear in no text of viewreg's: here only names
    can be seen. Without `ssl_context` they cross the network in the clear.
    """

    # -- discovery and history --

    exclude_self_port: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1, 65_535)))
    """The port on which this program itself serves, if it is one of the servers that discovery lists: 1 to 65,535.

    An endpoint with this port and an address of this host, or a name that leads there, is then never given by
    `healthy_views`, `pick` and `cover`, nor counted by `coverage`; `all_views` has it, with `View.is_self`.
    """

    discovery_backoff: Backoff = attrs.field(default=Backoff(initial=0.5, maximum=30.0), validator=_is_backoff)
    """Between two questions to a locator that fails. Slower than `backoff`, because one locator serves many."""

    history_length: int = attrs.field(default=32, validator=whole(1, 10_000))
    """How many entries the history of one endpoint holds: 1 to 10,000. The oldest are dropped first."""
