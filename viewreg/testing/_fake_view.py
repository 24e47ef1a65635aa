"""`open_fake_view`: a view server in a process of its own, as its test sees it.

Rules:
* The process is real: so it can be killed and frozen, and the kernel does to its connections what it does in earnest.
* It never outlives the block, nor this process, however either ends.
* What the server reports is read as it comes by one task for each process; everything that waits, waits for that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from attrs import frozen

from viewreg._boundary import HeldBack
from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError, check_int
from viewreg._partition import FactPartition, KeyEncoding
from viewreg._transport.purerpc import StatusCode
from viewreg.testing._behavior import Behavior, Serving
from viewreg.testing._lines import Lines, to_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_START_TIME: Final = 30.0  # seconds; a loaded machine takes a few to import everything
_ORDER_TIME: Final = 10.0  # seconds
_END_TIME: Final = 5.0  # seconds; a killed process is gone in milliseconds
_REMEMBERED: Final = 10_000  # calls


@frozen
class FakeCall:
    """One call that a fake view has seen."""

    method: str
    """Such as "Diagnostics.stats" or "Carousel.ride"."""

    timeout: float | None
    """Seconds that its client gave it, None without a deadline."""

    code: StatusCode | None = None
    """The status it ended with, None while it is open.

    CANCELLED if its client gave it up or went away, UNAVAILABLE if the view stopped or died.
    """


@asynccontextmanager
async def open_fake_view(
    *,
    partition: FactPartition = FactPartition.nth(KeyEncoding.SPO, 0, of=1),  # noqa: B008 (frozen)
    view_type: str = "diskview/rocksdb",
    port: int = 0,
    facts: int = 1000,
    ride_chunks: int | None = None,
    ride_interval: float = 0.01,
) -> AsyncIterator[FakeView]:
    """Run a view server on 127.0.0.1 for as long as the `async with` block lasts; it listens when the block begins.

    It has all four services, answers with made-up facts of its `partition`, and reports statistics that fit. With a
    `view_type` that does not begin with "diskview/" it has neither facts nor a partition. `port` is 0 for any free one,
    up to 65,535. `facts` is how many it holds at most, 0 to 1,000,000. `Carousel.ride` sends `ride_chunks` messages of
    up to 50 facts each, None without end, one every `ride_interval` seconds (0 to 86,400); after the last fact comes
    the first one again.

    Raises `InvalidValueError` or `InvalidTypeError` for other arguments, and `ViewregError` if it cannot listen.
    """
    check_int("port", port, 0, 65_535)
    serving = Serving(
        partition=partition, view_type=view_type, facts=facts, ride_chunks=ride_chunks, ride_interval=ride_interval
    )
    body = HeldBack()
    async with trio.open_nursery() as nursery:
        view = FakeView(nursery, serving)
        with body:
            await view._start(port)  # noqa: SLF001 (the same module)
            yield view
        await view._end()  # noqa: SLF001 (the same module)
    body.release()


class FakeView:
    """A running view server. Made by `open_fake_view`.

    `answer`, `fail`, `hang`, `slow` and `lie` decide what becomes of all calls that begin from now on, the probes of
    registries included; the last one counts. They return when the server has taken note, and raise `ViewregError` if it
    has ended or is frozen.
    """

    def __init__(self, nursery: trio.Nursery, serving: Serving) -> None:
        self.endpoint: Endpoint
        """Where it listens; stays the same when it restarts."""
        self.pid: int
        """Its process, also when that has ended."""
        self._nursery: Final = nursery
        self._serving = serving  # written by `_order` and `restart`
        self._process: trio.Process | None = None  # None once it has ended; written by `_start` and `_attend`
        self._frozen = False  # written by `freeze`, `thaw` and `_attend`
        self._failure = ""  # why it could not listen
        self._calls: dict[int, FakeCall] = {}  # oldest first, by our own number; written by `_hear` and `_attend`
        self._open: dict[int, int] = {}  # ours by the process's number; written by the same
        self._calls_seen = 0
        self._orders = 0
        self._undone: set[int] = set()  # orders; written by `_order` and `_hear`
        self._news = trio.Event()  # set, and replaced, by `_announce`

    # -- what it is --

    @property
    def partition(self) -> FactPartition:
        """What it serves now, lies apart."""
        return self._serving.partition

    @property
    def view_type(self) -> str:
        """The view type that it reports now, lies apart."""
        return self._serving.view_type

    @property
    def running(self) -> bool:
        """Whether its process lives, be it frozen."""
        return self._process is not None

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        """The calls it has seen, oldest first: the last 10,000, restarts included."""
        return tuple(self._calls.values())

    async def wait_for_calls(self, predicate: Callable[[tuple[FakeCall, ...]], bool]) -> tuple[FakeCall, ...]:
        """Wait until the predicate holds for `calls`, and return them. It is asked now and at every start and end."""
        await self._wait_until(lambda: predicate(self.calls))
        return self.calls

    # -- how it behaves --

    async def answer(self, *, partition: FactPartition | None = None, view_type: str | None = None) -> None:
        """Answer truly, as it does when it starts. With arguments: and serve this from now on, facts and all."""
        await self._order(Behavior(), _evolved(self._serving, partition, view_type))

    async def fail(self, code: StatusCode, details: str = "") -> None:
        """End every call with this status. Raises `InvalidValueError` for OK."""
        await self._order(Behavior.failing(code, details))

    async def hang(self) -> None:
        """Answer no call at all. Connections live on, and keepalive is answered."""
        await self._order(Behavior.hanging())

    async def slow(self, delay: float) -> None:
        """Answer truly, but only after `delay` seconds, 0 to 86,400."""
        await self._order(Behavior(delay=delay))

    async def lie(self, **fields: Any) -> None:  # noqa: ANN401 (whatever the message takes)
        """Report statistics in which these fields are not the true ones; otherwise answer truly.

        They go by their names in `viewreg.rpc.StatsResult`, such as `viewType="megaview"`. Raises `InvalidValueError`
        or `InvalidTypeError` for a field or a value that the message cannot have.
        """
        await self._order(Behavior.lying(fields))

    # -- whether it lives --

    def kill(self) -> None:
        """End its process as a crash does: SIGKILL. Nothing happens if it has ended."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop its process in the middle of whatever it does: SIGSTOP. The kernel still answers for its sockets.

        It stands still when this returns, which takes a moment that is not worth an await.
        """
        self._frozen = self.running
        self._signal(signal.SIGSTOP)
        if self._frozen:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on: SIGCONT."""
        self._frozen = False
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it politely: calls end with UNAVAILABLE, connections are closed. Returns when the process has ended.

        Raises `ViewregError` if it is frozen. Nothing happens if it has ended.
        """
        if self._process is not None:
            await self._send(do="stop")
            with trio.move_on_after(_END_TIME):
                await self._wait_until(lambda: self._process is None)
            await self._end()

    async def restart(self, *, partition: FactPartition | None = None, view_type: str | None = None) -> None:
        """Kill it if it lives, and start it again on the same port, answering truly. With arguments: serving this."""
        serving = _evolved(self._serving, partition, view_type)
        await self._end()
        self._serving = serving
        await self._start(self.endpoint.port)

    async def wait_ended(self) -> None:
        """Wait until its process has ended, for whatever reason."""
        await self._wait_until(lambda: self._process is None)

    # -- its process --

    async def _start(self, port: int) -> None:
        """Returns when it listens. Raises `ViewregError` if it cannot. However it ends, `_end` ends the process."""
        settings = to_line(port=port, **self._serving.to_json()).decode().rstrip()
        self._process = process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "viewreg.testing._server", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It imports what we import, wherever that comes from.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C is for us alone; and see the rules of `_server`.
            process_group=0,
        )
        self.pid = process.pid
        self._failure = ""
        listening = trio.Event()
        self._nursery.start_soon(self._attend, process, listening)
        with trio.move_on_after(_START_TIME):
            await self._wait_until(lambda: listening.is_set() or self._process is None)
        if not listening.is_set():
            why = self._failure or "its process ended, or took too long; standard error may say why"
            raise ViewregError(f"fake view on port {port}: cannot listen: {why}")

    async def _attend(self, process: trio.Process, listening: trio.Event) -> None:
        """Hear what a process reports until it ends, and clean up after it. `_end` sees to it that it does."""
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            with trio.CancelScope(shield=True):
                async with stdin, stdout:
                    async for report in Lines(stdout):
                        self._hear(report, listening)
                    await process.wait()
        finally:
            for number in self._open.values():
                self._ended(number, StatusCode.UNAVAILABLE)
            self._open.clear()
            self._process, self._frozen = None, False
            self._announce()

    def _hear(self, report: dict[str, Any], listening: trio.Event) -> None:
        event = report["event"]
        if event == "listening":
            self.endpoint = Endpoint("127.0.0.1", report["port"])
            listening.set()
        elif event == "failed":
            self._failure = report["why"]
        elif event == "done":
            self._undone.discard(report["order"])
        elif event == "call_started":
            self._calls_seen += 1
            self._open[report["call"]] = self._calls_seen
            self._calls[self._calls_seen] = FakeCall(report["method"], report["timeout"])
            if len(self._calls) > _REMEMBERED:
                del self._calls[next(iter(self._calls))]
        elif event == "call_ended":
            self._ended(self._open.pop(report["call"]), StatusCode[report["code"]])
        self._announce()

    def _ended(self, number: int, code: StatusCode) -> None:
        if call := self._calls.get(number):
            self._calls[number] = attrs.evolve(call, code=code)

    async def _order(self, behavior: Behavior, serving: Serving | None = None) -> None:
        serving = serving or self._serving
        self._orders += 1
        number = self._orders
        self._undone.add(number)
        try:
            await self._send(do="obey", number=number, serving=serving.to_json(), behavior=behavior.to_json())
            with trio.move_on_after(_ORDER_TIME):
                await self._wait_until(lambda: number not in self._undone or self._process is None)
            if number in self._undone:
                raise ViewregError(f"the fake view at {self.endpoint} did not obey: it ended, or is stuck")
        finally:
            self._undone.discard(number)
        self._serving = serving

    async def _send(self, **order: Any) -> None:  # noqa: ANN401 (whatever JSON can say)
        process = self._process
        if process is None or self._frozen:
            state = "has ended: restart it first" if process is None else "is frozen: thaw it first"
            raise ViewregError(f"the fake view at {self.endpoint} {state}")
        assert process.stdin is not None
        # That it dies meanwhile is noticed by whoever waits for the effect. A line is short, so none is ever torn.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await process.stdin.send_all(to_line(**order))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def _end(self) -> None:
        """Kill it, and wait until nothing of it is left. Whatever happens."""
        self.kill()
        with trio.move_on_after(_END_TIME, shield=True):
            await self._wait_until(lambda: self._process is None)

    # -- waiting --

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._news.wait()

    def _announce(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


def _evolved(serving: Serving, partition: FactPartition | None, view_type: str | None) -> Serving:
    return attrs.evolve(
        serving,
        partition=serving.partition if partition is None else partition,
        view_type=serving.view_type if view_type is None else view_type,
    )
