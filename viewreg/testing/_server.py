"""The process of a fake view: `python -m viewreg.testing._server '{"port": 0, ...}'`, which only `FakeView` starts.

Rules:
* One JSON object a line. On standard input come orders, each with a number: `obey` (serve this, behave so) and `stop`.
  On standard output go reports: listening, failed, done, call_started, call_ended. Standard error is for tracebacks.
* It listens on 127.0.0.1 only.
* It ends when standard input ends, which is when its parent does. If it is frozen then, the kernel thaws and ends it:
  its process group is its own, and a stopped group whose parent goes away gets SIGCONT and SIGHUP.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

import anyio
import trio
from anyio.abc import SocketAttribute

from viewreg._boundary import describe
from viewreg.testing._behavior import Behavior, Serving
from viewreg.testing._connections import Connections
from viewreg.testing._lines import Lines, to_line
from viewreg.testing._services import FakeServices

_STOP_TIME: Final = 2.0  # seconds for connections to end when the view stops


async def _main(port: int, serving: Serving) -> int:
    try:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    except OSError as error:
        _report(event="failed", why=describe(error))
        return 1
    [socket] = listener.listeners  # one address, one socket
    services = FakeServices(serving)
    connections = Connections(services, _Reports())
    _report(event="listening", port=listener.extra(SocketAttribute.local_port))  # noqa: S610 (not Django)
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin, trio.open_nursery() as nursery:
        listening = trio.CancelScope()
        nursery.start_soon(_listen, listening, socket, connections)
        async for order in Lines(stdin):
            if order["do"] == "stop":
                listening.cancel()
                connections.stop()
                nursery.cancel_scope.deadline = trio.current_time() + _STOP_TIME
                return 0
            services.obey(Serving.from_json(order["serving"]), Behavior.from_json(order["behavior"]))
            _report(event="done", order=order["number"])
        nursery.cancel_scope.cancel()
    return 0


async def _listen(scope: trio.CancelScope, socket: Any, connections: Connections) -> None:  # noqa: ANN401 (anyio's)
    async with trio.open_nursery() as nursery:
        with scope:
            async with socket:
                while True:
                    nursery.start_soon(connections.serve, await socket.accept())


class _Reports:
    """Of calls."""

    def __init__(self) -> None:
        self._calls = 0

    def started(self, method: str, timeout: float | None) -> int:
        self._calls += 1
        _report(event="call_started", call=self._calls, method=method, timeout=timeout)
        return self._calls

    def ended(self, call: int, code: str) -> None:
        _report(event="call_ended", call=call, code=code)


def _report(**values: object) -> None:
    try:
        sys.stdout.buffer.write(to_line(**values))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)  # the parent is gone, and with it all reason to be here


if __name__ == "__main__":
    _settings = json.loads(sys.argv[1])
    sys.exit(trio.run(_main, _settings.pop("port"), Serving.from_json(_settings)))
