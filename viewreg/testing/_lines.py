"""JSON objects, one a line, over a pipe: how a fake view's process and its parent talk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import trio


def to_line(**values: Any) -> bytes:  # noqa: ANN401 (whatever JSON can say)
    """One object as a line."""
    return json.dumps(values).encode() + b"\n"


class Lines:
    """The objects that arrive on a stream. A line that its writer did not finish counts as none."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._lines: list[bytes] = []  # whole ones, not yet read; the newest first
        self._rest = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._lines:
            received = await self._stream.receive_some()
            if not received:
                raise StopAsyncIteration
            *lines, self._rest = (self._rest + received).split(b"\n")
            self._lines = lines[::-1]
        values: dict[str, Any] = json.loads(self._lines.pop())
        return values
