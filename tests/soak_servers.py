"""The view servers of a soak: processes on grpcio and on purerpc that log each call they run, and a relay to cut lines.

Rules:
* A server writes its log to a file of its own, a line for each call before it is answered: so what it has run is known,
  however it ends. Each start of a server has a new file.
* A process ends with this one: it watches its standard input, and if it is frozen then, the kernel thaws and ends it,
  for its process group is its own.
* The relay holds bytes back, and does not lose them: what a cut network does to TCP, which sends again.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from viewreg._endpoint import Endpoint
from viewreg._partition import FactPartition, KeyEncoding
from viewreg._transport.dial import dial_tcp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ID: Final = "soak-id"  # metadata that numbers a call
PARTS: Final = 4  # of the hash space
FACTS: Final = 100
CHUNKS: Final = 20  # messages of a ride
PAUSE: Final = 0.01  # seconds between them
GRACE: Final = 1.0  # seconds that calls may take when a grpcio server stops
_GUARD: Final = 60.0  # seconds; a process that does not listen, or end, by then never will
_POLL: Final = 0.01  # seconds
_EXAMPLE: Final = Path(__file__).parent.parent / "examples" / "grpcio_view.py"


class Kind(enum.Enum):
    """What a server is made with."""

    GRPCIO = "grpcio"
    PURERPC = "purerpc"


_taken: Final[set[int]] = set()  # ports that any server has had: one that is away comes back to its own


def new_port() -> int:
    """A free port that no server has had."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        if port not in _taken:
            return port


class Server:
    """One view server at one port, started again and again. It runs only inside `open_server`."""

    def __init__(self, kind: Kind, folder: Path, name: str) -> None:
        self.kind: Final = kind
        self.endpoint: Endpoint  # where it listens, or did last; given when it first starts
        self.part = 0  # which of the PARTS it serves from its next start on
        self.listened = 0.0  # when it was last found to listen, in Trio's time
        self._folder: Final = folder
        self._name: Final = name
        self._starts = 0
        self._process: trio.Process | None = None

    @property
    def partition(self) -> FactPartition:
        """What it serves."""
        return FactPartition.nth(KeyEncoding.SPO, self.part, of=PARTS)

    async def start(self, port: int) -> None:
        """Run it, on any free port if that is 0; return when it listens."""
        assert self._process is None
        log = self._folder / f"{self._name}-{self._starts}.log"
        self._starts += 1
        with log.open("wb") as out, log.with_suffix(".errors").open("wb") as errors:
            self._process = await trio.lowlevel.open_process(
                self._command(port),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        with trio.fail_after(_GUARD):
            while not (text := log.read_bytes()).endswith(b"\n"):
                assert self._process.poll() is None, log.with_suffix(".errors").read_text()
                await trio.sleep(_POLL)
        self.endpoint = Endpoint("127.0.0.1", json.loads(text.partition(b"\n")[0])["port"])
        _taken.add(self.endpoint.port)
        self.listened = trio.current_time()

    def _command(self, port: int) -> list[str]:
        if self.kind is Kind.GRPCIO:
            options = {
                "port": port, "partition": self.part, "of": PARTS, "facts": FACTS, "ride-turns": 2,
                "chunk": 2 * FACTS // CHUNKS, "ride-interval": PAUSE, "grace": GRACE,
            }  # fmt: skip
            return [sys.executable, str(_EXAMPLE), "--watch-stdin", *(f"--{k}={v}" for k, v in options.items())]
        hashes = self.partition.hash_range
        settings = {
            "port": port, "partition": ["SPO", hashes.start, hashes.end], "view_type": "diskview/memory",
            "facts": FACTS, "ride_chunks": CHUNKS, "ride_interval": PAUSE,
        }  # fmt: skip
        return [sys.executable, "-m", "viewreg.testing._server", json.dumps(settings)]

    async def kill(self) -> None:
        """End it as a crash does; return when it has ended."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """End it politely; return when it has ended."""
        assert self._process is not None
        if self.kind is Kind.PURERPC:
            assert self._process.stdin is not None
            await self._process.stdin.send_all(b'{"do": "stop"}\n')
            await self._end(None)
        else:
            await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it where it stands."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals | None) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        try:
            if number is not None:
                process.send_signal(number)
            with trio.fail_after(_GUARD):
                await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdin.aclose()

    async def close(self) -> None:
        """End it whatever it does, if it runs."""
        with trio.CancelScope(shield=True):
            if self._process is not None:
                await self.kill()


def logged(folder: Path) -> Iterator[int]:
    """The numbers of the calls that all servers have run, from their logs; probes have none."""
    for log in folder.glob("*.log"):
        for line in log.read_bytes().split(b"\n")[:-1]:  # a line that a killed server did not finish says nothing
            report = json.loads(line)
            if report.get("event") in ("rpc_started", "call_started"):
                for name, value in report["metadata"]:
                    if name == ID:
                        yield int(value)


class Relay:
    """Stands before a server, on a port of its own. Made by `open_relay`."""

    def __init__(self, server: Server, listener: trio.SocketListener) -> None:
        self.endpoint: Final = Endpoint(*listener.socket.getsockname()[:2])
        self._server: Final = server
        self._open = trio.Event()  # set while bytes pass; replaced by `hold`
        self._open.set()
        self._lines: Final[dict[trio.SocketStream, trio.CancelScope]] = {}  # what there is, and how to end it

    def hold(self) -> None:
        """Let nothing through, either way."""
        self._open = trio.Event()

    def go_on(self) -> None:
        """Let it through again, first what was held."""
        self._open.set()

    def reset(self) -> None:
        """Break all connections."""
        for stream, scope in self._lines.items():
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            scope.cancel()

    async def serve(self, near: trio.SocketStream) -> None:
        """Relay one connection until either side ends it."""
        with trio.CancelScope() as scope:
            self._lines[near] = scope
            try:
                await self._open.wait()
                with suppress(OSError):  # the server is away: so is the relay, then
                    async with await dial_tcp(self._server.endpoint) as far, trio.open_nursery() as nursery:
                        nursery.start_soon(self._copy, near, far, scope)
                        nursery.start_soon(self._copy, far, near, scope)
            finally:
                del self._lines[near]
                await trio.aclose_forcefully(near)

    async def _copy(self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while received := await source.receive_some():
                await self._open.wait()
                await sink.send_all(received)
        scope.cancel()


@asynccontextmanager
async def open_relay(server: Server) -> AsyncIterator[Relay]:
    """Relay to the server as long as the block lasts."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    relay = Relay(server, listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, relay.serve, [listener])
        yield relay
        nursery.cancel_scope.cancel()
