"""A client of the gateway, which tells whole answers from cut ones: `python client.py 127.0.0.1:8000 1001`.

Rules:
* What decides is the marker at the end and the number of facts before it. The status says only how an answer began, and
  a connection that ends is no sign of an end.
* One connection for each request; leaving `open_get` closes it, and so tells the gateway that nobody waits any more.
"""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import h11
import trio
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_RECEIVED: Final = 65_536  # bytes at a time


@frozen
class Answer:
    """What became of a request."""

    status: int
    lines: list[dict[str, Any]]

    @property
    def facts(self) -> list[dict[str, Any]]:
        """The facts that have come, of a whole answer or a cut one."""
        return [line for line in self.lines if "subject" in line]

    @property
    def marked(self) -> bool:
        """Whether the gateway says that all is there."""
        return bool(self.lines) and self.lines[-1].get("end") is True

    @property
    def whole(self) -> bool:
        """Whether all is there."""
        return self.marked and self.lines[-1]["facts"] == len(self.facts) == len(self.lines) - 1


class Response:
    """A response that is on its way. Made by `open_get`."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection) -> None:
        self.status: int = 0
        self.headers: dict[str, str] = {}
        self._stream: Final = stream
        self._connection: Final = connection
        self._text = b""  # that has come and was not taken as a line

    async def line(self) -> dict[str, Any] | None:
        """Wait for the next line; None at the end, or where the connection has ended."""
        while True:
            line, newline, rest = self._text.partition(b"\n")
            if newline:
                self._text = rest
                return dict(json.loads(line))
            event = await self._event()
            if not isinstance(event, h11.Data):
                self._text = b""
                return dict(json.loads(line)) if line and isinstance(event, h11.EndOfMessage) else None
            self._text += event.data

    async def rest(self) -> Answer:
        """Wait for all the lines that have not been taken."""
        lines = []
        while (line := await self.line()) is not None:
            lines.append(line)
        return Answer(self.status, lines)

    async def begin(self) -> None:
        """Wait for the status. Raises `trio.BrokenResourceError` if the gateway has gone away without one."""
        event = await self._event()
        if not isinstance(event, h11.Response):
            raise trio.BrokenResourceError("the gateway has closed the connection without an answer")
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}

    async def _event(self) -> h11.Event | None:
        """What comes next; None if the connection has ended."""
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                self._connection.receive_data(bytes(await self._stream.receive_some(_RECEIVED)))
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return None
        return event if isinstance(event, h11.Event) else None


@asynccontextmanager
async def open_get(address: tuple[str, int], target: str) -> AsyncIterator[Response]:
    """Begin a request; the status is there when the block begins. Leaving the block closes the connection."""
    host, port = address
    async with await trio.open_tcp_stream(host, port) as stream:
        connection = h11.Connection(h11.CLIENT)
        headers = [("Host", f"{host}:{port}"), ("Connection", "close")]
        request = connection.send(h11.Request(method="GET", target=target, headers=headers))
        await stream.send_all((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
        response = Response(stream, connection)
        await response.begin()
        yield response


async def get(address: tuple[str, int], target: str) -> Answer:
    """Make a request, and wait for all of the answer."""
    async with open_get(address, target) as response:
        return await response.rest()


async def main() -> int:
    """Print what is known of a subject. Returns the exit status."""
    where, subject = sys.argv[1:]
    host, _, port = where.rpartition(":")
    answer = await get((host, int(port)), f"/facts?subject={subject}")
    for fact in answer.facts:
        print(json.dumps(fact))
    if not answer.whole:
        print(f"not all is there: status {answer.status}, {answer.lines[-1:]}", file=sys.stderr)
    return 0 if answer.whole else 1


if __name__ == "__main__":
    sys.exit(trio.run(main))
