"""A whole cluster of view servers for one test, and what a registry needs to find and reach them.

Rules:
* By default it is in memory, its randomness comes from one seed, and its time is the run's: so a test that fails fails
  again, and ten minutes pass in a second.
* What happens to servers, and what discovery says of them, are two things: a server that stops stays listed, as in
  real clusters, until the test removes it. Only moving does both.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Final, Literal, TypedDict

import trio

from viewreg._boundary import HeldBack
from viewreg._errors import InvalidTypeError, InvalidValueError, ViewregError, check_int, check_type
from viewreg._locator import StaticLocator
from viewreg._partition import FactPartition, KeyEncoding
from viewreg._transport.dial import Dial, dial_tcp
from viewreg.testing._fake_view import open_fake_view
from viewreg.testing._network import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from ssl import SSLContext

    from viewreg._locator import Locator
    from viewreg.testing._fake_view import FakeView

_MOST_PARTITIONS: Final = 256
_MOST_REPLICAS: Final = 100
_EPOCH: Final = 1_600_000_000.0  # Unix seconds at Trio's 0 in a cluster in memory


class Connect(TypedDict):
    """The keyword arguments with which `open_registry` opens a registry of the cluster."""

    locator: Locator
    dial: Dial
    rng: Random
    wall_clock: Callable[[], float]


@asynccontextmanager
async def open_fake_cluster(
    *,
    partitions: int = 4,
    replicas: int = 3,
    encodings: Iterable[KeyEncoding] = (KeyEncoding.SPO,),
    seed: int = 0,
    where: Literal["process", "loopback"] | MemoryNetwork | None = None,
    facts: int = 100,
    ssl_context: SSLContext | None = None,
) -> AsyncIterator[FakeCluster]:
    """Run a cluster for as long as the `async with` block lasts; all its views listen when the block begins.

    For each of the `encodings` the hash space is cut into `partitions` (1 to 256) equal parts, and each part is served
    by `replicas` (1 to 100) views, which hold up to `facts` facts each. `where` is as in `open_fake_view`; None is a
    `MemoryNetwork` of the cluster's own. `seed` decides all that is random, in the network and in registries that are
    opened with `cluster.connect`. With `ssl_context`, a server's, all views speak TLS (see `open_fake_view`); give a
    client's to `open_registry` beside `cluster.connect`.

    Raises `InvalidValueError` or `InvalidTypeError` for other arguments, and whatever `open_fake_view` raises.
    """
    check_int("partitions", partitions, 1, _MOST_PARTITIONS)
    check_int("replicas", replicas, 1, _MOST_REPLICAS)
    check_int("seed", seed, 0)
    kinds = _encodings(encodings)
    network = MemoryNetwork(seed=seed) if where is None else where
    body = HeldBack()
    async with AsyncExitStack() as stack:
        views: list[FakeView] = []
        for encoding in kinds:
            for index in range(partitions):
                partition = FactPartition.nth(encoding, index, of=partitions)
                for _ in range(replicas):
                    host = f"view-{len(views)}" if isinstance(network, MemoryNetwork) else ""
                    opened = open_fake_view(
                        where=network, host=host, partition=partition, facts=facts, ssl_context=ssl_context
                    )
                    views.append(await stack.enter_async_context(opened))
        with body:
            yield FakeCluster(tuple(views), network, Random(seed))
    body.release()


def _encodings(encodings: Iterable[KeyEncoding]) -> tuple[KeyEncoding, ...]:
    expected = "expected an iterable of KeyEncoding.SPO and KeyEncoding.POS, each at most once"
    try:
        kinds = tuple(encodings)
    except TypeError:
        raise InvalidTypeError(f"encodings {encodings!r}: {expected}") from None
    for kind in kinds:
        check_type("encodings", kind, KeyEncoding, expected.removeprefix("expected "))
    if not kinds or len(set(kinds)) < len(kinds):
        raise InvalidValueError(f"encodings {kinds!r}: {expected}")
    return kinds


class FakeCluster:
    """A running cluster. Made by `open_fake_cluster`."""

    def __init__(
        self, views: tuple[FakeView, ...], where: Literal["process", "loopback"] | MemoryNetwork, rng: Random
    ) -> None:
        self.views: Final = views
        """All of them, also those that have ended: by encoding, then by partition, replicas next to each other."""
        self.locator: Final = StaticLocator()
        """What discovery knows: all views that were not removed."""
        self.dial: Final[Dial] = where.dial if isinstance(where, MemoryNetwork) else dial_tcp
        """Reaches the views."""
        self._network: Final = where if isinstance(where, MemoryNetwork) else None
        self._rng: Final = rng
        self._listed = dict.fromkeys(views)  # written by `add` and `remove`
        for view in views:
            view._moved = self._publish  # noqa: SLF001 (made for the cluster)
        self._publish()

    def __repr__(self) -> str:
        running = sum(view.running for view in self.views)
        return f"<FakeCluster of {len(self.views)} views, {running} running, {len(self._listed)} listed>"

    @property
    def network(self) -> MemoryNetwork:
        """The network between the views and everybody else. Raises `ViewregError` for a cluster on real sockets."""
        if self._network is None:
            raise ViewregError("a cluster on real sockets has no network of its own: open it in memory (where=None)")
        return self._network

    @property
    def connect(self) -> Connect:
        """For `open_registry(**cluster.connect)`."""
        return Connect(
            locator=self.locator,
            dial=self.dial,
            rng=Random(self._rng.getrandbits(64)),
            wall_clock=time.time if self._network is None else _wall_clock,
        )

    def remove(self, view: FakeView) -> None:
        """Let discovery list it no longer. It runs on."""
        self._check("remove", view, listed=True)
        del self._listed[view]
        self._publish()

    def add(self, view: FakeView) -> None:
        """Let discovery list it again."""
        self._check("add", view, listed=False)
        self._listed[view] = None
        self._publish()

    def _check(self, what: str, view: FakeView, *, listed: bool) -> None:
        if view not in self.views:
            raise InvalidValueError(f"{what}({view!r}): expected one of cluster.views")
        if (view in self._listed) is not listed:
            raise ViewregError(f"{what}({view!r}): discovery " + ("does not list it" if listed else "lists it already"))

    def _publish(self) -> None:
        self.locator.set(view.endpoint for view in self._listed)


def _wall_clock() -> float:
    return _EPOCH + trio.current_time()
