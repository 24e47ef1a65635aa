"""The process of a fake view: `python -m viewreg.testing._server '{"port": 0, ...}'`, which only `_process` starts.

Rules:
* One JSON object a line. On standard input come orders, each with a number: `obey` (serve this, behave so) and `stop`.
  On standard output go reports: listening, failed, done, call_started, call_ended. Standard error is for tracebacks.
* It listens on 127.0.0.1 only.
* It ends when standard input ends, which is when its parent does. If it is frozen then, the kernel thaws and ends it:
  its process group is its own, and a stopped group whose parent goes away gets SIGCONT and SIGHUP.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

from viewreg._boundary import describe
from viewreg.testing._behavior import Behavior, Serving
from viewreg.testing._connections import Connections
from viewreg.testing._lines import Lines, to_line
from viewreg.testing._services import FakeServices

if TYPE_CHECKING:
    from viewreg._http2.metadata import Metadata
    from viewreg._transport.purerpc import StatusCode

_STOP_TIME: Final = 2.0  # seconds for connections to end when the view stops


async def _main(port: int, serving: Serving) -> int:
    try:
        [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")  # one address, one socket
    except OSError as error:
        _report(event="failed", why=describe(error))
        return 1
    services = FakeServices(serving, socket.gethostname())
    connections = Connections(services, _Reports())
    _report(event="listening", port=listener.socket.getsockname()[1])
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin, trio.open_nursery() as nursery:
        nursery.start_soon(connections.run, listener)
        async for order in Lines(stdin):
            if order["do"] == "stop":
                connections.stop()
                nursery.cancel_scope.deadline = trio.current_time() + _STOP_TIME
                return 0
            services.obey(Serving.from_json(order["serving"]), Behavior.from_json(order["behavior"]))
            _report(event="done", order=order["number"])
        nursery.cancel_scope.cancel()
    return 0


class _Reports:
    """Of calls."""

    def __init__(self) -> None:
        self._calls = 0

    def started(self, method: str, timeout: float | None, metadata: Metadata) -> int:
        self._calls += 1
        fields = [
            (name, base64.b64encode(value).decode() if isinstance(value, bytes) else value) for name, value in metadata
        ]
        _report(event="call_started", call=self._calls, method=method, timeout=timeout, metadata=fields)
        return self._calls

    def ended(self, number: int, code: StatusCode) -> None:
        _report(event="call_ended", call=number, code=code.name)


def _report(**values: object) -> None:
    try:
        sys.stdout.buffer.write(to_line(**values))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)  # the parent is gone, and with it all reason to be here


if __name__ == "__main__":
    _settings = json.loads(sys.argv[1])
    sys.exit(trio.run(_main, _settings.pop("port"), Serving.from_json(_settings)))
