"""The sending side of one connection: how the outbox gets to the network.

Rules:
* Only `run` awaits `send_all`. Everyone else appends whole frames to the outbox, synchronously, and says `flush`.
* What a lone caller has put there is offered to the kernel at once, by a write that cannot block and that nothing can
  cancel, so that no frame is torn; what the kernel does not take is left for `run`. It saves the caller two turns of
  Trio's scheduler. With several calls open it is better to wait that turn, and to send what all of them have to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from viewreg._boundary import describe
from viewreg._transport.plain import file_of, write_at_once
from viewreg._transport.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from viewreg._http2.protocol import Protocol


class Writer:
    """See the module. `taken` is called whenever the outbox was taken: there is room again."""

    def __init__(self, stream: trio.abc.Stream, http2: Protocol, taken: Callable[[], None]) -> None:
        self.emptied = 0  # how often all that was put into the outbox had been written
        self._stream: Final = stream
        self._http2: Final = http2
        self._taken: Final = taken
        self._work: Final = Wakeup()
        self._scope: Final = trio.CancelScope(shield=True)
        self._start: Callable[[], None] | None = None  # starts `run`; taken when it does
        self._idle = True  # nothing that was taken from the outbox is still unsent
        self._closing = False
        self._error = ""  # of a write at once
        self._unsent = b""  # what the kernel did not take of a write at once
        self._file: Final = file_of(stream)

    def begin(self, start: Callable[[], None]) -> None:
        """Let writing begin. `start` starts `run` in a task, when first something cannot leave at once."""
        self._start = start

    def flush(self, *, at_once: bool = False) -> None:
        """See to it that the outbox is sent. `at_once`: in this very step, if it can be."""
        if at_once and self._idle and self._file is not None:
            self._write_now(self._file)
        else:
            self._wake()

    def close(self, deadline: float) -> None:
        """Let `run` end when the outbox is empty, or at `deadline` at the latest."""
        if self._start is not None:
            self._start = None  # `run` was never needed, and is not needed for the last words
            self.flush(at_once=True)
        self._closing = True
        self._scope.deadline = deadline
        self._work.wake()

    async def run(self) -> str:
        """Send until `close`. Returns why sending failed, in an operator's words; nothing if it did not.

        Shielded: cancellation must not tear a frame. Whoever is to end it calls `close`.
        """
        with self._scope:
            try:
                while not self._error:
                    self._idle = False
                    while self._unsent or self._http2.outbox_size:
                        data, self._unsent = self._unsent + self._http2.take_outbox(), b""
                        self._taken()
                        await self._stream.send_all(data)
                    self.emptied += 1
                    if self._closing:
                        return ""
                    self._idle = True
                    await self._work.sleep()
            except Exception as error:  # noqa: BLE001 (the stream is the user's, and may raise anything)
                return describe(error)
        return self._error

    def _write_now(self, file: Callable[[], int]) -> None:
        data = self._http2.take_outbox()
        try:
            written = write_at_once(file, data)
        except OSError as error:
            self._error, self._idle = describe(error), False  # `run` tells it: the kernel does so only once
            self._wake()
            return
        if written < len(data):
            self._unsent, self._idle = data[written:], False
            self._wake()
        else:
            self.emptied += 1

    def _wake(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            start()
        else:
            self._work.wake()
