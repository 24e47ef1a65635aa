"""A fake view in a process of its own.

Rules:
* The process is real: so it can be killed and frozen, and the kernel does to its connections what it does in earnest.
* It never outlives the block, nor this process, however either ends.
* What the server reports is read as it comes by one task for each process; everything that waits, waits for that.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from viewreg._endpoint import Endpoint
from viewreg._errors import ViewregError
from viewreg._transport.purerpc import StatusCode
from viewreg.testing._lines import Lines, to_line

if TYPE_CHECKING:
    from viewreg.testing._behavior import Behavior, Serving
    from viewreg.testing._calls import CallLog

_START_TIME: Final = 30.0  # seconds; a loaded machine takes a few to import everything
_ORDER_TIME: Final = 10.0  # seconds
_END_TIME: Final = 5.0  # seconds; a killed process is gone in milliseconds


class ProcessHost:
    """Runs one view at a time. See `Host`."""

    def __init__(self, nursery: trio.Nursery, log: CallLog) -> None:
        self.pid = 0  # also when the process has ended
        self.frozen = False  # written by `freeze`, `thaw` and `_attend`
        self._nursery: Final = nursery
        self._log: Final = log
        self._process: trio.Process | None = None  # None once it has ended; written by `start` and `_attend`
        self._port = 0
        self._failure = ""  # why it could not listen
        self._open: dict[int, int] = {}  # the log's numbers by the process's; written by `_hear` and `_attend`
        self._orders = 0
        self._undone: set[int] = set()  # orders; written by `obey` and `_hear`

    @property
    def running(self) -> bool:
        return self._process is not None

    async def start(self, serving: Serving, host: str, port: int) -> Endpoint:  # noqa: ARG002 (always 127.0.0.1)
        settings = to_line(port=port, **serving.to_json()).decode().rstrip()
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
            await self._log.wait_until(lambda: listening.is_set() or self._process is None)
        if not listening.is_set():
            why = self._failure or "its process ended, or took too long; standard error may say why"
            raise ViewregError(f"fake view on port {port}: cannot listen: {why}")
        return Endpoint("127.0.0.1", self._port)

    async def obey(self, serving: Serving, behavior: Behavior) -> None:
        self._orders += 1
        number = self._orders
        self._undone.add(number)
        try:
            await self._send(do="obey", number=number, serving=serving.to_json(), behavior=behavior.to_json())
            with trio.move_on_after(_ORDER_TIME):
                await self._log.wait_until(lambda: number not in self._undone or self._process is None)
            if number in self._undone:
                raise ViewregError(f"the fake view on port {self._port} did not obey: it ended, or is stuck")
        finally:
            self._undone.discard(number)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        self.frozen = True
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        self.frozen = False
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        await self._send(do="stop")
        with trio.move_on_after(_END_TIME):
            await self._log.wait_until(lambda: self._process is None)
        await self.end()

    async def end(self) -> None:
        self.kill()
        with trio.move_on_after(_END_TIME, shield=True):
            await self._log.wait_until(lambda: self._process is None)

    async def _attend(self, process: trio.Process, listening: trio.Event) -> None:
        """Hear what a process reports until it ends, and clean up after it. `end` sees to it that it does."""
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
            self._open.clear()
            self._process, self.frozen = None, False
            self._log.all_ended()
            self._log.announce()

    def _hear(self, report: dict[str, Any], listening: trio.Event) -> None:
        event = report["event"]
        if event == "listening":
            self._port = report["port"]
            listening.set()
        elif event == "failed":
            self._failure = report["why"]
        elif event == "done":
            self._undone.discard(report["order"])
        elif event == "call_started":
            metadata = tuple(
                (name, base64.b64decode(value) if name.endswith("-bin") else value)
                for name, value in report["metadata"]
            )
            self._open[report["call"]] = self._log.started(report["method"], report["timeout"], metadata)
        elif event == "call_ended":
            self._log.ended(self._open.pop(report["call"]), StatusCode[report["code"]])
        self._log.announce()

    async def _send(self, **order: Any) -> None:  # noqa: ANN401 (whatever JSON can say)
        process = self._process
        if process is None:
            return  # it has just died, as whoever waits for the effect will see
        assert process.stdin is not None
        # That it dies meanwhile is noticed by whoever waits for the effect. A line is short, so none is ever torn.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await process.stdin.send_all(to_line(**order))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
