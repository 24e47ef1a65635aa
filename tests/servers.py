"""Real servers in processes of their own: started, watched and ended. Nothing here outlives its test."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from viewreg._endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARD = 5.0  # seconds; a server that has not reported by then never will
PROGRAM = Path(__file__).parent / "grpcio_server.py"
EXAMPLE = Path(__file__).parent.parent / "examples" / "grpcio_view.py"


class Server:
    """A running `grpcio_server.py`. Its reports are read by a thread, so that one server can serve many tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._reports: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self._changed = threading.Condition()
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server ended before it listened"
        self.endpoint = Endpoint("127.0.0.1", json.loads(line)["port"])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report = json.loads(line)
            with self._changed:
                self._reports[report["event"], report["tag"]].append(report)
                self._changed.notify_all()

    async def report(self, event: str, tag: str) -> dict[str, Any]:
        """Wait for what the server says of the call with this tag. Each report is given once."""
        return await trio.to_thread.run_sync(self._wait, event, tag)

    def _wait(self, event: str, tag: str) -> dict[str, Any]:
        reports = self._reports[event, tag]
        with self._changed:
            assert self._changed.wait_for(lambda: reports, GUARD), f"the server reports no {event} of {tag!r}"
            return reports.pop(0)

    def said(self, event: str, tag: str) -> int:
        """Tell how many such reports have come and not been taken."""
        return len(self._reports[event, tag])

    def kill(self) -> None:
        """End it as the kernel does."""
        self.process.kill()

    def stop(self, grace: float) -> None:
        """Tell it to take no new calls, and to end within `grace` seconds, or when its calls have ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{grace}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it, and wait for that."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.wait()
        self._reader.join()
        process.stdin.close()
        process.stdout.close()


@contextmanager
def running(*arguments: str, **options: int) -> Iterator[Server]:
    """Run a server; `options` are grpcio's, such as `max_concurrent_streams=10`, `arguments` the program's."""
    arguments = (*arguments, *(f"--option=grpc.{name}={value}" for name, value in options.items()))
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    server = Server(process)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def example(*arguments: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], Endpoint]]:
    """Run the example server, which ends with its standard input; what it reports is read and dropped."""
    command = [sys.executable, str(EXAMPLE), "--watch-stdin", "--port", str(port), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        endpoint = Endpoint("127.0.0.1", json.loads(process.stdout.readline())["port"])
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        try:
            yield process, endpoint
        finally:
            process.kill()
            process.wait()
            drain.join()


def part(encoding: str, i: int, of: int) -> tuple[str, ...]:
    """Arguments of the example: its partition."""
    return "--encoding", encoding, "--partition", str(i), "--of", str(of)
