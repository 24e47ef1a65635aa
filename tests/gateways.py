"""The gateway of examples/gateway in a process of its own, and view servers in theirs: for tests over real HTTP.

Rules:
* Each of the two kinds of views holds three quarters of the hash space, and half of it both: so a gateway that does not
  look at what it asked whom for gives some facts twice.
* However a test ends, so do the processes. A gateway that is left in peace must end well: by SIGTERM, with status 0,
  nothing on standard error, and nothing left of its process group.
"""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from typing import IO, TYPE_CHECKING, Final

import trio

import launch
from client import Answer, get, open_get
from viewreg import FactPartition, HashRange, KeyEncoding, hash_sp, open_registry
from viewreg.rpc import Fact, LookupSRequest
from viewreg.testing import FakeView, open_fake_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from client import Response

GUARD: Final = 40.0  # seconds; a hung test fails by it, and no other time decides
QUARTER: Final = 2**62
LOWER: Final = FactPartition(KeyEncoding.SPO, HashRange(0, 3 * QUARTER))
UPPER: Final = FactPartition(KeyEncoding.SPO, HashRange(QUARTER, None))


@asynccontextmanager
async def open_views(*, replicas: int = 1) -> AsyncIterator[tuple[list[FakeView], list[FakeView]]]:
    """Views of the lower and of the upper kind, in processes."""
    lower: list[FakeView] = []
    upper: list[FakeView] = []
    async with AsyncExitStack() as stack:
        for _ in range(replicas):
            lower.append(await stack.enter_async_context(open_fake_view(partition=LOWER)))
            upper.append(await stack.enter_async_context(open_fake_view(partition=UPPER)))
        yield lower, upper


class Gateway:
    """A running gateway. Made by `open_gateway`."""

    def __init__(self, process: trio.Process, address: tuple[str, int], errors: IO[bytes]) -> None:
        self.process: Final = process
        self.address: Final = address
        self._errors: Final = errors

    def open(self, target: str) -> AbstractAsyncContextManager[Response]:
        """Begin a request."""
        return open_get(self.address, target)

    async def get(self, target: str) -> Answer:
        """Make a request, to the end."""
        return await get(self.address, target)

    async def wait_ready(self, replicas: int = 1) -> None:
        """Ask until it is ready, with so many replicas of everything."""
        await self._readiness(lambda answer: answer.lines[0].get("replicas") == replicas)

    async def wait_unready(self) -> list[str]:
        """Ask until it is not ready. Returns the gaps."""
        answer = await self._readiness(lambda answer: answer.status == 503)
        return list(answer.lines[0]["gaps"])

    async def _readiness(self, wanted: Callable[[Answer], bool]) -> Answer:
        while True:
            answer = await self.get("/readyz")
            assert (answer.status == 200) == answer.lines[0]["ready"]
            if wanted(answer):
                return answer
            await trio.sleep(0.02)

    async def wait_refusing(self) -> None:
        """Wait until it takes no new connections."""
        while True:
            try:
                async with await trio.open_tcp_stream(*self.address):
                    await trio.sleep(0.02)
            except OSError:
                return

    def terminate(self) -> None:
        """Tell it to end."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait for its end, which must be a good one."""
        status = await self.process.wait()
        self._errors.seek(0)
        assert (status, self._errors.read().decode()) == (0, "")
        assert not lives(self.process.pid)


@asynccontextmanager
async def open_gateway(views: Iterable[FakeView], *arguments: str) -> AsyncIterator[Gateway]:
    """Run the gateway. If the block ends well, so must the gateway."""
    locator = "static:///" + ",".join(view.endpoint.host_port for view in views)
    with trio.fail_after(GUARD), tempfile.TemporaryFile() as errors:
        async with launch.open_gateway(locator, *arguments, stderr=errors) as (process, address):
            gateway = Gateway(process, address, errors)
            yield gateway
            if process.poll() is None:
                gateway.terminate()
            await gateway.ended()


def lives(group: int) -> bool:
    """Whether there is a process in this group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def subject() -> int:
    """One that has facts that are only in the lower views, only in the upper ones, and in both."""
    for number in range(101, 200):
        quarters = {hash_sp(number, predicate) // QUARTER for predicate in range(1, 6)}
        if {0, 3} < quarters:
            return number
    raise AssertionError("no subject among the first hundred")


async def known(views: Iterable[FakeView], number: int) -> list[Fact]:
    """What the views together know of a subject, asked one by one, in the order of the facts' numbers."""
    found: dict[int, Fact] = {}
    addresses = ",".join(view.endpoint.host_port for view in views)
    async with open_registry(f"static:///{addresses}") as registry:
        snapshot = await registry.wait_until(lambda snapshot: all(view.healthy for view in snapshot.views))
        for view in snapshot.views:
            async with view.hash_sp().lookupS(LookupSRequest(subjects=[number])) as chunks:
                found.update({each.fact.id: each.fact async for chunk in chunks for each in chunk.facts})
    return [found[number] for number in sorted(found)]
