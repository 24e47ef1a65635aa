"""The gateway in a process of its own, for programs that drive it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SERVE: Final = Path(__file__).with_name("serve.py")


@asynccontextmanager
async def open_gateway(
    locator: str, *arguments: str, stderr: int | IO[bytes] | None = None
) -> AsyncIterator[tuple[trio.Process, tuple[str, int]]]:
    """Run `serve.py` on a free port: its process, which has a group of its own, and where it serves.

    It serves when the block begins, and has ended when it is left: killed, if it has not ended before. `stderr` is a
    file, or None for this process's. Raises `ChildProcessError` if it ends before it serves.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", str(_SERVE), "--locator", locator, "--bind", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # it imports what we import
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with process.stdout:
            said = await process.stdout.receive_some()
            if not said:
                raise ChildProcessError("the gateway has ended before it served")
            host, _, port = said.decode().strip().rpartition("//")[2].rpartition(":")
            yield process, (host, int(port))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
