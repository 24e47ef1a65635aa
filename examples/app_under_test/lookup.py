"""An application on viewreg: it looks facts up over whatever healthy views there are, and survives the loss of most.

Rules:
* A lookup changes nothing. So it may be asked again, of another replica, whenever there is doubt about the answer.
* No replica is trusted for longer than `try_time`: one that hangs is healthy until its next probe has failed.
* The registry is read anew before each attempt: a view that was healthy a moment ago may hold other facts now.
* Without a healthy replica it waits for one. After `total_time` it gives up, and says why.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from viewreg import DeadlineExceededError, Feature, InternalError, UnavailableError, hash_sp
from viewreg.rpc import LookupSPRequest

if TYPE_CHECKING:
    from viewreg import Endpoint, Registry, Snapshot, View

# Another replica may be reached, be faster, or give an answer that can be read. All other errors are our own mistakes.
_ASK_ANOTHER: Final = (UnavailableError, DeadlineExceededError, InternalError, trio.TooSlowError)
_PAUSE: Final = 0.2  # seconds, before replicas that have all failed are asked again


class LookupFailedError(Exception):
    """No replica has answered in time. Its text says what was asked, and what became of the last attempt."""


class FactLookup:
    """Finds facts by subject and predicate, in a cluster whose views hold them by the hash of both.

    Args:
        registry: knows the views; the caller keeps it open.
        try_time: seconds for one replica to answer.
        total_time: seconds for a lookup, all attempts and all waiting included.
        rng: chooses among replicas, so that all get their share.
    """

    def __init__(
        self, registry: Registry, *, try_time: float = 0.5, total_time: float = 10.0, rng: Random | None = None
    ) -> None:
        self._registry: Final = registry
        self._try_time: Final = try_time
        self._total_time: Final = total_time
        self._rng: Final = rng or Random()

    async def objects(self, subject: int, predicate: int) -> list[bytes]:
        """Return the objects of all facts with this subject and predicate, in the order in which they were made.

        Raises `LookupFailedError` after `total_time`, and at once the `viewreg.CallError` of a view that refuses.
        """
        wanted = hash_sp(subject, predicate)
        failed: set[Endpoint | None] = set()  # since all were last tried
        why = "there is no healthy view of it"
        with trio.move_on_after(self._total_time):
            while True:
                snapshot = await self._registry.wait_until(lambda snapshot: bool(replicas(snapshot, wanted)))
                untried = [view for view in replicas(snapshot, wanted) if view.endpoint not in failed]
                if untried:
                    view = self._rng.choice(untried)
                    try:
                        with trio.fail_after(self._try_time):
                            return await _ask(view, subject, predicate)
                    except _ASK_ANOTHER as error:
                        failed.add(view.endpoint)
                        why = f"{view.endpoint}: {error!r}"
                else:
                    failed.clear()
                    with trio.move_on_after(_PAUSE):
                        await self._registry.wait_for_change(snapshot.last_changed)
        raise LookupFailedError(f"subject {subject}, predicate {predicate}: no answer in {self._total_time:g} s; {why}")


def replicas(snapshot: Snapshot, wanted: int) -> list[View]:
    """Return the healthy views that hold all facts with this hash."""
    return [
        view
        for view in snapshot.healthy_views(Feature.HASH_SP)
        if view.partition is not None and wanted in view.partition.hash_range
    ]


async def _ask(view: View, subject: int, predicate: int) -> list[bytes]:
    request = LookupSPRequest(lookups=[LookupSPRequest.Item(subject=subject, predicate=predicate)])
    async with view.hash_sp().lookupSP(request) as chunks:
        return [found.fact.object async for chunk in chunks for found in chunk.facts]
